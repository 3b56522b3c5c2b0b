"""What is decoded in slices leaves no cycles of garbage behind, though the garbage collector passes over it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from durably.actors.values.slices import Slices
from durably.runtime.incarnation import sliced_work
from durably.runtime.incarnation.sliced_work import SlicedWork

MOST_AGED = 1_000
"""Few enough for the garbage of the rounds below to reach it, also where the collector never runs by itself."""


class Circle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector_as_python_has_it() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    gc.collect()
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(("containers", "rounds"), [(50, 4_000), (5_000, 40)], ids=["small slices", "large slices"])
async def test_cycles_go_however_much_comes_in_slices(
    containers: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliced_work, "MOST_AGED", MOST_AGED)
    monkeypatch.setattr(gc, "get_objects", list[object])  # As in a process that holds little.
    circles: weakref.WeakSet[Circle] = weakref.WeakSet()
    held: list[list[object]] = []

    def slices() -> Slices[None]:
        held.append([[] for _ in range(containers)])
        circles.add(Circle())
        yield
        held.clear()

    def failed(error: BaseException) -> None:
        raise error

    work, done = SlicedWork(failed, lambda: None), asyncio.Event()
    peak = 0
    for _ in range(rounds):
        done.clear()
        work.begin(slices(), lambda _: done.set(), failed)
        await done.wait()
        peak = max(peak, len(circles))
    assert peak < rounds // 2

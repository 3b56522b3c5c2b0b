"""The garbage collector beside many requests: what `tune_garbage_collection` sets, and when the log tells of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
import structlog

from durably import Runtime, Service, handler, tune_garbage_collection
from durably.actors.context import Context
from durably.runtime.clock import SystemClock
from durably.runtime.environment import Environment
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.runtime.supervision.garbage_collection import MANY_WAITING, CollectionWatch


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Told(Observer):
    def __init__(self) -> None:
        self.collections: list[tuple[int, int]] = []

    def collected_slowly(self, took_us: int, waiting: int) -> None:
        self.collections.append((took_us, waiting))


class CollectionsTake(SystemClock):
    """Each look at it comes so much later than the last."""

    def __init__(self, step_us: int) -> None:
        super().__init__()
        self._step_us = step_us
        self._now_us = 0

    def monotonic(self) -> int:
        self._now_us += self._step_us
        return self._now_us


async def told(*, took_us: int = 20_000, waiting: int = MANY_WAITING, generation: int = 2, times: int = 1) -> int:
    """How often something is told of collections."""
    observer = Told()
    watch = CollectionWatch(
        observer, clock=CollectionsTake(took_us), slow_collection_us=20_000, waiting=lambda: waiting
    )  # fmt: skip
    watch.begin()
    for _ in range(times):
        gc.collect(generation)
    watch.end()
    await asyncio.sleep(0)
    assert set(observer.collections) <= {(took_us, waiting)}
    return len(observer.collections)


async def test_it_is_told_once_that_a_full_collection_held_up_many_requests() -> None:
    assert await told() == 1
    assert await told(times=3) == 1
    assert await told(took_us=19_999) == 0
    assert await told(waiting=MANY_WAITING - 1) == 0
    assert await told(generation=1) == 0


async def test_nothing_is_told_once_the_collector_is_tuned() -> None:
    tune_garbage_collection()
    assert await told() == 0


def test_tuning_freezes_what_there_is_and_looks_seldom() -> None:
    tune_garbage_collection()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold() == (50_000, 10, 10)


class Waiter(Service):
    @handler
    async def wait(self, ctx: Context) -> None:
        await ctx.sleep(3_600)


@pytest.mark.parametrize("slow_collection_us", [0, None])
async def test_a_runtime_says_so_in_its_log_while_it_runs(slow_collection_us: int | None) -> None:
    before = list(gc.callbacks)
    with structlog.testing.capture_logs() as lines:
        environment = Environment(settings=Settings(slow_collection_us=slow_collection_us))
        async with Runtime("memory:", [Waiter], environment=environment) as runtime:
            waiting = [asyncio.ensure_future(runtime.service(Waiter).wait()) for _ in range(MANY_WAITING)]
            await asyncio.sleep(0.001)
            gc.collect()
            await asyncio.sleep(0)
            for call in waiting:
                call.cancel()
    told = [line for line in lines if "tune_garbage_collection" in line["event"]]
    assert [(line["log_level"], line["waiting"]) for line in told] == [("warning", 100)] * (slow_collection_us == 0)
    assert gc.callbacks == before

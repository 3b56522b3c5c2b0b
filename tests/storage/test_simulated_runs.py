"""Simulated runs of every workload on a SQLite file, with crashes and failed commits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest

from durably.storage import SqliteStore
from durably.storage.introspection import InspectableStore
from tests.levels import level
from tests.storage.lockstep import Bench, bench, run_in_lockstep
from workloads import WORKLOADS

pytestmark = pytest.mark.slow

RUNS = 100 if level().is_search else 3


class File:
    """A file of its own for each run."""

    refuses_superseded = False
    """A second process has no way to a file whose lock another one holds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def next_store(self, before: Sequence[InspectableStore], /) -> InspectableStore:
        if before:
            await before[-1].close()  # A process that is killed lets go of its lock.
        return SqliteStore(self._path)


@pytest.fixture(name="bench", scope="module")
def made_bench() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_run_is_the_same_on_a_file_as_in_the_specification(bench: Bench, tmp_path: Path, name: str) -> None:
    workload, numbers = replace(WORKLOADS[name], shrink=False), count()

    def new_file() -> File:
        return File(tmp_path / f"{next(numbers)}.db")

    seeds = Random(f"{name} on SQLite").sample(range(1, 10_000), RUNS)
    runs = [run for seed in seeds for run in run_in_lockstep(workload, seed, bench, new_file)]
    assert sum(run.commits for run in runs) > 0

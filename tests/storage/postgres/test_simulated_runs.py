"""Simulated runs of every workload on a real server, with crashes, failed commits, and superseded processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest

from durably.storage.introspection import InspectableStore
from durably.storage.postgres import PostgresStore
from durably.testing import Faults
from tests.levels import level
from tests.postgres import PostgresServer
from tests.storage.lockstep import Bench, bench, run_in_lockstep
from workloads import WORKLOADS

pytestmark = pytest.mark.slow

RUNS = 20 if level().is_search else 1


class Schema:
    """A schema of its own for each run."""

    refuses_superseded = True

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._url = server.new_url()

    async def next_store(self, before: Sequence[InspectableStore], /) -> InspectableStore:
        """As if the lease of the process before had run out: its store is still there, and knows nothing of it."""
        if before:
            self._server.execute(f"update {self._url.partition('schema=')[2]}.lease set is_held = false")
        return PostgresStore(self._url)


@pytest.fixture(name="bench", scope="module")
def made_bench() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_run_is_the_same_on_the_server_as_in_the_specification(
    server: PostgresServer, bench: Bench, name: str
) -> None:
    workload = replace(WORKLOADS[name], shrink=False)
    seeds = Random(f"{name} on PostgreSQL").sample(range(1, 10_000), RUNS)
    runs = [run for seed in seeds for run in run_in_lockstep(workload, seed, bench, lambda: Schema(server))]
    assert sum(run.commits for run in runs) > 0


def test_the_server_refuses_processes_that_were_superseded(server: PostgresServer, bench: Bench) -> None:
    workload = replace(WORKLOADS["bank"], shrink=False, faults=Faults.superseded(rate=0.05))
    runs = [run for seed in range(1, 4) for run in run_in_lockstep(workload, seed, bench, lambda: Schema(server))]
    assert sum(run.refusals for run in runs) > 0

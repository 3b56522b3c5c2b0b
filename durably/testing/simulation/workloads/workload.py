"""`Workload`: a program with its actors, as a value: what a soak runs again and again, each time with another seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from durably.actors.actor import Actor
from durably.actors.retry import RetryPolicy
from durably.errors import RuntimeStoppedError, StoreUnavailableError
from durably.testing.harness import ONE_ATTEMPT
from durably.testing.report import Report
from durably.testing.simulation.campaign import Program, simulate
from durably.testing.simulation.clients import ConnectionLostError, NobodyThereError
from durably.testing.simulation.faults import Faults
from durably.testing.simulation.simulation import Simulation

UNKNOWN = (ConnectionLostError, NobodyThereError, StoreUnavailableError, RuntimeStoppedError)
"""What a client hears who does not insist, where others ask again: it may have been accepted or not."""
PATIENCE = 10_000
"""How often an unfinished run is looked at before it counts as one that never ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What `simulate` takes, in one value with a name: `python -m durably.testing soak --workload app.tests:name`.

    `program` should take its choices from `randomness(sim)`, and check at its end what must be true then.
    `dependencies` makes the world outside of one run. `faults` is None for all kinds, chosen by each run's seed.
    """

    program: Program
    actors: tuple[type[Actor], ...]
    dependencies: Callable[[], Mapping[Any, Any]] | None = None
    retry: RetryPolicy = ONE_ATTEMPT
    faults: Faults | None = None

    def run(self, seed: int) -> Report:
        """One run.

        Raises:
            SimulationFailedError: it failed.
        """
        return simulate(
            self.program,
            *self.actors,
            seed=seed,
            faults=self.faults,
            dependencies=self.dependencies,
            retry=self.retry,
        )


def randomness(sim: Simulation) -> Random:
    """What a program takes its choices from. Those made before anything is asked are the same whatever goes wrong."""
    return Random(f"the program of run {sim.seed}")


async def wander(sim: Simulation, random: Random) -> None:
    """Wait a random while: mostly moments, now and then longer than anything here takes."""
    await sim.advance(random.choice((0, 0.001, 0.05, 2, 60)) * random.random())


async def until_all_ended(sim: Simulation) -> None:
    """Wait until every invocation that was accepted has ended, and this is durable.

    Raises:
        AssertionError: one never does.
    """
    for _ in range(PATIENCE):
        await sim.settle()
        if not sim.disk.unfinished:
            return
        await sim.advance(seconds=30)
    raise AssertionError(f"These have invocations that do not end: {', '.join(map(str, sim.disk.unfinished))}")


async def restart_at_times(sim: Simulation, random: Random) -> None:
    """Stop the process gracefully and start it again, some times or never."""
    for _ in range(random.choice((0, 0, 1, 2))):
        await wander(sim, random)
        await sim.restart()


async def all_of(*coroutines: Any) -> None:
    """Run coroutines beside each other; the first error ends all of them."""
    async with asyncio.TaskGroup() as group:
        for one in coroutines:
            group.create_task(one)

"""What the programs of workloads are made of: their randomness, waiting, restarting, and running to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from durably.errors import OverloadedError, RuntimeStoppedError, StoreUnavailableError
from durably.testing import ConnectionLostError, NobodyThereError, Simulation

R = TypeVar("R")

UNKNOWN = (ConnectionLostError, NobodyThereError, OverloadedError, StoreUnavailableError, RuntimeStoppedError)
"""What a client hears who does not insist, where others ask again: it may have been accepted or not."""
PATIENCE = 10_000
"""How often an unfinished run is looked at before it counts as one that never ends."""


def randomness(sim: Simulation) -> Random:
    """What a program takes its choices from. Those made before anything is asked are the same whatever goes wrong."""
    return Random(f"the program of run {sim.seed}")


async def wander(sim: Simulation, random: Random) -> None:
    """Wait a random while: mostly moments, now and then longer than anything here takes."""
    await sim.advance(random.choice((0, 0.001, 0.05, 2, 60)) * random.random())


async def looked(sim: Simulation, look: Callable[[], Awaitable[R]]) -> R:
    """What somebody outside reads without an idempotency key: reading again is safe, and leaves nothing behind."""
    while True:
        try:
            return await look()
        except UNKNOWN:
            await sim.advance(seconds=0.5)


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


def records_but_state(sim: Simulation) -> dict[str, object]:
    """What the disk holds besides the state of objects and the history of models, by kind of record; with what it looks
    records up by.
    """
    there: dict[str, object] = vars(sim.disk)
    tables = [name for name, kept in there.items() if isinstance(kept, dict) and kept]
    return {name: there[name] for name in tables if name not in ("state", "entries", "events")}


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

"""A pause ends a simulated run, unless the program says that pauses are part of it; then an operator resumes."""

from __future__ import annotations

import asyncio

import pytest

from durably import ObjectContext, PausedInvocationError, VirtualObject, handler, state
from durably.testing import Faults, Simulation, SimulationFailedError, simulate


class Mill(VirtualObject, name="PausesMill"):
    """Grinds, with a bug in it."""

    ground: list[str] = state(default=[])

    @handler
    async def grind(self, ctx: ObjectContext, corn: str) -> list[str]:
        self.ground.append(f"{corn} begun")
        await ctx.sleep(1)
        self.ground.append(str(corn.index("w")))
        return self.ground


class MendedMill(Mill, name="PausesMill"):
    """The same without the bug."""

    @handler
    async def grind(self, ctx: ObjectContext, corn: str) -> list[str]:
        self.ground.append(f"{corn} begun")
        await ctx.sleep(1)
        self.ground.append(str(corn.find("w")))
        return self.ground


async def an_operator_mends_it(sim: Simulation) -> None:
    sim.allow_pauses()
    mill = sim.object(Mill, "x").grind.options(idempotency_key="rye")
    with pytest.raises(PausedInvocationError):
        await mill("rye")
    behind = asyncio.create_task(sim.client("bob").object(Mill, "x").grind("wheat"))
    await sim.settle()
    (id,) = sim.paused
    with pytest.raises(PausedInvocationError):
        await behind
    await sim.restart(MendedMill)
    assert sim.paused == [id]
    assert await sim.resume(id) in ([id], [])
    assert await mill("rye") == ["rye begun", "-1"]
    # The disk may be full again and again.
    await sim.until(lambda snapshots: len(snapshots[MendedMill, "x"].ground) == 4, within=3_600)
    assert sim.paused == []
    assert sim.snapshots[MendedMill, "x"].ground == ["rye begun", "-1", "wheat begun", "0"]


def test_what_is_paused_goes_on_when_an_operator_has_mended_it() -> None:
    simulate(an_operator_mends_it, Mill, runs=40, faults=Faults.any(without=Faults.clock_jumps()))


def test_a_pause_that_nobody_allowed_ends_the_run() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Mill, "x").grind("rye")

    with pytest.raises(SimulationFailedError) as failed:
        simulate(program, Mill, runs=1, faults=Faults.none())
    assert isinstance(failed.value.__cause__, PausedInvocationError)

"""A simulated process can be stopped, and its memory emptied, at any time: before it is up, too."""

from __future__ import annotations

import asyncio

from durably import ObjectContext, VirtualObject, handler, state
from durably.testing import Simulation


class Sleeper(VirtualObject, name="RestartedSleeper"):
    """Sleeps, and counts."""

    count: int = state(default=0)

    @handler
    async def doze(self, ctx: ObjectContext) -> int:
        """Sleep for a minute."""
        await ctx.sleep(60)
        self.count += 1
        return self.count


def test_a_restart_waits_until_the_process_is_up() -> None:
    for seed in range(10):
        with Simulation(Sleeper, seed=seed) as sim:
            sim.run(sim.restart())
            sim.run(sim.restart())
            sim.finish()
            assert sim.process is not None
            assert sim.process.name == "process 3"


def test_two_who_restart_it_at_the_same_time_do_so_one_after_the_other() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Sleeper, "x").doze.send()
        await asyncio.gather(sim.restart(), sim.restart(), sim.advance(10))
        assert sim.process is not None
        assert sim.process.name == "process 3"
        await sim.advance(60)

    for seed in range(10):
        with Simulation(Sleeper, seed=seed) as sim:
            sim.run(program(sim))
            sim.finish()
            assert sim.snapshots[Sleeper, "x"].count == 1


def test_what_is_thrown_out_of_memory_goes_on_and_loses_nothing() -> None:
    async def program(sim: Simulation) -> None:
        dozing = sim.object(Sleeper, "x").doze()
        await sim.advance(1)
        assert resident(sim) == ["x"]
        await sim.passivate()
        await sim.advance(1)
        assert resident(sim) == []
        assert await dozing == 1

    with Simulation(Sleeper, suspend_after=3_600) as sim:
        sim.run(program(sim))
        sim.finish()


def resident(sim: Simulation) -> list[str]:
    """The keys of the objects in memory."""
    assert sim.process is not None
    assert sim.process.runtime is not None
    engine = sim.process.runtime.engine
    assert engine is not None
    return [address.key for address in engine.parts.activations.by_address]

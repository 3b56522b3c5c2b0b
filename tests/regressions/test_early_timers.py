"""A timer that is set while a start still looks for timers asked for ahead of the clock does not ring too soon.

Found by a simulated program with slow reads: the look began, the timer was set and became durable, the look found it,
and counted its wait from when the look had begun.
"""

from __future__ import annotations

from durably import ObjectContext, VirtualObject, handler, state
from durably.testing import Faults, Simulation, simulate


class Clockwork(VirtualObject, name="EarlyTimersClockwork"):
    """Counts what came."""

    count: int = state(default=0)

    @handler
    async def come(self, ctx: ObjectContext) -> None:
        self.count += 1


def test_a_delayed_message_that_is_sent_while_the_store_is_slow_to_start_is_not_early() -> None:
    """Guarantee 4 is looked after by the simulation."""

    async def program(sim: Simulation) -> None:
        await sim.object(Clockwork, "x").come.after(minutes=30).send()
        await sim.advance(minutes=35)

    simulate(program, Clockwork, runs=60, faults=Faults.slow(rate=0.3) | Faults.crash(rate=0.1))

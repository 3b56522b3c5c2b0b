"""The workload `schedules`: the clock calls handlers, over crashes, restarts and clocks that are set.

Each tick is heard once. A bell that wants all of them hears one after the other without a gap, and has heard the latest
at the end; one that wants the latest only has heard that. An operator pauses, resumes and cancels another one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    ScheduleStatus,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    state,
)
from durably.actors.cron import TICK_HEADER, cron_schedule, datetime_of
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, looked, randomness, restart_at_times, until_all_ended

EXPRESSION = "*/20 * * * *"
EVERY = timedelta(minutes=20)
OPERATED = "SoakBell/operated/ring_operated"


class Bell(VirtualObject, name="SoakBell"):
    """Keeps the ticks that it hears of."""

    rung: list[str] = state(default=[])

    @cron(EXPRESSION, key="all", missed="all")
    @handler
    async def ring_all(self, ctx: ObjectContext) -> None:
        self.rung.append(ctx.request.headers[TICK_HEADER])
        await ctx.run("ring", effect)

    @cron(EXPRESSION, key="once", missed="once")
    @handler
    async def ring_once(self, ctx: ObjectContext) -> None:
        self.rung.append(ctx.request.headers[TICK_HEADER])

    @cron(EXPRESSION, key="skip", missed="skip")
    @handler
    async def ring_skip(self, ctx: ObjectContext) -> None:
        self.rung.append(ctx.request.headers[TICK_HEADER])

    @cron(EXPRESSION, key="operated", missed="all")
    @handler
    async def ring_operated(self, ctx: ObjectContext) -> None:
        self.rung.append(ctx.request.headers[TICK_HEADER])

    @handler
    async def hear(self, ctx: ObjectContext, tick: str) -> None:
        self.rung.append(tick)


class Ringer(Service, name="SoakRinger"):
    """Hears of ticks without an object, and tells one."""

    @cron("0 * * * *", missed="all")
    @handler
    async def ring(self, ctx: Context) -> None:
        await ctx.sleep(2)
        await ctx.object(Bell, "told").hear(ctx.request.headers[TICK_HEADER])


class Round(Workflow, name="SoakRound"):
    """One for each tick."""

    @cron("30 * * * *", missed="all")
    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.object(Bell, "rounds").hear(self.key)
        return self.key


async def effect() -> None:
    await asyncio.sleep(0.001)


async def program(sim: Simulation) -> None:
    """Hours pass, and an operator has a say."""
    random = randomness(sim)

    async def operate() -> None:
        operator = sim.client("operator")
        for _ in range(random.randint(0, 4)):
            await sim.advance(minutes=random.choice((1, 20, 50)) * random.random())
            status = random.choice([*ScheduleStatus])
            await looked(sim, lambda wanted=status: operator.turn_schedule(OPERATED, wanted))  # type: ignore[misc]

    async def pass_time() -> None:
        for _ in range(random.randint(1, 6)):
            await sim.advance(minutes=random.choice((1, 30, 120)) * random.random())

    await all_of(operate(), pass_time(), restart_at_times(sim, random))
    await sim.settle()
    await sim.advance(seconds=30)
    await until_all_ended(sim)
    now = sim.clock.now()
    for key, bell in sim.snapshots.of(Bell).items():
        twice = [tick for tick, times in Counter(bell.rung).items() if times > 1]
        assert not twice, f"{key} has heard of {twice} more than once"
    for key in ("all", "once"):
        heard = [datetime.fromisoformat(tick) for tick in sim.snapshots[Bell, key].rung]
        schedule = cron_schedule(EXPRESSION, "UTC", None, "all")
        (latest,) = schedule.newest(now - 1_200_000_000, now, 1)
        assert not heard or max(heard) >= datetime_of(latest), f"{key} has not heard of {latest}"
        if key == "all":
            # What came before a clock was set back may lie ahead of it.
            until_now = sorted(tick for tick in heard if tick <= datetime_of(now))
            gaps = [one for one, later in pairwise(until_now) if later - one != EVERY]
            assert not gaps, f"nothing was heard of ticks after {gaps}"


SCHEDULES = Workload(program=program, actors=(Bell, Ringer, Round), retry=RetryPolicy(initial=0.5))

"""The workload `pauses`: handlers stumble over a mistake and are paused; an operator mends it and lets them go on.

Whoever waits hears of the pause and asks again; callers inside go on waiting, and so does what is queued behind, or
waits for a limit whose places those hold that are paused. Some begin anew instead. In the end each visit has left its
marks once, whatever was resumed too early, in vain, or in another process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

from durably import (
    Context,
    Limit,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, restart_at_times, wander

KEYS = "abcd"
ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(initial=0.5, max_attempts=2)


class Repairs:
    """What is mended, and the side effects."""

    def __init__(self) -> None:
        self.mended: set[int] = set()

    def stumble(self, number: int) -> None:
        if number not in self.mended:
            raise ValueError(f"the mistake {number}")

    async def effect(self) -> None:
        """Leaves its name in the ledger."""


class Ward(VirtualObject, name="SoakWard"):
    """Keeps marks of the visits, one visit after the other."""

    marks: list[int] = state(default=[])

    def __init__(self, repairs: Repairs) -> None:
        self.repairs = repairs

    @handler(retry=TWICE)
    async def visit(self, ctx: ObjectContext, number: int, stumbles: bool) -> int:
        """Leave three marks, with a wait and a side effect in between."""
        self.marks.append(number)
        await ctx.run(f"first {number}", self.repairs.effect)
        self.marks.append(number + 1)
        await ctx.sleep(0.5)
        if stumbles:
            self.repairs.stumble(number)
        await ctx.run(f"second {number}", self.repairs.effect)
        self.marks.append(number + 2)
        return number

    @handler(retry=ONCE)
    async def pass_by(self, ctx: ObjectContext, number: int, stumbles: bool) -> int:
        """Leave a mark in a single step."""
        if stumbles:
            self.repairs.stumble(number)
        self.marks.append(number)
        return number

    @handler(retry=ONCE, limit="narrow")
    async def squeeze_in(self, ctx: ObjectContext, number: int, stumbles: bool) -> int:
        """Leave a mark alone."""
        return await self.stay(ctx, number, stumbles)

    @handler(retry=ONCE, limit="wide")
    async def drop_in(self, ctx: ObjectContext, number: int, stumbles: bool) -> int:
        """Leave a mark with one other at most."""
        return await self.stay(ctx, number, stumbles)

    async def stay(self, ctx: ObjectContext, number: int, stumbles: bool) -> int:
        """Some stay for a while."""
        if number % 20:
            await ctx.sleep(5)
        if stumbles:
            self.repairs.stumble(number)
        self.marks.append(number)
        return number


class Guide(Service, name="SoakGuide"):
    """Calls from inside, which hears of no pause."""

    @handler
    async def lead(self, ctx: Context, key: str, number: int, stumbles: bool) -> int:
        return await ctx.object(Ward, key).visit(number, stumbles)

    @handler
    async def push(self, ctx: Context, key: str, number: int, stumbles: bool) -> int:
        return await ctx.object(Ward, key).squeeze_in(number, stumbles)


async def answered(sim: Simulation, ask: Callable[[], Awaitable[int]]) -> int:
    """Ask until it is paused no more."""
    while True:
        try:
            return await ask()
        except PausedInvocationError:
            await sim.advance(seconds=5)


async def program(sim: Simulation) -> None:
    """Visitors come in different ways, and an operator mends and resumes."""
    sim.allow_pauses()
    random = randomness(sim)
    repairs: Repairs = sim.dependencies[Repairs]
    expected: dict[str, Counter[int]] = {key: Counter() for key in KEYS}

    async def visitor(name: str, first: int) -> None:
        client = sim.client(name)
        for number in range(first, first + random.choice((10, 40)), 10):
            await wander(sim, random)
            key, stumbles = random.choice(KEYS), random.random() < 0.5
            ward = client.object(Ward, key)
            way = random.choice(("visit", "lead", "pass_by", "send", "squeeze_in", "drop_in", "push", "slip_in"))
            marks = 3 if way in ("visit", "lead", "send") else 1
            expected[key] += Counter(range(number, number + marks))
            made = {
                "visit": ward.visit,
                "send": ward.visit,
                "pass_by": ward.pass_by,
                "squeeze_in": ward.squeeze_in,
                "slip_in": random.choice((ward.squeeze_in, ward.drop_in)),
                "drop_in": ward.drop_in,
            }
            led = {"lead": client.service(Guide).lead, "push": client.service(Guide).push}
            if way in led:
                ask = partial(led[way].options(idempotency_key=str(number)), key, number, stumbles)
            elif way in ("send", "slip_in"):
                await made[way].options(idempotency_key=str(number)).send(number, stumbles)
                continue
            else:
                ask = partial(made[way].options(idempotency_key=str(number)), number, stumbles)
            assert await answered(sim, ask) == number

    async def operator() -> None:
        while not visiting.done():
            await wander(sim, random)
            await resume_some(sim, random, repairs)

    visiting = asyncio.ensure_future(all_of(*(visitor(name, place * 1_000) for place, name in enumerate("abc"))))
    await all_of(operator(), restart_at_times(sim, random))
    await visiting
    while True:
        await sim.settle()
        if not sim.disk.unfinished:
            break
        await resume_some(sim, random, repairs)
        await sim.advance(seconds=5)
    for key, marks in expected.items():
        kept = Counter(sim.snapshots[Ward, key].marks)
        assert kept == marks, f"{key} lacks {marks - kept}, and has {kept - marks} too much"


async def resume_some(sim: Simulation, random: Random, repairs: Repairs) -> None:
    """Mend, or not, and let what is paused go on."""
    for id in sim.paused:
        if random.random() < 0.7:
            repairs.mended.update(number for place in range(3) for number in range(place * 1_000, place * 1_000 + 40))
        if random.random() < 0.8:
            operator = sim.client("operator")
            anew = random.random() < 0.4
            from_step = random.choice((0, 0, 1, 2, 3))
            try:
                resumed = await (operator.restart(id, from_step) if anew else operator.resume(id))
            except UnknownTargetError:  # The order was given twice, and it has ended meanwhile.
                continue
            assert resumed in ([], [id]), f"{id} was to go on, and {resumed} did"


PAUSES = Workload(
    program=program,
    actors=(Ward, Guide),
    dependencies=lambda: {Repairs: Repairs()},
    limits={"narrow": Limit(at_once=1), "wide": Limit(at_once=2)},
    retry=RetryPolicy(initial=0.5),
)

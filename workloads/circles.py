"""The workload `circles`: objects that call each other in circles, and nearly so.

A visit goes to an object, exclusive or shared, or to a service, and makes further visits from there, some at the same
time. Keys are few, so objects wait for each other all the time. Whatever happens, every visit ends: it is done, or its
call closed a circle and got a `DeadlockError`, or its patience was over. `read` says which for visits that come one
after the other, or at the same time to different keys.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import msgspec

from durably import (
    Context,
    DeadlockError,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, restart_at_times, until_all_ended, wander

KEYS = "abc"
DONE, DEADLOCK, LATE = "done", "deadlock", "late"
PATIENCE_SECONDS = 5.0
STAYS = ("attach", "keyed")
"""Ways to wait for what stays in its mailbox also if that closes a circle."""


class Visit(msgspec.Struct, frozen=True):
    """One visit. `kind` says what is visited, `how` in which way the visitor waits for its end."""

    number: int
    kind: str
    """hold (exclusive), look (shared), or serve (a service)."""
    key: str = ""
    how: str = "call"
    """call, keyed, attach (to a message that it sent), or hurry (a call with a time limit)."""
    seconds: float = 0.0
    """How long it sleeps first."""
    acts: bool = False
    """Whether it has a side effect first."""
    stages: tuple[tuple[Visit, ...], ...] = ()
    """Further visits, one stage after the other, those of a stage at the same time."""


class Link(VirtualObject, name="SoakLink"):
    """An object of a circle."""

    held: list[int] = state(default=[])

    @handler
    async def hold(self, ctx: ObjectContext, visit: Visit) -> dict[str, str]:
        told = await carry_out(ctx, visit)
        self.held.append(visit.number)
        return told

    @shared
    async def look(self, ctx: SharedContext, visit: Visit) -> dict[str, str]:
        return await carry_out(ctx, visit)


class Server(Service, name="SoakServer"):
    """What holds nothing while it waits."""

    @handler
    async def serve(self, ctx: Context, visit: Visit) -> dict[str, str]:
        return await carry_out(ctx, visit)


async def carry_out(ctx: Context, visit: Visit) -> dict[str, str]:
    """How this visit's own visits ended, by number."""
    if visit.acts:
        await ctx.run("act", act)
    if visit.seconds:
        await ctx.sleep(visit.seconds)
    told: dict[str, str] = {}
    for stage in visit.stages:
        for ends in await asyncio.gather(*(pay(ctx, one) for one in stage)):
            told.update(ends)
    return told


async def act() -> None:
    await asyncio.sleep(0)


async def pay(ctx: Context, visit: Visit) -> dict[str, str]:
    """Pay a visit: how it and those below it ended."""
    try:
        below = await _ended(ctx, visit)
    except DeadlockError:
        return {str(visit.number): DEADLOCK}
    except TimeoutError:
        return {str(visit.number): LATE}
    return {str(visit.number): DONE, **below}


async def _ended(ctx: Context, visit: Visit) -> dict[str, str]:
    where: Any = ctx.service(Server) if visit.kind == "serve" else ctx.object(Link, visit.key)
    handler = getattr(where, visit.kind)
    told: dict[str, str]
    match visit.how:
        case "attach":
            told = await (await handler.send(visit)).result()
        case "keyed":
            told = await handler.options(idempotency_key=f"visit {visit.number}")(visit)
        case "hurry":
            async with asyncio.timeout(PATIENCE_SECONDS):
                told = await handler(visit)
        case _:
            told = await handler(visit)
    return told


# ---------------------------------------------------------------------- what a plain reading says


def read(visit: Visit, held: frozenset[str] = frozenset()) -> dict[str, str]:
    """How a visit and those below it end, if `held` are the keys that those who wait for it hold."""
    if visit.kind == "hold" and visit.key in held:
        return {str(visit.number): DEADLOCK}
    inside = held | {visit.key} if visit.kind == "hold" else held
    below = (read(one, inside) for stage in visit.stages for one in stage)
    return {str(visit.number): DONE, **{number: end for ends in below for number, end in ends.items()}}


def all_visits(visit: Visit) -> Iterator[Visit]:
    """It and those below it."""
    yield visit
    for stage in visit.stages:
        for one in stage:
            yield from all_visits(one)


def times_held(visits: Sequence[Visit], told: dict[str, str]) -> tuple[Counter[int], set[int]]:
    """How often each visit must have held its object in the end, and those of which this cannot be said.

    What a call asked for goes with its `DeadlockError`; a message that was sent, or has a key, stays. How the visits
    below it end is then not told, nor how those do that were given up.
    """
    certain: Counter[int] = Counter()
    unknown: set[int] = set()
    for visit in visits:
        end = told.get(str(visit.number))
        if visit.kind != "hold":
            continue
        if end == DONE or (end == DEADLOCK and visit.how in STAYS):
            certain[visit.number] = 1
        elif end != DEADLOCK:
            unknown.add(visit.number)
    return certain, unknown


class Maker:
    """Makes visits."""

    def __init__(self, random: Random, size: int) -> None:
        self.random = random
        self.left = size
        self.number = 0

    def visit(self, keys: str, depth: int = 0, *, apart: bool = False, held: str = "") -> Visit:
        """A visit to one of `keys`, with others below it, or to one of `held`.

        With `apart`, those that go out at the same time go to different keys, or to those that are held; then `read`
        can tell how all end.
        """
        random = self.random
        self.number += 1
        self.left -= 1
        number = self.number
        kind = random.choice(("hold", "hold", "hold", "look", "serve")) if depth else "hold"
        key = random.choice(keys + held) if kind != "serve" and keys + held else ""
        if not key:
            kind = "serve"
        how = random.choice(("call", "call", "call", "keyed", "attach", "call" if apart else "hurry"))
        stages: list[tuple[Visit, ...]] = []
        is_leaf = depth > 5 or (apart and (how == "attach" or (kind == "hold" and key in held)))
        inside = held + key if kind == "hold" else held
        free = keys.replace(key, "") if apart and kind == "hold" else keys
        while self.left > 0 and not is_leaf and random.random() < 0.75:
            count = random.choice((1, 1, 2, 3))
            groups = self._groups(free, count) if apart else [keys] * count
            stages.append(
                tuple(self.visit(some, depth + 1, apart=apart, held=inside if apart else "") for some in groups)
            )
        return Visit(
            number,
            kind,
            key,
            how,
            random.choice((0.0, 0.0, 0.0, 1.0, 10.0)),
            random.random() < 0.1,
            tuple(stages),
        )

    def _groups(self, keys: str, count: int) -> list[str]:
        """Keys for those that go out at the same time, no key for two of them."""
        return ["".join(key for place, key in enumerate(keys) if place % count == index) for index in range(count)]


# ---------------------------------------------------------------------- the program

SIZES = (4, 8, 14)


async def program(sim: Simulation) -> None:
    """Some clients visit at the same time; every visit ends, and has held its object as often as its end says."""
    random = randomness(sim)
    maker = Maker(random, 0)
    roots: list[Visit] = []
    for _ in range(random.randint(1, 4)):
        maker.left = random.choice(SIZES)
        roots.append(maker.visit(KEYS))
    told: dict[str, str] = {}

    async def ask(root: Visit) -> None:
        await wander(sim, random)
        below = await sim.client(f"visitor {root.number}").object(Link, root.key).hold(root)
        told.update({str(root.number): DONE, **below})

    await all_of(*map(ask, roots), restart_at_times(sim, random))
    await until_all_ended(sim)
    held = Counter(number for key in KEYS for number in sim.snapshots[Link, key].held)
    certain, unknown = times_held([visit for root in roots for visit in all_visits(root)], told)
    for number, times in held.items():
        assert times == 1, f"visit {number} held its object {times} times"
        assert number in certain or number in unknown, f"visit {number} held its object, and its call was refused"
    assert not certain - held, f"these visits are done and held nothing: {certain - held}"


CIRCLES = Workload(program=program, actors=(Link, Server), retry=RetryPolicy(initial=0.5))

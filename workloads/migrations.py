"""The workload `migrations`: the shape of the state changes under objects that are in use.

The program stops at some time and starts with code of the next state version, and perhaps of the one after that. Each
object is migrated when it is next used, and no handler sees state of another version than its own. What is under way at
that moment is paused, and an operator restarts or kills it. In the end each entry is there once, in the shape of the
last code.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from durably import (
    CancelledInvocationError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    SharedContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    migrate,
    shared,
    state,
)
from durably.runtime.gateway.control import Verb
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, wander

NAME = "SoakLedger"


class Ledger(VirtualObject, name=NAME):
    """A list of entries."""

    entries: list[int] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, number: int, seconds: float) -> int:
        verify(sorted(ctx.keys()) in ([], ["entries"]))
        self.entries.append(number)
        await ctx.run("effect", effect)
        await ctx.sleep(seconds)
        verify(self.entries[-1] == number)
        return number

    @shared
    async def count(self, ctx: SharedContext) -> int:
        return len(self.entries)


class SecondLedger(VirtualObject, name=NAME, state_version=2):
    """The same with their sum."""

    entries: list[int] = state(default=[])
    total: int = state(default=0)

    @migrate(from_version=1)
    @staticmethod
    def summed(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "total": sum(old["entries"])}

    @handler
    async def add(self, ctx: ObjectContext, number: int, seconds: float) -> int:
        verify(self.total == sum(self.entries))
        self.total += number
        self.entries.append(number)
        await ctx.run("effect", effect)
        await ctx.sleep(seconds)
        verify(self.total == sum(self.entries))
        return number

    @shared
    async def count(self, ctx: SharedContext) -> int:
        verify(self.total == sum(self.entries))
        return len(self.entries)


class ThirdLedger(VirtualObject, name=NAME, state_version=3):
    """The same in one field."""

    book: dict[str, int] = state(default={})

    summed = SecondLedger.summed

    @migrate(from_version=2)
    @staticmethod
    def bound(old: dict[str, Any]) -> dict[str, Any]:
        assert old["total"] == sum(old["entries"])
        return {"book": {str(number): number for number in old["entries"]}}

    @handler
    async def add(self, ctx: ObjectContext, number: int, seconds: float) -> int:
        verify(sorted(ctx.keys()) in ([], ["book"]))
        verify(str(number) not in self.book)
        self.book[str(number)] = number
        await ctx.run("effect", effect)
        await ctx.sleep(seconds)
        return number

    @shared
    async def count(self, ctx: SharedContext) -> int:
        return len(self.book)


def verify(holds: bool) -> None:
    """A handler sees what it should. What it answers otherwise ends the run at once."""
    if not holds:
        raise TerminalError("A handler saw state of another version than its own.")


async def effect() -> None:
    await asyncio.sleep(0.001)


async def answered(sim: Simulation, ask: Callable[[], Awaitable[int]], *, may_wait: bool = False) -> int:
    """Ask until it is paused no more; an operator may have killed it by then."""
    while True:
        try:
            return await ask()
        except PausedInvocationError:
            await sim.advance(seconds=5)
        except CancelledInvocationError:
            return -1
        except TerminalError as error:
            if may_wait and "StateVersionError" in str(error):
                return -1
            raise AssertionError(str(error)) from error


async def program(sim: Simulation) -> None:
    """Some add entries all the time, the code changes, and an operator restarts what pauses."""
    sim.allow_pauses()
    random = randomness(sim)
    expected: dict[str, Counter[int]] = {key: Counter() for key in "ab"}

    async def customer(name: str, first: int) -> None:
        client = sim.client(name)
        for number in range(first, first + random.randint(1, 6)):
            await wander(sim, random)
            key, seconds = random.choice("ab"), random.choice((0.0, 0.5, 30.0))
            expected[key][number] += 1
            add = client.object(Ledger, key).add.options(idempotency_key=str(number))
            await answered(sim, lambda: add(number, seconds))  # noqa: B023

    async def reader() -> None:
        """What is seen is of the version of the code, or is not seen."""
        client = sim.client("reader")
        for _ in range(random.randint(0, 5)):
            await wander(sim, random)
            await answered(sim, client.object(Ledger, random.choice("ab")).count, may_wait=True)

    async def change() -> None:
        for actor in random.choice(((SecondLedger,), (ThirdLedger,), (SecondLedger, ThirdLedger))):
            await wander(sim, random)
            await sim.restart(actor)

    async def operate() -> None:
        while not adding.done():
            await wander(sim, random)
            await end_what_pauses(sim, random)

    adding = asyncio.ensure_future(all_of(*(customer(name, place * 100) for place, name in enumerate("abc"))))
    await all_of(operate(), change(), reader())
    await adding
    while True:
        await sim.settle()
        if not sim.disk.unfinished:
            break
        await end_what_pauses(sim, random)
        await sim.advance(seconds=5)
    await sim.restart(ThirdLedger)
    for key, numbers in expected.items():
        assert await answered(sim, sim.client("reader").object(ThirdLedger, key).count) == len(numbers)
        await sim.settle()
        kept = Counter(sim.snapshots[ThirdLedger, key].book.values())
        assert kept == numbers, f"{key} lacks {numbers - kept}, and has {kept - numbers} too much"


async def end_what_pauses(sim: Simulation, random: Random) -> None:
    """Restart it, or kill it: then what it has changed stands, an entry in both cases."""
    operator = sim.client("operator")
    for id in sim.paused:
        try:
            if random.random() < 0.5:
                await operator.restart(id)
            else:
                await operator.act(Verb.KILL, id)
        except UnknownTargetError:  # It has ended meanwhile.
            continue


MIGRATIONS = Workload(program=program, actors=(Ledger,), retry=RetryPolicy(initial=0.5))

"""The actors that are measured: an object that counts, three steps, a chain of objects, and one that burns."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.load import burn
from durably import Context, ObjectContext, Service, VirtualObject, handler, state


async def add_one(number: int) -> int:
    """A side effect that costs nothing."""
    return number + 1


class Counter(VirtualObject):
    """One durable number."""

    value: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.value += amount
        return self.value

    @handler
    async def burn(self, ctx: ObjectContext, seconds: float) -> int:
        burn(seconds)
        self.value += 1
        return self.value


class Steps(Service):
    """Three side effects, one after the other."""

    @handler
    async def three(self, ctx: Context, number: int) -> int:
        one = await ctx.run("one", add_one, number)
        two = await ctx.run("two", add_one, one)
        return await ctx.run("three", add_one, two)


class Link(VirtualObject):
    """Counts what passes, and calls the next one of its lane; its key is `lane/place`."""

    passed: int = state(default=0)

    @handler
    async def pass_on(self, ctx: ObjectContext, calls: int) -> int:
        self.passed += 1
        if calls == 0:
            return 0
        lane, _, place = self.key.partition("/")
        return 1 + await ctx.object(Link, f"{lane}/{int(place) + 1}").pass_on(calls - 1)


@dataclass
class Line:
    """One of many small objects in a large body."""

    name: str
    price: float
    count: int


class Large(VirtualObject):
    """Takes and keeps what is large."""

    kept: str = state(default="")

    @handler
    async def take(self, ctx: ObjectContext, lines: list[Line]) -> int:
        return len(lines)

    @handler
    async def keep(self, ctx: ObjectContext, size_bytes: int) -> None:
        self.kept = "x" * size_bytes

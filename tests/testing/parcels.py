"""Parcels that take days: a small application whose invocations sleep, call, run actions and read, and wait in them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from durably import Context, ObjectContext, Service, SharedContext, VirtualObject, handler, shared, state


@dataclass(frozen=True)
class Label:
    """What a carrier puts on a parcel."""

    code: str
    stops: list[str]


class Carrier:
    """Outside."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.asked: list[str] = []
        self.begun = asyncio.Event()
        self.may_answer = asyncio.Event()
        if not hangs:
            self.may_answer.set()

    async def label(self, to: str) -> Label:
        self.asked.append(to)
        self.begun.set()
        await self.may_answer.wait()
        return Label(f"to-{to}", ["depot", "truck"])

    def deliver(self, code: str) -> None:
        self.asked.append(code)


class Post(Service):
    """Tells people."""

    @handler
    async def announce(self, ctx: Context, where: str) -> str:
        await ctx.sleep(3600)
        return where.upper()


class Parcel(VirtualObject):
    """On its way."""

    place: str = state(default="shop")
    visited: list[str] = state(default=[])

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    @handler
    async def travel(self, ctx: ObjectContext, to: str) -> str:
        label = await ctx.run("label", self.carrier.label, to)
        for stop in label.stops:
            self.place = stop
            self.visited.append(stop)
            await ctx.sleep(60)
        told, _ = await asyncio.gather(ctx.service(Post).announce(to), ctx.sleep(7200))
        self.place = told
        await ctx.run("deliver", self.carrier.deliver, label.code)
        return self.place

    @shared
    async def watch(self, ctx: SharedContext) -> list[str]:
        seen = [self.place]
        for _ in range(5):
            await ctx.sleep(60)
            seen.append(self.place)
        return seen

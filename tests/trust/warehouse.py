"""A warehouse: items that are reserved together or not at all, ordered anew when they run low, and a book of all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import ClassVar

from durably import ObjectContext, VirtualObject, handler, state
from durably.testing import Faults, Simulation, Snapshots
from tests.trust.planting import App, planted

FULL = 4


class Item(VirtualObject, name="TrustItem"):
    """Something in the warehouse; `ordered` says that more is on its way."""

    low: ClassVar[dict[str, int]] = {}
    pieces: int = state(default=FULL)
    ordered: bool = state(default=False)
    largest: int = state(default=FULL)

    @handler
    async def reserve(self, ctx: ObjectContext, count: int) -> bool:
        if self.pieces < count - (1 if planted("the last piece is sold twice") else 0):
            return False
        self.pieces -= count
        if planted("the environment says what is low"):
            low = int(os.environ.get("LOW", "1"))
        elif planted("a file says what is low"):
            low = 1 if Path(__file__).read_text("utf-8") else 0
        elif planted("a class keeps what is low"):
            low = self.low[self.key] = self.low.get(self.key, 1) - 1
        else:
            low = 1
        if self.pieces <= low and (not self.ordered or planted("an order is made again and again")):
            self.ordered = True
            if not planted("nothing is ordered"):
                await ctx.object(Item, self.key).arrive.after(hours=1).send()
        return True

    @handler
    async def give_back(self, ctx: ObjectContext, count: int) -> None:
        self.pieces += count

    @handler
    async def arrive(self, ctx: ObjectContext) -> None:
        self.pieces += FULL
        self.ordered = False
        self.largest = max(self.largest, self.pieces)


class Book(VirtualObject, name="TrustBook"):
    """What happened to the parcels, as others told."""

    open: list[str] = state(default=[])
    seen: list[str] = state(default=[])

    @handler
    async def opened(self, ctx: ObjectContext, parcel: str) -> None:
        self.open.append(parcel)

    @handler
    async def closed(self, ctx: ObjectContext, parcel: str) -> None:
        if parcel in self.open:
            self.open.remove(parcel)
        self.seen.append(parcel)


class Clerk(VirtualObject, name="TrustClerk"):
    """Passes things on."""

    @handler
    async def tell_opened(self, ctx: ObjectContext, parcel: str) -> None:
        await ctx.object(Book, "book").opened.send(parcel)

    @handler
    async def tell_closed(self, ctx: ObjectContext, parcel: str) -> None:
        await ctx.object(Book, "book").closed.send(parcel)


class Parcel(VirtualObject, name="TrustParcel"):
    """Some items that go together."""

    packed: list[str] = state(default=[])

    @handler
    async def pack(self, ctx: ObjectContext, items: list[str]) -> bool:
        if planted("two clerks tell the book"):
            await ctx.object(Clerk, f"one {self.key}").tell_opened.send(self.key)
            await ctx.object(Clerk, f"two {self.key}").tell_closed.send(self.key)
        else:
            await ctx.object(Book, "book").opened.send(self.key)
            await ctx.object(Book, "book").closed.send(self.key)
        asked = items[:1] if planted("only the first item is asked for") else items
        got = await asyncio.gather(*(ctx.object(Item, item).reserve(1) for item in asked))
        if all(got):
            self.packed = items
            return True
        if not planted("what was reserved is kept"):
            for item, reserved in zip(items, got, strict=True):
                if reserved or planted("more is given back than was reserved"):
                    await ctx.object(Item, item).give_back(1)
        return False


ITEMS = ("bolt", "nut")


def never_less_than_nothing(snapshots: Snapshots) -> bool:
    return all(item.pieces >= 0 for item in snapshots.of(Item).values())


async def program(sim: Simulation) -> None:
    """More parcels than there are items are packed, until more has come."""
    sim.invariant(never_less_than_nothing)
    await sim.object(Item, "nut").reserve(2)
    packed: list[bool] = []

    async def pack(name: str) -> None:
        packed.append(await sim.client(name).object(Parcel, name).pack([*ITEMS]))

    await asyncio.gather(*(pack(f"parcel {number}") for number in range(4)))
    await sim.settle()
    sim.sometimes("refused", not all(packed))
    await sim.advance(hours=30)
    await sim.settle()
    total = {item: sim.snapshots[Item, item] for item in ITEMS}
    assert not any(item.ordered for item in total.values()), "something is still ordered"
    count = sum(packed)
    assert (total["bolt"].pieces + count) % FULL == 0, f"bolts: {total['bolt'].pieces}, packed {count}"
    assert (total["nut"].pieces + count + 2) % FULL == 0, f"nuts: {total['nut'].pieces}, packed {count}"
    assert total["nut"].largest <= FULL + 2, "too much was ordered"
    assert total["nut"].pieces > 1
    assert sim.snapshots[Book, "book"].open == []


APP = App(
    name="warehouse",
    actors=(Item, Book, Clerk, Parcel),
    program=program,
    faults=Faults.any(without=Faults.clock_jumps()),
    bugs={
        "the last piece is sold twice": "boundary",
        "the environment says what is low": "guard",
        "a file says what is low": "guard",
        "a class keeps what is low": "global",
        "an order is made again and again": "timer",
        "nothing is ordered": "never happens",
        "two clerks tell the book": "order of messages",
        "only the first item is asked for": "never happens",
        "what was reserved is kept": "partial failure",
        "more is given back than was reserved": "logic",
    },
)

"""`kill -9` at any moment: what was acknowledged goes on where it stood, and nothing happens twice."""

from __future__ import annotations

import asyncio

import pytest

from durably import ObjectContext, VirtualObject, handler, state
from durably.testing import Harness


class Ledger:
    def __init__(self) -> None:
        self.entries: list[str] = []

    async def write(self, entry: str) -> int:
        self.entries.append(entry)
        return len(self.entries)


class Journey(VirtualObject):
    places: list[str] = state(default=[])

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @handler
    async def travel(self, ctx: ObjectContext, places: list[str]) -> str:
        for place in places:
            await ctx.run(f"arrive in {place}", self.ledger.write, place)
            self.places.append(place)
            await ctx.sleep(60)
        return f"seen: {', '.join(self.places)}"


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_a_handler_goes_on_where_it_stood(suspend_after: float) -> None:
    ledger = Ledger()
    async with Harness(Journey, dependencies={Ledger: ledger}, suspend_after=suspend_after) as app:
        travelling = asyncio.ensure_future(app.object(Journey, "mary").travel(["Rome", "Paris", "Oslo"]))
        for _ in range(3):
            await app.settle()
            await app.crash()
            await app.advance(minutes=1)
        assert await travelling == "seen: Rome, Paris, Oslo"
        assert ledger.entries == ["Rome", "Paris", "Oslo"]


async def test_what_has_not_begun_begins_in_its_order() -> None:
    async with Harness(Journey, dependencies={Ledger: Ledger()}) as app:
        for place in ("Rome", "Paris"):
            await app.object(Journey, "mary").travel.send([place])
        await app.crash()
        await app.advance(minutes=2)
        assert await app.state(Journey, "mary") == {"places": ["Rome", "Paris"]}

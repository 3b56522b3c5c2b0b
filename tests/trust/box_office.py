"""A box office: seats that are held for a quarter of an hour, sold or given back, and carts."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from durably import ObjectContext, SharedContext, TerminalError, VirtualObject, handler, shared, state
from durably.testing import Faults, Simulation, Snapshots
from tests.trust.planting import App, planted

HOLD = timedelta(minutes=15)
PRICES = {"A": 20, "B": 30}
HELD: set[str] = set()


async def look_up_price(seat: str) -> int:
    return PRICES[seat]


class Seat(VirtualObject, name="TrustSeat"):
    """A seat."""

    holder: str | None = state(default=None)
    until: datetime | None = state(default=None)
    asked: datetime | None = state(default=None)
    sold: bool = state(default=False)
    lived_through: list[str] = state(default=[])

    @handler
    async def hold(self, ctx: ObjectContext, who: str) -> bool:
        """Hold the seat for somebody. It is free when nobody holds it, and again at the moment when a hold ends."""
        self.asked = now = ctx.now()
        if planted("a global knows what is held"):
            if self.key in HELD and self.holder is not None and self.holder != who and not self.sold:
                return False
            HELD.add(self.key)
        if self.holder is not None and self.until is not None and not self.sold:
            over = now > self.until if planted("a hold lasts a moment too long") else now >= self.until
            if over:
                self.holder = None
        if self.sold or (self.holder not in (None, who) and not planted("a seat is held twice")):
            if planted("a global knows what is held"):
                return self.key not in HELD
            return False
        self.holder, self.until = who, now + HOLD
        if planted("a seat remembers everything"):
            self.lived_through.append(f"held by {who} at {now}")
        return True

    @handler
    async def sell(self, ctx: ObjectContext, who: str) -> bool:
        if self.holder != who or self.sold:
            return False
        self.sold = True
        return True

    @handler
    async def give_back(self, ctx: ObjectContext, who: str) -> None:
        if (self.holder == who or planted("anybody gives a seat back")) and (
            not self.sold or planted("a sold seat is given back")
        ):
            self.holder, self.until, self.sold = None, None, False

    @shared
    async def is_free(self, ctx: SharedContext) -> bool:
        return self.holder is None


class Cart(VirtualObject, name="TrustCart"):
    """What somebody takes."""

    seats: list[str] = state(default=[])

    @handler
    async def take(self, ctx: ObjectContext, seat: str) -> bool:
        if planted("every seat is refused"):
            return False
        if planted("a cart looks before it holds"):
            if not await ctx.object(Seat, seat).is_free():
                return False
            await ctx.run("price", look_up_price, seat)
            await ctx.object(Seat, seat).hold.send(self.key)
        elif not await ctx.object(Seat, seat).hold(self.key):
            return False
        if seat not in self.seats:
            self.seats.append(seat)
        return True

    @handler
    async def buy(self, ctx: ObjectContext, seat: str, rich: bool) -> bool:
        if seat not in self.seats:
            return False
        if not rich:
            self.seats.remove(seat)
            if planted("a refusal loses the release"):
                raise TerminalError("no money")
            release = ctx.object(Seat, seat).give_back
            if planted("the release is not awaited"):
                release(self.key)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
            else:
                await release(self.key)
            return False
        bought = await ctx.object(Seat, seat).sell(self.key)
        if not bought:
            self.seats.remove(seat)
        return bought


def each_sold_seat_is_in_one_cart(snapshots: Snapshots) -> None:
    for key, seat in snapshots.of(Seat).items():
        if seat.sold:
            assert [name for name, cart in snapshots.of(Cart).items() if key in cart.seats] == [seat.holder]


async def program(sim: Simulation) -> None:
    """Three people want the same two seats; who has no money gives them back; holds end at the very moment."""
    sim.bounded(Seat, bytes=200)
    told: list[tuple[str, str]] = []

    async def shop(name: str, rich: bool) -> None:
        cart = sim.client(name).object(Cart, name)
        for seat in ("A", "B"):
            if await cart.take(seat):
                bought = await cart.buy(seat, rich)
                if bought:
                    told.append((seat, name))
                assert bought == rich, f"{name} had {seat} and could not buy it"

    await asyncio.gather(shop("ann", True), shop("bob", False), shop("eve", True))
    await sim.settle()
    sim.sometimes("sold", bool(told))
    assert len({seat for seat, _ in told}) == len(told), told
    for key in ("A", "B"):
        holder = sim.snapshots[Seat, key].holder
        if sim.snapshots[Seat, key].sold and holder is not None:
            await sim.object(Seat, key).give_back(holder)
            assert sim.snapshots[Seat, key].sold, "a sold seat was given back"
    each_sold_seat_is_in_one_cart(sim.snapshots)
    for key in ("A", "B"):
        held = [name for name, cart in sim.snapshots.of(Cart).items() if key in cart.seats]
        assert len(held) <= 1, f"{key} is in the carts of {held}"
        seat = sim.snapshots[Seat, key]
        assert seat.sold or seat.holder is None, f"{key} is held by {seat.holder}, and not bought"
    await holds_end(sim)


async def holds_end(sim: Simulation) -> None:
    seat = sim.object(Seat, "C")
    await seat.hold("ann")
    await seat.give_back("a stranger")
    assert sim.snapshots[Seat, "C"].holder == "ann"
    await seat.give_back("ann")
    for number in range(3):
        assert await seat.hold(f"visitor {number}")
        until = sim.snapshots[Seat, "C"].until
        assert until is not None
        await sim.advance(HOLD)
        taken = await seat.hold(f"visitor {number + 1}")
        asked = sim.snapshots[Seat, "C"].asked
        assert asked is not None
        assert taken == (asked >= until), f"asked at {asked}, and the hold ends at {until}"
        await seat.give_back(f"visitor {number + 1 if taken else number}")
    for number in range(6):
        await seat.hold(f"visitor {number}")
        await seat.give_back(f"visitor {number}")


APP = App(
    name="box office",
    actors=(Seat, Cart),
    program=program,
    faults=Faults.any(without=Faults.clock_jumps()),
    bugs={
        "a cart looks before it holds": "race",
        "a seat is held twice": "logic",
        "a hold lasts a moment too long": "tie",
        "a global knows what is held": "global",
        "a seat remembers everything": "growth",
        "every seat is refused": "never happens",
        "anybody gives a seat back": "logic",
        "a sold seat is given back": "logic",
        "a refusal loses the release": "partial failure",
        "the release is not awaited": "forgotten await",
    },
)

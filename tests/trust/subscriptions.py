"""Subscriptions that renew each month until they are cancelled, at a price of their plan."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from functools import cache

from durably import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.testing import Faults, Simulation
from tests.trust.planting import App, planted

MONTH = timedelta(days=30)
_PRICES = {"plan": 10}


class Till:
    """Takes money, each key once. It forgets a key when it was used three times."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.amounts: list[int] = []
        self._uses: Counter[str] = Counter()

    async def take(self, key: str, who: str, amount: int) -> None:
        self._uses[key] += 1
        most = 2 if planted("a till forgets a key too soon") else 1_000
        if self._uses[key] == 1 or self._uses[key] > most:
            self.taken[who] += 1
            self.amounts.append(amount)


@cache
def remembered_price(plan: str) -> int:
    return _PRICES[plan]


class Plan(VirtualObject, name="TrustPlan"):
    """What a month costs."""

    price: int = state(default=10)

    @handler
    async def set_price(self, ctx: ObjectContext, price: int) -> None:
        self.price = price

    @shared
    async def get_price(self, ctx: SharedContext) -> int:
        return self.price


class Subscription(VirtualObject, name="TrustSubscription"):
    """Somebody's subscription; `term` counts how often it was begun."""

    active: bool = state(default=False)
    term: int = state(default=0)
    renewals: int = state(default=0)
    cancelled_at: datetime | None = state(default=None)
    renewed_late: bool = state(default=False)

    def __init__(self, till: Till) -> None:
        self.till = till

    @handler
    async def begin(self, ctx: ObjectContext) -> bool:
        if self.active and not planted("a subscription is begun twice"):
            return False
        self.active, self.cancelled_at = True, None
        if not self.term or not planted("a subscription is begun twice"):
            self.term += 1
        await ctx.object(Subscription, self.key).renew.after(MONTH).send(self.term)
        return True

    @handler
    async def renew(self, ctx: ObjectContext, term: int) -> None:
        if planted("an old term goes on"):
            term = self.term
        if (not self.active and not planted("a cancelled subscription goes on")) or term != self.term:
            return
        price = await ctx.object(Plan, "plan").get_price()
        if planted("a price is remembered"):
            price = remembered_price("plan") if self.renewals % 2 else price
        if planted("a price has luck in it"):
            price -= random.choice((0, 1))
        key = f"{self.key} {self.term} {self.renewals}"
        if planted("one key for all months"):
            key = self.key
        await ctx.run("take", self.till.take, key, self.key, price)
        self.renewals += 1
        if not planted("a subscription renews once"):
            await ctx.object(Subscription, self.key).renew.after(MONTH).send(self.term)

    @handler
    async def cancel(self, ctx: ObjectContext) -> None:
        self.active, self.cancelled_at = False, ctx.now()


async def program(sim: Simulation) -> None:
    """Ann and Bob subscribe, some twice; prices change; they cancel, and one begins again."""
    till: Till = sim.dependencies[Till]

    async def begin(client: str, who: str) -> None:
        await sim.client(client).object(Subscription, who).begin()

    await asyncio.gather(begin("ann", "ann"), begin("ann at home", "ann"), begin("bob", "bob"))
    await sim.advance(days=33)
    await sim.settle()
    await sim.object(Plan, "plan").set_price(12)
    await sim.advance(days=30)
    await sim.settle()
    for who in ("ann", "bob"):
        assert till.taken[who] == sim.snapshots[Subscription, who].renewals == 2, f"{who}: {till.taken}"
    assert sorted(till.amounts) == [10, 10, 12, 12], till.amounts
    await sim.object(Subscription, "ann").cancel()
    assert not sim.snapshots[Subscription, "ann"].active
    paid = till.taken["ann"]
    await sim.object(Subscription, "ann").begin()
    await sim.advance(days=29)
    await sim.settle()
    assert till.taken["ann"] == paid, "paid before the month was over"
    await sim.advance(days=3)
    await sim.settle()
    assert till.taken["ann"] == paid + 1
    await sim.object(Subscription, "bob").cancel()
    await sim.object(Subscription, "ann").cancel()
    paid = till.taken["bob"]
    await sim.advance(days=70)
    await sim.settle()
    assert till.taken["bob"] == paid


APP = App(
    name="subscriptions",
    actors=(Plan, Subscription),
    program=program,
    faults=Faults.any(without=Faults.clock_jumps()),
    dependencies=lambda: {Till: Till()},
    bugs={
        "a till forgets a key too soon": "pair of failures",
        "a subscription is begun twice": "race",
        "an old term goes on": "timer",
        "a price is remembered": "global",
        "a price has luck in it": "guard",
        "one key for all months": "logic",
        "a subscription renews once": "timer",
        "a cancelled subscription goes on": "timer",
    },
)

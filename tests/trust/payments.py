"""Orders that are paid at a provider over a network, and refunded when they are cancelled."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from datetime import timedelta
from typing import ClassVar

from durably import ObjectContext, RetryPolicy, TerminalError, VirtualObject, handler, state
from durably.testing import Faults, Simulation, Snapshots
from tests.trust.planting import App, planted

RATE: dict[str, int] = {"percent": 0}


class Provider:
    """A payment provider outside: repeats of a key are answered as the first time; some cards are refused."""

    def __init__(self) -> None:
        self.charges: Counter[str] = Counter()
        self.refunds: Counter[str] = Counter()
        self._keys: dict[str, bool] = {}
        self._count = 0

    async def charge(self, key: str, order: str) -> bool:
        if key not in self._keys:
            self._keys[key] = not order.startswith("refused")
            if self._keys[key]:
                self.charges[order] += 1
        return self._keys[key]

    async def charge_anew(self, order: str) -> bool:
        self._count += 1
        return await self.charge(f"{order} {self._count}", order)

    async def refund(self, key: str, order: str) -> bool:
        if key not in self._keys:
            self._keys[key] = True
            self.refunds[order] += 1
        return True


class Order(VirtualObject, name="TrustOrder"):
    """Something to be paid."""

    marked: ClassVar[set[str]] = set()
    paid: bool = state(default=False)
    refused: bool = state(default=False)
    cancelled: bool = state(default=False)
    refunded: bool = state(default=False)
    percent: int = state(default=0)

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    @handler
    async def pay(self, ctx: ObjectContext) -> bool:
        if self.cancelled or self.refused:
            return False
        if self.paid:
            return True
        if planted("an order is paid before it is charged"):
            self.paid = True
        if planted("the rate is a global"):
            self.percent = RATE["percent"]
            RATE["percent"] = self.percent + 1
        accepted = await self._charge(ctx)
        if accepted:
            self.paid = True
        else:
            self.refused = True
        return accepted

    async def _charge(self, ctx: ObjectContext) -> bool:
        key = str(ctx.uuid())
        limited = ctx.run.options(timeout=20)
        if planted("the provider is given no key"):
            return await limited("charge", self.provider.charge_anew, self.key)
        if planted("the key comes from uuid4"):
            return await limited("charge", self.provider.charge, str(uuid.uuid4()), self.key)
        if planted("a charge is marked before it is made"):
            return await limited("charge", self._charge_once, key)
        if planted("one failure is a refusal"):
            try:
                once = ctx.run.options(retry=RetryPolicy(max_attempts=1), timeout=20)
                return await once("charge", self.provider.charge, key, self.key)
            except TerminalError:
                return False
        if planted("a charge may hang"):
            return await ctx.run("charge", self.provider.charge, key, self.key)
        return await limited("charge", self.provider.charge, key, self.key)

    async def _charge_once(self, key: str) -> bool:
        if self.key in self.marked:
            return True
        self.marked.add(self.key)
        await asyncio.sleep(0.1)
        return await self.provider.charge(key, self.key)

    @handler
    async def cancel(self, ctx: ObjectContext) -> bool:
        self.cancelled = True
        if not self.paid or (self.refunded and not planted("a second cancellation refunds again")):
            return self.refunded
        key = "charge" if planted("one key for two orders") else str(ctx.uuid())
        refund = ctx.run.options(timeout=20)
        await refund("refund", self.provider.refund, f"refund {key}", self.key)
        self.refunded = True
        return True


def what_is_paid_is_charged(sim: Simulation) -> None:
    provider: Provider = sim.dependencies[Provider]
    for key, order in sim.snapshots.of(Order).items():
        assert provider.charges[key] <= 1, f"{key} was charged {provider.charges[key]} times"
        assert order.paid == bool(provider.charges[key]), f"{key}: {order.paid}, {provider.charges}"
        assert provider.refunds[key] == order.refunded == (order.paid and order.cancelled), f"{key}: {provider.refunds}"


async def program(sim: Simulation) -> None:
    """Two orders are paid, one is refused, and both are cancelled later, one of them twice."""

    def decided(snapshots: Snapshots) -> bool:
        orders = snapshots.of(Order)
        return {"first", "second", "refused"} <= orders.keys() and all(
            order.paid or order.refused for order in orders.values()
        )

    async def pay(key: str) -> None:
        await sim.client(key).object(Order, key).pay()

    paying = asyncio.gather(pay("first"), pay("second"), pay("refused"))
    await sim.until(decided, within=timedelta(minutes=30))
    await paying
    await sim.settle()
    what_is_paid_is_charged(sim)
    await sim.object(Order, "first").cancel()
    await sim.object(Order, "first").cancel()
    await sim.object(Order, "second").cancel()
    await sim.settle()
    what_is_paid_is_charged(sim)
    assert all(order.percent == 0 for order in sim.snapshots.of(Order).values())


APP = App(
    name="payments",
    actors=(Order,),
    program=program,
    dependencies=lambda: {Provider: Provider()},
    faults=Faults.any(without=Faults.disk_full()) | Faults.actions(fail_after=None, hang=None),
    bugs={
        "an order is paid before it is charged": "logic",
        "the rate is a global": "global",
        "the provider is given no key": "repeated action",
        "the key comes from uuid4": "guard",
        "a charge is marked before it is made": "failing action",
        "one failure is a refusal": "failing action",
        "a charge may hang": "hanging action",
        "a second cancellation refunds again": "logic",
        "one key for two orders": "logic",
    },
)

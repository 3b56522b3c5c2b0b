"""Exclusive handlers (`@handler`) of one key run one at a time, in order of acceptance; shared ones beside them."""

from __future__ import annotations

import asyncio

from durably import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.testing import Harness


class Account(VirtualObject):
    balance: int = state(default=0)
    busy: bool = state(default=False)

    @handler
    async def pay_in(self, ctx: ObjectContext, amount: int) -> int:
        assert not self.busy
        self.busy = True
        before = self.balance
        await ctx.sleep(1)
        self.balance = before + amount
        self.busy = False
        return self.balance

    @shared
    async def look(self, ctx: SharedContext) -> str:
        return f"{self.balance}{' (busy)' if self.busy else ''}"


async def test_a_second_call_waits_until_the_first_finishes() -> None:
    async with Harness(Account) as app:
        calls = [asyncio.ensure_future(app.object(Account, "a").pay_in(amount)) for amount in (1, 10, 100)]
        await app.advance(3)
        assert [await call for call in calls] == [1, 11, 111]


async def test_different_keys_run_beside_each_other() -> None:
    async with Harness(Account) as app:
        calls = [asyncio.ensure_future(app.object(Account, str(key)).pay_in(5)) for key in range(10)]
        await app.advance(1)
        assert [await call for call in calls] == [5] * 10


async def test_a_shared_handler_reads_while_an_exclusive_one_is_under_way() -> None:
    async with Harness(Account) as app:
        paying = asyncio.ensure_future(app.object(Account, "a").pay_in(5))
        await app.settle()
        assert await app.object(Account, "a").look() == "0 (busy)"
        await app.advance(1)
        assert await app.object(Account, "a").look() == "5"
        assert await paying == 5

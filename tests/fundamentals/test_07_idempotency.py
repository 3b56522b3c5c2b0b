"""A request with an idempotency key may be repeated as often as one likes: there is one invocation, and one outcome."""

from __future__ import annotations

from durably import ObjectContext, VirtualObject, handler, state
from durably.testing import Harness


class Account(VirtualObject):
    balance: int = state(default=0)

    @handler
    async def pay_in(self, ctx: ObjectContext, amount: int) -> int:
        self.balance += amount
        return self.balance


async def test_repeating_a_request_changes_nothing() -> None:
    async with Harness(Account) as app:
        pay_in = app.object(Account, "mary").pay_in.options(idempotency_key="payment 7")
        assert [await pay_in(5) for _ in range(3)] == [5, 5, 5]
        assert await app.state(Account, "mary") == {"balance": 5}


async def test_without_a_key_each_request_is_one_of_its_own() -> None:
    async with Harness(Account) as app:
        assert [await app.object(Account, "mary").pay_in(5) for _ in range(3)] == [5, 10, 15]


async def test_the_outcome_is_there_after_a_crash() -> None:
    async with Harness(Account) as app:
        pay_in = app.object(Account, "mary").pay_in.options(idempotency_key="payment 7")
        sent = await pay_in.send(5)
        await app.crash()
        assert await pay_in(5) == 5
        assert await pay_in.attach() == 5
        assert (await pay_in.send(5)).id == sent.id

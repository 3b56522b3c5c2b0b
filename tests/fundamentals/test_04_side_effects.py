"""What reaches the world goes through `ctx.run`: its result is journaled, and a replay does not do it again."""

from __future__ import annotations

import asyncio

import pytest

from durably import ActionFailedError, Context, RetryPolicy, Service, TerminalError, handler
from durably.testing import Harness


class Bank:
    """Stands for something outside."""

    def __init__(self) -> None:
        self.charged: list[int] = []
        self.failures = 0

    async def charge(self, amount: int) -> str:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the bank does not answer")
        if amount > 1_000:
            raise TerminalError("the card is refused", code=402)
        self.charged.append(amount)
        return f"receipt {len(self.charged)}"


class Checkout(Service):
    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    @handler
    async def pay(self, ctx: Context, amount: int) -> str:
        receipt = await ctx.run("charge", self.bank.charge, amount)
        await ctx.sleep(60)
        return receipt

    @handler
    async def try_to_pay(self, ctx: Context, amount: int) -> str:
        charge = ctx.run.options(retry=RetryPolicy(initial=1, max_attempts=3))
        try:
            return await charge("charge", self.bank.charge, amount)
        except ActionFailedError as error:
            return f"not paid after {error.attempts} attempts, the last: {error.last_message}"
        except TerminalError as error:
            return f"not paid: {error}"


async def test_a_crash_afterwards_does_not_repeat_it() -> None:
    bank = Bank()
    async with Harness(Checkout, dependencies={Bank: bank}) as app:
        paying = asyncio.ensure_future(app.service(Checkout).pay(40))
        await app.settle()
        await app.crash()
        await app.advance(60)
        assert await paying == "receipt 1"
        assert bank.charged == [40]


async def test_one_that_fails_is_tried_again() -> None:
    bank = Bank()
    bank.failures = 5
    async with Harness(Checkout, dependencies={Bank: bank}, retry=RetryPolicy()) as app:
        paying = asyncio.ensure_future(app.service(Checkout).pay(40))
        await app.advance(minutes=5)
        assert await paying == "receipt 1"
        assert app.actions("charge") == ["charge"] * 6


async def test_a_policy_of_its_own_bounds_the_tries() -> None:
    bank = Bank()
    bank.failures = 5
    async with Harness(Checkout, dependencies={Bank: bank}) as app:
        paying = asyncio.ensure_future(app.service(Checkout).try_to_pay(40))
        await app.advance(10)
        assert await paying == "not paid after 3 attempts, the last: the bank does not answer"


async def test_a_terminal_error_is_not_tried_again() -> None:
    async with Harness(Checkout, dependencies={Bank: Bank()}) as app:
        assert await app.service(Checkout).try_to_pay(5_000) == "not paid: the card is refused"
        with pytest.raises(TerminalError, match="refused"):
            await app.service(Checkout).pay(5_000)
        assert app.actions("charge") == ["charge"] * 2

"""`Harness(consumers="inline")`: a call of the test ends when the consumers that it led to have run."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from durably import Context
from durably.client import Client
from durably.models import Machine, Model, Transition, TransitionContext, consumer, initial, transition
from durably.testing import Harness, StandstillError
from tests.models.shop import DeliveryBooked, Orders, dependencies


class Letter(Model, prefix="letter"):
    text: str


class Written(Letter):
    pass


class Sent(Letter):
    pass


class Letters(Machine[Letter]):
    """Written letters are sent after a day; some cannot be."""

    def __init__(self, harness: list[Harness]) -> None:
        self.harness = harness

    @initial
    async def write(self, ctx: TransitionContext, text: str) -> Written:
        return Written(text=text)

    @transition
    async def send(self, ctx: TransitionContext, letter: Written) -> Sent:
        return Sent.of(letter)

    @consumer(write, name="SendLater")
    async def send_later(self, ctx: Context, letter: Letter, transition: Transition) -> None:
        match letter.text:
            case "no address":
                raise ValueError("There is no address.")
            case "to be read first":
                await ctx.awakeable(str)
            case "by another way":
                await ctx.run("ask outside", self.ask_outside, letter.id)
            case _:
                await ctx.sleep(days=1)
                await ctx.machine(Letters).send(letter.id)

    async def ask_outside(self, id: str) -> None:
        await self.harness[0].machine(Letters).send(id)


@pytest.mark.parametrize("nothing_resident", [False, True])
async def test_a_transition_returns_when_its_consumers_have_run(nothing_resident: bool) -> None:
    app = Harness(Orders, dependencies=dependencies(), consumers="inline", nothing_resident=nothing_resident)
    async with app:
        orders = app.machine(Orders)
        order, _ = await orders.create(amount=100)
        paid, _ = await orders.pay(order, payment_reference="abc123")
        assert paid.state == "paid", "a call answers with what its own transition led to"
        updated = await orders.find_one_or_raise(DeliveryBooked, id=order.id)
        assert updated.tracking_number == "T1"
        several = await asyncio.gather(*(orders.create(amount=one) for one in range(1, 4)))
        await asyncio.gather(*(orders.pay(one.object, "x") for one in several))
        assert await orders.count(DeliveryBooked) == 4


async def test_time_passes_as_far_as_they_need_it_and_what_they_raise_the_call_raises() -> None:
    harness: list[Harness] = []
    async with Harness(Letters, dependencies={list[Harness]: harness}, consumers="inline") as app:
        harness.append(app)
        letters, began = app.machine(Letters), app.clock.now()
        letter, _ = await letters.write("hello")
        assert app.clock.now() - began == 86_400_000_000
        assert await letters.find_one(Sent, id=letter.id)
        with pytest.raises(ValueError, match="There is no address"):
            await letters.write("no address")
        with pytest.raises(StandstillError, match=r"SendLater/.*/consume has not ended[\s\S]*awakeable"):
            await letters.write("to be read first")


async def test_a_call_of_an_action_does_not_wait_for_the_consumer_that_it_is_part_of() -> None:
    harness: list[Harness] = []
    async with Harness(Letters, dependencies={list[Harness]: harness}, consumers="inline") as app:
        harness.append(app)
        await app.machine(Letters).write("by another way")
        assert await app.machine(Letters).count(Sent) == 1


async def test_over_http_it_is_the_same() -> None:
    async with (
        Harness(Orders, dependencies=dependencies(), consumers="inline") as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi())) as http,
    ):
        orders = Client("http://app", http=http).machine(Orders)
        order, _ = await orders.create(amount=100)
        await orders.pay(order, payment_reference="abc123")
        assert await orders.count(DeliveryBooked) == 1


def test_another_way_is_refused() -> None:
    other: Any = "eager"
    with pytest.raises(ValueError, match='is "inline", or left out'):
        Harness(Orders, consumers=other)

"""Consumers hear of each transition once, in order for each object, whatever ends in between (rules P2, P3, P5)."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, cast

import pytest

from durably import Context, InvocationStatus, MemoryStore, TerminalError, UnknownTargetError
from durably.errors import ConsumerFailedError
from durably.models import Machine, Model, Transition, TransitionContext, consumer, initial, transition
from durably.runtime.lifecycle import subscriptions
from durably.runtime.lifecycle.subscriptions import SubscriptionStatus
from durably.storage.memory import Disk
from durably.testing import Harness, Simulation, for_each_crash_point, simulate
from durably.testing.replaying import check_store
from tests.models.shop import DeliveryBooked, Heard, Orders, Paid, dependencies


async def shop(sim: Simulation) -> None:
    """Two orders; all that is promised of them is checked in the end."""
    heard = cast("Mapping[type, Any]", sim.dependencies)[Heard]
    orders = sim.machine(Orders)
    ids: list[str] = []
    for amount in (3, 5):
        created, _ = await orders.create.options(idempotency_key=f"order {amount}")(amount)
        ids.append(created.id)
        await orders.pay.options(idempotency_key=f"pay {amount}")(created.id, "abc")
    await sim.settle()
    booked = await orders.find_all(DeliveryBooked)
    assert [one.id for one in booked] == sorted(ids), "every paid order is booked, and queries agree with that"
    for id in ids:
        history = await orders.get_object_transitions(id)
        assert [one.name for one in history] == ["bookDelivery", "pay", "create"], "each transition is there once"
        told = [(name, tsn) for object_id, name, tsn in dict.fromkeys(heard.transitions) if object_id == id]
        assert told == [(one.name, one.id) for one in reversed(history)], "all are heard of, in order"


def test_no_crash_loses_or_repeats_a_transition_or_what_a_consumer_hears() -> None:
    for_each_crash_point(shop, Orders, dependencies=dependencies, place=("before_commit", "after_commit"))


def test_no_interleaving_does() -> None:
    report = simulate(shop, Orders, dependencies=dependencies, runs=25)
    assert report.crashes


async def test_a_consumer_that_is_paused_goes_on_where_it_was() -> None:
    async with Harness(Orders, dependencies=dependencies()) as app:
        orders, name = app.machine(Orders), "Orders.BookDelivery/consume"
        assert await app.pause_subscription(name)
        assert not await app.pause_subscription(name)
        created, _ = await orders.create(3)
        await orders.pay(created, "abc")
        await app.settle()
        assert await orders.count(Paid) == 1
        states = {one.name: (one.status, one.behind) for one in await app.subscriptions()}
        assert states == {name: (SubscriptionStatus.PAUSED, 2), "Orders.Audit/consume": (SubscriptionStatus.ON, 0)}
        await app.crash()
        assert await app.resume_subscription(name)
        await app.settle()
        assert await orders.count(DeliveryBooked) == 1
        with pytest.raises(UnknownTargetError, match="There are: Orders"):
            await app.pause_subscription("Orders.Audit")


class Bill(Model, prefix="bill"):
    amount: int


class Sent(Bill):
    pass


class Post(list[int]):
    """Outside: the amounts that were posted; it is closed at times."""

    is_closed = False


class Bills(Machine[Bill]):
    def __init__(self, post: Post) -> None:
        self.post = post

    @initial
    async def send(self, ctx: TransitionContext, amount: int) -> Sent:
        return Sent(amount=amount)

    @transition
    async def raise_to(self, ctx: TransitionContext, bill: Sent, amount: int) -> Sent:
        return Sent.of(bill, amount=amount)

    @consumer(name="Mail")
    async def mail(self, ctx: Context, bill: Bill, made: Transition) -> None:
        if self.post.is_closed:
            raise TerminalError("The post office is closed.")
        await ctx.run("post", self.post.append, made.arguments["amount"])


async def test_a_consumer_that_fails_for_good_waits_for_a_person_who_lets_it_go_on_or_gives_it_up() -> None:
    post = Post()
    async with Harness(Bills, dependencies={Post: post}) as app:
        bills = app.machine(Bills)
        post.is_closed = True
        first, _ = await bills.send(1)
        with pytest.raises(ConsumerFailedError, match=f"Mail failed for good on send of {first.id}: The post office"):
            await app.settle()
        await bills.raise_to(first, amount=2)
        await app.settle()  # It waits behind the one that has failed.
        post.is_closed = False
        await bills.send(3)
        await app.settle()
        assert post == [3], "other objects go on"
        await app.crash()
        assert len(await app.resume("Bills.Mail")) == 1
        await app.settle()
        assert post == [3, 1, 2], "nothing was lost, and all came in order"
        post.is_closed = True
        await bills.raise_to(first, amount=4)
        with pytest.raises(ConsumerFailedError):
            await app.settle()
        await bills.raise_to(first, amount=5)
        post.is_closed = False
        paused = [one async for one in app.invocations(target="Bills.Mail", status=InvocationStatus.PAUSED)]
        await app.cancel(paused[0].id)
        await app.settle()
        assert post == [3, 1, 2, 5], "it goes on without the transition that was given up"


def notes(*consumers: tuple[str, str]) -> tuple[type[Machine[Any]], list[str]]:
    """A version of the code: a model with these consumers, by name and start, and what they hear."""
    heard: list[str] = []

    class Note(Model, prefix="note"):
        text: str

    class Written(Note):
        pass

    def listener(name: str, start: Any) -> Any:
        async def hear(self: Any, ctx: Context, note: Note, made: Transition) -> None:
            await ctx.run("hear", heard.append, f"{name} {note.text}")

        hear.__annotations__ = {"note": Note, "made": Transition}
        return consumer(name=name, start=start)(hear)

    async def write(self: Any, ctx: TransitionContext, text: str) -> Written:
        return Written(text=text)

    write.__annotations__ = {"text": str, "return": Written}
    members = {f"consumer_{number}": listener(*one) for number, one in enumerate(consumers)}
    namespace = {"write": initial(write), **members, "__module__": __name__}
    made: Any = types.new_class("Notes", (Machine[Note],), {}, lambda body: body.update(namespace))
    return made, heard


async def test_a_consumer_that_comes_later_hears_of_what_was_or_of_nothing_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = Disk()

    async def live(*consumers: tuple[str, str], text: str) -> list[str]:
        machine, heard = notes(*consumers)
        async with Harness(machine, store=MemoryStore(disk)) as app:
            notebook: Any = app.machine(machine)
            await notebook.write(text=text)
            await app.settle()
        return heard

    assert await live(("old", "now"), text="a") == ["old a"]
    assert sorted(await live(("old", "now"), ("all", "beginning"), ("new", "now"), text="b")) == [
        "all a", "all b", "new b", "old b",
    ]  # fmt: skip
    assert await live(text="c") == []  # The code has none any more: their places are kept for a while.
    assert sorted(await live(("old", "now"), ("all", "now"), text="d")) == ["all c", "all d", "old c", "old d"]
    assert await live(text="e") == []
    monkeypatch.setattr(subscriptions, "DETACHED_US", -1)
    assert await live(text="f") == []  # It finds them gone for longer than that.
    assert sorted(await live(("old", "now"), ("all", "beginning"), text="g")) == [
        "all a", "all b", "all c", "all d", "all e", "all f", "all g", "old g",
    ]  # fmt: skip


async def test_the_check_before_a_deployment_names_consumers_that_no_class_has_any_more() -> None:
    store = MemoryStore()
    before, _ = notes(("Mail", "now"), ("Audit", "beginning"))
    after, _ = notes(("Mail", "now"), ("audit", "now"))
    async with Harness(before, store=store) as app:
        front: Any = app.machine(before)
        await front.write("a")
        assert (await check_store(store, app.actors)).detached == []
        report = await check_store(store, Harness(after).actors)
        assert (report.detached, report.problems) == (["Notes.Audit/consume"], [])

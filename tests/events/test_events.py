# pyright: reportUnusedClass=false
# Classes here are refused while they are defined.

"""What is published reaches each subscription once, in order for each key, whatever ends in between (P1 to P4)."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pydantic
import pytest

from durably import (
    Context,
    DefinitionError,
    HandlerMistakeError,
    InvalidArgumentError,
    InvocationStatus,
    MemoryStore,
    ObjectContext,
    OverloadedError,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    Service,
    TerminalError,
    UnencodableError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    state,
)
from durably.actors.event_values import event_class
from durably.events import EventDeliveryError, PubSub, event, subscribe
from durably.storage.memory import Disk
from durably.storage.records import DamagedEvent, EventAnswer, EventQuery, Unreadable
from durably.testing import Harness, Simulation, for_each_crash_point, simulate


@dataclass
class Paid:
    order: str
    amount: int


class Shipped(msgspec.Struct):
    order: str


class Returned(pydantic.BaseModel):
    order: str
    reason: str = "none"


Any_ = Paid | Shipped | Returned
HEARD: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    HEARD.clear()


class Ledger(VirtualObject):
    orders: list[str] = state(default=[])

    @subscribe(Paid, Shipped, Returned, key=lambda event: event.order, start="beginning")
    async def note(self, ctx: ObjectContext, event: Any_) -> None:
        self.orders.append(repr(event))

    @handler
    async def read(self, ctx: ObjectContext) -> list[str]:
        return self.orders


class Desk(Service):
    @handler
    async def sell(self, ctx: Context, order: str, amount: int) -> None:
        await ctx.publish(Paid(order, amount), key=order)
        await ctx.publish(Shipped(order), Returned(order=order), key=order)
        if amount < 0:
            raise TerminalError("nobody pays less than nothing")

    @subscribe(Paid, Shipped)
    async def tell(self, ctx: Context, event: Paid | Shipped) -> None:
        await ctx.object(Diary, event.order).note(type(event).__name__)


class Diary(VirtualObject):
    heard: list[str] = state(default=[])

    @handler
    async def note(self, ctx: ObjectContext, what: str) -> None:
        self.heard.append(what)


async def shop(sim: Simulation) -> None:
    for number in range(2):
        await sim.service(Desk).sell.options(idempotency_key=f"sell {number}")(f"o{number}", number)
    await sim.publish(Paid("o0", 9), key="o0", idempotency_key="more")
    await sim.settle()
    expected = [repr(Paid("o0", 0)), repr(Shipped("o0")), repr(Returned(order="o0")), repr(Paid("o0", 9))]
    assert sim.snapshots[Ledger, "o0"].orders == expected
    assert sim.snapshots[Ledger, "o1"].orders == [repr(Paid("o1", 1)), repr(Shipped("o1")), repr(Returned(order="o1"))]
    assert sim.snapshots[Diary, "o1"].heard == ["Paid", "Shipped"], "a service is told in the order of a key"


def test_no_crash_loses_or_repeats_an_event() -> None:
    for_each_crash_point(shop, Ledger, Desk, Diary, place=("before_commit", "after_commit"))


def test_no_interleaving_loses_or_repeats_an_event() -> None:
    assert simulate(shop, Ledger, Desk, Diary, runs=10).crashes


class Careful(VirtualObject):
    @handler(atomic=True)
    async def sell(self, ctx: ObjectContext, order: str) -> None:
        await ctx.publish(Paid(order, 1), key=order)
        raise TerminalError("no")


async def test_what_an_atomic_handler_publishes_goes_with_its_failure_and_what_another_one_does_stands() -> None:
    async with Harness(Careful, Desk, Ledger, Diary) as app:
        with pytest.raises(TerminalError):
            await app.object(Careful, "1").sell("dropped")
        with pytest.raises(TerminalError):
            await app.service(Desk).sell("kept", -1)
        await app.settle()
        assert await app.object(Ledger, "dropped").read() == []
        assert len(await app.object(Ledger, "kept").read()) == 3


async def test_outside_publications_are_checked_and_done_once_for_a_key() -> None:
    async with Harness(Ledger) as app:
        for _ in range(2):
            await app.publish(Paid("a", 1), Shipped("a"), idempotency_key="k")
        await app.settle()
        assert await app.object(Ledger, "a").read() == [repr(Paid("a", 1)), repr(Shipped("a"))]
        with pytest.raises(UnencodableError):
            await app.publish(Paid("a", object()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        wrong = b'[{"name": "Paid", "value": {"order": "a"}}]'
        with pytest.raises(InvalidArgumentError, match="amount"):
            await app.call("durably.events", "publish", wrong)
        for nonsense in (Paid, {"order": "a"}, 3):
            with pytest.raises(TypeError, match="event"):
                await app.publish(nonsense)
        with pytest.raises(InvalidArgumentError):
            await app.publish(Paid("a", 1), stream="a/b")


async def test_a_publication_is_repeated_with_its_key_also_when_the_store_is_full() -> None:
    disk = Disk()
    async with Harness(store=MemoryStore(disk), pubsub=PubSub(limit_bytes=20)) as app:
        for _ in range(2):
            await app.publish(Paid("a", 1), idempotency_key="k")
        for key in ("new", None):
            with pytest.raises(OverloadedError, match="Nothing was published"):
                await app.publish(Paid("b", 1), idempotency_key=key)
        assert len(disk.events) == 1


async def test_streams_are_apart() -> None:
    class Listener(Service):
        @subscribe(Paid, stream="eu")
        async def hear(self, ctx: Context, event: Paid) -> None:
            await ctx.run("hear", HEARD.append, event.order)

    async with Harness(Listener, pubsub=PubSub(cluster="c", default_stream="us")) as app:
        await app.publish(Paid("us", 1))
        await app.publish(Paid("eu", 1), stream="eu")
        await app.settle()
        assert HEARD == ["eu"]
        assert [one.stream for one in await app.subscriptions()] == ["c/eu"]


def made(called: str, members: Mapping[str, Any] | None = None, **options: Any) -> type[Service]:
    """A service with these members."""
    own = {"__module__": __name__, **(members or {})}
    cls: type[Service] = types.new_class(called, (Service,), options, lambda body: body.update(own))
    return cls


def listeners(*named: tuple[str, Any]) -> type[Service]:
    """A version of the code: subscriptions by name and start."""

    def listener(name: str, start: Any) -> Any:
        async def hear(self: Any, ctx: Context, event: Paid) -> None:
            await ctx.run("hear", HEARD.append, f"{name} {event.order}")

        hear.__annotations__["ctx"] = Context
        return subscribe(Paid, name=name, start=start)(hear)

    members: dict[str, Any] = {}
    for name, start in named:
        members[name] = listener(name, start)
        members[name].attribute = members[name].name = name
    return made("Listeners", members)


async def test_a_subscription_begins_where_it_says_and_goes_on_where_it_was() -> None:
    disk = Disk()

    async def live(*named: tuple[str, Any], order: str, publishes: int = 1) -> list[str]:
        HEARD.clear()
        async with Harness(listeners(*named), store=MemoryStore(disk)) as app:
            for _ in range(publishes):
                await app.publish(Paid(order, 1), key=order)
            await app.settle()
            moments.append(app.clock.now())
            await app.advance(seconds=10)
        return sorted(HEARD)

    moments: list[int] = []
    assert await live(order="a", publishes=1_000) == []
    assert await live(("all", "beginning"), ("new", "now"), order="b") == ["all a"] * 1_000 + ["all b", "new b"]
    # Renamed: the old one is detached, the new one starts as it says.
    assert await live(("renamed", "now"), order="c") == ["renamed c"]
    assert await live(("all", "now"), ("new", "beginning"), order="d") == ["all c", "all d", "new c", "new d"]


def readers(method: str) -> tuple[type[Service], type[VirtualObject]]:
    """A version of the code: a service and an object whose subscribed methods are called like this in Python."""

    async def hear(self: Any, ctx: Any, event: Paid) -> None:
        await ctx.sleep(seconds=10)
        await ctx.run("hear", HEARD.append, f"{type(self).__name__} {event.amount}")

    def members(context: type[Context]) -> dict[str, Any]:
        own = types.FunctionType(hear.__code__, globals(), method)
        own.__annotations__, own.__qualname__ = {"ctx": context, "event": Paid, "return": None}, method
        return {"__module__": __name__, method: subscribe(Paid, name="read", key=_order_of)(own)}

    shelf: type[VirtualObject] = types.new_class(
        "Shelf", (VirtualObject,), {}, lambda body: body.update(members(ObjectContext))
    )
    return made("Readers", members(Context)), shelf


def _order_of(event: Paid) -> str:
    return event.order


async def test_a_method_that_is_renamed_under_its_name_gets_what_was_under_way() -> None:
    disk = Disk()
    for version, method in enumerate(("tell", "welcome")):
        async with Harness(*readers(method), store=MemoryStore(disk)) as app:
            for number in range(3):
                await app.publish(Paid("a", 3 * version + number))
            await app.settle()
            if version:
                await app.advance(minutes=2)
            assert [one.name for one in await app.subscriptions()] == ["Readers/read", "Shelf/read"]
    for name in ("Readers", "Shelf"):
        assert [one for one in HEARD if one.startswith(name)] == [f"{name} {number}" for number in range(6)]


async def test_a_subscribed_method_sends_to_its_own_service_and_object() -> None:
    class Self(Service):
        @handler
        async def note(self, ctx: Context, what: str) -> None:
            await ctx.run("note", HEARD.append, what)

        @subscribe(Paid)
        async def hear(self, ctx: Context, event: Paid) -> None:
            await self.note.send(f"service {event.order}")

    class Itself(VirtualObject):
        @handler
        async def note(self, ctx: ObjectContext, what: str) -> None:
            await ctx.run("note", HEARD.append, f"{what} {self.key}")

        @subscribe(Paid, key=_order_of)
        async def hear(self, ctx: ObjectContext, event: Paid) -> None:
            await self.note.send("object")

    async with Harness(Self, Itself) as app:
        await app.publish(Paid("a", 1), Paid("b", 1), key="k")
        await app.settle()
        assert sorted(HEARD) == ["object a", "object b", "service a", "service b"]


async def test_a_subscription_may_begin_at_a_moment() -> None:
    disk = Disk()
    async with Harness(listeners(), store=MemoryStore(disk)) as app:
        await app.publish(Paid("early", 1))
        await app.advance(hours=1)
        middle = datetime.fromtimestamp(app.clock.now() / 1_000_000, UTC)
        await app.publish(Paid("late", 1))
    async with Harness(listeners(("since", middle)), store=MemoryStore(disk)) as app:
        await app.settle()
    assert HEARD == ["since late"]


class Brief(Service):
    works_seconds = 1

    @subscribe(Paid, timeout=5)
    async def hear(self, ctx: Context, event: Paid) -> None:
        await ctx.sleep(seconds=Brief.works_seconds)
        await ctx.run("hear", HEARD.append, event.order)


async def test_the_time_of_a_subscribed_handler_counts_from_when_the_event_becomes_a_message() -> None:
    async with Harness(Brief) as app:
        Brief.works_seconds = 1
        await app.pause_subscription("Brief/hear")
        await app.publish(Paid("a", 1))
        await app.advance(hours=1)
        await app.crash()
        await app.advance(hours=1)
        await app.resume_subscription("Brief/hear")
        await app.advance(seconds=2)
        assert HEARD == ["a"], "an event may be older than the timeout"
        Brief.works_seconds = 60
        await app.publish(Paid("b", 1))
        await app.advance(seconds=10)
        [letter] = [one async for one in app.dead_letters()]
        assert "deadline passed" in letter.reason
        Brief.works_seconds = 1
        await app.advance(hours=1)
        await app.retry_dead_letter(letter.id)
        await app.advance(seconds=2)
        assert HEARD == ["a", "b"], "a dead letter that is tried again has all of its time again"


async def test_events_that_wait_at_the_limit_in_flight_lose_no_time() -> None:
    Brief.works_seconds = 4
    async with Harness(Brief, pubsub=PubSub(in_flight=1)) as app:
        for order in "abc":
            await app.publish(Paid(order, 1), key="one")
        await app.advance(seconds=20)
        assert HEARD == ["a", "b", "c"]
        assert [one async for one in app.dead_letters()] == []


class Flaky(Service):
    broken = True
    patience: RetryPolicy = RetryPolicy(max_attempts=2, then="fail")

    @subscribe(Paid, retry=patience)
    async def hear(self, ctx: Context, event: Paid) -> None:
        if event.amount < 0 and Flaky.broken:
            raise ValueError("less than nothing")
        await ctx.run("hear", HEARD.append, f"{event.order} {event.amount}")


async def test_an_event_that_is_given_up_is_a_dead_letter_which_is_tried_again_or_dropped() -> None:
    Flaky.broken = True
    async with Harness(Flaky, retry=RetryPolicy()) as app:
        for amount in (1, -2, 3, -4):
            await app.publish(Paid("a", amount), key="a")
        await app.advance(minutes=1)
        assert HEARD == ["a 1", "a 3"], "it holds up nothing"
        await app.crash()
        letters = [one async for one in app.dead_letters("Flaky/hear")]
        assert [(one.event, one.key, one.value, one.reason) for one in letters] == [
            ("Paid", "a", b'{"order":"a","amount":-2}', "ValueError: less than nothing"),
            ("Paid", "a", b'{"order":"a","amount":-4}', "ValueError: less than nothing"),
        ]
        Flaky.broken = False
        await app.retry_dead_letter(letters[0].id)
        await app.drop_dead_letter(letters[1].id)
        await app.settle()
        assert HEARD == ["a 1", "a 3", "a -2"]
        assert [one async for one in app.dead_letters()] == []
        with pytest.raises(UnknownTargetError):
            await app.retry_dead_letter(letters[0].id)


async def test_a_damaged_dead_letter_is_listed_and_can_only_be_dropped() -> None:
    Flaky.broken, disk = True, Disk()
    async with Harness(Flaky, store=MemoryStore(disk)) as app:
        await app.publish(Paid("a", -1))
        await app.advance(minutes=1)
        for position, one in [*disk.events.items()]:
            disk.events[position] = msgspec.structs.replace(one, value=b"{dam")
        [letter] = [one async for one in app.dead_letters()]
        with pytest.raises(EventDeliveryError, match="damaged"):
            await app.retry_dead_letter(letter.id)
        await app.drop_dead_letter(letter.id)
        assert [one async for one in app.dead_letters()] == []


@pytest.mark.parametrize("crashes", [False, True])
async def test_an_event_that_waits_for_a_person_holds_up_its_key_alone(crashes: bool) -> None:
    Flaky.broken = True

    class Patient(Service):
        @subscribe(Paid, retry=RetryPolicy(max_attempts=1))
        async def hear(self, ctx: Context, event: Paid) -> None:
            if event.amount < 0 and Flaky.broken:
                raise ValueError("less than nothing")
            await ctx.run("hear", HEARD.append, f"{event.order} {event.amount}")

    async with Harness(Patient, pubsub=PubSub(in_flight=2)) as app:
        await app.publish(Paid("bad", -1), key="bad")
        if crashes:
            with pytest.raises(ValueError, match="less than nothing"):
                await app.settle()
            await app.crash()
        for amount in (2, 3, 4):
            await app.publish(Paid("bad", amount), key="bad")
        for amount in range(5):
            await app.publish(Paid("good", amount), key="good")
        with suppress(ValueError):
            await app.settle()
        await app.settle()
        assert [f"good {amount}" for amount in range(5)] == HEARD, "what is behind it does not count as in flight"
        queued = [one.id async for one in app.invocations(status=InvocationStatus.PENDING)]
        assert await app.kill(queued[-1])
        for amount in range(5, 8):
            await app.publish(Paid("good", amount), key="good")
        await app.settle()
        assert len(HEARD) == 8, "nor do they when one of them is killed"
        Flaky.broken = False
        assert await app.resume("Patient.hear")
        await app.settle()
        assert HEARD[8:] == ["bad -1", "bad 2", "bad 3"]


async def test_what_is_behind_a_resumed_message_counts_as_in_flight_again() -> None:
    Flaky.broken = True

    class Slow(Service):
        @subscribe(Paid, retry=RetryPolicy(max_attempts=1))
        async def hear(self, ctx: Context, event: Paid) -> None:
            if Flaky.broken:
                raise ValueError("not yet")
            await ctx.sleep(hours=1)

    async with Harness(Slow, pubsub=PubSub(in_flight=3)) as app:
        await app.publish(Paid("a", 1), key="a")
        with pytest.raises(ValueError, match="not yet"):
            await app.settle()
        Flaky.broken = False
        assert await app.resume("Slow.hear")
        for amount in range(20):
            await app.publish(Paid("a", amount), key="a")
        await app.settle()
        assert [(one.behind, one.in_flight) for one in await app.subscriptions()] == [(18, 3)]


async def test_no_more_messages_of_a_subscription_are_under_way_than_its_runtime_says() -> None:
    class Slow(Service):
        @subscribe(Paid)
        async def hear(self, ctx: Context, event: Paid) -> None:
            HEARD.append(event.order)
            await ctx.sleep(seconds=1)

    async with Harness(Slow, pubsub=PubSub(in_flight=3)) as app:
        for number in range(10):
            await app.publish(Paid(str(number), 1))
        await app.settle()
        assert len(HEARD) == 3
        assert [one.behind for one in await app.subscriptions()] == [7]
        await app.advance(seconds=30)
        assert sorted({*HEARD}) == [str(number) for number in range(10)]


@pytest.mark.parametrize("crashes", [False, True])
async def test_no_more_are_under_way_when_a_runtime_has_come_back_again_and_again(crashes: bool) -> None:
    disk = Disk()

    class Slow(Service):
        @subscribe(Paid, start="beginning")
        async def hear(self, ctx: Context, event: Paid) -> None:
            await ctx.sleep(seconds=1)
            await ctx.run("hear", HEARD.append, event.order)

    for restart in range(4):
        async with Harness(Slow, store=MemoryStore(disk), pubsub=PubSub(in_flight=3)) as app:
            if not restart:
                for number in range(10):
                    await app.publish(Paid(str(number), 1), key=str(number % 5))
            await app.settle()
            if crashes:
                await app.crash()
                await app.settle()
            assert [(one.behind, one.in_flight) for one in await app.subscriptions()] == [(7, 3)]
    async with Harness(Slow, store=MemoryStore(disk), pubsub=PubSub(in_flight=3)) as app:
        await app.advance(seconds=30)
        assert [(one.behind, one.in_flight) for one in await app.subscriptions()] == [(0, 0)]
        assert sorted(HEARD) == [str(number) for number in range(10)]


async def test_what_is_held_up_when_a_runtime_comes_back_counts_when_it_is_resumed() -> None:
    Flaky.broken = True

    class Slow(Service):
        @subscribe(Paid, retry=RetryPolicy(max_attempts=1))
        async def hear(self, ctx: Context, event: Paid) -> None:
            if event.amount < 0 and Flaky.broken:
                raise ValueError("not yet")
            await ctx.sleep(hours=1)

    async with Harness(Slow, pubsub=PubSub(in_flight=4)) as app:
        await app.publish(*(Paid("a", amount) for amount in (-1, 2, 3)), key="a")
        with pytest.raises(ValueError, match="not yet"):
            await app.settle()
        await app.publish(Paid("b", 1), key="b")
        await app.settle()
        for _ in range(2):
            await app.crash()
            await app.settle()
            assert [(one.behind, one.in_flight) for one in await app.subscriptions()] == [(0, 1)]
        Flaky.broken = False
        assert await app.resume("Slow.hear")
        await app.publish(*(Paid("c", amount) for amount in range(5)), key="c")
        await app.settle()
        assert [(one.behind, one.in_flight) for one in await app.subscriptions()] == [(5, 4)]
        await app.advance(hours=30)
        assert [(one.behind, one.in_flight) for one in await app.subscriptions()] == [(0, 0)]


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("goes_on", ["resume", "cancel", "kill"])
async def test_events_behind_a_paused_handler_of_their_object_hold_no_others_up(goes_on: str, crashes: bool) -> None:
    Flaky.broken = True

    class Board(VirtualObject):
        @handler
        async def edit(self, ctx: ObjectContext) -> None:
            await ctx.sleep(seconds=1)
            if Flaky.broken:
                raise HandlerMistakeError("not yet")

        @subscribe(Paid, key=lambda event: event.order)
        async def hear(self, ctx: ObjectContext, event: Paid) -> None:
            await ctx.sleep(seconds=1)
            await ctx.run("hear", HEARD.append, f"{event.order} {event.amount}")

    async def now() -> tuple[int | None, int]:
        await app.settle()
        (one,) = await app.subscriptions()
        return one.behind, one.in_flight

    async with Harness(Board, pubsub=PubSub(in_flight=2)) as app:
        edit = await app.object(Board, "a").edit.send()
        await app.publish(Paid("a", 1), Paid("a", 2), Paid("a", 3), Paid("b", 1))
        assert await now() == (2, 2)
        with pytest.raises(HandlerMistakeError):
            await app.advance(seconds=1)
        if crashes:
            await app.crash()
        assert await now() == (0, 1), "what waits behind it does not count"
        await app.advance(seconds=1)
        assert HEARD == ["b 1"]
        assert await now() == (0, 0)
        Flaky.broken = False
        match goes_on:
            case "resume":
                assert await app.resume(edit.id)
            case "cancel":
                assert await app.cancel(edit.id)
            case _:
                assert await app.kill(edit.id)
        await app.publish(Paid("c", 1))
        assert await now() == (1, 3), "and counts again when that goes on"
        await app.advance(seconds=30)
        assert await now() == (0, 0)
        assert [one for one in HEARD if one[0] == "a"] == ["a 1", "a 2", "a 3"]
        assert sorted(HEARD) == ["a 1", "a 2", "a 3", "b 1", "c 1"]


async def test_events_go_when_they_are_old_and_every_subscription_is_past_them() -> None:
    disk = Disk()
    kept = PubSub(retention=timedelta(days=1), limit_bytes=400)
    code = listeners(("one", "now"), ("two", "now"))
    async with Harness(code, store=MemoryStore(disk), pubsub=kept) as app:
        await app.pause_subscription("Listeners/two")
        await app.publish(Paid("a", 1), key="a")
        await app.advance(days=2)
        assert len(disk.events) == 1, "one that is paused has not been given it"
        await app.crash()
        await app.resume_subscription("Listeners/two")
        await app.advance(hours=3)
        assert not disk.events
        assert sorted({*HEARD}) == ["one a", "two a"]
        await app.pause_subscription("Listeners/two")
        await app.publish(*[Paid("b" * 50, 1)] * 10)
        with pytest.raises(OverloadedError, match="limit_bytes"):
            await app.publish(Paid("b", 1))
        await app.resume_subscription("Listeners/two")
        await app.advance(days=2)
        await app.publish(Paid("c", 1))


async def test_a_subscription_that_is_gone_from_the_code_holds_events_for_seven_days_of_one_long_run() -> None:
    disk = Disk()
    kept = PubSub(retention=timedelta(days=1))
    async with Harness(listeners(("one", "now"), ("gone", "now")), store=MemoryStore(disk)) as app:
        await app.settle()
    async with Harness(listeners(("one", "now")), store=MemoryStore(disk), pubsub=kept) as app:
        await app.publish(Paid("a", 1))
        await app.advance(days=6)
        assert len(disk.events) == 1
        await app.crash()
        await app.advance(days=2)
        assert not disk.events
    async with Harness(listeners(("one", "now"), ("gone", "beginning")), store=MemoryStore(disk)) as app:
        await app.publish(Paid("b", 1))
        await app.settle()
    assert sorted(HEARD) == ["gone b", "one a", "one b"]


class Damaged(MemoryStore):
    """Events of some orders cannot be read."""

    def __init__(self, disk: Disk, *lost: str, is_json: bool = False) -> None:
        super().__init__(disk)
        self._lost = [f'"order":"{order}"'.encode() for order in lost]
        self._is_json = is_json

    async def events(self, query: EventQuery, /) -> EventAnswer:
        answer = await super().events(query)
        lost = [one for one in answer.events if any(order in one.value for order in self._lost)]
        if self._is_json:
            return EventAnswer(
                [msgspec.structs.replace(one, value=b"{dam") if one in lost else one for one in answer.events]
            )
        damaged = [
            DamagedEvent(msgspec.structs.replace(one, value=b""), Unreadable(f"event {one.id}", "It is damaged."))
            for one in lost
        ]
        return EventAnswer([one for one in answer.events if one not in lost], damaged)


@pytest.mark.parametrize("is_json", [True, False])
async def test_a_damaged_event_pauses_its_subscription_where_it_stands_until_it_is_passed_over(is_json: bool) -> None:
    disk = Disk()
    store, kept = Damaged(disk, "2", "3", is_json=is_json), PubSub(retention=timedelta(days=1))
    code = listeners(("one", "now"))
    async with Harness(code, store=store, pubsub=kept) as app:
        await app.pause_subscription("Listeners/one")
        for number in range(6):
            await app.publish(Paid(str(number), 1), key="k")
        await app.resume_subscription("Listeners/one")
        await app.settle()
        assert HEARD == ["one 0", "one 1"]
        await app.resume_subscription("Listeners/one")
        await app.settle()
        assert HEARD == ["one 0", "one 1"], "it is not passed over by itself"
        await app.crash()
        for left in (4, 3):
            [state] = await app.subscriptions()
            assert (state.status, state.behind) == ("paused", left)
            assert "cannot be read" in (state.reason or "")
            assert await app.resume_subscription("Listeners/one", pass_over=True)
            await app.settle()
        assert [f"one {number}" for number in (0, 1, 4, 5)] == HEARD
        [state] = await app.subscriptions()
        assert (state.status, state.reason) == ("on", None)
        await app.advance(days=3)
        assert not disk.events, "damaged ones are forgotten too"


class Busy(MemoryStore):
    """Something happens between a read of a stream that has no events any more, and its answer."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []

    async def events(self, query: EventQuery, /) -> EventAnswer:
        answer = await super().events(query)
        if self.meanwhile and not answer.events:
            await self.meanwhile.pop()()
        return answer


async def test_what_is_published_while_the_store_is_read_for_retention_counts_and_goes_too() -> None:
    disk = Disk()
    store, kept = Busy(disk), PubSub(retention=timedelta(days=1), limit_bytes=400)
    async with Harness(store=store, pubsub=kept) as app:

        async def publish() -> None:
            await app.publish(*[Paid("b" * 50, 1)] * 3)
            await app.publish(*[Paid("c" * 50, 1)] * 3, stream="another one")

        await app.publish(Paid("a", 1))
        store.meanwhile.append(publish)
        await app.advance(hours=25)
        assert not store.meanwhile
        assert len(disk.events) == 6
        with pytest.raises(OverloadedError, match="limit_bytes"):
            await app.publish(Paid("d", 1))
        await app.advance(days=2)
        assert not disk.events
        await app.publish(Paid("e", 1))


async def test_what_one_subscription_held_back_goes_when_it_has_moved_however_young_other_streams_are() -> None:
    disk = Disk()
    async with Harness(
        listeners(("one", "now")), store=MemoryStore(disk), pubsub=PubSub(retention=timedelta(days=1))
    ) as app:
        await app.pause_subscription("Listeners/one")
        await app.publish(Paid("a", 1))
        await app.advance(hours=23)
        await app.publish(Paid("b", 1), stream="young")
        await app.advance(hours=2)
        assert len(disk.events) == 2
        await app.resume_subscription("Listeners/one")
        await app.advance(hours=2)
        assert [one.stream for one in disk.events.values()] == ["default/young"]


def versions(*fields: Any) -> type[Any]:
    made: type[Any] = make_dataclass("Booked", fields)
    return event("Booked")(made)


async def test_an_event_of_an_older_class_is_read_by_todays_if_it_fits_and_is_a_dead_letter_if_not() -> None:
    disk, old = Disk(), versions(("room", str))
    assert event_class(old).version == event_class(versions(("room", str))).version, "a version is of the structure"

    def code(cls: type[Any]) -> type[Service]:
        async def hear(self: Any, ctx: Context, event: Any) -> None:
            await ctx.run("hear", HEARD.append, repr(event))

        hear.__annotations__["ctx"] = Context
        subscribed: Any = subscribe(cls)(hear)
        return made("Hotel", {"hear": subscribed})

    async with Harness(code(old), store=MemoryStore(disk)) as app:
        await app.pause_subscription("Hotel/hear")
        await app.publish(old(room="1"))

    wider = versions(("room", str), ("beds", int, dataclasses.field(default=2)))
    async with Harness(code(wider), store=MemoryStore(disk)) as app:
        await app.resume_subscription("Hotel/hear")
        await app.settle()
        assert HEARD == ["Booked(room='1', beds=2)"]
        await app.pause_subscription("Hotel/hear")
    async with Harness(code(old), store=MemoryStore(disk)) as app:
        await app.publish(old(room="2"))
    other = versions(("floor", int))
    async with Harness(code(other), store=MemoryStore(disk)) as app:
        await app.resume_subscription("Hotel/hear")
        await app.settle()
        [letter] = [one async for one in app.dead_letters()]
        assert letter.value == b'{"room":"2"}'
        for version in (event_class(old).version, event_class(other).version):
            assert version in letter.reason


def _key_of(event: Paid) -> str:
    if not event.amount:
        raise ValueError("nothing was paid")
    return event.order


async def test_an_event_for_which_there_is_no_object_is_a_dead_letter() -> None:
    class Picky(VirtualObject):
        @subscribe(Paid, key=_key_of)
        async def hear(self, ctx: ObjectContext, event: Paid) -> None:
            HEARD.append(self.key)

    async with Harness(Picky) as app:
        await app.publish(Paid("", 1), Paid("a", 0), Paid("b", 1))
        await app.settle()
        reasons = [one.reason async for one in app.dead_letters("Picky/hear")]
        assert "not empty" in reasons[0]
        assert "nothing was paid" in reasons[1]
        assert {*HEARD} == {"b"}


async def test_no_size_of_an_event_that_is_published_ends_the_runtime() -> None:
    class Wide(Service):
        @subscribe(Paid)
        async def hear(self, ctx: Context, event: Paid) -> None:
            if event.amount:
                raise TerminalError("no" * 30_000)
            await ctx.run("hear", HEARD.append, event.order[:1])

    class Author(Service):
        @handler
        async def write(self, ctx: Context, size: int, amount: int) -> None:
            await ctx.publish(Paid("x" * size, amount), key="\n" * 100)

    limit = 80_000
    async with Harness(Wide, Author, store=MemoryStore(value_limit_bytes=limit)) as app:
        published = 0
        for size in range(limit - 3_000, limit, 150):
            with suppress(PausedInvocationError):
                await app.service(Author).write(size, published % 2)
                published += 1
            with pytest.raises(InvalidArgumentError, match="cannot be stored"):
                await app.publish(Paid("x" * size, 0))
            await app.settle()
        letters = [one async for one in app.dead_letters()]
        assert 0 < published == len(HEARD) + len(letters)
        assert all(one.reason.startswith("nono") and len(one.value) > limit - 3_000 for one in letters)


@dataclass
class Parcel:
    content: Content


class Depot(Service):
    @subscribe(Parcel)
    async def store(self, ctx: Context, event: Parcel) -> None:
        await ctx.run("store", HEARD.append, event.content.what)


@dataclass
class Content:
    what: str


@dataclass
class Unknown:
    field: Nowhere  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


async def test_a_field_of_an_event_may_be_of_a_class_that_is_defined_further_down() -> None:
    async with Harness(Depot) as app:
        await app.publish(Parcel(Content("hat")))
        await app.settle()
        assert HEARD == ["hat"]

    class Lost(Service):
        @subscribe(Unknown)
        async def hear(self, ctx: Context, event: Unknown) -> None: ...

    with pytest.raises(DefinitionError, match="Nowhere"):
        Harness(Lost)


async def test_a_key_that_no_store_takes_is_a_dead_letter() -> None:
    class Long(VirtualObject):
        @subscribe(Paid, key=_order_of)
        async def hear(self, ctx: ObjectContext, event: Paid) -> None:
            HEARD.append(self.key[:1])

    async with Harness(Long, store=MemoryStore(value_limit_bytes=100_000)) as app:
        for size in (1, 10_000, 50_000, 70_000):
            await app.publish(Paid("k" * size, 1))
            await app.settle()
        assert {*HEARD} == {"k"}
        reasons = [one.reason async for one in app.dead_letters("Long/hear")]
        assert [reason.partition(":")[0] for reason in reasons] == [
            "The key and the headers for Long/hear cannot be stored"
        ] * 3
        letter = await anext(app.dead_letters())
        with pytest.raises(EventDeliveryError, match="cannot be stored"):
            await app.retry_dead_letter(letter.id)


def test_what_cannot_work_is_told_with_a_sentence() -> None:
    untyped: Any = subscribe
    with pytest.raises(DefinitionError, match="classes of events"):
        untyped()
    with pytest.raises(DefinitionError, match="cannot be an event"):
        subscribe(dict)
    with pytest.raises(DefinitionError, match="time zone"):
        untyped(Paid, start="tomorrow")

    class Keyless(VirtualObject):
        @subscribe(Paid)
        async def hear(self, ctx: ObjectContext, event: Paid) -> None: ...

    for key in ("name", 5, str, ["name"]):
        with pytest.raises(DefinitionError, match="is a function that makes a key of an event"):
            untyped(Paid, key=key)
    with pytest.raises(DefinitionError, match="which object"):
        Harness(Keyless)

    with pytest.raises(DefinitionError, match="two handlers named 'tell'"):

        class Twice(Service):
            @subscribe(Paid, name="tell")
            async def hear(self, ctx: Context, event: Paid) -> None: ...

            @subscribe(Shipped)
            async def tell(self, ctx: Context, event: Shipped) -> None: ...

    class Once(Workflow):
        @handler
        async def run(self, ctx: WorkflowContext) -> None: ...

    with pytest.raises(DefinitionError, match="taken"):
        Harness(made("Taken", name="durably.events"))


@pytest.mark.parametrize("name", ["gap", "", "two\nlines", "a\rb", "\x00", "\u2028"])
async def test_a_name_that_no_stream_of_events_can_show_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError):
        event(name)
    async with Harness() as app:
        with pytest.raises(TypeError, match="'gap'"):
            await app.publish(make_dataclass("gap", ["field"])(1))
        body = msgspec.json.encode([{"name": name, "value": {}}])
        with pytest.raises(TerminalError, match="name of an event"):
            await app.call("durably.events", "publish", body)


def paid(fields: list[tuple[str, Any]], where: str) -> type[Any]:
    """Another class of that name."""
    made = make_dataclass("Paid", fields)
    made.__module__ = where
    return made


async def test_two_classes_of_events_of_one_name_are_refused_where_the_runtime_is_made() -> None:
    other = paid([("order", str), ("amount", int)], "billing")

    class Second(Service):
        @subscribe(other)
        async def hear(self, ctx: Context, event: Any) -> None: ...

    class Third(Service):
        @subscribe(Paid, Shipped)
        async def hear(self, ctx: Context, event: Paid | Shipped) -> None: ...

    told = r"tests\.events\.test_events\.Paid and billing\.Paid are both called 'Paid'.*Use one class, or name one"
    with pytest.raises(DefinitionError, match=told):
        Harness(Ledger, Second)
    with pytest.raises(DefinitionError, match=told):
        subscribe(Paid, other)
    async with Harness(Ledger, Third) as app:  # The same class is no clash.
        with pytest.raises(DefinitionError, match=told):
            await app.subscribe(lambda event: None, other)


async def test_an_event_of_another_class_of_the_name_that_is_subscribed_to_is_not_published() -> None:
    other = paid([("order", str), ("amount", int), ("currency", str)], "billing")
    told = r"tests\.events\.test_events\.Paid and billing\.Paid are both called 'Paid'"

    class Billing(Service):
        @handler
        async def bill(self, ctx: Context) -> str:
            try:
                await ctx.publish(Shipped("a"), other("a", 1, "EUR"), key="a")
            except TypeError as error:
                return str(error)
            return "published"

    async with Harness(Ledger, Billing) as app:
        with pytest.raises(TypeError, match=told):
            await app.publish(other("a", 1, "EUR"))
        assert re.search(told, await app.service(Billing).bill())
        assert await app.object(Ledger, "a").read() == []
    async with Harness(Billing) as app:  # Nothing here reads it as another class.
        assert await app.service(Billing).bill() == "published"


async def test_what_is_published_costs_a_codec_no_more_than_it_holds() -> None:
    encoded: list[int] = []

    class Counting:
        """Says nothing of how it encodes, so each value is given to it beforehand."""

        def encode(self, value: bytes) -> bytes:
            encoded.append(len(value))
            return value[::-1]

        def decode(self, value: bytes) -> bytes:
            return value[::-1]

    class Shop(Service):
        @handler
        async def sell(self, ctx: Context) -> None:
            await ctx.publish(Paid("a", 2))

    async with Runtime(MemoryStore(), [Shop], codec=Counting()) as app:
        await app.publish(Paid("a", 1))
        await app.service(Shop).sell()
    assert encoded
    assert max(encoded) < 10_000

"""Rule E4: invocations that wait for nothing but each other; the newest call of them gets a `DeadlockError`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from durably import (
    DeadlockError,
    ObjectContext,
    RetryPolicy,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.ids import Address
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.wait_graph import Wait, WaitGraph
from durably.storage.memory import MemoryStore
from durably.testing import Harness, StandstillError
from tests.semantics.support import PuppetStore, World, begin, engine_of, tuned, turns
from workloads.circles import DEADLOCK, DONE, LATE, Link, Server, Visit


class Ticket(VirtualObject, name="Ticket"):
    @handler
    async def reserve(self, ctx: ObjectContext, cart: str) -> str:
        return await ctx.object(Cart, cart).notify()


class Cart(VirtualObject, name="Cart"):
    notified: int = state(default=0)

    @handler
    async def checkout(self, ctx: ObjectContext, ticket: str) -> str:
        return await ctx.object(Ticket, ticket).reserve(self.key)

    @handler
    async def notify(self, ctx: ObjectContext) -> str:
        self.notified += 1
        return "notified"

    @shared
    async def count(self, ctx: SharedContext) -> int:
        return self.notified


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_the_error_names_the_circle_and_its_message_is_gone(suspend_after: float) -> None:
    store = MemoryStore()
    async with Harness(Cart, Ticket, store=store, suspend_after=suspend_after) as app:
        with pytest.raises(DeadlockError, match=r"Cart/mary/checkout -> Ticket/2B/reserve -> Cart/mary/notify") as told:
            await app.object(Cart, "mary").checkout("2B")
        assert told.value.code == 508
        assert told.value.cycle == ("Cart/mary/checkout", "Ticket/2B/reserve", "Cart/mary/notify")
        assert await app.object(Cart, "mary").count() == 0
        await app.settle()
        assert not store.disk.rows


def hold(number: int, key: str, *stages: tuple[Visit, ...], **more: Any) -> Visit:
    return Visit(number, "hold", key, stages=stages, **more)


def harness(**more: Any) -> Harness:
    return Harness(Link, Server, **more)


async def test_a_circle_through_a_service_and_a_shared_handler_is_one() -> None:
    looks = Visit(3, "look", "a", stages=((hold(4, "a"),),))
    async with harness() as app:
        told = await app.object(Link, "a").hold(hold(1, "a", (Visit(2, "serve", stages=((looks,),)),)))
        assert told == {"2": DONE, "3": DONE, "4": DEADLOCK}


async def test_of_two_who_want_what_the_other_holds_the_one_who_asked_last_gives_way() -> None:
    async with harness() as app:
        first = begin(app.object(Link, "a").hold(hold(1, "a", (hold(2, "b"),), seconds=1)))
        second = begin(app.object(Link, "b").hold(hold(3, "b", (hold(4, "a"),), seconds=2)))
        await app.advance(2)
        assert (await first, await second) == ({"2": DONE}, {"4": DEADLOCK})
        assert [(await app.state(Link, key))["held"] for key in "ab"] == [[1], [3, 2]]


async def test_a_limit_is_no_deadlock_until_it_has_passed() -> None:
    """A pending timer makes it none; a call that was given up is waited for by no one."""
    hurried = hold(2, "b", (hold(3, "a", how="hurry"),))
    async with harness() as app:
        going = begin(app.object(Link, "a").hold(hold(1, "a", (hurried,))))
        await app.settle()
        assert not going.done()
        await app.advance(5)
        assert await going == {"2": DONE, "3": LATE}


async def test_an_action_under_way_makes_it_no_deadlock() -> None:
    world = World()

    class Actor(VirtualObject, name="CirclesActor"):
        @handler
        async def go(self, ctx: ObjectContext) -> list[str]:
            call = ctx.object(Actor, self.key).other()
            answers = await asyncio.gather(ctx.run("work", world.act, "work"), call, return_exceptions=True)
            return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]

        @handler
        async def other(self, ctx: ObjectContext) -> str:
            return "other"

    async with Harness(Actor) as app:
        going = begin(app.object(Actor, "a").go())
        await turns()
        assert not going.done()
        world.end("work")
        assert await going == ["work done", "DeadlockError"]


async def test_one_of_two_calls_that_may_come_back_makes_it_no_deadlock_before_it_has() -> None:
    branches = (hold(2, "b", (hold(3, "a"),)), Visit(4, "serve", seconds=10))
    async with harness() as app:
        going = begin(app.object(Link, "a").hold(hold(1, "a", branches)))
        await app.advance(9)
        assert (await app.state(Link, "b")).get("held", []) == []
        await app.advance(1)
        assert await going == {"2": DONE, "3": DEADLOCK, "4": DONE}


async def test_who_waits_for_two_objects_that_both_wait_for_it_goes_on_when_both_were_told() -> None:
    branches = (hold(2, "b", (hold(3, "a"),)), hold(4, "c", (hold(5, "a"),)))
    async with harness() as app:
        told = await app.object(Link, "a").hold(hold(1, "a", branches))
        assert told == {"2": DONE, "3": DEADLOCK, "4": DONE, "5": DEADLOCK}


class Peer(VirtualObject, name="CirclesPeer"):
    """Waits in ways that a `Visit` does not know."""

    broken = False

    @handler
    async def wait_for_other(self, ctx: ObjectContext, other: str, seconds: float) -> str:
        await ctx.sleep(seconds)
        try:
            return await ctx.object(Peer, other).wait_for_other.options(idempotency_key=other).attach()
        except DeadlockError as error:
            return " -> ".join(error.cycle)

    @handler
    async def wait_for_delayed(self, ctx: ObjectContext) -> str:
        sent = await ctx.object(Peer, self.key).name.after(10).send()
        try:
            return await sent.result()
        except DeadlockError:
            return "deadlock"

    @handler
    async def go_around(self, ctx: ObjectContext, other: str) -> str:
        return await ctx.object(Peer, other).come_back(self.key)

    @handler
    async def come_back(self, ctx: ObjectContext, key: str) -> str:
        call = asyncio.ensure_future(ctx.object(Peer, key).name())
        await ctx.sleep(1)
        if Peer.broken:
            raise RuntimeError("not yet")
        try:
            return await call
        except DeadlockError:
            return "deadlock"

    @handler
    async def come_back_later(self, ctx: ObjectContext, key: str) -> str:
        await ctx.sleep(10)
        try:
            return await ctx.object(Peer, key).name()
        except DeadlockError:
            return "deadlock"

    @handler
    async def ask_by_key(self, ctx: ObjectContext, other: str) -> list[str]:
        """Ask its own object, and another one that asks it with the same key."""
        calls = [ctx.object(Peer, self.key).name.options(idempotency_key="k")()]
        if other:
            calls.append(ctx.object(Peer, other).join_by_key(self.key))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]

    @handler
    async def join_by_key(self, ctx: ObjectContext, other: str) -> str:
        return await ctx.object(Peer, other).name.options(idempotency_key="k")()

    @handler
    async def wait_for_id(self, ctx: ObjectContext, id: str) -> str:
        return await ctx.invocation(id, str).result()

    @handler
    async def name(self, ctx: ObjectContext) -> str:
        return self.key


@pytest.fixture(autouse=True)
def mended() -> Iterator[None]:
    yield
    Peer.broken = False


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_two_that_attach_to_each_other_are_a_circle(suspend_after: float) -> None:
    async with Harness(Peer, suspend_after=suspend_after) as app:
        first = await app.object(Peer, "a").wait_for_other.options(idempotency_key="a").send("b", 1.0)
        second = await app.object(Peer, "b").wait_for_other.options(idempotency_key="b").send("a", 2.0)
        await app.advance(2)
        circle = "CirclesPeer/a/wait_for_other -> CirclesPeer/b/wait_for_other -> CirclesPeer/a/wait_for_other"
        assert await first.result() == await second.result() == circle


@pytest.mark.parametrize("crashes", [0, 1])
async def test_ones_own_delayed_message_is_waited_for_until_it_is_due_and_queued(crashes: int) -> None:
    async with Harness(Peer) as app:
        going = await app.object(Peer, "a").wait_for_delayed.send()
        await app.advance(9)
        for _ in range(crashes):
            await app.crash()
        assert (await app.object(Peer, "b").name(), await going.status()) == ("b", "suspended")
        await app.advance(1)
        assert await going.result() == "deadlock"


async def test_a_call_by_key_that_others_joined_is_told_to_each_in_the_circle_and_its_message_stays() -> None:
    async with Harness(Peer) as app:
        inside = await app.object(Peer, "a").ask_by_key("b")
        assert inside == ["DeadlockError", "DeadlockError"]
        assert await app.object(Peer, "a").name.options(idempotency_key="k")() == "a"


async def test_a_message_with_a_key_stays_since_others_may_count_on_it() -> None:
    async with Harness(Peer) as app:
        asking = begin(app.object(Peer, "c").ask_by_key(""))
        joining = begin(app.object(Peer, "d").join_by_key("c"))
        assert (await asking, await joining) == (["DeadlockError"], "c")
        assert await app.object(Peer, "e").ask_by_key("") == ["DeadlockError"]
        assert await app.object(Peer, "e").name.options(idempotency_key="k").attach() == "e"


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_an_id_that_leads_to_an_earlier_invocation_is_followed(suspend_after: float) -> None:
    """Who repeats a keyed call has an id of its own for it."""
    store = MemoryStore()

    class Asker(VirtualObject, name="CirclesAsker"):
        @handler
        async def ask(self, ctx: ObjectContext) -> str:
            return await ctx.object(Peer, "b").come_back_later.options(idempotency_key="k")("a")

    async with Harness(Peer, Asker, store=store, suspend_after=suspend_after) as app:
        asking = [await app.object(Asker, key).ask.send() for key in "12"]
        await app.advance(1)
        (alias,) = store.disk.aliases
        waiting = await app.object(Peer, "a").wait_for_id.send(alias)
        await app.advance(9)
        assert [await one.result() for one in (*asking, waiting)] == ["deadlock"] * 3


RETRY_ONCE = RetryPolicy(initial=20.0, max_attempts=2)


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_while_one_of_it_backs_off_or_is_paused_it_is_none(suspend_after: float) -> None:
    Peer.broken = True
    async with Harness(Peer, retry=RETRY_ONCE, suspend_after=suspend_after) as app:
        going = await app.object(Peer, "a").go_around.send("b")
        await app.advance(1)
        behind = (await app.object(Peer, "b").name.send()).id
        await app.advance(5)
        assert await app.invocation(behind, str).status() == "pending"
        with pytest.raises(RuntimeError, match="not yet"):
            await app.advance(30)
        assert await going.status() == "suspended"
        Peer.broken = False
        await app.resume("CirclesPeer/b/come_back")
        await app.advance(1)
        assert await going.result() == "deadlock"


# ---------------------------------------------------------------------- what a crash leaves


CIRCLES: dict[str, Visit] = {
    "queued": hold(1, "a", (hold(2, "b", (hold(3, "a"),)),)),
    "through others": hold(1, "a", (Visit(2, "serve", stages=((Visit(3, "look", "b", stages=((hold(4, "a"),),)),),)),)),
    "by key": hold(1, "a", (hold(2, "b", (hold(3, "a", how="keyed"),)),)),
    "attached": hold(1, "a", (hold(2, "b", (hold(3, "a", how="attach"),)),)),
}


@pytest.mark.parametrize("pending_in_memory", [100, 1])
@pytest.mark.parametrize("name", CIRCLES)
async def test_a_circle_that_is_found_in_the_store_is_told_at_recovery(name: str, pending_in_memory: int) -> None:
    root, store = CIRCLES[name], MemoryStore()
    waiting = harness(store=store, deadlocks="wait")
    async with tuned(waiting, pending_in_memory=pending_in_memory):
        going = await waiting.object(Link, "a").hold.send(root)
        for number in (10, 11):
            await waiting.object(Link, "a").hold.send(hold(number, "a"))
        await waiting.settle()
    app = harness(store=store)
    async with tuned(app, pending_in_memory=pending_in_memory):
        await app.settle()
        told = await app.invocation(going.id, dict[str, str]).result()
        assert [*told.values()].count(DEADLOCK) == 1
        await app.settle()
        held = (await app.state(Link, "a"))["held"]
        assert sorted(held) == sorted([1, 10, 11, *([3] if name in ("attached", "by key") else [])])
        assert not store.disk.unfinished


async def test_a_message_in_the_stored_part_of_a_mailbox_leaves_it_with_the_error() -> None:
    """`b` calls `a` back when `a` has more waiting than is in memory."""
    store = MemoryStore()
    app = harness(store=store)
    async with tuned(app, pending_in_memory=1):
        going = begin(app.object(Link, "a").hold(hold(1, "a", (hold(2, "b", (hold(3, "a"),), seconds=5),))))
        await app.settle()
        for number in (10, 11, 12):
            await app.object(Link, "a").hold.send(hold(number, "a"))
        await app.settle()
        activation = engine_of(app).parts.activations.by_address[Address("SoakLink", "a")]
        assert activation.stored_tail == 2
        await app.advance(5)
        assert await going == {"2": DONE, "3": DEADLOCK}
        await app.settle()
        assert (await app.state(Link, "a"))["held"] == [1, 10, 11, 12]
        await app.object(Link, "a").hold(hold(13, "a"))
        assert (await app.state(Link, "a"))["held"] == [1, 10, 11, 12, 13]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_commit_that_fails_at_the_answer_takes_nothing_with_it(durable: bool) -> None:
    store = PuppetStore()
    async with harness(store=store) as app:
        going = await app.object(Link, "a").hold.send(hold(1, "a", (hold(2, "b", (hold(3, "a"),), seconds=5),)))
        await app.settle()
        store.hold()
        passing = begin(app.advance(5))
        await turns()
        assert store.waiting == 1
        await store.fail_one(durable=durable)
        await store.go_on()
        await passing
        await app.advance(60)
        assert await going.result() == {"2": DONE, "3": DEADLOCK}
        await app.settle()
        assert [(await app.state(Link, key))["held"] for key in "ab"] == [[1], [2]]


# ---------------------------------------------------------------------- what it costs


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often anything was looked for, and how many invocations were looked at."""
    counted: Counter[str] = Counter()
    look, waits_of = Deadlocks._look, WaitGraph.waits_of

    def counting_look(self: Deadlocks) -> None:
        counted["looks"] += 1
        look(self)

    def counting_waits(self: WaitGraph, waiter: InvocationRun, *brought: Any) -> Iterator[Wait]:
        counted["invocations"] += 1
        return waits_of(self, waiter, *brought)

    monkeypatch.setattr(Deadlocks, "_look", counting_look)
    monkeypatch.setattr(WaitGraph, "waits_of", counting_waits)
    return counted


async def test_nothing_is_looked_for_where_calls_start_at_once(looks: Counter[str]) -> None:
    async with harness() as app:
        inner = Visit(3, "serve", stages=((hold(4, "c", acts=True, seconds=1),),))
        going = begin(app.object(Link, "a").hold(hold(1, "a", (hold(2, "b", (inner,)),), (Visit(5, "look", "a"),))))
        await app.advance(1)
        await going
        await app.object(Link, "a").hold(hold(6, "a"))
    assert looks == {}


class Line(VirtualObject, name="CirclesLine"):
    """Objects in a line: each is held, and waits for the next."""

    @handler
    async def hold(self, ctx: ObjectContext, place: int, length: int) -> str:
        await ctx.sleep(length - place)
        return await ctx.object(Line, f"{(place + 1) % length}").touch()

    @handler
    async def touch(self, ctx: ObjectContext) -> str:
        return "touched"

    @handler
    async def fan_out(self, ctx: ObjectContext, width: int) -> list[str]:
        return await asyncio.gather(*(ctx.object(Line, "busy").touch_slowly() for _ in range(width)))

    @handler
    async def touch_slowly(self, ctx: ObjectContext) -> str:
        await ctx.sleep(1)
        return "touched"


async def test_a_long_circle_is_found_by_looking_at_each_member_a_few_times(looks: Counter[str]) -> None:
    """Closed last at its far end: the look goes all the way round."""
    length = 60
    async with Harness(Line) as app:
        going = [await app.object(Line, f"{place}").hold.send(place, length) for place in range(length)]
        await app.settle()
        looks.clear()
        await app.advance(length - 1)
        assert looks["invocations"] < length, "as long as no one waits for the first, there is no circle to be closed"
        looks.clear()
        await app.advance(1)
        with pytest.raises(DeadlockError, match=r"\(\d+ more\)") as told:
            await going[0].result()
        assert len(told.value.cycle) == 2 * length
        assert await going[1].result() == "touched"
        assert looks["invocations"] < 10 * length


async def test_a_wide_fan_out_behind_one_object_costs_the_same_for_each_answer(looks: Counter[str]) -> None:
    width = 100
    async with Harness(Line) as app:
        going = begin(app.object(Line, "wide").fan_out(width))
        await app.advance(width)
        assert await going == ["touched"] * width
    assert looks["invocations"] < 10 * width


# ---------------------------------------------------------------------- waiting for ever, if wanted


async def test_who_asks_for_it_waits_and_is_told_in_a_test_who_waits_for_whom() -> None:
    async with harness(deadlocks="wait") as app:
        with pytest.raises(StandstillError) as told:
            await app.object(Link, "a").hold(CIRCLES["queued"])
        assert (
            "SoakLink/a/hold waits for SoakLink/b/hold, which waits for SoakLink/a/hold, which is queued behind "
            "SoakLink/a/hold: a circle" in str(told.value)
        )


async def test_a_reloaded_journal_waits_for_what_it_waited_for_before() -> None:
    """Messages without an answer are pending neither before nor after."""

    class Sender(VirtualObject, name="CirclesSender"):
        @handler
        async def go(self, ctx: ObjectContext) -> None:
            await ctx.object(Peer, "x").name.send()
            await ctx.object(Peer, "x").name.options(idempotency_key="k").send()
            await ctx.sleep(10)

        @handler(atomic=True)
        async def go_atomically(self, ctx: ObjectContext) -> None:
            await ctx.object(Peer, "x").name.send()
            await ctx.object(Peer, "x").name.options(idempotency_key="k").send()
            await ctx.sleep(10)

    async with Harness(Sender, Peer) as app:
        sent = [await app.object(Sender, "a").go.send(), await app.object(Sender, "b").go_atomically.send()]
        await app.settle()

        def pending() -> list[Any]:
            live = engine_of(app).parts.registry.live
            return [journal.pending for one in sent if (journal := live[one.id].journal) is not None]

        before = pending()
        assert [len(one) for one in before] == [1, 1]
        await app.crash()
        for key in "ab":
            engine_of(app).parts.activations.activation(Address("CirclesSender", key))
        await app.settle()
        assert pending() == before
        await app.advance(10)

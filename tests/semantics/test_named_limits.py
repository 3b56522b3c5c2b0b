"""Rule C9: an invocation under a limit starts when there is room, and keeps its place until it ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from durably import (
    CancelledInvocationError,
    Context,
    DeadlineExceededError,
    DeadlockError,
    DefinitionError,
    Invocation,
    InvocationStatus,
    Limit,
    Limits,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
    state,
)
from durably.inspection import LimitWait, PauseWait, why
from durably.runtime.inspection.live_facts import LiveFacts
from durably.storage.memory import Disk, MemoryStore
from durably.testing import Harness
from durably.testing.harness.conditions import WatchedStore
from durably.testing.stores.wrapped import HeldReads
from tests.semantics.support import begin, engine_of, tuned, wait_a_little

NOT_BEGUN = (InvocationStatus.PENDING, InvocationStatus.SCHEDULED, InvocationStatus.COMPLETED)
LIMITS = Limits(named={"card": Limit(at_once=2), "mail": Limit(per_second=5), "one": Limit(at_once=1)})


class World:
    """Whether the code is broken, and in which order it began."""

    broken = False
    began: ClassVar[list[str]] = []


@pytest.fixture(autouse=True)
def mended() -> None:
    World.broken = False
    World.began = []


@dataclass
class Order:
    tenant: str
    amount: int = 1


class Card(Service):
    @handler(limit="card")
    async def charge(self, ctx: Context, name: str, seconds: float = 10.0) -> str:
        World.began += [] if name in World.began else [name]
        if World.broken:
            raise RuntimeError("the network is down")
        await ctx.sleep(seconds)
        return name


class Narrow(VirtualObject):
    @handler(limit="one", retry=RetryPolicy(max_attempts=1))
    async def hold(self, ctx: ObjectContext) -> None:
        raise RuntimeError("the printer is off")


class Shop(VirtualObject):
    sold: int = state(default=0)

    @handler(limit=Limit(at_once=1, per="order.tenant"))
    async def sell(self, ctx: ObjectContext, order: Order) -> int:
        self.sold += 1
        await ctx.sleep(10)
        return self.sold

    @handler
    async def stock(self, ctx: ObjectContext) -> int:
        return self.sold

    @shared(limit=Limit(at_once=1, per="self.key"))
    async def look(self, ctx: SharedContext) -> int:
        await ctx.sleep(10)
        return self.sold


class Poll(VirtualObject):
    @handler(limit="card")
    async def poll(self, ctx: ObjectContext, left: int) -> str:
        await ctx.sleep(10)
        return "done" if left == 0 else ctx.continue_as_new(Poll.poll, left - 1)


class Mailer(Service):
    @handler(limit="mail")
    async def send(self, ctx: Context, name: str) -> None:
        World.began += [] if name in World.began else [name]


class Burster(Service):
    @handler(limit=Limit(per_second=1, burst=3))
    async def send(self, ctx: Context, name: str) -> None:
        World.began += [] if name in World.began else [name]


class Tree(Service):
    """Calls itself under the limit, directly and through a handler that has none."""

    @handler(limit="one")
    async def grow(self, ctx: Context, depth: int) -> int:
        await ctx.sleep(1)
        if depth == 0:
            return 1
        direct = ctx.service(Tree).grow(depth - 1)
        return 1 + sum(await asyncio.gather(direct, ctx.service(Tree).pass_on(depth - 1)))

    @handler
    async def pass_on(self, ctx: Context, depth: int) -> int:
        await ctx.sleep(1)
        return await ctx.service(Tree).grow(depth)

    @handler(limit="one")
    async def leave_behind(self, ctx: Context) -> str:
        left = asyncio.ensure_future(ctx.service(Tree).grow(0))
        await ctx.sleep(0.5)
        left.cancel()
        return "left"


class Desk(VirtualObject):
    @handler(limit="one")
    async def sit(self, ctx: ObjectContext, other: str) -> str:
        await ctx.sleep(1)
        try:
            return await ctx.object(Desk, other).ask()
        except DeadlockError:
            return "deadlock"

    @handler
    async def ask(self, ctx: ObjectContext) -> str:
        return "asked"

    @handler
    async def wait_for_seat(self, ctx: ObjectContext) -> str:
        await ctx.sleep(2)
        try:
            return await ctx.object(Desk, "third").sit("fourth")
        except DeadlockError as error:
            return f"deadlock of {len(error.cycle)}: {'a place of a limit' in str(error)}"

    @handler(limit="one")
    async def wait_for_sent(self, ctx: ObjectContext) -> str:
        sent = await ctx.object(Desk, "fifth").sit.send("sixth")
        try:
            return await sent.result()
        except DeadlockError as error:
            return " -> ".join(error.cycle)


class Import(Workflow):
    @handler(limit="one")
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.sleep(10)
        return "imported"


ALL = (Card, Shop, Poll, Mailer, Burster, Tree, Desk, Import)


async def started(app: Harness) -> int:
    """How many invocations have started and not ended."""
    return sum([await one.status() not in NOT_BEGUN async for one in app.invocations()])


def disk_of(app: Harness) -> Disk:
    store = app._store  # pyright: ignore[reportPrivateUsage]
    assert isinstance(store, WatchedStore)
    assert isinstance(store.inner, MemoryStore)
    return store.inner.disk


async def test_no_more_than_the_limit_are_between_start_and_outcome_and_first_come_are_first_served() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        sent = [await app.service(Card).charge.send(f"{number}") for number in range(5)]
        assert [await one.status() for one in sent] == ["suspended"] * 2 + ["pending"] * 3
        await app.advance(10)
        assert [await one.status() for one in sent] == ["completed"] * 2 + ["suspended"] * 2 + ["pending"]
        await app.advance(20)
        assert [await one.result() for one in sent] == ["0", "1", "2", "3", "4"]
        assert World.began == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("suspend_after", [None, 0])
async def test_who_held_a_place_holds_it_after_a_crash_and_who_waited_comes_next(suspend_after: float | None) -> None:
    async with Harness(*ALL, limits=LIMITS, suspend_after=suspend_after) as app:
        for number in range(5):
            await app.service(Card).charge.send(f"{number}")
        for life in range(3):
            await app.crash()
            await app.service(Card).charge.send(f"late {life}")
            await app.settle()
            assert await started(app) == 2
            await app.advance(10)
        await app.advance(100)
        assert World.began == ["0", "1", "2", "3", "4", "late 0", "late 1", "late 2"]
        assert not disk_of(app).places


async def test_who_waited_before_a_crash_starts_before_those_who_come_while_it_is_loaded() -> None:
    store = HeldReads(MemoryStore())
    async with Harness(*ALL, limits=LIMITS, store=store) as app:
        for name in "abc":
            await app.service(Mailer).send.send(name)
        store.loads.hold()
        await app.crash()
        begin(app.service(Mailer).send.send("new"))
        await wait_a_little(app, 1)
        assert World.began == []
        store.loads.release()
        await app.advance(2)
        assert World.began == ["a", "b", "c", "new"]


async def test_a_limit_counts_for_each_value_of_its_key() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        sales = [
            await app.object(Shop, key).sell.send(Order(tenant))
            for key, tenant in [("a", "acme"), ("b", "acme"), ("c", "bolt"), ("d", "bolt")]
        ]
        await app.settle()
        assert [await one.status() for one in sales] == ["suspended", "pending", "suspended", "pending"]
        looks = [await app.object(Shop, key).look.send() for key in ("a", "a", "b")]
        await app.settle()
        assert [await one.status() for one in looks] == ["suspended", "pending", "suspended"]
        behind = begin(app.object(Shop, "b").stock())
        await app.advance(15)
        assert not behind.done(), "the head of a mailbox waits for the limit, and the others wait behind it"
        await app.advance(15)
        assert await behind == 1


async def test_a_kill_a_cancel_and_a_deadline_free_a_place_and_end_a_wait() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        sent = [await app.service(Card).charge.send(f"{number}") for number in range(8)]
        late = begin(app.service(Card).charge.options(timeout=5)("late"))
        await app.settle()
        await app.kill(sent[0].id)
        await app.cancel(sent[1].id)
        await app.cancel(sent[4].id)
        await app.kill(sent[5].id)
        assert [await one.status() for one in sent[2:4]] == ["suspended"] * 2
        for one in (*sent[:2], *sent[4:6]):
            with pytest.raises(CancelledInvocationError):
                await one.result()
        await app.advance(6)
        with pytest.raises(DeadlineExceededError):
            await late
        await app.advance(20)
        assert World.began == ["0", "1", "2", "3", "6", "7"]


async def test_an_invocation_past_its_deadline_keeps_its_place_until_its_code_has_ended() -> None:
    class Slow(Service):
        @handler(limit="one")
        async def work(self, ctx: Context) -> None:
            try:
                await ctx.sleep(100)
            finally:
                await ctx.sleep(10)

    async with Harness(Slow, limits=LIMITS) as app:
        first = begin(app.service(Slow).work.options(timeout=5)())
        await app.settle()
        second = await app.service(Slow).work.send()
        await app.advance(6)
        assert isinstance(first.exception(), DeadlineExceededError)
        assert await second.status() == "pending"
        await app.advance(10)
        assert await second.status() == "suspended"


async def test_what_is_paused_or_backs_off_holds_its_place() -> None:
    """A person lets it go on, or kills it."""
    World.broken = True
    retry = RetryPolicy(initial=60, max_attempts=2)
    async with Harness(*ALL, limits=LIMITS, retry=retry) as app:
        refused = [begin(app.service(Card).charge(f"{number}", 1.0)) for number in range(2)]
        await app.settle()
        waiting = await app.service(Card).charge.send("2", 1.0)
        sent = [one async for one in app.invocations()]
        assert [await one.status() for one in sent] == ["backing-off"] * 2 + ["pending"]
        await app.advance(61)
        for one in refused:
            assert isinstance(one.exception(), PausedInvocationError)
        for _ in range(2):
            assert [await one.status() for one in sent] == ["paused"] * 2 + ["pending"]
            await app.crash()
            await app.settle()
        World.broken = False
        await app.resume(sent[1].id)
        await app.advance(1)
        assert [await one.status() for one in sent[::2]] == ["paused", "suspended"]
        await app.kill(sent[0].id)
        await app.advance(1)
        assert await waiting.result() == "2"


async def test_a_backoff_that_a_crash_interrupts_holds_its_place() -> None:
    World.broken = True
    async with Harness(*ALL, limits=LIMITS, retry=RetryPolicy(initial=60)) as app:
        sent = [await app.service(Card).charge.send(f"{number}", 1.0) for number in range(3)]
        await app.settle()
        await app.crash()
        await app.settle()
        assert [await one.status() for one in sent] == ["backing-off"] * 2 + ["pending"]
        World.broken = False
        await app.advance(100)
        assert World.began == ["0", "1", "2"]


@pytest.mark.parametrize("crashes", [0, 40])
async def test_a_call_inside_the_same_limit_does_not_count_again(crashes: int) -> None:
    """Neither directly nor through others, however often the process dies in between."""
    async with Harness(*ALL, limits=LIMITS) as app:
        growing = await app.service(Tree).grow.send(2)
        waiting = await app.service(Tree).grow.send(0)
        await app.advance(0.5)
        for _ in range(crashes):
            await app.crash()
            await app.advance(0.25)
            if await growing.status() != "completed":
                assert await waiting.status() == "pending"
        await app.advance(20)
        assert await growing.result() == 7
        assert await waiting.result() == 1


async def test_what_is_called_under_a_limit_and_left_behind_keeps_the_place_of_its_caller() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        await app.service(Tree).leave_behind.send()
        waiting = await app.service(Tree).grow.send(0)
        await app.advance(0.75)
        assert await waiting.status() == "pending"
        await app.crash()
        assert await waiting.status() == "pending"
        await app.advance(0.5)
        assert await waiting.status() == "suspended"


@pytest.mark.parametrize("suspend_after", [None, 0])
async def test_a_deadlock_through_a_limit_is_found(suspend_after: float | None) -> None:
    """Desk a has the only place and waits for desk b, whose handler calls something that needs a place."""
    async with Harness(*ALL, limits=LIMITS, suspend_after=suspend_after) as app:
        sitting = begin(app.object(Desk, "a").sit("b"))
        asking = begin(app.object(Desk, "b").wait_for_seat())
        await app.advance(5)
        assert (await sitting, await asking) == ("asked", "deadlock of 4: True")


async def test_waiting_for_a_message_that_needs_the_place_of_the_sender_is_a_deadlock() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        assert await app.object(Desk, "a").wait_for_sent() == "Desk/a/wait_for_sent -> Desk/fifth/sit"
        await app.advance(10)


async def test_a_rate_spaces_starts_evenly_and_is_empty_after_a_restart() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        for name in "abcdefg":
            await app.service(Mailer).send.send(name)
        assert World.began == []
        await app.advance(0.2)
        assert World.began == ["a"]
        await app.advance(0.39)
        assert World.began == ["a", "b"]
        await app.crash()
        await app.advance(0.19)
        assert World.began == ["a", "b"]
        await app.advance(0.01)
        assert World.began == ["a", "b", "c"]
        await app.advance(10)
        assert World.began == [*"abcdefg"]


async def test_a_burst_may_start_together_after_a_quiet_time_only() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        await app.advance(60)
        for name in "abcde":
            await app.service(Burster).send.send(name)
        assert World.began == [*"abc"]
        await app.advance(1)
        assert World.began == [*"abcd"]
        await app.crash()
        await app.advance(0.9)
        assert World.began == [*"abcd"]
        await app.advance(0.2)
        assert World.began == [*"abcde"]


async def test_a_continued_invocation_keeps_its_place() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        sent = [await app.object(Poll, key).poll.send(2) for key in "abc"]
        for _ in range(2):
            await app.advance(10)
            await app.crash()
            await app.settle()
            assert [await one.status() for one in sent] == ["suspended"] * 2 + ["pending"]
        await app.advance(10)
        assert [await one.status() for one in sent] == ["completed"] * 2 + ["suspended"]
        await app.advance(30)


async def test_the_run_of_a_workflow_has_limits_too() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        runs = [await app.workflow(Import, key).run.send() for key in "abc"]
        assert [await one.status() for one in runs] == ["suspended", "pending", "pending"]
        await app.advance(30)
        assert [await one.result() for one in runs] == ["imported"] * 3


async def test_why_something_waits_is_data() -> None:
    async with Harness(*ALL, limits=LIMITS) as app:
        sent = [await app.service(Card).charge.send(f"{number}") for number in range(4)]
        mail = await app.service(Mailer).send.send("a")
        await app.settle()
        told = await app.why(sent[3].id)
        found = [wait for wait in told.waits if isinstance(wait, LimitWait)]
        assert [one.holder.id for one in found if one.holder is not None] == [sent[0].id, sent[1].id]
        assert {(one.name, one.ahead, one.places_taken, one.until) for one in found} == {("card", 1, 2, None)}
        assert str(found[0]) == (
            "waits for the limit 'card' (2 at once), with 1 before it, of which a place is taken by Card/charge"
        )
        assert told.data()["waits"][0]["kind"] == "limit"
        (rate,) = (await app.why(mail.id)).waits
        assert str(rate) == (
            "waits for the limit 'mail' (5 per second), which lets the next one start at "
            "2026-01-01 00:00:00.200000+00:00"
        )
        assert not any(isinstance(wait, LimitWait) for wait in (await app.why(sent[0].id)).waits)
        await app.advance(60)


async def test_a_limit_that_is_named_like_that_of_a_handler_is_another_one() -> None:
    class Twin(Service):
        @handler(limit=Limit(at_once=1))
        async def own(self, ctx: Context) -> None:
            await ctx.sleep(10)

        @handler(limit="Twin/own")
        async def shared_one(self, ctx: Context) -> None:
            await ctx.sleep(10)

    store = MemoryStore()
    async with Harness(Twin, store=store, limits=Limits(named={"Twin/own": Limit(at_once=1)})) as app:
        sent = [await made.send() for made in (app.service(Twin).own, app.service(Twin).shared_one) for _ in range(2)]
        for _ in range(2):
            await app.settle()
            assert [await app.invocation(one.id).status() for one in sent] == ["suspended", "pending"] * 2
            assert {place.name for place in store.disk.places.values()} == {"Twin/own", "named:Twin/own"}
            waits = [(await app.why(one.id)).waits[0] for one in sent[1::2]]
            assert [wait.name for wait in waits if isinstance(wait, LimitWait)] == ["Twin/own", "named:Twin/own"]
            await app.crash()
        await app.advance(20)


async def test_what_is_paused_is_found_behind_its_limit_also_without_a_process() -> None:
    store = MemoryStore()
    async with Harness(Narrow, limits=LIMITS, store=store) as app:
        paused = await app.object(Narrow, "a").hold.send()
        waits = await app.object(Narrow, "b").hold.send()
        with pytest.raises(PausedInvocationError):
            await paused.result()
        told = await app.why(waits.id)
        assert [one.id for one in told.paused()] == [paused.id]
        assert [type(wait) for _, wait in told.ends()] == [PauseWait]
        supervisor = app.supervisor_if_running()
        assert supervisor is not None
        in_memory = LiveFacts(engine_of(app), supervisor.actions, app.clock)
        assert in_memory.why(engine_of(app).parts.registry.live[waits.id]) == told
        stored = await why(store, waits.id)
        assert stored is not None
        assert [one.id for one in stored.paused()] == [paused.id]
        text = "has not started under the limit 'one', of which a place is taken by Narrow/a/hold"
        assert str(stored.waits[0]) == text
        await app.kill(waits.id)
        await app.kill(paused.id)


class Keyed(VirtualObject):
    @handler(limit=Limit(at_once=1, per="whose.name"))
    async def by_part(self, ctx: ObjectContext, whose: dict[str, str], other: str) -> None:
        await ctx.signal("go", str)

    @handler(limit=Limit(at_once=1, per="name"))
    async def by_argument(self, ctx: ObjectContext, name: int) -> None:
        await ctx.signal("go", str)


async def test_a_store_tells_of_a_limit_with_many_keys_whose_place_is_waited_for() -> None:
    store = MemoryStore()
    async with Harness(Keyed, store=store) as app:
        held: list[Invocation[None]] = []
        waiting: list[Invocation[None]] = []
        for owner in ("ann", "bob", "cy"):
            held.append(await app.object(Keyed, f"{owner}1").by_part.send({"name": owner}, "ann"))
            waiting.append(await app.object(Keyed, f"{owner}2").by_part.send({"name": owner}, "bob"))
        for number in (1, 2):
            held.append(await app.object(Keyed, f"first{number}").by_argument.send(number))
            waiting.append(await app.object(Keyed, f"second{number}").by_argument.send(number))
        await app.settle()
        for holder, waits in zip(held, waiting, strict=True):
            live, stored = await app.why(waits.id), await why(store, waits.id)
            assert stored is not None
            (now,), (told,) = live.waits, stored.waits
            assert isinstance(now, LimitWait)
            assert isinstance(told, LimitWait)
            assert (told.name, told.key) == (now.name, now.key)
            assert told.holder is not None
            assert told.holder.id == holder.id
        for sent in (*waiting, *held):
            await app.kill(sent.id)


async def test_a_limit_that_handlers_get_or_lose_with_a_new_version_counts_from_then_on() -> None:
    class Free(Service, name="Card"):
        @handler
        async def charge(self, ctx: Context, name: str, seconds: float = 10.0) -> str:
            await ctx.sleep(seconds)
            return name

    store = MemoryStore()
    async with Harness(Card, limits=LIMITS, store=store) as app:
        held = [await app.service(Card).charge.send(f"{number}", 100.0) for number in range(3)]
        await app.settle()
    async with Harness(Free, store=store) as app:
        await app.settle()
        assert await app.invocation(held[2].id, str).status() == "suspended", "nothing holds it up any more"
        free = [await app.service(Free).charge.send("free", 200.0) for _ in range(2)]
        await app.settle()
    async with Harness(Card, limits=LIMITS, store=store) as app:
        waiting = await app.service(Card).charge.send("new")
        assert await waiting.status() == "pending", "those of the first version still hold their places"
        await app.advance(101)
        assert await waiting.status() == "suspended"
        assert await app.invocation(free[0].id, str).status() == "suspended"
        await app.advance(500)
    assert not store.disk.places


async def test_a_large_argument_is_read_for_its_key_beside_others() -> None:
    class Store(Service):
        @handler(limit=Limit(at_once=1, per="tenant"))
        async def keep(self, ctx: Context, tenant: str, content: list[str]) -> int:
            await ctx.sleep(10)
            return len(content)

    async with tuned(Harness(Store), slice_bytes=500) as app:
        sent = [await app.service(Store).keep.send(tenant, ["x" * 50] * 100) for tenant in ("a", "a", "b")]
        await app.settle()
        assert [await one.status() for one in sent] == ["suspended", "pending", "suspended"]
        await app.advance(20)
        assert [await one.result() for one in sent] == [100] * 3


@pytest.mark.parametrize("size", [1, 100])
async def test_an_argument_that_a_new_version_cannot_read_pauses_its_invocation_whatever_its_size(size: int) -> None:
    """It takes no place for that, and those behind it go on."""

    class Before(Service, name="Store"):
        @handler(limit=Limit(at_once=1, per="tenant"))
        async def keep(self, ctx: Context, tenant: str, content: list[str]) -> int:
            await ctx.sleep(10)
            return len(content)

    class After(Service, name="Store"):
        @handler(limit=Limit(at_once=1, per="tenant"))
        async def keep(self, ctx: Context, tenant: str, content: list[int]) -> int:
            await ctx.sleep(10)
            return len(content)

    store = MemoryStore()
    async with tuned(Harness(Before, store=store), slice_bytes=500) as app:
        content = ["x" * 50] * size
        kept = [await app.service(Before).keep.send("a", one) for one in ([], content, [])]
        await app.settle()
    async with tuned(Harness(After, store=store), slice_bytes=500) as app:
        told = begin(app.invocation(kept[1].id).result())
        await app.advance(30)
        assert [await app.invocation(one.id).status() for one in kept] == ["completed", "paused", "completed"]
        with pytest.raises(PausedInvocationError, match=r"fitted when it was accepted.*Expected `int`, got `str`"):
            await told
        await app.kill(kept[1].id)
    assert not store.disk.places


async def test_decoding_that_fails_otherwise_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for want of room: the place is still to be taken."""

    class Store(Service):
        @handler(limit=Limit(at_once=1, per="tenant"))
        async def keep(self, ctx: Context, tenant: str, content: list[str]) -> int:
            return len(content)

    failures = [MemoryError("too large")]
    async with tuned(Harness(Store, retry=RetryPolicy(initial=5)), slice_bytes=500) as app:
        bound = app._actors["Store"].handlers["keep"]  # pyright: ignore[reportPrivateUsage]
        decode = bound.decode_in_slices

        def decode_or_fail(argument: bytes, size_bytes: int, /) -> Any:
            if failures:
                raise failures.pop()
            return decode(argument, size_bytes)

        sent = await app.service(Store).keep.send("a", ["x" * 50] * 100)
        monkeypatch.setattr(bound, "decode_in_slices", decode_or_fail)
        await app.settle()
        assert (failures, await sent.status()) == ([], "backing-off")
        await app.advance(10)
        assert await sent.result() == 100


async def test_a_limit_that_nobody_uses_keeps_its_rate_until_that_is_full() -> None:
    """However few unused ones are kept in memory."""
    async with tuned(Harness(*ALL, limits=LIMITS), limit_pools_kept=0) as app:
        await app.advance(10)
        for name in "abc":
            await app.service(Burster).send.send(name)
        await app.settle()
        assert World.began == ["a", "b", "c"]
        await app.object(Shop, "s").look.send()  # Another limit: those that nobody uses go.
        await app.service(Burster).send.send("d")
        await app.advance(0.5)
        assert World.began == ["a", "b", "c"]
        await app.advance(0.5)
        assert World.began == ["a", "b", "c", "d"]
        await app.advance(10)


async def test_a_key_that_the_arguments_do_not_hold_pauses_the_invocation_with_a_sentence() -> None:
    class Blind(Service):
        @handler(limit=Limit(at_once=1, per="order.customer"))
        async def sell(self, ctx: Context, order: Order) -> None:
            return None

    async with Harness(Blind) as app:
        with pytest.raises(PausedInvocationError, match="the argument's Order has no 'customer'") as told:
            await app.service(Blind).sell(Order("acme"))
        await app.kill(told.value.id)


def test_a_limit_that_cannot_work_is_refused_with_a_sentence() -> None:
    with pytest.raises(DefinitionError, match=r"no parameter 'tenant'\. Its parameters: name"):

        class Wrong(Service):  # pyright: ignore[reportUnusedClass] - Its definition is refused.
            @handler(limit=Limit(at_once=1, per="tenant"))
            async def work(self, ctx: Context, name: str) -> None: ...

    class Unknown(Service):
        @handler(limit="stripe")
        async def work(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match=r"names the limit 'stripe', which the runtime does not have\. .* mail"):
        Harness(Unknown, limits=LIMITS)

    class Keyless(Service):
        @handler(limit=Limit(at_once=1, per="self.key"))
        async def work(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="a service has no key"):
        Harness(Keyless)


@pytest.mark.parametrize("ends", ["pauses", "backs off"])
async def test_what_failed_before_its_handler_had_a_limit_goes_on(ends: str) -> None:
    class Before(VirtualObject, name="Later"):
        @handler(retry=RetryPolicy(initial=30, max_attempts=1 if ends == "pauses" else None))
        async def go(self, ctx: ObjectContext) -> str:
            raise ValueError("not yet")

    class After(VirtualObject, name="Later"):
        @handler(limit=Limit(at_once=1))
        async def go(self, ctx: ObjectContext) -> str:
            return "done"

    store = MemoryStore()
    id = ""
    with suppress(ValueError):  # Nothing else has heard of the one that is paused.
        async with Harness(Before, store=store) as app:
            id = (await app.object(Before, "a").go.send()).id
            await app.settle()
    async with Harness(After, store=store) as app:
        if ends == "pauses":
            await app.resume(id)
        await app.advance(200)
        assert await app.invocation(id, str).result() == "done"
        assert await app.object(After, "a").go() == "done"

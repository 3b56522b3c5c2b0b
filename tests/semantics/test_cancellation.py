"""Rule E1: a cancel goes through an invocation and what it has called, once and in order, and ends it for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from durably import (
    CancelledInvocationError,
    Context,
    Invocation,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, tuned, turns


class Callee(VirtualObject):
    """Waits, and takes its time to clean up."""

    log: list[str] = state(default=[])

    @handler
    async def work(self, ctx: ObjectContext, seconds: float = 1_000) -> str:
        try:
            await ctx.sleep(seconds)
        except asyncio.CancelledError:
            self.log.append("told")
            await ctx.sleep(10)
            self.log.append("cleaned")
            raise
        self.log.append("done")
        return "done"

    @handler
    async def swallow(self, ctx: ObjectContext) -> str:
        try:
            await ctx.sleep(1_000)
        except asyncio.CancelledError:
            await ctx.sleep(10)
        return "all the same"

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.log


class Caller(VirtualObject):
    """Calls `Callee` in every way there is in asyncio."""

    heard: list[str] = state(default=[])

    @handler
    async def call(self, ctx: ObjectContext, way: str, key: str) -> str:
        work = ctx.object(Callee, key).work
        try:
            match way:
                case "await":
                    return await work()
                case "gather":
                    return ", ".join(await asyncio.gather(work(), ctx.object(Callee, f"{key}2").work()))
                case "task group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(work())
                        group.create_task(ctx.object(Callee, f"{key}2").work())
                    return "both"
                case "shield":
                    return await asyncio.shield(work())
                case "timeout":
                    async with asyncio.timeout(500):
                        return await work()
                case "wait_for":
                    return await asyncio.wait_for(work(), 500)
                case "task":
                    left = asyncio.create_task(work())
                    await ctx.sleep(2_000)
                    return await left
                case _:
                    done, _ = await asyncio.wait([asyncio.create_task(work())], timeout=2_000)
                    return f"{len(done)}"
        except asyncio.CancelledError:
            self.heard.append(f"at {ctx.now():%M:%S}")
            raise

    @handler
    async def clean_up_by_call(self, ctx: ObjectContext, key: str) -> str:
        """A cancel is not sticky: what comes after it waits as ever."""
        try:
            return await ctx.object(Callee, key).work()
        except asyncio.CancelledError:
            return await ctx.object(Callee, f"{key}2").work(5)

    @handler
    async def keep_waiting(self, ctx: ObjectContext, key: str) -> str:
        call = asyncio.ensure_future(ctx.object(Callee, key).work(100))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            return f"still {await call}"

    @handler
    async def call_swallower(self, ctx: ObjectContext, key: str) -> str:
        return await ctx.object(Callee, key).swallow()

    @handler
    async def call_keyed(self, ctx: ObjectContext, key: str) -> str:
        return await ctx.object(Callee, key).work.options(idempotency_key="k")()

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def crash_for_ever(self, ctx: ObjectContext) -> None:
        """Fails each time the first answer comes."""
        await ctx.sleep(1)
        raise RuntimeError("never again")

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def crash_at_once(self, ctx: ObjectContext) -> None:
        raise RuntimeError("at once")

    @handler(retry=RetryPolicy(max_attempts=1))
    async def crash_when_told(self, ctx: ObjectContext, key: str) -> None:
        call = asyncio.create_task(ctx.object(Callee, key).work())
        try:
            await ctx.sleep(1_000)
            await call
        except asyncio.CancelledError:
            raise RuntimeError("not now") from None

    @handler(retry=RetryPolicy(initial=1.0, maximum=1.0))
    async def fail_behind_a_callee(self, ctx: ObjectContext, key: str) -> None:
        """Hears of the cancel when its callee has ended."""
        try:
            await ctx.object(Callee, key).work()
        except asyncio.CancelledError:
            raise RuntimeError("not now") from None

    @handler
    async def wait_at_the_end(self, ctx: ObjectContext) -> str:
        """Swallows every cancel, and waits for nothing at all in the end."""
        try:
            await ctx.sleep(1_000)
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        return "never"

    @handler
    async def cancel(self, ctx: ObjectContext, id: str) -> None:
        await ctx.invocation(id, str).cancel()

    @handler
    async def cancel_itself(self, ctx: ObjectContext, wait: bool) -> str:
        await ctx.invocation(ctx.request.id, str).cancel()
        if wait:
            await ctx.sleep(1)
        return "not cancelled"

    @handler(atomic=True)
    async def cancel_and_fail(self, ctx: ObjectContext, id: str, fails: bool) -> None:
        await ctx.invocation(id, str).cancel()
        await ctx.sleep(1)
        if fails:
            raise TerminalError("no")

    @handler
    async def take_back(self, ctx: ObjectContext, key: str) -> None:
        """A delayed message is a timer that can be taken back."""
        sent = await ctx.object(Callee, key).work.after(minutes=15).send()
        await ctx.sleep(60)
        await sent.cancel()

    @shared
    async def ears(self, ctx: SharedContext) -> list[str]:
        return self.heard


@pytest.fixture(params=[60.0, 0.0], ids=["in-memory", "suspended"])
def suspend_after(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value


async def under_way(app: Harness, invocation: Invocation[str], way: str, key: str = "k") -> None:
    await app.settle()
    assert await invocation.status() is InvocationStatus.SUSPENDED, way


async def log_of(app: Harness, key: str) -> list[str]:
    return await app.object(Callee, key).look()


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("way", ["await", "gather", "task group", "timeout", "wait_for", "wait"])
async def test_a_cancel_goes_down_and_the_caller_waits_until_its_callees_have_ended(
    way: str, crashes: bool, suspend_after: float
) -> None:
    store = MemoryStore()
    async with Harness(Callee, Caller, suspend_after=suspend_after, store=store) as app:
        invocation = await app.object(Caller, "c").call.send(way, "k")
        await under_way(app, invocation, way)
        await invocation.cancel()
        if crashes:
            await app.crash()
        await app.settle()
        waits = way != "wait"  # asyncio.wait cancels nothing; what it was given is cancelled when the handler ends.
        assert (await invocation.status() is InvocationStatus.COMPLETED) is not waits
        await app.advance(10)
        with pytest.raises(CancelledInvocationError) as told:
            await invocation.result()
        assert told.value.code == 409
        assert await log_of(app, "k") == ["told", "cleaned"]
        if way in ("gather", "task group"):
            assert await log_of(app, "k2") == ["told", "cleaned"]
        assert len(await app.object(Caller, "c").ears()) == 1
        await app.settle()
        assert not store.disk.orders
        assert [row for row in store.disk.rows.values() if row.steps or row.timers] == []


async def test_a_call_that_is_left_in_a_task_is_cancelled_when_its_caller_ends(suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        invocation = await app.object(Caller, "c").call.send("task", "k")
        await under_way(app, invocation, "task")
        await invocation.cancel()
        await app.settle()
        assert await invocation.status() is InvocationStatus.COMPLETED
        await app.advance(10)
        assert await log_of(app, "k") == ["told", "cleaned"]


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_shielded_callee_is_not_cancelled(crashes: bool, suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        invocation = await app.object(Caller, "c").call.send("shield", "k")
        await under_way(app, invocation, "shield")
        if crashes:
            await app.crash()
        await invocation.cancel()
        await app.settle()
        assert await invocation.status() is InvocationStatus.COMPLETED
        await app.advance(1_000)
        assert await log_of(app, "k") == ["done"]


async def test_a_shielded_call_can_still_be_waited_for(suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        invocation = await app.object(Caller, "c").keep_waiting.send("k")
        await app.settle()
        await invocation.cancel()
        await app.advance(100)
        assert await invocation.result() == "still done"


async def test_the_answer_of_a_callee_that_swallows_the_cancel_is_dropped(suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        invocation = await app.object(Caller, "c").call_swallower.send("k")
        await app.settle()
        await app.cancel(invocation.id)
        await app.advance(10)
        with pytest.raises(CancelledInvocationError):
            await invocation.result()


async def test_whatever_the_handler_returns_is_the_outcome_and_a_cancel_is_not_sticky(suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        invocation = await app.object(Caller, "c").clean_up_by_call.send("k")
        await app.settle()
        await invocation.cancel()
        await app.advance(15)
        assert await invocation.result() == "done"
        assert await log_of(app, "k") == ["told", "cleaned"]
        assert await log_of(app, "k2") == ["done"]


async def test_a_second_cancel_gives_up_calls_that_still_wait(suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        for way in ("await", "task group"):
            invocation = await app.object(Caller, "c").call.send(way, way)
            await under_way(app, invocation, way)
            await invocation.cancel()
            await app.settle()
            assert await invocation.status() is InvocationStatus.SUSPENDED
            await invocation.cancel()
            await app.settle()
            assert await invocation.status() is InvocationStatus.COMPLETED
            assert await log_of(app, way) == ["told"]
            await app.advance(10)
            assert await log_of(app, way) == ["told", "cleaned"]


async def test_both_cancels_may_come_before_the_handler_hears_of_the_first(suspend_after: float) -> None:
    async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
        invocation = await app.object(Caller, "c").call.send("await", "k")
        await under_way(app, invocation, "await")
        await asyncio.gather(invocation.cancel(), invocation.cancel())
        await app.settle()
        assert await invocation.status() is InvocationStatus.COMPLETED
        await app.advance(10)
        assert await log_of(app, "k") == ["told", "cleaned"], "what is given up in the same step is cancelled first"


class TestKeyed:
    @pytest.mark.parametrize("first", [0, 1])
    async def test_a_keyed_callee_with_another_caller_goes_on(self, first: int, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            calls: list[Invocation[str]] = []
            for key in ("a", "b"):
                calls.append(await app.object(Caller, key).call_keyed.send("k"))
                await app.settle()
            await calls[first].cancel()
            await app.settle()
            assert await calls[first].status() is InvocationStatus.COMPLETED
            await app.advance(1_000)
            assert await calls[1 - first].result() == "done"

    async def test_a_keyed_callee_with_no_other_caller_is_cancelled(self, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            call = await app.object(Caller, "a").call_keyed.send("k")
            await app.settle()
            await call.cancel()
            await app.advance(10)
            assert await call.status() is InvocationStatus.COMPLETED
            assert await log_of(app, "k") == ["told", "cleaned"]


class TestNotStarted:
    @pytest.mark.parametrize("in_memory", [1_000, 1])
    async def test_what_is_queued_ends_without_running_and_the_others_keep_their_order(self, in_memory: int) -> None:
        app = tuned(Harness(Callee, Caller), pending_in_memory=in_memory)
        async with app:
            queued = [await app.object(Callee, "k").work.send(100 + number) for number in range(5)]
            await app.settle()
            for number in (1, 3):
                await queued[number].cancel()
                assert await queued[number].status() is InvocationStatus.COMPLETED
                with pytest.raises(CancelledInvocationError):
                    await queued[number].result()
            await app.advance(1_000)
            assert [await queued[number].result() for number in (0, 2, 4)] == ["done"] * 3
            assert await log_of(app, "k") == ["done"] * 3

    async def test_a_call_is_cancelled_while_its_callee_is_queued(self, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            first = await app.object(Callee, "k").work.send(100)
            call = await app.object(Caller, "c").call.send("await", "k")
            await app.settle()
            await call.cancel()
            await app.settle()
            assert await call.status() is InvocationStatus.COMPLETED
            await app.advance(100)
            assert await first.result() == "done"
            assert await log_of(app, "k") == ["done"]

    @pytest.mark.parametrize("window", [60, 3_600])
    @pytest.mark.parametrize("crashes", [False, True])
    async def test_a_delayed_message_is_a_timer_that_can_be_taken_back(self, window: int, crashes: bool) -> None:
        store = MemoryStore()
        app = tuned(Harness(Callee, Caller, store=store), timer_window_us=window * 1_000_000, timers_in_memory=0)
        async with app:
            sent = await app.object(Callee, "k").work.after(minutes=15).send()
            await app.settle()
            if crashes:
                await app.crash()
            await sent.cancel()
            with pytest.raises(CancelledInvocationError):
                await sent.result()
            taken = await app.object(Caller, "c").take_back.send("k2")
            await app.advance(hours=2)
            await taken.result()
            assert await log_of(app, "k") == await log_of(app, "k2") == []
            assert [row.timers for row in store.disk.rows.values() if row.timers] == []

    async def test_one_that_fails_in_its_first_step_for_ever_ends(self) -> None:
        async with Harness(Callee, Caller) as app:
            invocation = await app.object(Caller, "c").crash_at_once.send()
            await app.settle()
            assert await invocation.status() is InvocationStatus.BACKING_OFF
            await invocation.cancel()
            with pytest.raises(CancelledInvocationError):
                await invocation.result()
            assert await app.object(Caller, "c").cancel_itself(False) == "not cancelled"


class TestWhatFails:
    @pytest.mark.parametrize("crashes", [False, True])
    async def test_a_handler_that_crashes_for_ever_can_be_cancelled(self, crashes: bool) -> None:
        async with Harness(Callee, Caller) as app:
            invocation = await app.object(Caller, "c").crash_for_ever.send()
            await app.advance(1)
            assert await invocation.status() is InvocationStatus.BACKING_OFF
            if crashes:
                await app.crash()
            await invocation.cancel()
            with pytest.raises(CancelledInvocationError):
                await invocation.result()
            assert await app.object(Caller, "c").cancel_itself(False) == "not cancelled"

    async def test_one_that_fails_as_it_is_told_ends_and_so_do_its_callees(self, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            invocation = await app.object(Caller, "c").crash_when_told.send("k")
            await app.settle()
            await invocation.cancel()
            with pytest.raises(CancelledInvocationError, match="not now"):
                await invocation.result()
            await app.advance(10)
            assert await log_of(app, "k") == ["told", "cleaned"]

    async def test_one_that_hears_of_it_behind_a_callee_and_fails_then_ends_too(self, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            invocation = await app.object(Caller, "c").fail_behind_a_callee.send("k")
            await app.settle()
            await invocation.cancel()
            await app.advance(20)
            with pytest.raises(CancelledInvocationError, match="not now"):
                await invocation.result()
            assert await log_of(app, "k") == ["told", "cleaned"]

    async def test_one_that_waits_for_nothing_afterwards_ends(self, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            invocation = await app.object(Caller, "c").wait_at_the_end.send()
            await app.settle()
            await invocation.cancel()
            with pytest.raises(CancelledInvocationError, match="waits for something"):
                await invocation.result()


class TestFromHandlers:
    async def test_a_handler_cancels_what_it_knows_the_id_of_and_does_not_wait(self, suspend_after: float) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            work = await app.object(Callee, "k").work.send()
            await app.settle()
            await app.object(Caller, "c").cancel(work.id)
            await app.advance(10)
            assert await log_of(app, "k") == ["told", "cleaned"]
            await app.object(Caller, "c").cancel(work.id)  # It has ended.
            await app.object(Caller, "c").cancel("inv_nobody")

    @pytest.mark.parametrize("wait", [False, True])
    async def test_one_that_cancels_itself_is_told_at_its_next_wait(self, wait: bool) -> None:
        async with Harness(Callee, Caller) as app:
            call = begin(app.object(Caller, "c").cancel_itself(wait))
            await app.settle()
            if wait:
                with pytest.raises(CancelledInvocationError):
                    await call
            else:
                assert await call == "not cancelled"

    @pytest.mark.parametrize("fails", [False, True])
    async def test_the_cancels_of_an_atomic_handler_wait_for_its_outcome(
        self, fails: bool, suspend_after: float
    ) -> None:
        async with Harness(Callee, Caller, suspend_after=suspend_after) as app:
            work = await app.object(Callee, "k").work.send()
            await app.settle()
            atomic = begin(app.object(Caller, "c").cancel_and_fail(work.id, fails))
            await app.settle()
            assert await log_of(app, "k") == []
            await app.advance(1)
            assert await log_of(app, "k") == ([] if fails else ["told"])
            await asyncio.wait([atomic])
            assert (atomic.exception() is not None) is fails


class TestFromOutside:
    async def test_what_has_ended_or_never_was_is_refused(self) -> None:
        async with Harness(Callee, Caller) as app:
            sent = await app.object(Caller, "c").cancel_itself.send(False)
            await sent.result()
            with pytest.raises(InvocationStatusError, match="already completed") as told:
                await sent.cancel()
            assert told.value.code == 409
            with pytest.raises(UnknownTargetError):
                await app.cancel("inv_nobody")

    async def test_a_target_stands_for_all_of_it_that_has_not_ended(self) -> None:
        async with Harness(Callee, Caller) as app:
            keys = ("a", "b/c", "d")
            sent = {key: await app.object(Callee, key).work.send() for key in keys}
            queued = await app.object(Callee, "b/c").work.send()
            await app.settle()
            assert await app.cancel("Callee/b%2Fc") == [sent["b/c"].id, queued.id]
            await app.advance(10)
            assert {await invocation.status() for invocation in (sent["b/c"], queued)} == {InvocationStatus.COMPLETED}
            assert await app.cancel("Callee/a/swallow") == []
            assert await app.cancel("Callee") == [sent["a"].id, sent["d"].id]
            await app.advance(10)
            assert await app.cancel("Callee") == []

    async def test_a_cancel_is_acknowledged_when_it_is_durable(self) -> None:
        store = PuppetStore()
        async with Harness(Callee, Caller, store=store, suspend_after=0) as app:
            work = await app.object(Callee, "k").work.send()
            await app.settle()
            store.hold()
            cancelling = begin(work.cancel())
            await turns()
            assert not cancelling.done()
            await store.go_on()
            await cancelling
            await app.advance(10)


class Racer(VirtualObject):
    """Has an answer on its way when it is cancelled."""

    order: list[str] = state(default=[])

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def race(self, ctx: ObjectContext) -> str:
        try:
            first = await ctx.run("first", self.world.act, "first")
            self.order.append(first)
            await ctx.sleep(1_000)
        except asyncio.CancelledError:
            self.order.append("cancelled")
            raise
        return "done"

    @handler
    async def keyed(self, ctx: ObjectContext) -> str:
        try:
            await ctx.sleep(1)
            sent = await ctx.object(Callee, "k").work.options(idempotency_key="once").send()
            self.order.append("sent")
            return sent.id
        except asyncio.CancelledError:
            self.order.append("cancelled")
            raise


async def test_an_action_is_cancelled_at_once() -> None:
    world = World()
    async with Harness(Racer, Callee, dependencies={World: world}) as app:
        race = await app.object(Racer, "r").race.send()
        await turns()
        assert world.started == ["first"]
        await race.cancel()
        await app.settle()
        assert world.cancelled == ["first"]
        assert (await app.state(Racer, "r"))["order"] == ["cancelled"]


async def test_a_cancel_that_comes_while_keys_are_looked_up_waits_for_that_step() -> None:
    store = PuppetStore()
    async with Harness(Racer, Callee, dependencies={World: World()}, store=store) as app:
        racing = await app.object(Racer, "r").keyed.send()
        await app.settle()
        store.lookups.hold()
        await app.clock.advance(1_000_000, turns)
        assert store.lookups.waiting == 1
        cancelling = begin(racing.cancel())
        await turns()
        await cancelling
        store.lookups.release()
        await app.settle()
        with pytest.raises(CancelledInvocationError):
            await racing.result()
        assert (await app.state(Racer, "r"))["order"] == ["cancelled"]
        sent = [record for record in store.stored() if record.address.key == "k"]
        assert len(sent) == 1, "the message of the step that was under way stands"


class Deep(Service):
    """Calls itself, many times."""

    @handler
    async def dig(self, ctx: Context, levels: int) -> int:
        if levels == 0:
            await ctx.sleep(1_000)
            return 0
        return 1 + await ctx.service(Deep).dig(levels - 1)


@pytest.mark.parametrize("verb", ["cancel", "kill"])
async def test_a_deep_tree_is_free_in_the_end(verb: str, suspend_after: float) -> None:
    store = MemoryStore()
    levels = 300
    async with Harness(Deep, suspend_after=suspend_after, store=store) as app:
        dig = await app.service(Deep).dig.send(levels)
        await app.settle()
        assert len(store.disk.rows) == levels + 1
        await (app.cancel(dig.id) if verb == "cancel" else app.kill(dig.id))
        await app.settle()
        assert [record.id for record in store.disk.records()] == [dig.id]
        assert not store.disk.orders


async def test_a_cancelled_step_replays_to_the_letter(suspend_after: float) -> None:
    """Also after every crash there can be: each commit is followed by one."""
    for crash_after in range(1, 12):
        store = PuppetStore()
        async with Harness(Callee, Caller, store=store, suspend_after=suspend_after) as app:
            invocation = await app.object(Caller, "c").call.send("task group", "k")
            await app.settle()
            await invocation.cancel()
            store.hold()
            for _ in range(crash_after):
                await app.clock.advance(2_000_000, turns)
                if store.waiting:
                    await store.let_one()
            await store.lose(app)
            await app.advance(100)
            with pytest.raises(CancelledInvocationError):
                await invocation.result()
            logs: Sequence[list[str]] = [await log_of(app, key) for key in ("k", "k2")]
            assert logs == [["told", "cleaned"]] * 2, crash_after
            assert not store.memory.disk.orders

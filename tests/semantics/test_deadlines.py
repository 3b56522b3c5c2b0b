"""Rule E7: at its deadline an invocation fails for everybody, then and later, whatever its code still does."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from durably import (
    CancelledInvocationError,
    Context,
    DeadlineExceededError,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import SECOND_US, begin, tuned, turns


class Worker(VirtualObject):
    log: list[str] = state(default=[])

    @handler
    async def work(self, ctx: ObjectContext, seconds: float = 100) -> str:
        self.log.append("begins")
        await ctx.sleep(seconds)
        self.log.append("worked")
        return "worked"

    @handler
    async def note(self, ctx: ObjectContext, what: str = "note") -> list[str]:
        self.log.append(what)
        return self.log

    @handler
    async def swallow(self, ctx: ObjectContext) -> str:
        """Goes on in spite of its deadline."""
        try:
            await ctx.sleep(1_000)
        except asyncio.CancelledError:
            self.log.append("swallowed")
            await ctx.object(Worker, "other").note.send("sent")
            await ctx.sleep(50)
            self.log.append("went on")
        return "too late"

    @handler(atomic=True)
    async def swallow_atomically(self, ctx: ObjectContext) -> str:
        self.log.append("atomic")
        await ctx.object(Worker, "other").note.send("sent")
        try:
            await ctx.sleep(1_000)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    @handler
    async def compensate(self, ctx: ObjectContext) -> str:
        async with ctx.compensations() as undo:
            undo.add(ctx.object(Worker, "other").work, 30)
            await ctx.sleep(1_000)
        return "never"

    @handler(timeout=10)
    async def short(self, ctx: ObjectContext) -> datetime | None:
        return ctx.request.deadline

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def fail(self, ctx: ObjectContext) -> None:
        await ctx.sleep(1)
        raise RuntimeError("again")

    @handler
    async def shielded(self, ctx: ObjectContext) -> str:
        return await asyncio.shield(ctx.object(Worker, "other").work(200))

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.log


class Asker(Service):
    @handler
    async def deadline_of(self, ctx: Context, key: str, timeout: float | None, sends: bool) -> datetime | None:
        target = ctx.service(Asker).own
        target = target if timeout is None else target.options(timeout=timeout)
        return await (await target.send()).result() if sends else await target()

    @handler
    async def own(self, ctx: Context) -> datetime | None:
        return ctx.request.deadline

    @handler
    async def call(self, ctx: Context, key: str, timeout: float) -> str:
        try:
            return await ctx.object(Worker, key).swallow.options(timeout=timeout)()
        except DeadlineExceededError as error:
            return f"{error.code} after {ctx.now():%M:%S}"

    @handler
    async def call_short(self, ctx: Context, key: str) -> str:
        return await ctx.object(Worker, key).work()


@pytest.fixture(params=[60.0, 0.0], ids=["in-memory", "suspended"])
def suspend_after(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def harness(store: MemoryStore, suspend_after: float = 60.0) -> Harness:
    return Harness(Worker, Asker, store=store, suspend_after=suspend_after)


class TestWhenItIs:
    async def test_a_delayed_message_counts_from_its_due_time(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            sent = await app.object(Worker, "w").work.options(timeout=30).after(minutes=15).send(20)
            await app.advance(minutes=16)
            assert await sent.result() == "worked"
            late = await app.object(Worker, "w").work.options(timeout=30).after(minutes=15).send(40)
            await app.advance(minutes=15, seconds=30)
            with pytest.raises(DeadlineExceededError):
                await late.result()

    @pytest.mark.parametrize("sends", [False, True])
    async def test_calls_inherit_it_and_sends_do_not(self, store: MemoryStore, sends: bool) -> None:
        async with harness(store) as app:
            ten_seconds = await app.object(Worker, "w").short()
            assert ten_seconds is not None
            start = ten_seconds - timedelta(seconds=10)

            async def after(own: float | None, inherited: float) -> float | None:
                asking = app.service(Asker).deadline_of.options(timeout=inherited)
                found = await asking("w", own, sends)
                return None if found is None else (found - start).total_seconds()

            assert [await after(None, 20), await after(5, 20), await after(50, 20)] == (
                [None, 5, 50] if sends else [20, 5, 20]
            )

    async def test_the_class_may_say_and_a_call_may_say_otherwise(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            own = await app.object(Worker, "w").short()
            longer = await app.object(Worker, "w").short.options(timeout=25)()
            assert own is not None
            assert longer is not None
            assert longer - own == timedelta(seconds=15)

    async def test_who_joins_by_key_has_the_deadline_of_the_first(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            work = app.object(Worker, "w").work.options(idempotency_key="k")
            first = begin(work.options(timeout=150)())
            second = begin(work.options(timeout=5)())
            await app.advance(100)
            assert await first == await second == "worked"


class TestNotStarted:
    @pytest.mark.parametrize("queued", [0, 4])
    async def test_what_is_queued_never_starts(self, store: MemoryStore, queued: int, suspend_after: float) -> None:
        async with tuned(harness(store, suspend_after), pending_in_memory=2) as app:
            first = await app.object(Worker, "w").work.send()
            for _ in range(queued):
                await app.object(Worker, "w").note.send()
            late = begin(app.object(Worker, "w").note.options(timeout=5, idempotency_key="late")("late"))
            await app.settle()
            await app.advance(5)
            with pytest.raises(DeadlineExceededError) as told:
                await late
            assert told.value.code == 504
            with pytest.raises(DeadlineExceededError):
                await app.object(Worker, "w").note.options(idempotency_key="late")("late")
            await app.advance(100)
            assert await first.result() == "worked"
            assert await app.object(Worker, "w").look() == ["begins", "worked", *["note"] * queued]

    async def test_it_survives_a_crash(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            await app.object(Worker, "w").work.send()
            late = await app.object(Worker, "w").note.options(timeout=5).send()
            await app.crash()
            await app.advance(5)
            with pytest.raises(DeadlineExceededError):
                await late.result()
            await app.advance(100)
            assert await app.object(Worker, "w").look() == ["begins", "worked"]

    async def test_what_is_delayed_beyond_the_window_and_queued_then_is_not_started(self, store: MemoryStore) -> None:
        async with tuned(harness(store), timer_window_us=60 * SECOND_US, timers_in_memory=0) as app:
            sent = await app.object(Worker, "w").note.options(timeout=50).after(2_000).send()
            await app.advance(1_990)
            await app.object(Worker, "w").work.send()
            await app.advance(200)
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            assert await app.object(Worker, "w").look() == ["begins", "worked"]


class TestUnderWay:
    @pytest.mark.parametrize("crashes", [False, True])
    async def test_the_first_and_a_later_caller_get_the_same(
        self, store: MemoryStore, crashes: bool, suspend_after: float
    ) -> None:
        async with harness(store, suspend_after) as app:
            work = app.object(Worker, "w").swallow.options(idempotency_key="k", timeout=20)
            first = begin(work())
            await app.settle()
            await app.advance(20)
            with pytest.raises(DeadlineExceededError) as heard:
                await first
            for _ in range(3):  # While its code runs, when it has ended, and after a crash.
                with pytest.raises(DeadlineExceededError) as told:
                    await work()
                assert (told.value.code, told.value.message) == (504, heard.value.message)
                if crashes:
                    await app.crash()
                await app.advance(30)
            assert await app.object(Worker, "w").look() == ["swallowed", "went on"]
            assert await app.object(Worker, "other").look() == ["sent"]

    async def test_its_object_is_held_until_its_code_has_ended(self, store: MemoryStore, suspend_after: float) -> None:
        async with harness(store, suspend_after) as app:
            sent = await app.object(Worker, "w").swallow.options(timeout=20).send()
            await app.settle()
            noting = begin(app.object(Worker, "w").note())
            await app.advance(20)
            assert await sent.status() is InvocationStatus.SUSPENDED
            assert not noting.done()
            await app.advance(50)
            assert await noting == ["swallowed", "went on", "note"]
            assert await sent.status() is InvocationStatus.COMPLETED

    async def test_a_handler_that_does_not_look_is_cancelled(self, store: MemoryStore, suspend_after: float) -> None:
        async with harness(store, suspend_after) as app:
            sent = await app.object(Worker, "w").work.options(timeout=20).send()
            await app.advance(20)
            assert await sent.status() is InvocationStatus.COMPLETED
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            assert await app.object(Worker, "w").look() == ["begins"]
            assert [row.timers for row in store.disk.rows.values() if row.timers] == []

    async def test_what_an_atomic_handler_did_is_dropped(self, store: MemoryStore, suspend_after: float) -> None:
        async with harness(store, suspend_after) as app:
            sent = await app.object(Worker, "w").swallow_atomically.options(timeout=20).send()
            await app.advance(20)
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            assert await app.object(Worker, "w").look() == await app.object(Worker, "other").look() == []

    @pytest.mark.parametrize("crashes", [False, True])
    async def test_compensation_after_a_deadline_runs(
        self, store: MemoryStore, crashes: bool, suspend_after: float
    ) -> None:
        """Calls made after it carry none."""
        async with harness(store, suspend_after) as app:
            sent = await app.object(Worker, "w").compensate.options(timeout=20).send()
            await app.advance(20)
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            if crashes:
                await app.crash()
            assert await sent.status() is not InvocationStatus.COMPLETED
            await app.advance(30)
            assert await app.object(Worker, "other").look() == ["begins", "worked"]
            assert await sent.status() is InvocationStatus.COMPLETED

    async def test_a_caller_has_its_answer_at_the_deadline(self, store: MemoryStore, suspend_after: float) -> None:
        async with harness(store, suspend_after) as app:
            call = begin(app.service(Asker).call("w", 20))
            await app.settle()
            await app.advance(20)
            assert await call == "504 after 00:20"
            assert await app.object(Worker, "w").look() == ["swallowed"]

    async def test_a_shielded_callee_has_the_deadline_all_the_same(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            call = begin(app.object(Worker, "w").shielded.options(timeout=20)())
            await app.settle()
            await app.advance(20)
            with pytest.raises(DeadlineExceededError):
                await call
            assert await app.object(Worker, "other").look() == ["begins"]
            await app.object(Worker, "other").note()

    async def test_one_that_backs_off_gets_an_attempt_and_ends(self, store: MemoryStore, suspend_after: float) -> None:
        async with harness(store, suspend_after) as app:
            sent = await app.object(Worker, "w").fail.options(timeout=20).send()
            await app.advance(20)
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            assert await sent.status() is InvocationStatus.COMPLETED
            assert await app.object(Worker, "w").note() == ["note"]

    async def test_one_that_is_paused_gets_an_attempt_and_ends(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            sent = await app.object(Worker, "w").work.options(timeout=20).send()
            await app.settle()
            assert await app.pause(sent.id) == [sent.id]
            await app.advance(20)
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            assert await app.object(Worker, "w").note() == ["begins", "note"]

    @pytest.mark.parametrize("verb", ["cancel", "kill"])
    async def test_cancel_and_kill_work_while_its_code_runs_and_change_no_outcome(
        self, store: MemoryStore, verb: str, suspend_after: float
    ) -> None:
        async with harness(store, suspend_after) as app:
            sent = await app.object(Worker, "w").swallow.options(timeout=20).send()
            await app.advance(20)
            with pytest.raises(InvocationStatusError, match="not yet completed"):
                await app.purge(sent.id)
            await (app.cancel(sent.id) if verb == "cancel" else app.kill(sent.id))
            await app.settle()
            assert await sent.status() is InvocationStatus.COMPLETED
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            assert await app.object(Worker, "w").look() == ["swallowed"]

    async def test_its_rows_stay_while_its_code_runs_and_the_retention_counts_from_the_deadline(
        self, store: MemoryStore
    ) -> None:
        async with tuned(harness(store), retention_us=30 * SECOND_US) as app:
            work = app.object(Worker, "w").swallow.options(idempotency_key="k", timeout=20)
            sent = await work.send()
            await app.advance(20)
            await app.advance(40)  # Beyond the retention.
            again = await work.send()
            assert again.id == sent.id
            with pytest.raises(DeadlineExceededError):
                await sent.result()
            await app.advance(10)
            await app.settle()
            assert not any(row.record.id == sent.id for row in store.disk.rows.values())

    async def test_a_cancel_before_the_deadline_counts_as_long_as_it_ends_in_time(self, store: MemoryStore) -> None:
        async with harness(store) as app:
            soon = await app.object(Worker, "w").work.options(timeout=20).send()
            await app.advance(5)
            await soon.cancel()
            with pytest.raises(CancelledInvocationError):
                await soon.result()
            slow = await app.object(Worker, "w").swallow.options(timeout=20).send()
            await app.settle()
            await slow.cancel()
            await app.advance(20)
            with pytest.raises(DeadlineExceededError):
                await slow.result()
            await turns()

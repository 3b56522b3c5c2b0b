"""Workflows: `run` once for each id, promises, what is left and for how long (rules E5, S4, V6, W3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from durably import (
    AlreadyCompletedError,
    AlreadyStartedError,
    CancelledInvocationError,
    Context,
    DeadlineExceededError,
    DurablePromise,
    InvalidArgumentError,
    InvocationStatus,
    InvocationStatusError,
    NotReadyError,
    PausedInvocationError,
    Service,
    SharedWorkflowContext,
    TerminalError,
    UnknownTargetError,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    select,
    shared,
    state,
)
from durably.ids import Address
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.records import InvocationRecord
from durably.testing import Harness
from tests.semantics.support import (
    SECOND_US,
    PuppetStore,
    begin,
    keep_one_incarnation,
    supervisor_of,
    tuned,
    turns,
    wait_a_little,
)


class Signup(Workflow):
    """Waits for a code."""

    email: str = state(default="")
    confirmed: DurablePromise[str] = promise()
    looked: DurablePromise[int | None] = promise(name="seen")

    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        self.email = email
        await ctx.sleep(1)
        return f"{email} {await self.confirmed}"

    @shared
    async def confirm(self, ctx: SharedWorkflowContext, code: str) -> None:
        await self.confirmed.resolve(code)

    @shared
    async def refuse(self, ctx: SharedWorkflowContext, reason: str) -> None:
        await self.confirmed.reject(reason, code=403)

    @shared
    async def wait(self, ctx: SharedWorkflowContext) -> str:
        return await ctx.promise("confirmed", str)

    @shared
    async def peek(self, ctx: SharedWorkflowContext) -> str | None:
        return await self.confirmed.peek()

    @shared
    async def peek_twice(self, ctx: SharedWorkflowContext) -> list[str | None]:
        first = await self.confirmed.peek()
        await ctx.sleep(60)
        return [first, await self.confirmed.peek()]

    @shared
    async def look(self, ctx: SharedWorkflowContext) -> str:
        return self.email

    @shared
    async def see(self, ctx: SharedWorkflowContext, what: int | None) -> int | None:
        await self.looked.resolve(what)
        return await ctx.promise("seen", int | None)  # type: ignore[arg-type]

    @shared
    async def wait_for_seen(self, ctx: SharedWorkflowContext) -> int | None:
        return await self.looked

    @shared
    async def see_again(self, ctx: SharedWorkflowContext) -> int | None:
        return await self.looked.peek()

    @shared
    async def see_by_name(self, ctx: SharedWorkflowContext, what: str) -> None:
        await ctx.promise("seen", str).resolve(what)

    @shared
    async def see_nothing_by_name(self, ctx: SharedWorkflowContext) -> None:
        await ctx.promise("seen", type(None)).resolve(None)

    @shared
    async def linger(self, ctx: SharedWorkflowContext, seconds: int) -> str:
        await ctx.sleep(seconds)
        return self.email


class Atomic(Workflow):
    """Completes promises, and may fail."""

    first: DurablePromise[int] = promise()
    second: DurablePromise[int] = promise()
    count: int = state(default=0)

    @handler(atomic=True)
    async def run(self, ctx: WorkflowContext, fails: bool) -> list[Any]:
        await self.first.resolve(1)
        self.count += 1
        seen: list[Any] = [await self.first, await self.first.peek(), await self.second.peek()]
        try:
            await self.first.resolve(2)
        except AlreadyCompletedError:
            seen.append("refused")
        await ctx.sleep(60)
        if fails:
            raise TerminalError("no")
        return seen

    @shared
    async def complete(self, ctx: SharedWorkflowContext, number: int) -> None:
        await self.first.resolve(number)

    @shared
    async def peek(self, ctx: SharedWorkflowContext) -> int | None:
        return await self.first.peek()

    @shared
    async def wait(self, ctx: SharedWorkflowContext) -> int:
        return await self.first


class Desk(Service):
    """Uses workflows from a handler."""

    @handler
    async def start(self, ctx: Context, id: str) -> list[Any]:
        one = await ctx.workflow(Signup, id).run.send("a")
        two = await ctx.workflow(Signup, id).run.send("b")
        named = await ctx.send("Signup", "run", b'"c"', key=id)
        run = ctx.workflow(Signup, id).run
        refused = [await failure_code(run("d")), await failure_code(run.output())]
        is_one = one.id == two.id == named.id
        return [is_one, [one.previously_accepted, two.previously_accepted, named.previously_accepted], *refused]

    @handler
    async def ask(self, ctx: Context, id: str) -> list[str]:
        run = ctx.workflow(Signup, id).run
        sent = ctx.invocation(await run_id(ctx, id), str)
        return [await run.attach(), await run.output(), await sent, await sent.output()]

    @handler
    async def output(self, ctx: Context, id: str) -> str:
        return await ctx.invocation(id, str).output()


async def failure_code(call: Awaitable[str]) -> int:
    try:
        await call
    except TerminalError as error:
        return error.code
    return 0


async def run_id(ctx: Context, id: str) -> str:
    """A send finds the run that there is."""
    return (await ctx.workflow(Signup, id).run.send("again")).id


def harness(
    suspend_after: float, store: InspectableStore | None = None, *, retention_seconds: int = 24 * 3_600
) -> Harness:
    app = Harness(Signup, Atomic, Desk, suspend_after=suspend_after, store=store)
    return tuned(app, retention_us=retention_seconds * SECOND_US, expire_every_us=60 * SECOND_US)


# ---------------------------------------------------------------------- once


async def test_a_second_call_is_refused_and_a_second_send_finds_the_first(suspend_after: float) -> None:
    async with harness(suspend_after) as app:
        ann = app.workflow(Signup, "ann")
        sent = await ann.run.send("a")
        again = await ann.run.send("b")
        assert (again.id, sent.previously_accepted, again.previously_accepted) == (sent.id, False, True)
        with pytest.raises(AlreadyStartedError, match="the workflow method was already invoked: Signup/ann") as refused:
            await ann.run("c")
        assert refused.value.code == 409
        await ann.confirm("7")
        await app.advance(seconds=1)
        assert [await ann.run.attach(), await sent, await sent.output()] == ["a 7"] * 3
        with pytest.raises(AlreadyStartedError):
            await ann.run("d")
        assert (await ann.run.send("e")).previously_accepted
        assert await ann.look() == "a"


async def test_handlers_start_once_too(suspend_after: float) -> None:
    async with harness(suspend_after) as app:
        started = await app.service(Desk).start("ann")
        assert started == [True, [False, True, True], 409, 470]
        asked = begin(app.service(Desk).ask("ann"))
        await app.workflow(Signup, "ann").confirm("7")
        await app.advance(seconds=1)
        assert await asked == ["a 7"] * 4


async def test_two_starts_at_once_are_one_with_the_look_up_held_back(store: PuppetStore, suspend_after: float) -> None:
    """Rule L3."""
    async with harness(suspend_after, store) as app:
        ann = app.workflow(Signup, "ann")
        store.lookups.hold()
        calls = [begin(ann.run("a")), begin(ann.run("b"))]
        sends = [begin(ann.run.send("c")), begin(app.service(Desk).start("ann"))]
        await turns()
        store.lookups.release()
        await ann.confirm("7")
        await wait_a_little(app, 2)
        assert await calls[0] == "a 7"
        with pytest.raises(AlreadyStartedError):
            await calls[1]
        assert (await sends[0]).previously_accepted  # type: ignore[attr-defined]
        assert (await sends[1])[1] == [True, True, True]  # type: ignore[index]
        keep_one_incarnation(app)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_start_whose_commit_fails_has_happened_once_or_not_at_all(
    store: PuppetStore, suspend_after: float, durable: bool
) -> None:
    async with harness(suspend_after, store) as app:
        ann = app.workflow(Signup, "ann")
        store.hold()
        first, second = begin(ann.run.send("a")), begin(ann.run.send("b"))
        await turns()
        await store.fail_one(durable=durable)
        await store.go_on()
        results = await asyncio.gather(first, second, return_exceptions=True)
        if durable:
            assert [one.previously_accepted for one in results] == [False, True]  # type: ignore[union-attr]
        else:
            assert not any(getattr(one, "id", None) for one in results)
        assert (await ann.run.send("c")).previously_accepted is durable


async def test_an_idempotency_key_is_refused_on_run_and_taken_on_others() -> None:
    async with harness(60) as app:
        ann = app.workflow(Signup, "ann")
        with pytest.raises(TypeError, match="the id is its idempotency key already"):
            ann.run.options(idempotency_key="k")
        with pytest.raises(InvalidArgumentError, match="started once for each id"):
            await app.call("Signup", "run", b'"a"', key="ann", idempotency_key="k")
        with pytest.raises(UnknownTargetError, match="is a workflow and needs an id"):
            await app.call("Signup", "run", b'"a"')
        with pytest.raises(UnknownTargetError, match="no invocation of the workflow Signup/ann"):
            await ann.run.attach()
        peek = ann.peek.options(idempotency_key="k")
        assert await peek() is None
        await ann.confirm("7")
        assert [await peek(), await peek.attach(), await ann.peek()] == [None, None, "7"]


# ---------------------------------------------------------------------- promises


async def test_a_promise_is_completed_before_during_and_after_the_run(suspend_after: float) -> None:
    async with harness(suspend_after) as app:
        ann, bob = app.workflow(Signup, "ann"), app.workflow(Signup, "bob")
        await ann.confirm("before")
        await ann.run.send("a")
        await bob.run.send("b")
        waiting = [begin(bob.wait()), begin(bob.wait())]
        await app.advance(seconds=1)
        assert (await bob.peek(), await ann.run.attach()) == (None, "a before")
        await bob.confirm("during")
        assert [await one for one in waiting] == ["during", "during"]
        assert [await bob.run.attach(), await bob.wait(), await bob.peek()] == ["b during", "during", "during"]
        assert await bob.see(None) is None
        with pytest.raises(AlreadyCompletedError, match="promise was already completed: 'seen' of Signup/bob"):
            await bob.see(3)


async def test_a_rejected_promise_raises_for_all_who_ask(suspend_after: float) -> None:
    async with harness(suspend_after) as app:
        ann = app.workflow(Signup, "ann")
        sent = await ann.run.send("a")
        await app.advance(seconds=1)
        waiting = begin(ann.wait())
        await ann.refuse("not you")
        for outcome in (waiting, ann.wait(), ann.peek(), sent):
            with pytest.raises(TerminalError, match="not you") as failed:
                await outcome
            assert failed.value.code == 403


async def test_a_declared_promise_is_completed_by_name_with_what_is_read_as_it_is_declared(
    suspend_after: float,
) -> None:
    """Those who wait could never go on: the first completion counts for good (rule V5)."""
    async with harness(suspend_after) as app:
        ann = app.workflow(Signup, "ann")
        waiting = begin(ann.wait_for_seen())
        with pytest.raises(TerminalError, match="'seen' cannot be given this value: It is declared with another"):
            await ann.see_by_name("seven")
        assert not waiting.done()
        await ann.see_nothing_by_name()
        assert await waiting is None


class Poll(Workflow):
    """Nobody has declared what it waits for."""

    noted: DurablePromise[int] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> int:
        return await ctx.promise("answer", int)

    @shared
    async def peek(self, ctx: SharedWorkflowContext) -> int | None:
        return await ctx.promise("answer", int).peek()

    @shared
    async def answer(self, ctx: SharedWorkflowContext, value: Any) -> None:
        own_type: Any = value.__class__
        await ctx.promise("answer", own_type).resolve(value)

    @shared
    async def note(self, ctx: SharedWorkflowContext) -> str:
        await self.noted.resolve(3)
        return await ctx.promise("noted", str)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("7", "str"),
        ([7], "list"),
        ({"a": 7}, "dict"),
        (7.5, "float"),
        (True, "bool"),
        (None, "None"),
        ("x" * 3_000_000, "str"),
    ],
)
async def test_a_promise_that_is_read_as_another_type_is_named_with_what_it_is_and_what_to_do(
    suspend_after: float, value: Any, written: str
) -> None:
    sentence = (
        f"The promise 'answer' was completed with {written}, and was read as int. Expected int, .* Its first "
        f"completion counts for good: let the code read it as {written}, then resume."
    )
    async with Harness(Poll, suspend_after=suspend_after) as app:
        poll = app.workflow(Poll, "p")
        running = begin(poll.run())
        await app.settle()
        await poll.answer(value)
        for asked in (running, poll.peek()):
            with pytest.raises(PausedInvocationError, match=sentence):
                await asked
        with pytest.raises(
            PausedInvocationError, match=r"The promise 'noted' is declared as int, and was read as str\."
        ):
            await poll.note()


async def test_of_two_completions_at_once_the_first_counts(store: PuppetStore, suspend_after: float) -> None:
    """Rule E5."""
    async with harness(suspend_after, store) as app:
        ann = app.workflow(Signup, "ann")
        waiting = begin(ann.wait())
        store.hold()
        resolving, rejecting = begin(ann.confirm("7")), begin(ann.refuse("late"))
        await turns()
        await store.go_on()
        await resolving
        assert await waiting == "7"
        with pytest.raises(AlreadyCompletedError):
            await rejecting


async def test_what_a_peek_saw_is_what_its_replay_sees(suspend_after: float) -> None:
    """Rule S4."""
    async with harness(suspend_after) as app:
        ann = app.workflow(Signup, "ann")
        peeking = begin(ann.peek_twice())
        await app.settle()
        await ann.confirm("7")
        await app.crash()
        await app.advance(seconds=60)
        assert await peeking == [None, "7"]


@pytest.mark.parametrize("durable", [True, False])
async def test_a_completion_whose_commit_fails_is_made_once_or_not_at_all(
    store: PuppetStore, suspend_after: float, durable: bool
) -> None:
    async with harness(suspend_after, store) as app:
        ann = app.workflow(Signup, "ann")
        waiting = begin(ann.wait.options(idempotency_key="waiting")())
        await app.settle()
        store.hold()
        completing = begin(ann.confirm("7"))
        await turns()
        await store.fail_one(durable=durable)
        await store.go_on()
        await asyncio.gather(completing, return_exceptions=True)
        assert await ann.peek() == ("7" if durable else None)
        if not durable:
            await ann.confirm("8")
        assert await waiting == ("7" if durable else "8")


async def test_promises_work_with_the_tools_of_asyncio(suspend_after: float) -> None:
    class Tools(Workflow):
        go: DurablePromise[int] = promise()

        @handler
        async def run(self, ctx: WorkflowContext) -> list[Any]:
            seen: list[Any] = []
            try:
                await asyncio.wait_for(self.go, 10)
            except TimeoutError:
                seen.append("late")
            seen.append(await select(go=self.go, time=ctx.sleep(5)))
            both = asyncio.gather(self.go, ctx.promise("other", str))
            return [*seen, *await both]

        @shared
        async def complete(self, ctx: SharedWorkflowContext, name: str) -> None:
            await (self.go.resolve(1) if name == "go" else ctx.promise(name, str).resolve(name))

    async with Harness(Tools, suspend_after=suspend_after) as app:
        sent = await app.workflow(Tools, "a").run.send()
        await app.advance(seconds=20)
        await app.workflow(Tools, "a").complete("go")
        await app.workflow(Tools, "a").complete("other")
        assert await sent == ["late", ["time", None], 1, "other"]


async def test_an_atomic_run_completes_promises_with_its_outcome(suspend_after: float) -> None:
    """Rule V6."""
    async with harness(suspend_after) as app:
        good, bad, late = (app.workflow(Atomic, id) for id in ("good", "bad", "late"))
        await good.run.send(False)
        await bad.run.send(True)
        await late.run.send(False)
        waiting = begin(good.wait())
        await app.settle()
        assert [await good.peek(), await bad.peek()] == [None, None]
        await app.crash()
        await late.complete(9)
        await app.advance(seconds=60)
        assert await good.run.attach() == [1, 1, None, "refused"]
        assert [await waiting, await good.peek(), await late.peek()] == [1, 1, 9]
        with pytest.raises(TerminalError, match="no"):
            await bad.run.attach()
        assert [await bad.peek(), await app.state(Atomic, "bad"), await app.state(Atomic, "good")] == [
            None, {}, {"count": 1},
        ]  # fmt: skip


# ---------------------------------------------------------------------- retention


def rows_of(store: MemoryStore, id: str) -> list[object]:
    """What the store holds of a workflow."""
    disk, address = store.disk, Address("Signup", id)
    kept = [row.record.handler for row in disk.rows.values() if row.record.address == address]
    return [*kept, *disk.state.get(address, {}), *disk.promises.get(address, {})]


async def test_what_a_workflow_leaves_goes_together(suspend_after: float) -> None:
    """Rule W3."""
    store = MemoryStore()
    async with harness(suspend_after, store) as app:
        ann = app.workflow(Signup, "ann")
        await ann.confirm("7")
        await ann.run.send("a")
        await app.advance(seconds=1)
        await app.advance(hours=23)
        assert rows_of(store, "ann") == ["run", "email", "confirmed"]
        await app.advance(hours=2)
        assert rows_of(store, "ann") == []
        with pytest.raises(UnknownTargetError):
            await ann.run.output()
        assert [await ann.look(), await ann.peek()] == ["", None]
        again = await ann.run.send("b")
        await ann.confirm("8")
        await app.advance(seconds=1)
        assert (again.previously_accepted, await again) == (False, "b 8")


async def test_the_id_is_free_at_the_moment_that_was_announced(store: PuppetStore, suspend_after: float) -> None:
    """The cleaner only looks once a minute."""
    async with harness(suspend_after, store, retention_seconds=5) as app:
        ann = app.workflow(Signup, "ann")
        await ann.confirm("7")
        await ann.run.send("a")
        await app.advance(seconds=1)
        await app.advance(seconds=4.5)
        with pytest.raises(AlreadyStartedError):
            await ann.run("b")
        await app.advance(seconds=0.5)
        second = begin(ann.run("c"))
        await app.settle()
        await ann.confirm("8")
        await app.advance(seconds=1)
        assert await second == "c 8"
        keep_one_incarnation(app)


async def test_who_waits_when_the_retention_ends_hears_that_nothing_will_come(suspend_after: float) -> None:
    store = MemoryStore()
    async with harness(suspend_after, store, retention_seconds=100) as app:
        ann = app.workflow(Signup, "ann")
        await ann.confirm("7")
        await ann.run.send("a")
        await app.advance(seconds=1)
        sleeping = begin(ann.linger(300))
        waiting = begin(ann.wait_for_seen())
        await app.settle()
        await app.advance(seconds=200)
        with pytest.raises(TerminalError, match="before the retention of the workflow ended") as gone:
            await waiting
        assert gone.value.code == 410
        assert "run" in rows_of(store, "ann")
        with pytest.raises(AlreadyStartedError):
            await ann.run("too early")
        await app.advance(seconds=100)
        assert await sleeping == "a"
        assert rows_of(store, "ann") == []
        await ann.run.send("b")
        assert await ann.look() == "b"


async def test_an_id_that_never_ran_counts_from_its_last_write(suspend_after: float) -> None:
    store = MemoryStore()
    async with harness(suspend_after, store, retention_seconds=1_000) as app:
        ann = app.workflow(Signup, "ann")
        await ann.confirm("7")
        await app.advance(seconds=600)
        waiting = begin(ann.wait())
        await ann.see(1)
        other = begin(ann.wait_for_seen())
        assert [await waiting, await other] == ["7", 1]
        await app.advance(seconds=600)
        assert rows_of(store, "ann") == ["confirmed", "seen"]
        await app.advance(seconds=600)
        assert rows_of(store, "ann") == []
        assert await ann.peek() is None


async def test_an_id_that_never_ran_lets_go_of_those_who_wait_for_it(suspend_after: float) -> None:
    store = MemoryStore()
    async with harness(suspend_after, store, retention_seconds=1_000) as app:
        ann = app.workflow(Signup, "ann")
        await ann.see(1)
        waiting = begin(ann.wait())
        await app.advance(seconds=1_200)
        with pytest.raises(TerminalError, match="nothing will complete it"):
            await waiting
        assert rows_of(store, "ann") == []


async def test_a_run_that_comes_late_keeps_what_was_completed_before(suspend_after: float) -> None:
    store = MemoryStore()
    async with harness(suspend_after, store, retention_seconds=1_000) as app:
        ann = app.workflow(Signup, "ann")
        await ann.see(1)
        await app.advance(seconds=900)
        sent = await ann.run.send("a")
        await app.advance(days=3)
        assert rows_of(store, "ann") == ["run", "seen"]
        await app.crash()
        await app.advance(days=3)
        await ann.confirm("7")
        assert await sent == "a 7"
        await app.advance(seconds=900)
        assert await ann.see_again() == 1
        await app.advance(seconds=900)
        assert rows_of(store, "ann") == []


class Patient(MemoryStore):
    """Counts how often it is asked for what has expired, and says that nothing has when that has no end."""

    asked = 0

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        self.asked += 1
        return [] if self.asked > 2_000 else await super().expired(now, limit)

    async def expired_promises(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        self.asked += 1
        return [] if self.asked > 2_000 else await super().expired_promises(now, limit)


async def test_promises_of_a_run_that_came_late_are_looked_at_once_though_their_object_leaves_memory() -> None:
    store = Patient()
    async with tuned(Harness(Signup, store=store), active_objects=0) as app:
        ann = app.workflow(Signup, "ann")
        await ann.see(1)
        await app.advance(hours=23)
        await ann.confirm("7")
        await ann.run.send("a")
        await app.advance(hours=20)
        assert sorted(map(str, rows_of(store, "ann"))) == ["confirmed", "email", "run", "seen"]
        assert await ann.see_again() == 1
        await app.advance(hours=25)
        assert rows_of(store, "ann") == []
    assert store.asked < 2_000, "it asks without end"


async def test_what_a_class_leaves_that_is_not_there_stays_and_keeps_nobody_busy() -> None:
    store = Patient()
    async with Harness(Signup, store=store) as app:
        for id in ("ann", "bob"):
            await app.workflow(Signup, id).confirm("7")
        await app.workflow(Signup, "ann").run.send("a")
        await app.advance(seconds=1)
    async with Harness(Desk, store=store) as app:
        await app.advance(days=3)
        assert rows_of(store, "ann") == ["run", "email", "confirmed"]
        assert rows_of(store, "bob") == ["confirmed"]
    assert store.asked < 2_000, "it asks without end"
    async with Harness(Signup, store=store) as app:
        await app.advance(days=5)  # Its clock begins where the first one did.
        assert rows_of(store, "ann") == rows_of(store, "bob") == []


async def test_the_retention_of_a_class_and_of_its_run() -> None:
    class Short(Workflow, retention=50):
        @handler
        async def run(self, ctx: WorkflowContext) -> int:
            return 1

    class Shorter(Short, retention=50):
        @handler(retention=5)
        async def run(self, ctx: WorkflowContext) -> int:
            return 1

    async with Harness(Short, Shorter) as app:
        for cls, seconds in ((Short, 50), (Shorter, 5)):
            run = app.workflow(cls, "a").run
            assert await run() == 1
            await app.advance(seconds=seconds - 1)
            assert await run.output() == 1
            await app.advance(seconds=1)
            with pytest.raises(UnknownTargetError):
                await run.output()


@pytest.mark.parametrize("durable", [True, False])
async def test_a_failed_commit_of_the_end_of_the_retention(
    store: PuppetStore, suspend_after: float, durable: bool
) -> None:
    async with harness(suspend_after, store, retention_seconds=5) as app:
        ann = app.workflow(Signup, "ann")
        await ann.confirm("7")
        sent = await ann.run.send("a")
        await app.advance(seconds=1)
        assert await sent == "a 7"
        await app.clock.advance(5_000_000, turns)
        store.hold()
        started = begin(ann.run.send("b"))
        await turns()
        assert store.waiting == 1
        await store.fail_one(durable=durable)
        await store.go_on()
        await asyncio.gather(started, return_exceptions=True)
        await app.settle()
        assert supervisor_of(app).gateway.pending.failure is not None
        await ann.run.send("c")
        assert await ann.look() in ("b", "c")
        assert await ann.peek() is None


# ---------------------------------------------------------------------- attach and output


async def test_an_outcome_is_looked_at_without_waiting_by_id_key_and_workflow(suspend_after: float) -> None:
    async with harness(suspend_after) as app:
        ann = app.workflow(Signup, "ann")
        sent = await ann.run.send("a")
        linger = ann.linger.options(idempotency_key="k")
        lingering = await linger.send(50)
        for early in (sent.output(), lingering.output(), linger.output(), ann.run.output()):
            with pytest.raises(NotReadyError, match="the invocation exists but has not completed yet") as ready:
                await early
            assert ready.value.code == 470
        with pytest.raises(NotReadyError):
            await app.service(Desk).output(sent.id)
        for unknown in (app.invocation("inv_none", str).output(), app.service(Desk).output("inv_none")):
            with pytest.raises(UnknownTargetError):
                await unknown
        await ann.confirm("7")
        await app.advance(seconds=50)
        assert [await sent.output(), await lingering.output(), await linger.output(), await ann.run.output()] == [
            "a 7", "a", "a", "a 7",
        ]  # fmt: skip
        assert await app.service(Desk).output(lingering.id) == "a"
        assert await lingering.status() is InvocationStatus.COMPLETED


# ---------------------------------------------------------------------- with cancels, kills, deadlines and purges


class Rounds(Workflow):
    """Goes on in a new execution, or begins anew when it is cancelled."""

    rounds: int = state(default=0)
    unused: DurablePromise[int] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, left: int, *, begins_anew: bool = False) -> int:
        self.rounds += 1
        try:
            await ctx.sleep(10)
        except asyncio.CancelledError:
            if not begins_anew:
                raise
            ctx.continue_as_new(Rounds.run, 0)
        if left:
            ctx.continue_as_new(Rounds.run, left - 1, begins_anew=begins_anew)
        return self.rounds

    @shared
    async def complete(self, ctx: SharedWorkflowContext) -> None:
        await self.unused.resolve(1)

    @shared
    async def linger(self, ctx: SharedWorkflowContext, seconds: int) -> None:
        await ctx.sleep(seconds)


async def test_a_later_execution_is_cancelled_and_may_begin_anew(suspend_after: float) -> None:
    async with Harness(Rounds, suspend_after=suspend_after) as app:
        plain = await app.workflow(Rounds, "plain").run.send(3)
        anew = await app.workflow(Rounds, "anew").run.send(3, begins_anew=True)
        await app.advance(25)
        for invocation in (plain, anew):
            assert list(await app.cancel(invocation.id)) == [invocation.id]
        await app.advance(20)
        with pytest.raises(CancelledInvocationError):
            await plain
        assert await anew == 4


async def test_an_execution_ends_at_the_deadline_of_the_first(suspend_after: float) -> None:
    async with Harness(Rounds, suspend_after=suspend_after) as app:
        sent = await app.workflow(Rounds, "a").run.options(timeout=25).send(3)
        await app.advance(26)
        with pytest.raises(DeadlineExceededError):
            await sent
        await app.advance(20)
        assert await sent.status() is InvocationStatus.COMPLETED
        assert await app.state(Rounds, "a") == {"rounds": 3}


async def test_a_purged_workflow_goes_with_its_last_handler(suspend_after: float) -> None:
    async with Harness(Rounds, suspend_after=suspend_after) as app:
        rounds = app.workflow(Rounds, "a")
        await rounds.complete()
        sent = await rounds.run.send(0)
        await app.advance(10)
        lingering = begin(rounds.linger(100))
        await app.settle()
        assert list(await app.purge(sent.id)) == [sent.id]
        assert await sent.status() is InvocationStatus.COMPLETED
        await app.advance(100)
        await lingering
        with pytest.raises(UnknownTargetError):
            await sent.status()
        assert await app.state(Rounds, "a") == {}
        await rounds.complete()
        assert not (await rounds.run.send(0)).previously_accepted


async def test_a_killed_workflow_frees_its_id_when_it_is_purged_and_is_not_restarted(suspend_after: float) -> None:
    async with Harness(Rounds, suspend_after=suspend_after) as app:
        run = app.workflow(Rounds, "a").run
        sent = await run.send(3)
        await app.advance(15)
        await app.kill(sent.id)
        with pytest.raises(CancelledInvocationError):
            await sent
        assert await app.state(Rounds, "a") == {"rounds": 2}
        with pytest.raises(InvocationStatusError, match="executes once for each id") as refused:
            await app.restart_as_new(sent.id)
        assert refused.value.code == 422
        await app.purge(sent.id)
        assert await app.state(Rounds, "a") == {}
        assert not (await run.send(0)).previously_accepted


async def test_a_workflow_expires_beside_other_outcomes(suspend_after: float) -> None:
    """The store is asked for a workflow while what else has expired is on its way to the disk."""
    store = MemoryStore()
    async with harness(suspend_after, store, retention_seconds=100) as app:
        ann = app.workflow(Signup, "ann")
        await ann.confirm("7")
        await ann.run.send("a")
        await ann.peek.options(idempotency_key="k")()
        await app.advance(seconds=1)
        await app.advance(seconds=200)
        assert rows_of(store, "ann") == []

"""`ctx.continue_as_new()`: one invocation, several executions (rules T5, W1)."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably import (
    DeadlineExceededError,
    DurablePromise,
    HandlerMistakeError,
    InvalidArgumentError,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    SharedContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.runtime.execution.continuation import ContinueAsNew
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, keep_one_incarnation, turns, wait_a_little


class Rounds(Workflow):
    """Goes on and on."""

    seen: list[str] = state(default=[])
    stop: DurablePromise[str] = promise()

    def __init__(self, world: World) -> None:
        self._world = world

    @handler
    async def run(self, ctx: WorkflowContext, left: int) -> list[str]:
        """Each round is one execution."""
        self.seen.append(f"{left} {ctx.request.id}")
        await ctx.sleep(60)
        if left:
            ctx.continue_as_new(Rounds.run, left - 1)
        return self.seen

    @shared
    async def complete(self, ctx: SharedWorkflowContext, text: str) -> None:
        await self.stop.resolve(text)

    @shared
    async def look(self, ctx: SharedWorkflowContext) -> int:
        return len(self.seen)


class Slow(VirtualObject):
    """Answers late, and counts what it was asked."""

    asked: int = state(default=0)

    @handler
    async def answer(self, ctx: ObjectContext, seconds: int, text: str) -> str:
        self.asked += 1
        await ctx.sleep(seconds)
        return text


class Caller(Workflow):
    """Leaves a call behind."""

    @handler
    async def run(self, ctx: WorkflowContext, execution: int) -> str:
        first = ctx.object(Slow, f"slow {execution}").answer(100 if execution == 0 else 300, f"answer {execution}")
        call = asyncio.ensure_future(first)
        await ctx.sleep(10)
        if execution == 0:
            ctx.continue_as_new(Caller.run, 1)
        return await call


class Acting(Workflow):
    """Leaves an action behind."""

    def __init__(self, world: World) -> None:
        self._world = world

    @handler
    async def run(self, ctx: WorkflowContext, execution: int) -> str:
        action = asyncio.ensure_future(ctx.run(f"act {execution}", self._world.act, f"{execution}"))
        if execution == 0:
            await ctx.sleep(10)
            ctx.continue_as_new(Acting.run, 1)
        return await action


class Quick(Workflow):
    """Goes on as soon as its action is done, to the next."""

    def __init__(self, world: World) -> None:
        self._world = world

    @handler
    async def run(self, ctx: WorkflowContext, execution: int) -> str:
        done = await ctx.run(f"act {execution}", self._world.act, f"{execution}")
        if execution == 0:
            ctx.continue_as_new(Quick.run, 1)
        return done


class Hasty(Workflow):
    """Goes on before its action can begin."""

    go: DurablePromise[None] = promise()

    def __init__(self, world: World) -> None:
        self._world = world

    @handler
    async def run(self, ctx: WorkflowContext, execution: int) -> str:
        action = asyncio.ensure_future(ctx.run(f"act {execution}", self._world.act_at_once, f"{execution}"))
        if execution == 0:
            await self.go
            ctx.continue_as_new(Hasty.run, 1)
        return await action

    @shared
    async def let_go(self, ctx: SharedWorkflowContext) -> None:
        await self.go.resolve(None)

    @shared
    async def look(self, ctx: SharedWorkflowContext) -> int:
        return 0


class Spread(VirtualObject):
    """What an object may do."""

    count: int = state(default=0)

    @handler
    async def work(self, ctx: ObjectContext, left: int, how: str = "plain") -> int:
        self.count += 1
        await ctx.object(Slow, "s").answer.send(0, f"{left}")
        try:
            if left:
                await self.again(ctx, left - 1, how)
        except Exception as error:
            raise TerminalError(f"caught {error!r}") from error
        return self.count

    async def again(self, ctx: ObjectContext, left: int, how: str) -> None:
        if how == "in a task":
            async with asyncio.TaskGroup() as group:
                group.create_task(self.go_on(ctx, left, how))
                await ctx.sleep(1_000)
        elif how == "with a sleep in finally":
            try:
                ctx.continue_as_new(Spread.work, left, how)
            finally:
                await ctx.sleep(5)
                self.count += 100
        else:
            ctx.continue_as_new(Spread.work, left, how=how)

    async def go_on(self, ctx: ObjectContext, left: int, how: str) -> NoReturn:
        ctx.continue_as_new(Spread.work, left, how)

    @handler
    async def wrong(self, ctx: ObjectContext, how: str) -> None:
        if how == "another handler":
            ctx.continue_as_new(Spread.work, 1)
        elif how == "of another class":
            ctx.continue_as_new(Slow.answer, 1, "a")
        elif how == "a method":
            ctx.continue_as_new(self.again, 1)  # type: ignore[arg-type]
        else:
            ctx.continue_as_new(Spread.wrong, 1)  # type: ignore[arg-type]

    @handler(atomic=True)
    async def work_or_nothing(self, ctx: ObjectContext, left: int) -> None:
        self.count += 1
        await ctx.object(Slow, "s").answer.send(0, "sent")
        await ctx.sleep(1)
        ctx.continue_as_new(Spread.work_or_nothing, left - 1)

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.count


def harness(suspend_after: float, world: World, store: InspectableStore | None = None) -> Harness:
    return Harness(
        Rounds, Slow, Caller, Acting, Quick, Hasty, Spread,
        dependencies={World: world}, suspend_after=suspend_after, store=store,
    )  # fmt: skip


@pytest.mark.parametrize("crashes", [False, True])
async def test_id_callers_state_and_promises_stay_and_the_journal_is_empty(
    world: World, suspend_after: float, crashes: bool
) -> None:
    store = MemoryStore()
    async with harness(suspend_after, world, store) as app:
        rounds = app.workflow(Rounds, "a")
        sent = await rounds.run.send(5)
        attached = begin(rounds.run.attach())
        await app.settle()
        await rounds.complete("stop")
        for number in range(1, 6):
            await app.advance(seconds=60)
            if crashes:
                await app.crash()
            assert (await sent.status(), await rounds.look()) == (InvocationStatus.SUSPENDED, number + 1)
            (row,) = [row for row in store.disk.rows.values() if row.record.handler == "run"]
            assert (len(row.steps), row.record.id) == (1, sent.id)
        await app.advance(seconds=60)
        expected = [f"{left} {sent.id}" for left in (5, 4, 3, 2, 1, 0)]
        assert [await sent, await attached, await rounds.run.output()] == [expected] * 3
        assert next(iter(store.disk.promises.values())).keys() == {"stop"}


async def test_the_answer_to_a_call_of_the_execution_before_reaches_nobody(world: World, suspend_after: float) -> None:
    """Rule W1: command 0 of the first execution is answered after command 0 of the second was issued."""
    async with harness(suspend_after, world) as app:
        sent = await app.workflow(Caller, "a").run.send(0)
        await app.advance(seconds=105)
        assert await sent.status() is InvocationStatus.SUSPENDED
        await app.crash()
        await app.advance(seconds=300)
        assert await sent == "answer 1"
        assert await app.state(Slow, "slow 0") == {"asked": 1}


async def test_an_action_of_the_execution_before_is_cancelled(world: World, suspend_after: float) -> None:
    async with harness(suspend_after, world) as app:
        sent = await app.workflow(Acting, "a").run.send(0)
        await app.clock.advance(0, turns)
        assert world.started == ["0"]
        world.end("1")
        await wait_a_little(app, 10)
        assert await sent == "1 done"
        assert (world.started, world.cancelled) == (["0", "1"], ["0"])


@pytest.mark.parametrize("durable", [True, False])
async def test_the_result_of_an_action_of_the_execution_before_is_not_taken_for_another(
    world: World, store: PuppetStore, suspend_after: float, durable: bool
) -> None:
    """The action is done and its completion is in the batch that fails, with the end of its execution."""
    async with harness(suspend_after, world, store) as app:
        sent = await app.workflow(Quick, "a").run.send(0)
        await turns()
        assert world.started == ["0"]
        store.hold()
        world.end("0")
        world.end("1")
        await turns()
        await store.fail_one(durable=durable)
        await store.go_on()
        await app.settle()
        assert await sent == "1 done"
        assert world.started == ["0", "1"]  # Rule A1: the first is joined, not started again.


async def test_an_action_starts_when_its_own_command_is_durable(
    world: World, store: PuppetStore, suspend_after: float
) -> None:
    """Command 0 of the execution before becomes durable, while command 0 of the next one is on its way (rule X1)."""
    async with harness(suspend_after, world, store) as app:
        hasty = app.workflow(Hasty, "a")
        assert await hasty.look() == 0  # It is in memory.
        store.hold()
        sending = begin(hasty.run.send(0))
        await turns()
        releasing = begin(hasty.let_go())
        await turns()
        await store.let_one()
        assert world.started == [], "what has asked for it is not on the disk"
        await store.go_on()
        await releasing
        assert await (await sending) == "1 done"
        assert world.started == ["1"]


@pytest.mark.parametrize("how", ["plain", "in a task", "with a sleep in finally"])
async def test_an_object_goes_on_too_and_stays_held(world: World, suspend_after: float, how: str) -> None:
    async with harness(suspend_after, world) as app:
        spread = app.object(Spread, "a")
        first = await spread.work.send(3, how)
        behind = await spread.work.send(0, "plain")
        await app.advance(seconds=60)
        added = 300 if how == "with a sleep in finally" else 0
        assert [await first, await behind] == [4 + added, 5 + added]
        assert await app.state(Slow, "s") == {"asked": 5}


@pytest.mark.parametrize("how", ["another handler", "of another class", "a method", "wrong arguments"])
async def test_only_the_handler_that_runs_goes_on(world: World, how: str) -> None:
    async with harness(60, world) as app:
        with pytest.raises((HandlerMistakeError, InvalidArgumentError, Exception)) as refused:
            await app.object(Spread, "a").wrong(how)
        words = "Spread.wrong" if how != "wrong arguments" else "how"
        assert words in f"{refused.value} {refused.value.__cause__}"


async def test_an_atomic_handler_does_not_go_on_since_it_would_be_seen_before_its_outcome(
    world: World, suspend_after: float
) -> None:
    """Rule V6."""
    async with harness(suspend_after, world) as app:
        working = begin(app.object(Spread, "a").work_or_nothing(1))
        await app.advance(seconds=2)
        with pytest.raises(PausedInvocationError, match=r"work_or_nothing, which is atomic.*self.work_or_nothing"):
            await working
        assert await app.object(Spread, "a").look() == 0
        assert await app.state(Slow, "s") == {}


async def test_the_deadline_stays(world: World, suspend_after: float) -> None:
    async with harness(suspend_after, world) as app:
        call = begin(app.workflow(Rounds, "a").run.options(timeout=150)(10))
        await app.advance(seconds=151)
        with pytest.raises(DeadlineExceededError):
            await call


async def test_uuids_and_callees_differ_from_one_execution_to_the_next(suspend_after: float) -> None:
    class Draws(Workflow):
        drawn: list[str] = state(default=[])

        @handler
        async def run(self, ctx: WorkflowContext, left: int) -> list[str]:
            sent = await ctx.object(Slow, "s").answer.send(0, "a")
            self.drawn += [str(ctx.uuid()), sent.id, str(ctx.random().random())]
            if left:
                ctx.continue_as_new(Draws.run, left - 1)
            return self.drawn

    async with Harness(Draws, Slow, suspend_after=suspend_after) as app:
        drawn = await app.workflow(Draws, "a").run(3)
        assert len(set(drawn)) == 12
        await app.advance(seconds=1)
        assert await app.state(Slow, "s") == {"asked": 4}


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("at", range(1, 5))
async def test_a_failed_commit_leaves_one_execution_or_the_other(
    world: World, store: PuppetStore, suspend_after: float, durable: bool, at: int
) -> None:
    async with harness(suspend_after, world, store) as app:
        rounds = app.workflow(Rounds, "a")
        sent = await rounds.run.send(2)
        await app.settle()
        store.hold()
        advancing = begin(app.clock.advance(60_000_000, turns))
        await turns()
        for _ in range(at - 1):
            if store.waiting:
                await store.let_one()
                await turns()
        if store.waiting:
            await store.fail_one(durable=durable)
        await store.go_on()
        await advancing
        await app.settle()
        await app.advance(seconds=600)
        assert await sent == [f"{left} {sent.id}" for left in (2, 1, 0)]


async def test_a_second_start_finds_the_run_in_its_later_execution(world: World, suspend_after: float) -> None:
    store = PuppetStore()
    async with harness(suspend_after, world, store) as app:
        rounds = app.workflow(Rounds, "a")
        sent = await rounds.run.send(2)
        store.lookups.hold()
        again = begin(rounds.run.send(9))
        await wait_a_little(app, 61)
        store.lookups.release()
        await turns()
        assert ((await again).id, (await again).previously_accepted) == (sent.id, True)
        asked = begin(sent.result())
        await app.advance(seconds=200)
        assert len(await asked) == 3
        keep_one_incarnation(app)


async def test_an_execution_that_fails_is_tried_again_from_its_own_beginning(suspend_after: float) -> None:
    class Flaky(Workflow):
        count: int = state(default=0)

        @handler
        async def run(self, ctx: WorkflowContext, left: int) -> int:
            self.count += 1
            await ctx.sleep(1)
            if ctx.request.attempt < 3:
                raise RuntimeError("not yet")
            if left:
                ctx.continue_as_new(Flaky.run, left - 1)
            return self.count

    async with Harness(Flaky, suspend_after=suspend_after, retry=RetryPolicy(initial=1)) as app:
        sent = await app.workflow(Flaky, "a").run.send(2)
        await app.advance(seconds=100)
        assert await sent == 3


def test_it_is_no_exception_that_handlers_catch() -> None:
    assert not issubclass(ContinueAsNew, Exception)


class Clocked(VirtualObject):
    """Notes its time in several executions."""

    times: list[datetime] = state(default=[])

    @handler
    async def tick(self, ctx: ObjectContext, waits: list[bool]) -> list[datetime]:
        self.times.append(ctx.now())
        if waits and waits[0]:
            await ctx.sleep(1)
            self.times.append(ctx.now())
        if waits:
            ctx.continue_as_new(Clocked.tick, waits[1:])
        return self.times


@given(
    waits=st.lists(st.booleans(), min_size=1, max_size=5),
    jumps=st.lists(st.integers(0, 7_200), min_size=1, max_size=8),
    crashes=st.integers(0, 8),
)
def test_a_handlers_time_never_goes_back_from_one_execution_to_the_next(
    waits: list[bool], jumps: list[int], crashes: int
) -> None:
    """Rule T1, while the clock is set back again and again and the process dies now and then."""

    async def run() -> None:
        async with Harness(Clocked, store=PuppetStore()) as app:
            await app.advance(10 * 3600)
            await app.object(Clocked, "c").tick.send(waits)
            for number in range(20):
                app.clock.set_back(jumps[number % len(jumps)] * 1_000_000)
                if number < crashes:
                    await app.crash()
                await app.advance(1)
            await app.advance(100_000)
            times: list[datetime] = (await app.state(Clocked, "c"))["times"]
            assert len(times) == 1 + len(waits) + sum(waits)
            assert times == sorted(times)

    asyncio.run(run())


class TwiceBroken:
    """Fails in the first step of an execution, until it is mended."""

    def __init__(self) -> None:
        self.is_broken = False


class Stumbling(VirtualObject):
    def __init__(self, broken: TwiceBroken) -> None:
        self.broken = broken

    @handler(retry=RetryPolicy(initial=1.0))
    async def go(self, ctx: ObjectContext, before: datetime | None = None) -> bool:
        if before is None:
            self.broken.is_broken = True
            ctx.continue_as_new(Stumbling.go, ctx.now())
        if self.broken.is_broken:
            raise RuntimeError("not yet")
        return ctx.now() >= before


@pytest.mark.parametrize("crashes", [False, True])
async def test_the_time_of_an_execution_counts_for_the_next_also_when_that_begins_late(crashes: bool) -> None:
    broken = TwiceBroken()
    async with Harness(Stumbling, dependencies={TwiceBroken: broken}, retry=RetryPolicy()) as app:
        await app.advance(10 * 3600)
        sent = await app.object(Stumbling, "s").go.send()
        await app.settle()
        app.clock.set_back(5 * 3600 * 1_000_000)
        if crashes:
            await app.crash()
        broken.is_broken = False
        await app.advance(6 * 3600)
        assert await sent.output()

# pyright: reportUnusedClass=false
# Classes here are refused while they are defined.

"""Sagas: a saga ends completed or undone, each step at most once, in spite of failures, cancels, pauses and kills."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from durably import (
    AlreadyStartedError,
    Awakeable,
    CancelledInvocationError,
    DefinitionError,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    WorkflowContext,
    handler,
    state,
)
from durably.errors import CompensationFailedError
from durably.sagas import Saga, SagaBuilder, SagaDefinition, SagaState
from durably.testing import Harness
from tests.levels import level

STEPS = ("a", "b", "c")


@dataclass
class Plan:
    """What a step does, and what undoing it does; both in the order in which they are tried."""

    steps: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    undoing: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    seen: list[str] = field(default_factory=list[str])


class Book(VirtualObject):
    lines: list[str] = state(default=[])
    is_mended: bool = state(default=False)

    @handler
    async def check(self, ctx: ObjectContext) -> None:
        if not self.is_mended:
            raise TerminalError("the book is closed")

    @handler
    async def mend(self, ctx: ObjectContext) -> None:
        self.is_mended = True

    @handler
    async def write(self, ctx: ObjectContext, line: str, then: str = "") -> str:
        self.lines.append(line)
        if then == "fail":
            raise TerminalError(f"no {line}")
        if then == "wait":
            await ctx.sleep(1_000)
        if then == "own limit":
            async with asyncio.timeout(5):
                await ctx.sleep(1_000)
        return line


class Trip(Saga[Plan], retry=RetryPolicy(initial=1.0, maximum=1.0)):
    tries: dict[str, int] = {}  # noqa: RUF012 - of the process, as what is outside of it

    def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
        return (
            saga.step(self.a)
            .compensate(self.undo_a)
            .on_reply(self.took)
            .step(self.b)
            .compensate(self.undo_b)
            .on_reply(self.took)
            .step(self.c)
            .compensate(self.undo_c)
            .build()
        )

    async def a(self, ctx: WorkflowContext, data: Plan) -> str:
        return await self._act(ctx, "a", data.steps)

    async def b(self, ctx: WorkflowContext, data: Plan) -> str:
        return await self._act(ctx, "b", data.steps)

    async def c(self, ctx: WorkflowContext, data: Plan) -> str:
        return await self._act(ctx, "c", data.steps)

    async def undo_a(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._act(ctx, "-a", data.undoing)

    async def undo_b(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._act(ctx, "-b", data.undoing)

    async def undo_c(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._act(ctx, "-c", data.undoing)

    def took(self, ctx: WorkflowContext, data: Plan, reply: str) -> None:
        data.seen.append(reply)

    async def _act(self, ctx: WorkflowContext, name: str, plan: dict[str, list[str]]) -> str:
        for how in plan.get(name.strip("-"), [""]):
            if how == "crash":
                Trip.tries[name] = Trip.tries.get(name, 0) + 1
                if Trip.tries[name] < 3:
                    raise RuntimeError(f"{name} does not work yet")
            elif how == "crash when told":
                try:
                    await ctx.sleep(100)
                except asyncio.CancelledError:
                    raise RuntimeError("not now") from None
            elif how == "fails beside a callee":
                async with asyncio.TaskGroup() as group:
                    group.create_task(ctx.object(Book, "book").write(name, "wait"))
                    group.create_task(self._fail_when_told(ctx))
            elif how == "crash behind a callee":
                try:
                    await ctx.object(Book, "book").write(name, "wait")
                except asyncio.CancelledError:
                    raise RuntimeError("not now") from None
            elif how.startswith("limit"):
                await self._limited(ctx, name, how)
            elif how == "mended later":
                await ctx.object(Book, "book").check()
            else:
                await ctx.object(Book, "book").write(name, how)
        return name

    async def _fail_when_told(self, ctx: WorkflowContext) -> None:
        try:
            await ctx.sleep(100)
        except asyncio.CancelledError:
            raise TerminalError("not now") from None

    async def _limited(self, ctx: WorkflowContext, name: str, how: str) -> None:
        try:
            async with asyncio.timeout(5):
                await ctx.object(Book, "book").write(name, "wait")
        except TimeoutError as error:
            match how:
                case "limit, from it":
                    raise TerminalError("too slow") from error
                case "limit, in it":
                    raise TerminalError("too slow")  # noqa: B904 - as users write it
                case "limit, from None":
                    raise TerminalError("it did nothing") from None
                case "limit, in a group":
                    raise ExceptionGroup("both", [TerminalError("no"), error]) from None
                case _:
                    raise


@pytest.fixture(autouse=True)
def forget_tries() -> None:
    Trip.tries.clear()


async def lines(app: Harness) -> list[str]:
    written: list[str] = (await app.state(Book, "book"))["lines"]
    return written


@pytest.mark.parametrize("suspend_after", [60, 0])
@pytest.mark.parametrize(
    ("steps", "written", "compensated", "replies"),
    [
        ({}, "a b c", "", "a b"),
        ({"a": ["fail"]}, "a", "", ""),
        ({"b": ["fail"]}, "a b -a", "a", "a"),
        ({"c": ["fail"]}, "a b c -b -a", "b a", "a b"),
        ({"b": ["crash"], "c": ["", "fail"]}, "a c c -b -a", "b a", "a b"),
        ({"b": ["limit"]}, "a b -b -a", "b a", "a"),
        ({"b": ["own limit"]}, "a b -b -a", "b a", "a"),
        ({"b": ["limit, from it"]}, "a b -b -a", "b a", "a"),
        ({"b": ["limit, in it"]}, "a b -b -a", "b a", "a"),
        ({"b": ["limit, in a group"]}, "a b -b -a", "b a", "a"),
        ({"b": ["limit, from None"]}, "a b -a", "a", "a"),
    ],
)
async def test_a_failed_step_undoes_those_before_it_the_last_first(
    steps: dict[str, list[str]], written: str, compensated: str, replies: str, suspend_after: float
) -> None:
    async with Harness(Trip, Book, suspend_after=suspend_after) as app:
        saga = app.workflow(Trip, "t")
        await saga.start(Plan(steps=steps))
        await app.advance(2_000)
        assert await lines(app) == written.split()
        ended = await saga.state()
        assert ended.compensated == tuple(compensated.split())
        assert (ended.status, ended.step) == (("compensated", "abc".index([*steps][-1])) if steps else ("completed", 3))
        assert ended.data.seen == replies.split()


@pytest.mark.parametrize("cancels", [1, 2, 3])
@pytest.mark.parametrize("how", ["wait", "crash when told", "crash behind a callee", "fails beside a callee"])
async def test_an_abort_undoes_what_is_done_and_the_step_whose_outcome_it_leaves_unknown(
    how: str, cancels: int
) -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        first = await saga.start(Plan(steps={"b": [how]}, undoing={"b": ["crash", ""], "a": ["wait"]}))
        await app.settle()
        await saga.abort()
        for _ in range(1, cancels):
            await app.cancel(first.invocation_id)
            await saga.abort()
            await app.advance(1)
        await app.advance(2_000)
        with pytest.raises(TerminalError if how == "fails beside a callee" else CancelledInvocationError):
            await saga.run.attach()
        assert await lines(app) == ["a", *([] if how == "crash when told" else ["b"]), "-b", "-a"]
        assert (await saga.state()).status == "compensated"


async def test_a_compensation_that_cannot_succeed_pauses_the_saga_until_a_person_resumes_it() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        first = await saga.start(Plan(steps={"c": ["fail"]}, undoing={"a": ["mended later", ""]}))
        with pytest.raises(CompensationFailedError):  # Nobody outside waits for it.
            await app.settle()
        paused = await saga.state()
        assert (paused.status, paused.compensated) == ("compensation-paused", ("b",))
        assert paused.failure is not None
        assert "the book is closed" in paused.failure
        with pytest.raises(PausedInvocationError, match="compensation of the step 'a'"):
            await saga.run.attach()
        assert (await app.invocation(first.invocation_id).status()) is InvocationStatus.PAUSED
        await app.cancel(first.invocation_id)  # What is being undone is undone to the end.
        with pytest.raises(CompensationFailedError):
            await app.settle()
        assert (await saga.state()).status == "compensation-paused"
        await app.object(Book, "book").mend()
        await app.resume(first.invocation_id)
        with pytest.raises(TerminalError, match="no c"):
            await saga.run.attach()
        assert await lines(app) == ["a", "b", "c", "-b", "-a"]
        ended = await saga.state()
        assert (ended.status, ended.compensated, ended.failure) == ("compensated", ("b", "a"), "TerminalError: no c")


async def test_a_compensation_that_is_resumed_runs_from_its_beginning_and_the_others_once() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        first = await saga.start(Plan(steps={"c": ["fail"]}, undoing={"a": ["", "mended later"]}))
        with pytest.raises(CompensationFailedError, match="from its beginning"):
            await app.settle()
        await app.object(Book, "book").mend()
        await app.resume(first.invocation_id)
        await app.settle()
        assert await lines(app) == ["a", "b", "c", "-b", "-a", "-a"]
        assert (await saga.state()).compensated == ("b", "a")


async def test_a_saga_is_started_once_and_one_that_was_not_is_unknown() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        for ask in (saga.state, saga.abort):
            with pytest.raises(UnknownTargetError):
                await ask()
        first = await saga.start(Plan())
        assert (first.status, first.step, first.step_name, first.compensated) == ("running", 0, "a", ())
        with pytest.raises(AlreadyStartedError):
            await saga.start(Plan(steps={"a": ["fail"]}))
        assert (await saga.run.send(Plan())).previously_accepted
        await app.settle()
        ended = await saga.state()
        assert (ended.status, ended.step, ended.step_name) == ("completed", 3, None)
        assert await lines(app) == ["a", "b", "c"]


async def test_a_saga_goes_with_its_retention_and_its_id_is_free() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        await saga.start(Plan(steps={"b": ["fail"]}))
        await app.advance(hours=23)
        assert (await saga.state()).compensated == ("a",)
        await app.advance(hours=2)
        with pytest.raises(UnknownTargetError):
            await saga.state()
        assert (await saga.start(Plan())).compensated == ()
        await app.settle()
        assert (await saga.state()).status == "completed"


async def test_an_answer_that_comes_before_the_step_that_waits_for_it_is_there() -> None:
    class Asks(Saga[list[Awakeable[str]]]):
        def define(self, saga: SagaBuilder[list[Awakeable[str]]]) -> SagaDefinition[list[Awakeable[str]]]:
            return saga.step(self.ask).step(self.dawdle).step(self.wait).on_reply(self.heard).build()

        async def ask(self, ctx: WorkflowContext, data: list[Awakeable[str]]) -> None:
            data.append(ctx.awakeable(str))
            await ctx.run("ask", asked.append, data[0].id)

        async def dawdle(self, ctx: WorkflowContext, data: list[Awakeable[str]]) -> None:
            await ctx.sleep(10)

        async def wait(self, ctx: WorkflowContext, data: list[Awakeable[str]]) -> str:
            return await data[0]

        def heard(self, ctx: WorkflowContext, data: list[Awakeable[str]], reply: str) -> None:
            asked.append(reply)

    asked: list[str] = []
    async with Harness(Asks, nothing_resident=True) as app:
        await app.workflow(Asks, "a").start([])
        await app.settle()
        await app.resolve_awakeable(asked[0], "yes")
        await app.crash()
        await app.advance(10)
        assert (await app.workflow(Asks, "a").state()).status == "completed"
        assert {*asked[1:]} == {"yes"}


async def test_a_cancel_before_the_first_step_leaves_nothing_to_undo() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        begun = await saga.run.after(seconds=10).send(Plan())
        await begun.cancel()
        with pytest.raises(CancelledInvocationError):
            await saga.state()
        await app.advance(20)
        assert await app.state(Book, "book") == {}


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_what_asks_for_a_saga_while_it_begins_and_is_aborted_is_answered(suspend_after: float) -> None:
    async with Harness(Trip, Book, suspend_after=suspend_after) as app:
        saga = app.workflow(Trip, "t")
        asked = [
            asyncio.ensure_future(one)
            for one in (
                saga.start(Plan(steps={"b": ["wait"]})), saga.state(), saga.abort(), saga.state(), saga.abort(),
                saga.state(), saga.abort(), saga.state(),
            )
        ]  # fmt: skip
        await app.advance(10)
        told = [one.result() for one in asked]
        assert {one.status for one in told if one is not None} <= {"running", "compensating", "compensated"}
        assert (await saga.state()).status == "compensated"


async def test_a_saga_that_waits_for_a_person_can_be_killed() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        first = await saga.start(Plan(steps={"c": ["fail"]}, undoing={"a": ["mended later"]}))
        with pytest.raises(CompensationFailedError):
            await app.settle()
        await saga.abort()
        await app.kill(first.invocation_id)
        killed = await saga.state()
        assert (killed.status, killed.compensated) == ("killed", ("b",))
        assert await lines(app) == ["a", "b", "c", "-b"]


async def test_a_killed_saga_says_so() -> None:
    async with Harness(Trip, Book) as app:
        saga = app.workflow(Trip, "t")
        first = await saga.start(Plan(steps={"b": ["wait"]}))
        await app.settle()
        await app.kill(first.invocation_id)
        killed = await saga.state()
        assert (killed.status, killed.step_name, killed.compensated) == ("killed", "b", ())


class Wrong(Saga[Plan], abstract=True):
    async def number(self, ctx: WorkflowContext, data: Plan) -> int:
        return 1

    async def anything(self, ctx: WorkflowContext, data: Plan) -> Any:
        return {"a": "b"}

    def text(self, ctx: WorkflowContext, data: Plan, reply: str) -> None:
        """Takes text."""


def test_what_cannot_work_is_refused_when_the_class_is_defined() -> None:
    with pytest.raises(DefinitionError, match="is a saga without steps"):

        class NoSteps(Wrong):
            pass

    with pytest.raises(DefinitionError, match="A saga has no steps"):

        class Empty(Wrong):
            def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
                return saga.build()

    with pytest.raises(DefinitionError, match="two steps named 'number'"):

        class Twice(Wrong):
            def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
                return saga.step(self.number).step(self.number).build()

    with pytest.raises(DefinitionError, match="'number' returns int, and text, its on_reply"):

        class Other(Wrong):
            def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
                step: Any = saga.step(self.number)
                made: SagaDefinition[Plan] = step.on_reply(self.text).build()
                return made

    with pytest.raises(DefinitionError, match="names methods, and calls nothing"):

        class NeedsDependencies(Wrong):
            def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
                itself: Any = self
                return saga.step(itself.trips.book).build()


async def test_a_reply_is_checked_where_no_type_checker_has_looked() -> None:
    class Unchecked(Wrong):
        def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
            return saga.step(self.anything).on_reply(self.text).build()

    async with Harness(Unchecked) as app:
        with pytest.raises(PausedInvocationError, match=r"'anything' of Unchecked returned .*, and its .* takes str"):
            await app.workflow(Unchecked, "u").run(Plan())


class Walk(Saga[list[str]], retry=RetryPolicy(initial=0.25, maximum=0.25)):
    """Each step and each compensation takes a second, the first half by itself, the other in what it calls."""

    def define(self, saga: SagaBuilder[list[str]]) -> SagaDefinition[list[str]]:
        return (
            saga.step(self.a).compensate(self.undo_a).step(self.b).compensate(self.undo_b)
            .step(self.c).compensate(self.undo_c).build()
        )  # fmt: skip

    async def a(self, ctx: WorkflowContext, data: list[str]) -> None:
        await self._go(ctx, data, "+a")

    async def b(self, ctx: WorkflowContext, data: list[str]) -> None:
        await self._go(ctx, data, "+b")

    async def c(self, ctx: WorkflowContext, data: list[str]) -> None:
        await self._go(ctx, data, "+c")

    async def undo_a(self, ctx: WorkflowContext, data: list[str]) -> None:
        await self._go(ctx, data, "-a")

    async def undo_b(self, ctx: WorkflowContext, data: list[str]) -> None:
        await self._go(ctx, data, "-b")

    async def undo_c(self, ctx: WorkflowContext, data: list[str]) -> None:
        await self._go(ctx, data, "-c")

    async def _go(self, ctx: WorkflowContext, data: list[str], line: str) -> None:
        await ctx.sleep(0.5)
        await ctx.object(Path, self.key).go(line)
        data.append(line)
        if line == "+c" and self.key.startswith("fails"):
            raise TerminalError("no further")


class Path(VirtualObject):
    lines: list[str] = state(default=[])

    @handler
    async def go(self, ctx: ObjectContext, line: str) -> None:
        self.lines.append(line)
        await ctx.sleep(0.5)


Act = Callable[[Harness, Walk, str], Awaitable[object]]


async def aborts(app: Harness, saga: Walk, id: str) -> None:
    await saga.abort()


async def cancels(app: Harness, saga: Walk, id: str) -> None:
    await app.cancel(id)


async def aborts_and_cancels(app: Harness, saga: Walk, id: str) -> None:
    await asyncio.gather(saga.abort(), saga.abort(), app.cancel(id))


async def crashes(app: Harness, saga: Walk, id: str) -> None:
    await app.crash()


async def pauses(app: Harness, saga: Walk, id: str) -> None:
    await app.pause(id)


async def resumes(app: Harness, saga: Walk, id: str) -> None:
    await app.resume(id)


async def kills(app: Harness, saga: Walk, id: str) -> None:
    await app.kill(id)


SCHEDULES: dict[str, list[tuple[float, Act]]] = {
    "nothing": [],
    "abort": [(0, aborts)],
    "abort and cancel": [(0, aborts_and_cancels)],
    "four cancels": [(0.5 * number, cancels) for number in range(4)],
    "crash": [(0, crashes)],
    "abort and crash": [(0, aborts), (0, crashes)],
    "pause": [(0, pauses), (3, resumes)],
    "pause and abort": [(0, pauses), (3, aborts), (4, resumes)],
    "abort and pause": [(0, aborts), (0.5, pauses), (3, resumes)],
    "kill": [(0, kills)],
}
"""What happens, and how long after the first."""
MOMENTS = [(number / 2, due) for number in range(13) for due in (False, True)]
"""A saga goes on at each half second. What is due then has happened, or not yet."""


@pytest.mark.parametrize("schedule", SCHEDULES)
async def test_a_saga_is_done_or_undone_as_a_whole_whatever_happens_at_whichever_moment(schedule: str) -> None:
    async with Harness(Walk, Path, suspend_after=0) as app:
        ids: dict[str, str] = {}
        events: list[tuple[float, bool, str, int, Act]] = []
        for moment, due in MOMENTS if level().with_slow else MOMENTS[::5]:
            for end in ("ends", "fails"):
                key = f"{end} {moment} {due}"
                ids[key] = (await app.workflow(Walk, key).start([])).invocation_id
                acts = enumerate(SCHEDULES[schedule])
                events += [(moment + after, due, key, place, act) for place, (after, act) in acts]
        now = 0.0
        for time, due, key, _, act in sorted(events, key=lambda event: event[:4]):
            await app.advance(time - now, due=due)
            now = time
            with suppress(InvocationStatusError):  # It has ended.
                await act(app, app.workflow(Walk, key), ids[key])
        await app.advance(20)
        ended = {key: await app.workflow(Walk, key).state() for key in ids}
        for key, one in ended.items():
            check_walk(key, one, (await app.state(Path, key)).get("lines", []))
        undone = any(one.status == "compensated" for key, one in ended.items() if key.startswith("ends"))
        assert undone == ("abort" in schedule or "cancel" in schedule)
        assert any(one.status == "killed" for one in ended.values()) == (schedule == "kill")


def check_walk(key: str, ended: SagaState[list[str]], lines: list[str]) -> None:
    told = f"{key}: {ended}, {lines}"
    done = [line[1] for line in lines if line[0] == "+"]
    undone = [line[1] for line in lines if line[0] == "-"]
    assert lines == [f"+{step}" for step in done] + [f"-{step}" for step in undone], told
    assert done == [*"abc"[: len(done)]], told
    assert undone == sorted(undone, reverse=True), told
    failed = {"c"} if ended.failure == "TerminalError: no further" else set[str]()
    assert not failed & {*undone}, told
    match ended.status:
        case "completed":
            assert (done, undone, key[:4]) == ([*"abc"], [], "ends"), told
        case "compensated":
            assert {*done} - failed <= {*undone} <= {*"abc"[: len(done) + 1]}, told
            assert ended.compensated == (*undone,), told
        case _:
            assert ended.status == "killed", told
            assert ended.compensated == (*undone[: len(ended.compensated)],), told


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_a_saga_that_has_not_begun_is_aborted_at_once_and_its_id_stays_taken(suspend_after: float) -> None:
    async with Harness(Trip, Book, suspend_after=suspend_after) as app:
        saga = app.workflow(Trip, "t")
        await saga.run.after(3_600).send(Plan())
        await saga.abort()  # In no time.
        await saga.abort()
        for ask in (saga.state, saga.run.attach):
            with pytest.raises(CancelledInvocationError, match="before it began"):
                await ask()
        await app.advance(4_000)
        with pytest.raises(AlreadyStartedError):
            await saga.start(Plan())
        assert (await app.state(Book, "book")) == {}


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_the_state_of_a_saga_that_begins_and_ends_in_one_moment_is_shown(suspend_after: float) -> None:
    class AtOnce(Saga[Plan], name="SagaThatEndsAtOnce"):
        def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
            return saga.step(self.fail).build()

        async def fail(self, ctx: WorkflowContext, data: Plan) -> None:
            raise TerminalError("no")

    async with Harness(AtOnce, suspend_after=suspend_after) as app:
        saga = app.workflow(AtOnce, "t")
        await saga.run.after(10).send(Plan())
        state = asyncio.ensure_future(saga.state())
        await app.advance(20)
        assert (await state).failure == "TerminalError: no"


@pytest.mark.parametrize("ends", [False, True])
async def test_a_saga_that_was_restarted_and_has_not_begun_again_can_be_aborted_and_looked_at(ends: bool) -> None:
    broken = ["step"]

    class Restarted(Saga[Plan], name="RestartedSaga"):
        def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
            if "define" in broken:
                raise RuntimeError("define does not work")
            return saga.step(self.act).build()

        async def act(self, ctx: WorkflowContext, data: Plan) -> None:
            if broken:
                raise RuntimeError("the step does not work")

    async with Harness(Restarted) as app:
        saga = app.workflow(Restarted, "t")
        first = await saga.start(Plan())
        with pytest.raises(RuntimeError, match="the step"):
            await app.settle()
        broken[:] = ["define"]
        await app.restart(first.invocation_id)
        with pytest.raises(RuntimeError, match="define"):
            await app.settle()
        with pytest.raises(PausedInvocationError, match="define does not work"):
            await saga.state()
        if ends:
            await saga.abort()
            with pytest.raises(CancelledInvocationError):
                await saga.run.attach()
        broken.clear()
        if not ends:
            await app.resume(first.invocation_id)
            await app.advance(10)
            assert (await saga.state()).status == "completed"

"""What was done is undone before anything ends the invocation: sagas and `ctx.compensations()` (rules E1, E7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from durably import (
    CancelledInvocationError,
    DeadlineExceededError,
    NonDeterminismError,
    ObjectContext,
    RetryPolicy,
    TerminalError,
    VirtualObject,
    WorkflowContext,
    factory,
    handler,
)
from durably.sagas import Saga, SagaBuilder, SagaDefinition
from durably.storage.memory import Disk, MemoryStore
from durably.testing import Harness

LEDGER: list[str] = []
"""What was done outside."""
OUTAGE: list[str] = []
"""What does not work."""


@pytest.fixture(autouse=True)
def nothing_was_done() -> Iterator[None]:
    yield
    LEDGER.clear()
    OUTAGE.clear()


@dataclass
class Plan:
    waits_in: str = "b"
    fails_in: str = ""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """How long each takes where it is carried out."""


class PlanError(Exception):
    """What no step catches."""


class Database:
    """What a factory makes."""


def connect() -> Database:
    if "database" in OUTAGE:
        raise RuntimeError("the database is down for a moment")
    return Database()


class Bank(VirtualObject):
    @handler
    async def book(self, ctx: ObjectContext, line: str, seconds: float = 0) -> None:
        if seconds:
            await ctx.sleep(seconds)
        await ctx.run("book", LEDGER.append, line)


class Trip(Saga[Plan]):
    """Steps `a`, `b` and `c`; each is a payment, and its compensation gives that back."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
        return (
            saga.step(self.a)
            .compensate(self.undo_a)
            .step(self.b)
            .compensate(self.undo_b)
            .step(self.c)
            .compensate(self.undo_c)
            .build()
        )

    async def a(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._pay(ctx, data, "a")

    async def b(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._pay(ctx, data, "b")

    async def c(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._pay(ctx, data, "c")

    async def undo_a(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._pay(ctx, data, "-a")

    async def undo_b(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._pay(ctx, data, "-b")

    async def undo_c(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._pay(ctx, data, "-c")

    async def _pay(self, ctx: WorkflowContext, data: Plan, step: str) -> None:
        if "changed" in OUTAGE:
            await ctx.run("what the code did not do before", LEDGER.append, "changed")
        await ctx.object(Bank, "bank").book(step, data.seconds.get(step, 0))
        if step == data.waits_in:
            await ctx.sleep(1_000)
        if step == data.fails_in:
            raise TerminalError(f"no {step}")
        if step in OUTAGE:
            raise PlanError(f"{step} does not work")


class Inline(VirtualObject):
    """The same, inline."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @handler
    async def travel(self, ctx: ObjectContext, data: Plan) -> None:
        async with ctx.compensations() as undo:
            for step in ("a", "b", "c"):
                undo.add(self._undo, ctx, data, step)
                if "changed" in OUTAGE:
                    await ctx.run("what the code did not do before", LEDGER.append, "changed")
                await ctx.object(Bank, "bank").book(step, data.seconds.get(step, 0))
                if step == data.waits_in:
                    await ctx.sleep(1_000)
                if step == data.fails_in:
                    raise TerminalError(f"no {step}")
                if step in OUTAGE:
                    raise PlanError(f"{step} does not work")

    async def _undo(self, ctx: ObjectContext, data: Plan, step: str) -> None:
        await ctx.object(Bank, "bank").book(f"-{step}", data.seconds.get(f"-{step}", 0))
        if f"-{step}" in OUTAGE:
            raise PlanError(f"-{step} does not work")


async def begin(app: Harness, kind: str, plan: Plan, timeout: float | None = None) -> str:
    """Its invocation."""
    if kind == "saga":
        run = app.workflow(Trip, "t").run
        return (await run.options(timeout=timeout).send(plan)).id
    travel = app.object(Inline, "t").travel
    return (await travel.options(timeout=timeout).send(plan)).id


def of_a_and_b() -> list[str]:
    """A saga does not undo the step that failed, a handler does."""
    return [line for line in LEDGER if not line.endswith("c")]


def harness(disk: Disk | None = None, *, nothing_resident: bool = False, retry: RetryPolicy | None = None) -> Harness:
    dependencies = {Database: factory(connect, scope="activation")}
    return Harness(
        Trip,
        Inline,
        Bank,
        store=MemoryStore(disk or Disk()),
        dependencies=dependencies,
        retry=retry or RetryPolicy(),
        nothing_resident=nothing_resident,
    )


KINDS = pytest.mark.parametrize("kind", ["saga", "inline"])


@KINDS
@pytest.mark.parametrize("plan", [Plan("b"), Plan("", "c", {"-b": 1_000})], ids=["before", "meanwhile"])
async def test_a_cancel_ends_nothing_that_has_to_be_undone_because_a_dependency_is_missing_for_a_moment(
    kind: str, plan: Plan
) -> None:
    async with harness(nothing_resident=True) as app:
        id = await begin(app, kind, plan)
        await app.settle()
        OUTAGE.append("database")
        await app.cancel(id)
        await app.advance(0.001)
        OUTAGE.clear()
        await app.advance(5_000)
        assert of_a_and_b() == ["a", "b", "-b", "-a"]
        with pytest.raises((TerminalError, CancelledInvocationError)):
            await app.invocation(id).result()


@KINDS
async def test_a_cancel_waits_for_a_person_where_the_code_does_not_fit_what_has_to_be_undone(kind: str) -> None:
    disk = Disk()
    async with harness(disk) as app:
        id = await begin(app, kind, Plan())
        await app.settle()
    OUTAGE.append("changed")
    with suppress(NonDeterminismError):
        async with harness(disk) as app:
            await app.cancel(id)
            with pytest.raises(NonDeterminismError):
                await app.settle()
            await app.cancel(id)
    OUTAGE.clear()
    async with harness(disk) as app:
        await app.resume(id)
        with pytest.raises(CancelledInvocationError):
            await app.invocation(id).result()
        assert LEDGER == ["a", "b", "-b", "-a"]


@KINDS
@pytest.mark.parametrize("fails_in", ["c", ""], ids=["a step fails before it", "it ends a step"])
async def test_a_deadline_breaks_off_no_compensation(kind: str, fails_in: str) -> None:
    """A callee that undoes something has not the deadline of its caller, which may come meanwhile."""
    seconds = {"a": 8.0, "-b": 5.0, "-a": 5.0}
    async with harness() as app:
        id = await begin(app, kind, Plan("" if fails_in else "b", fails_in, seconds), timeout=10)
        await app.advance(5_000)
        assert of_a_and_b() == ["a", "b", "-b", "-a"]
        with pytest.raises(DeadlineExceededError):
            await app.invocation(id).result()
        if kind == "saga":
            ended = await app.workflow(Trip, "t").state()
            assert (ended.status, ended.compensated) == ("compensated", ("b", "a"))


FAILS_AT_LAST = RetryPolicy(max_attempts=2, then="fail")


@KINDS
@pytest.mark.parametrize("nothing_resident", [False, True])
@pytest.mark.parametrize("retry", [FAILS_AT_LAST, RetryPolicy(give_up_on=(PlanError,))], ids=["tries", "give_up_on"])
async def test_what_a_retry_policy_fails_is_undone_first(kind: str, retry: RetryPolicy, nothing_resident: bool) -> None:
    OUTAGE.append("b")
    async with harness(retry=retry, nothing_resident=nothing_resident) as app:
        id = await begin(app, kind, Plan(""))
        await app.advance(1_000)
        assert LEDGER == ["a", "b", "-b", "-a"]  # How far the step came that does not work is unknown.
        with pytest.raises(TerminalError, match="PlanError: b does not work") as told:
            await app.invocation(id).result()
        assert told.value.code == 500
        if kind == "saga":
            ended = await app.workflow(Trip, "t").state()
            assert (ended.status, ended.compensated) == ("compensated", ("b", "a"))
            assert "b does not work" in str(ended.failure)


@KINDS
@pytest.mark.parametrize("fails_in", ["c", ""], ids=["a step failed", "a step was failed by the policy"])
async def test_a_retry_policy_does_not_end_what_undoes(kind: str, fails_in: str) -> None:
    OUTAGE[:] = ["-b"] if fails_in else ["-b", "c"]
    async with harness(retry=FAILS_AT_LAST) as app:
        id = await begin(app, kind, Plan("", fails_in))
        with pytest.raises(PlanError):
            await app.advance(1_000)
        if kind == "saga":
            assert (await app.workflow(Trip, "t").state()).status == "compensation-paused"
        OUTAGE.clear()
        await app.resume(id)
        with pytest.raises(TerminalError, match="no c" if fails_in else "c does not work"):
            await app.invocation(id).result()
        assert of_a_and_b() == ["a", "b", "-b", "-a"]

"""What handlers, programs and operators can do to invocations is done once, at whichever commit the process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from durably import (
    AlreadyCompletedError,
    CancelledInvocationError,
    DeadlockError,
    DurablePromise,
    InvocationStatusError,
    ObjectContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    first_success,
    handler,
    promise,
    shared,
    state,
)
from durably.runtime.gateway.control import Verb
from durably.testing import Simulation, for_each_crash_point
from tests.levels import level


class Desk(VirtualObject, name="VerbDesk"):
    """Does everything to others."""

    log: list[str] = state(default=[])

    @handler
    async def note(self, ctx: ObjectContext, word: str) -> str:
        self.log.append(word)
        return word

    @handler
    async def work(self, ctx: ObjectContext, seconds: float) -> str:
        try:
            await ctx.sleep(seconds)
        except asyncio.CancelledError:
            self.log.append(await ctx.run("undo", lambda: "undone"))
            raise
        return "done"

    @handler
    async def go_round(self, ctx: ObjectContext, others: list[str]) -> list[str]:
        try:
            if len(others) > 1:
                return await ctx.object(Desk, others[0]).go_round(others[1:])
            await ctx.object(Desk, others[0]).note("round")
        except DeadlockError as error:
            return list(error.cycle)
        return []

    @handler
    async def call_off(self, ctx: ObjectContext, other: str) -> list[str]:
        """A call and two delayed messages, of which one comes."""
        call = ctx.object(Desk, other).work(1_000)
        late, soon = [await self.note.after(seconds).send(f"after {seconds}") for seconds in (500, 1)]
        await ctx.sleep(2)
        await (await ctx.invocation_of(call)).cancel()
        await late.cancel()
        try:
            return [await call]
        except CancelledInvocationError as error:
            return [str(error.code), soon.id[:5]]

    @handler(atomic=True)
    async def decide(self, ctx: ObjectContext, job: str, *, holds: bool) -> None:
        self.log.append("decided")
        await ctx.invocation(job).signal("go", "signalled")
        await ctx.object(Desk, "z").note.send("sent")
        await ctx.sleep(1)
        if not holds:
            raise TerminalError("it does not hold")

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        return await ctx.signal("go", str)

    @handler
    async def race(self, ctx: ObjectContext) -> list[str]:
        name, word = await first_success(
            slow=ctx.object(Desk, "s").work(50), fails=ctx.object(Desk, "f").fail(), fast=ctx.object(Desk, "q").work(1)
        )
        return [name, word]

    @handler
    async def fail(self, ctx: ObjectContext) -> str:
        raise TerminalError("no", code=418)


class Vote(Workflow, name="VerbVote"):
    """Ends with the first word."""

    result: DurablePromise[str] = promise()

    @handler(atomic=True)
    async def run(self, ctx: WorkflowContext) -> str:
        return await self.result

    @shared
    async def close(self, ctx: SharedWorkflowContext, word: str) -> str:
        try:
            await self.result.resolve(word)
        except AlreadyCompletedError:
            return f"was {await self.result.peek()}"
        return word


async def a_circle_is_named(sim: Simulation) -> Any:
    return await sim.client("c").object(Desk, "a").go_round(["b", "c", "a"])


async def what_was_begun_is_called_off(sim: Simulation) -> Any:
    desk = sim.client("c").object(Desk, "a")
    answer = await desk.call_off("b")
    await sim.advance(1_000)
    return [*answer, sim.snapshots[Desk, "a"].log, sim.snapshots[Desk, "b"].log]


async def an_atomic_handler_does_all_or_nothing(sim: Simulation) -> Any:
    waiting = await sim.client("w").object(Desk, "w").wait.send()
    judge = sim.client("j").object(Desk, "a")
    with pytest.raises(TerminalError):
        await judge.decide(waiting.id, holds=False)
    await judge.decide(waiting.id, holds=True)
    heard = await waiting.result()
    await sim.settle()
    return [heard, sim.snapshots[Desk, "a"].log, sim.snapshots[Desk, "z"].log]


async def an_outcome_is_found_by_key_id_and_workflow(sim: Simulation) -> Any:
    client = sim.client("c")
    keyed = client.object(Desk, "a").work.options(idempotency_key="k")
    sent = await keyed.send(1)
    again = await keyed.send(9)
    vote = client.workflow(Vote, "v")
    started = await vote.run.send()
    words = [await vote.close("yes"), await vote.close("no")]
    return [
        again.previously_accepted, await keyed.attach(), await client.invocation(sent.id, str).result(),
        await keyed.output(), *words, await vote.run.attach(), await started.output(),
    ]  # fmt: skip


async def an_operator_ends_and_forgets(sim: Simulation) -> Any:
    operator, client = sim.client("o"), sim.client("c")
    jobs = [await client.object(Desk, key).work.options(idempotency_key="k").send(1_000) for key in "ab"]
    await sim.advance(1)
    with suppress(InvocationStatusError):  # The answer to the first try was lost.
        await jobs[0].cancel()
    await operator.act(Verb.KILL, jobs[1].id)
    codes: list[Any] = []
    for job in jobs:
        try:
            codes.append(await job.result())
        except TerminalError as error:
            codes.append(error.code)
    for job in jobs:
        await operator.act(Verb.PURGE, job.id)
    free = [await client.object(Desk, key).work.options(idempotency_key="k").send(1) for key in "ab"]
    done = [await one.result() for one in free]
    return [codes, done, [one.id == job.id for one, job in zip(free, jobs, strict=True)], sim.snapshots[Desk, "a"].log]


async def the_first_success_counts(sim: Simulation) -> Any:
    return await sim.client("c").object(Desk, "a").race()


Program = Callable[[Simulation], Coroutine[Any, Any, Any]]
ENDS: dict[Program, Any] = {
    a_circle_is_named: [*(f"VerbDesk/{key}/go_round" for key in "abc"), "VerbDesk/a/note"],
    what_was_begun_is_called_off: ["409", "inv_1", ["after 1"], ["undone"]],
    an_atomic_handler_does_all_or_nothing: ["signalled", ["decided"], ["sent"]],
    an_outcome_is_found_by_key_id_and_workflow: [True, "done", "done", "done", "yes", "was yes", "yes", "yes"],
    an_operator_ends_and_forgets: [[409, 409], ["done", "done"], [False, False], ["undone"]],
    the_first_success_counts: ["fast", "done"],
}


@pytest.mark.parametrize("program", ENDS, ids=lambda program: program.__name__)
def test_the_end_is_the_same_whichever_commit_dies(program: Program) -> None:
    async def same(sim: Simulation) -> Any:
        end = await program(sim)
        assert end == ENDS[program], end
        return end

    before = ("before_commit",) if level().with_slow else ()
    for_each_crash_point(same, Desk, Vote, place=(*before, "after_commit"))

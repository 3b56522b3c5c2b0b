"""The workload `sagas`: sagas, and handlers that undo inline, cancelled at any time and more than once.

Steps write in an object, act on the world outside, and wait for an answer to an awakeable that an earlier step has
made; they fail for good, for the moment and in time limits, and so do compensations, for which a person mends the
cause and resumes. In the end each is done as a whole or undone as a whole, in reverse, each step once; what was seen
of a saga meanwhile never went back. Some are sent for later and aborted, before they begin or just then; others are
aborted before anybody has started them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from durably import (
    Awakeable,
    CancelledInvocationError,
    Context,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    WorkflowContext,
    handler,
    state,
)
from durably.sagas import Saga, SagaBuilder, SagaDefinition, SagaState
from durably.testing import Simulation, Workload
from workloads import program_parts
from workloads.program_parts import all_of, randomness, restart_at_times, wander

PATIENCE_SECONDS = 60.0
"""How long a saga waits for an answer."""
CANCELLED = CancelledInvocationError.code
TIMED_OUT = 408
STEPS = ("write", "pay", "ask", "wait", "ship")
RANKS = ("running", "compensating", "compensated")


class World:
    """What is outside: what was paid and given back, by saga."""

    def __init__(self) -> None:
        self.paid: set[str] = set()
        self.refunded: set[str] = set()

    async def pay(self, saga: str) -> None:
        await asyncio.sleep(0.01)
        self.paid.add(saga)

    async def refund(self, saga: str) -> None:
        await asyncio.sleep(0.01)
        self.refunded.add(saga)


@dataclass
class Plan:
    """How each step goes, and each compensation; and what they share."""

    id: str
    steps: dict[str, str]
    undoing: dict[str, str]
    answer: Awakeable[bool] | None = None
    shipped: list[str] = field(default_factory=list[str])


class Page(VirtualObject, name="SoakPage"):
    """What one saga has done: `+step`, and `-step` when it is undone."""

    lines: list[str] = state(default=[])
    is_closed: bool | None = state(default=None)
    asked: str = state(default="")

    @handler
    async def write(self, ctx: ObjectContext, line: str, how: str = "") -> str:
        if how == "closed" and self.is_closed is None:
            self.is_closed = True
        if line.startswith("-") and self.is_closed:
            raise TerminalError("the page is closed")
        if how == "fail":
            raise TerminalError(f"{line} is not to be written")
        self.lines.append(line)
        if how in ("slow", "break", "limit"):
            await ctx.sleep(20)
        return line

    @handler
    async def mend(self, ctx: ObjectContext) -> None:
        self.is_closed = False

    @handler
    async def ask(self, ctx: ObjectContext, awakeable_id: str) -> None:
        self.asked = awakeable_id

    @handler
    async def answer(self, ctx: ObjectContext, what: bool) -> bool:
        if self.asked:
            await ctx.resolve_awakeable(self.asked, what)
        return bool(self.asked)


class Journey(Saga[Plan], name="SoakJourney"):
    """Two writes with a payment and an answer between them."""

    def __init__(self, world: World) -> None:
        self.world = world

    def define(self, saga: SagaBuilder[Plan]) -> SagaDefinition[Plan]:
        return (
            saga.step(self.write)
            .compensate(self.erase)
            .step(self.pay)
            .compensate(self.refund)
            .step(self.ask)
            .step(self.wait)
            .step(self.ship)
            .compensate(self.return_back)
            .on_reply(self.shipped)
            .build()
        )

    async def write(self, ctx: WorkflowContext, data: Plan) -> str:
        return await self._write(ctx, data, "+write", data.steps["write"])

    async def erase(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._write(ctx, data, "-write", data.undoing["write"])

    async def pay(self, ctx: WorkflowContext, data: Plan) -> None:
        if data.steps["pay"] == "fail":
            raise TerminalError("no money")
        await ctx.run("pay", self.world.pay, self.key)

    async def refund(self, ctx: WorkflowContext, data: Plan) -> None:
        await ctx.run("refund", self.world.refund, self.key)

    async def ask(self, ctx: WorkflowContext, data: Plan) -> None:
        data.answer = ctx.awakeable(bool)
        await ctx.object(Page, data.id).ask(data.answer.id)

    async def wait(self, ctx: WorkflowContext, data: Plan) -> None:
        assert data.answer is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            if not await data.answer:
                raise TerminalError("the answer is no")

    async def ship(self, ctx: WorkflowContext, data: Plan) -> str:
        return await self._write(ctx, data, "+ship", data.steps["ship"])

    async def return_back(self, ctx: WorkflowContext, data: Plan) -> None:
        await self._write(ctx, data, "-ship", data.undoing["ship"])

    def shipped(self, ctx: WorkflowContext, data: Plan, reply: str) -> None:
        data.shipped.append(reply)
        if data.steps["on_reply"] == "fail":
            raise TerminalError("it cannot be used")

    async def _write(self, ctx: WorkflowContext, data: Plan, line: str, how: str) -> str:
        if how == "crash" and ctx.request.attempt < 3:
            raise RuntimeError("not yet")
        page = ctx.object(Page, data.id)
        try:
            async with asyncio.timeout(5 if how == "limit" else None):
                return await page.write(line, how)
        except asyncio.CancelledError:
            if how == "break":
                raise RuntimeError("breaks when it is told") from None
            raise


class Clerk(Service, name="SoakJourneyClerk"):
    """The same, inline."""

    @handler(retry=RetryPolicy(initial=0.5, max_attempts=4, then="fail"))
    async def go(self, ctx: Context, data: Plan) -> str:
        page = ctx.object(Page, data.id)
        async with ctx.compensations() as undo:
            for step in ("write", "ship"):
                undo.add(self._erase, ctx, data, step)
                await page.write(f"+{step}", data.steps[step])
                if data.steps[step] == "crash":
                    raise RuntimeError("never works")
            if data.steps["on_reply"] == "fail":
                raise TerminalError("it cannot be used")
        return "done"

    async def _erase(self, ctx: Context, data: Plan, step: str) -> None:
        if data.undoing[step] == "crash" and ctx.request.attempt < 3:
            raise RuntimeError("not yet")
        await ctx.object(Page, data.id).write(f"-{step}", "slow" if data.undoing[step] == "slow" else "")


def uneventful(id: str) -> Plan:
    """Nothing fails in it but the wait for an answer, which nobody gives."""
    return Plan(id, dict.fromkeys((*STEPS, "on_reply"), ""), dict.fromkeys(STEPS, ""))


def planned(random: Random, id: str) -> Plan:
    steps = {
        step: random.choice(("", "", "", "", "slow", "slow", "crash", "break", "break", "limit", "fail"))
        for step in (*STEPS, "on_reply")
    }
    undoing = {step: random.choice(("", "", "slow", "crash", "closed")) for step in STEPS}
    return Plan(id, steps, undoing)


async def program(sim: Simulation) -> None:
    """Journeys are begun, answered and broken off; somebody mends."""
    sim.allow_pauses()
    random = randomness(sim)
    ids = [f"j{number}" for number in range(3)]
    inline = [f"i{number}" for number in range(2)]
    done: dict[str, str] = {}
    taken_back: dict[str, int] = {}

    async def travel(id: str) -> None:
        client, plan = sim.client(id), planned(random, id)
        saga = client.workflow(Journey, id)
        await wander(sim, random)
        seen: list[SagaState[Plan]] = []
        run = await begin(sim, saga, plan, seen)
        for _ in range(random.choice((1, 3, 5))):
            await wander(sim, random)
            match random.choice(("abort", "cancel", "look", "answer", "answer", "answer")):
                case "abort":
                    await saga.abort()
                case "cancel":
                    with suppress(InvocationStatusError):
                        await client.invocation(run).cancel()
                case "answer":
                    await client.object(Page, id).answer(random.random() < 0.8)
                case _:
                    await look(saga, seen)
        await look(saga, seen)

    async def do_inline(id: str) -> None:
        client, plan = sim.client(id), planned(random, id)
        await wander(sim, random)
        sent = await client.service(Clerk).go.options(timeout=random.choice((None, 30.0))).send(plan)
        for _ in range(random.choice((0, 1, 1, 3))):
            await wander(sim, random)
            with suppress(InvocationStatusError):
                await sent.cancel()
        with suppress(TerminalError):
            done[id] = await sent.result()

    async def take_back(id: str) -> None:
        """Send a journey for later, and abort it."""
        client = sim.client(id)
        saga = client.workflow(Journey, id)
        await wander(sim, random)
        if random.random() < 0.5:
            assert await is_unknown(saga), f"{id} was aborted, and had not been started"
        sent = await saga.run.after(seconds=random.choice((0, 1, 30, 3_000))).send(uneventful(id))
        await wander(sim, random)
        await saga.abort()
        try:
            await sent.result()
        except TerminalError as error:
            taken_back[id] = error.code
        assert id in taken_back, f"{id} was aborted, and came to its end"

    late = [f"t{number}" for number in range(2)]
    await all_of(
        *map(travel, ids), *map(do_inline, inline), *map(take_back, late), restart_at_times(sim, random)
    )  # fmt: skip
    await mend_until_all_ended(sim, ids)
    world = sim.dependencies[World]
    for id in ids:
        check(sim, id, await sim.client("last").workflow(Journey, id).state(), world)
    for id in inline:
        check_inline(sim, id, done.get(id) == "done")
    for id in late:
        await check_taken_back(sim, id, taken_back[id], world)


async def begin(sim: Simulation, saga: Journey, plan: Plan, seen: list[SagaState[Plan]]) -> str:
    first = await saga.start(plan)
    assert (first.status, first.step, first.compensated) == ("running", 0, ()), f"{plan.id} began as {first}"
    seen.append(first)
    return first.invocation_id


async def is_unknown(saga: Journey) -> bool:
    """Nothing of it was ever accepted."""
    try:
        await saga.abort()
    except UnknownTargetError:
        return True
    return False


async def look(saga: Journey, seen: list[SagaState[Plan]]) -> None:
    """A saga goes on, then back step by step; it never jumps."""
    now = await saga.state()
    if seen:
        before = seen[-1]
        assert now.step >= before.step, f"the saga was at {before}, then at {now}"
        assert now.compensated[: len(before.compensated)] == before.compensated, f"{before}, then {now}"
        assert _rank(now) >= _rank(before), f"{before}, then {now}"
    seen.append(now)


def _rank(state: SagaState[Plan]) -> int:
    assert state.status != "killed", f"something ended the run of {state.data.id} without its code"
    if state.status == "completed":
        return len(RANKS)
    return RANKS.index("compensating" if state.status == "compensation-paused" else state.status)


async def mend_until_all_ended(sim: Simulation, ids: list[str]) -> None:
    """A person looks after what is paused, sometimes before the cause is mended."""
    caretaker = sim.client("caretaker")
    for turn in range(program_parts.PATIENCE):
        await sim.settle()
        if not sim.disk.unfinished:
            return
        for id in sim.paused:
            if turn % 2:
                for page in ids:
                    await caretaker.object(Page, page).mend()
            with suppress(InvocationStatusError, UnknownTargetError):
                await caretaker.resume(id)
        await sim.advance(seconds=30)
    raise AssertionError(f"These do not end: {', '.join(map(str, sim.disk.unfinished))}")


def check(sim: Simulation, id: str, ended: SagaState[Plan], world: World) -> None:
    """Done as a whole, or undone as a whole: in reverse, each once."""
    lines = sim.snapshots[Page, id].lines
    done = [line[1:] for line in lines if line.startswith("+")]
    undone = [line[1:] for line in lines if line.startswith("-")]
    if ended.status == "completed":
        assert lines == ["+write", "+ship"], f"{id} is completed, and wrote {lines}"
        assert id in world.paid
        assert id not in world.refunded, f"{id} is completed, and was given back"
        assert ended.data.shipped == ["+ship"]
        return
    assert ended.status == "compensated", f"{id} has ended, and is {ended.status}"
    expected = [step for step in ("ship", "pay", "write") if step in ended.compensated]
    assert [*ended.compensated] == expected, f"{id} undid {ended.compensated}"
    assert undone == [step for step in ended.compensated if step != "pay"], f"{id} undid {ended.compensated}: {lines}"
    says_it_did_nothing = ended.failure is not None and ended.failure.startswith("TerminalError")
    if says_it_did_nothing and not any(why in str(ended.failure) for why in ("be used", "time limit")):
        assert ended.step_name not in ended.compensated, f"{id} undid a step that failed for good: {ended}"
    left = [step for step in done if step not in undone]
    assert not left, f"{id} is compensated, and {left} were not undone"
    assert (id in world.refunded) == ("pay" in ended.compensated)


async def check_taken_back(sim: Simulation, id: str, code: int, world: World) -> None:
    """It never began, or was undone."""
    lines = sim.snapshots[Page, id].lines
    try:
        ended = await sim.client("last").workflow(Journey, id).state()
    except CancelledInvocationError:
        assert code == CANCELLED, f"{id} never began, and ended with {code}"
        assert not lines, f"{id} never began, and wrote {lines}"
        assert id not in world.paid, f"{id} never began, and paid"
        return
    assert code in (CANCELLED, TIMED_OUT), f"{id} was aborted, and ended with {code}"
    check(sim, id, ended, world)
    assert ended.status == "compensated", f"{id} was aborted, and is {ended.status}"


def check_inline(sim: Simulation, id: str, is_done: bool) -> None:
    lines = sim.snapshots[Page, id].lines
    if is_done:
        assert lines == ["+write", "+ship"], f"{id} is done, and wrote {lines}"
    else:
        left = [line for line in lines if line.startswith("+") and lines.count(f"-{line[1:]}") != 1]
        assert not left, f"{id} failed, and {left} were not undone once: {lines}"


SAGAS = Workload(
    program=program,
    actors=(Journey, Page, Clerk),
    dependencies=lambda: {World: World()},
    retry=RetryPolicy(initial=0.5),
)

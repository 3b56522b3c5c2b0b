"""The workload `workflows`: runs that execute once, promises that several want to complete, executions that go on.

A tally outside of the workflows says how often each round of a run was carried out. Of those who complete a promise one
wins, and all who wait hear its value; what an atomic run completes holds when the run does. Workflows with a short
retention are started again and again under the same id, and so is one that is purged. A promise can come before its
workflow, or for one that never comes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime
from random import Random

from durably import (
    AlreadyCompletedError,
    AlreadyStartedError,
    Context,
    DurablePromise,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedWorkflowContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    select,
    shared,
    state,
)
from durably.ids import run_scope
from durably.runtime.gateway.control import Verb
from durably.testing import SimulatedClient, Simulation, Workload
from workloads.program_parts import UNKNOWN, all_of, randomness, restart_at_times, until_all_ended, wander

SHORT_SECONDS = 100
LONG_SECONDS = 25_000
"""Longer than the wall clock is ever set back by, which makes a retention last longer."""
PATIENCE_ROUNDS = 1_000
GONE = 410
LATE_SECONDS = 120.0
"""Longer than any request is on its way."""


class Tally(VirtualObject, name="SoakTally"):
    """Counts what was done."""

    done: list[str] = state(default=[])

    @handler
    async def note(self, ctx: ObjectContext, what: str) -> None:
        self.done.append(what)

    @handler
    async def echo(self, ctx: ObjectContext, seconds: float, text: str) -> str:
        """Answers late."""
        await ctx.sleep(seconds)
        return text


class Rounds(Workflow, name="SoakRounds"):
    """Executes some rounds, each in an execution of its own, and waits for a promise before the last."""

    rounds: list[int] = state(default=[])
    latest: datetime | None = state(default=None)
    went_back: bool = state(default=False)
    """The time of one round lay before that of the round before it."""
    ready: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, left: int, seconds: float) -> str:
        self._look_at_the_clock(ctx.now())
        self.rounds.append(left)
        await ctx.object(Tally, "t").note.send(f"{self.key} {left}")
        answer = asyncio.ensure_future(ctx.object(Tally, f"{self.key} {left}").echo(seconds, f"{left}"))
        await ctx.run("think", think)
        self._look_at_the_clock(ctx.now())
        if left % 2:
            # The answer is left behind: it must not be taken for one of the next execution.
            ctx.continue_as_new(Rounds.run, left - 1, seconds / 2)
        assert await answer == f"{left}", "an answer of another execution"
        if left:
            ctx.continue_as_new(Rounds.run, left - 1, seconds)
        name, value = await select(ready=self.ready, time=ctx.sleep(100_000))
        assert name == "ready", "the promise was never completed"
        return f"{self.rounds} {value}" + " and the time went back" * self.went_back

    def _look_at_the_clock(self, now: datetime) -> None:
        self.went_back = self.went_back or (self.latest is not None and now < self.latest)
        self.latest = now

    @shared
    async def complete(self, ctx: SharedWorkflowContext, value: str, rejects: bool) -> bool:
        """Whether this was the first completion."""
        try:
            seen = await self.ready.peek()
        except TerminalError as error:
            seen = error.message
        try:
            await (self.ready.reject(value, code=418) if rejects else self.ready.resolve(value))
        except AlreadyCompletedError:
            return False
        assert seen is None, "a promise was completed again"
        return True

    @shared
    async def wait(self, ctx: SharedWorkflowContext) -> str:
        return await ctx.promise("ready", str)

    @shared
    async def look(self, ctx: SharedWorkflowContext, seconds: float) -> list[list[int]]:
        before = list(self.rounds)
        await ctx.sleep(seconds)
        return [before, list(self.rounds)]


async def think() -> None:
    await asyncio.sleep(0.001)


class Brief(Workflow, name="SoakBrief", retention=SHORT_SECONDS):
    """What it leaves goes soon."""

    number: int = state(default=0)
    go: DurablePromise[int] = promise()
    never: DurablePromise[int] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, number: int) -> int:
        assert self.number == 0, "the state of a workflow before"
        self.number = number
        assert await self.go.peek() in (None, number), "the promise of a workflow before"
        await ctx.sleep(1)
        return self.number

    @shared
    async def start(self, ctx: SharedWorkflowContext, number: int) -> None:
        """May be done twice, when the outcome of the first time is kept no longer."""
        try:
            await self.go.resolve(number)
        except AlreadyCompletedError:
            assert await self.go.peek() == number, "the promise of a workflow before"

    @shared
    async def wait_in_vain(self, ctx: SharedWorkflowContext, seconds: float) -> int:
        """What it waits for is given up when the retention ends; then it goes on for a while.

        One that comes when the workflow is gone waits for an id that was never started, until it gives up itself.
        """
        was_started = self.number != 0
        try:
            async with asyncio.timeout(LONG_SECONDS):
                await self.never
        except TimeoutError:
            if was_started:
                raise TerminalError("the retention is over, and somebody still waits") from None
            return GONE
        except TerminalError as error:
            await ctx.sleep(seconds)
            return error.code
        return 0


class Decree(Workflow, name="SoakDecree"):
    """Completes its promise if its run holds, and does not if it does not; others may come first (rule V6)."""

    text: DurablePromise[str] = promise()
    started: int = state(default=0)

    @handler(atomic=True)
    async def run(self, ctx: WorkflowContext, word: str, seconds: float, *, holds: bool) -> bool:
        """Whether it was the first, as far as it knew."""
        assert self.started == 0, "the state of a workflow before"
        self.started = 1
        try:
            await self.text.resolve(word)
        except AlreadyCompletedError:
            is_first = False
        else:
            is_first = True
            assert await self.text == word, "a handler does not see its own completion"
            assert await self.text.peek() == word, "a handler does not see its own completion"
        await ctx.sleep(seconds)
        if not holds:
            raise TerminalError("it does not hold")
        return is_first

    @shared
    async def overrule(self, ctx: SharedWorkflowContext, word: str) -> bool:
        try:
            await ctx.promise("text", str).resolve(word)
        except AlreadyCompletedError:
            return False
        return True

    @shared
    async def overrule_and_go(self, ctx: SharedWorkflowContext, word: str) -> None:
        """Complete it in the last step, without hearing whether it was the first."""
        leaving = asyncio.ensure_future(left_behind(self.text, word))
        await asyncio.sleep(0)
        assert not leaving.done()

    @shared
    async def read(self, ctx: SharedWorkflowContext) -> str:
        return await self.text


async def left_behind(text: DurablePromise[str], word: str) -> None:
    await text.resolve(word)


class Clerk(Service, name="SoakClerk"):
    """Uses workflows from a handler."""

    @handler
    async def start(self, ctx: Context, id: str, left: int, seconds: float) -> list[str]:
        """Start, be refused, and hear how it ends in every way there is."""
        run = ctx.workflow(Rounds, id).run
        first = await run.send(left, seconds)
        again = await run.send(left + 1, seconds)
        assert again.previously_accepted, "a second send was accepted"
        try:
            await run(left, seconds)
        except AlreadyStartedError:
            pass
        else:
            raise AssertionError("a second call was accepted")
        early = await end_of(run.output())
        ends = [await end_of(run.attach()), await end_of(first.result()), await end_of(run.output())]
        assert early in ("failed 470", ends[0]), "an outcome changed"
        return [first.id, again.id, *ends]


async def end_of(outcome: object) -> str:
    """The result, or the code of the failure."""
    try:
        return str(await outcome)  # type: ignore[misc]
    except TerminalError as error:
        return f"failed {error.code}"


async def program(sim: Simulation) -> None:
    """Clients start the same workflows, complete the same promises, and wait for them."""
    random = randomness(sim)
    ids = ("a", "b")
    rounds = {id: random.randrange(4) for id in ids}
    winners: Counter[str] = Counter()
    completers: Counter[str] = Counter()
    known: dict[str, set[str]] = {id: set() for id in ids}
    fresh: Counter[str] = Counter()
    ids_used = 0

    def fresh_id() -> str:
        nonlocal ids_used
        ids_used += 1
        return f"number {ids_used}"

    async def customer(name: str) -> None:
        client = sim.client(name)
        for _ in range(random.choice((2, 4))):
            await wander(sim, random)
            id, seconds = random.choice(ids), random.choice((0.0, 0.5, 20.0))
            workflow = client.workflow(Rounds, id)
            match random.choice(
                ("send", "call", "clerk", "complete", "complete", "wait", "look", "brief", "early", "decree")
            ):
                case "send":
                    sent = await workflow.run.send(rounds[id], seconds)
                    known[id].add(sent.id)
                    fresh[id] += not sent.previously_accepted
                case "call":
                    sent = await workflow.run.send(rounds[id], seconds)
                    fresh[id] += not sent.previously_accepted
                    await call_once(sim, id, rounds[id])
                case "clerk":
                    started = client.service(Clerk).start(id, rounds[id], seconds)
                    await complete(name, id)
                    try:
                        first, again, *ends = await started
                    except TerminalError as error:
                        raise AssertionError("a second call was accepted, and failed") from error
                    known[id].update((first, again))
                    assert len(set(ends)) == 1, f"one workflow ended in several ways: {ends}"
                case "complete":
                    await complete(name, id)
                case "wait":
                    waiting = workflow.wait()
                    await complete(name, id)
                    await end_of(waiting)
                case "look":
                    before, after = await workflow.look(seconds)
                    assert after[: len(before)] == before, f"rounds were lost: {before}, then {after}"
                case "early":
                    await promise_first(sim, random, name, fresh_id(), seconds)
                case "decree":
                    await decree(sim, random, fresh_id(), seconds)
                case _:
                    await brief(sim, name, random.randint(1, 99), seconds)

    async def complete(name: str, id: str) -> None:
        completers[id] += 1
        value = f"{name} {completers[id]}"
        won = await sim.client(name).workflow(Rounds, id).complete(value, random.random() < 0.3)
        winners[id] += won

    await all_of(*map(customer, "xyz"), restart_at_times(sim, random))
    for id in ids:
        sent = await sim.client("last").workflow(Rounds, id).run.send(rounds[id], 0.5)
        known[id].add(sent.id)
        fresh[id] += not sent.previously_accepted
        await complete("last", id)
        ends = [await end_of(sent.result()), await end_of(sent.output())]
        value = await end_of(sim.client("last").workflow(Rounds, id).wait())
        expected = value if value == "failed 418" else f"{[*range(rounds[id], -1, -1)]} {value}"
        assert ends == [expected] * 2, f"{id} ended with {ends}, and not with {expected}"
        assert winners[id] == 1, f"the promise of {id} was completed {winners[id]} times"
        assert len(known[id]) == 1, f"{id} was started as {known[id]}"
        assert fresh[id] <= 1, f"{fresh[id]} sends to {id} were the first"
        found = await sim.client("last").lookup(run_scope("SoakRounds", id))
        assert found == sent.id, f"{id} is found as {found}, and was started as {sent.id}"
    await until_all_ended(sim)
    done = Counter(sim.snapshots[Tally, "t"].done)
    expected_rounds = Counter(f"{id} {left}" for id in ids for left in range(rounds[id] + 1))
    assert done == expected_rounds, f"of {expected_rounds}, {done} were done"
    await until_gone(sim)


async def until_gone(sim: Simulation) -> None:
    """Wait until nothing is left of short-lived workflows; setting the clock back makes that later."""
    for _ in range(PATIENCE_ROUNDS):
        await sim.advance(seconds=SHORT_SECONDS)
        if not sim.snapshots.of(Brief):
            return
    raise AssertionError(f"{', '.join(sim.snapshots.of(Brief))} left something for longer than it should")


async def call_once(sim: Simulation, id: str, left: int) -> None:
    """Call a workflow that was started: nothing is done a second time."""
    try:
        await sim.client("late").workflow(Rounds, id).run(left + 100, 0.0)
    except UNKNOWN:  # A call of `run` cannot be repeated.
        return
    except AlreadyStartedError:
        return
    except TerminalError as error:
        raise AssertionError("a second call was accepted, and failed") from error
    raise AssertionError("a second call was accepted")


async def promise_first(sim: Simulation, random: Random, name: str, id: str, seconds: float) -> None:
    """Complete a promise of a workflow that comes later, while that is still kept, or when it is gone, or never."""
    workflow = sim.client(name).workflow(Brief, id)
    number = random.randint(1, 99)
    waiting = workflow.wait_in_vain(seconds) if random.random() < 0.3 else None
    await workflow.start(number)
    await sim.advance(seconds=random.choice((0.0, 50.0, 2.0 * SHORT_SECONDS)))
    if random.random() < 0.5:
        sent = await workflow.run.send(number)
        assert await end_of(sent) in (str(number), "failed 404"), "a workflow ended with the number of another"
    if waiting is not None:
        heard = await end_of(waiting)
        assert heard == str(GONE), f"somebody who waited in vain heard {heard}"


async def decree(sim: Simulation, random: Random, id: str, seconds: float) -> None:
    """One completes a promise at its end, if it holds, and others meanwhile."""
    client, holds = sim.client(id), random.random() < 0.7
    workflow = client.workflow(Decree, id)
    overruled: dict[str, bool] = {}

    async def overrule(word: str) -> None:
        await wander(sim, random)
        if word == "unheard":
            await workflow.overrule_and_go(word)
        else:
            overruled[word] = await workflow.overrule(word)

    reading = workflow.read() if random.random() < 0.5 else None
    sent = await workflow.run.send("the run", seconds, holds=holds)
    await all_of(*(overrule(word) for word in random.sample(("one", "two", "unheard"), random.randrange(3))))
    ended = await end_of(sent)
    assert ended in (("True", "False") if holds else ("failed 500",)), f"{id} ended with {ended}"
    overruled["last"] = await workflow.overrule("last")
    read = await workflow.read()
    assert reading is None or await reading == read, "a promise has two values"
    winners = [word for word, won in overruled.items() if won] or ["the run", "unheard"]
    assert len(winners) <= 2, f"{winners} won in {id}"
    assert read in winners, f"the promise of {id} is {read!r}, and {overruled} won"
    assert read != "the run" or ended == "True", f"{read!r} counts, and {id} ended with {ended}"
    if random.random() < 0.5:
        await purge(sim, sent.id, workflow, client)


async def purge(sim: Simulation, run_id: str, workflow: Decree, client: SimulatedClient) -> None:
    """All of a workflow goes, and its id can be used anew."""
    await sim.advance(LATE_SECONDS)  # A request that comes twice would start it anew.
    with suppress(UnknownTargetError):  # The answer to the first try was lost.
        await client.act(Verb.PURGE, run_id)
    assert await end_of(client.invocation(run_id, bool).output()) == "failed 404", "what was purged is there"
    again = await workflow.run.send("anew", 0.0, holds=True)
    assert await end_of(again) == "True", "a workflow that was purged has left its promise"
    assert await workflow.read() == "anew"


async def brief(sim: Simulation, name: str, number: int, seconds: float) -> None:
    """One workflow after another under one id, as soon as the one before is gone."""
    workflow = sim.client(name).workflow(Brief, name)
    waiting = workflow.wait_in_vain(seconds)
    sent = await workflow.run.send(number)
    if sent.previously_accepted:
        assert await end_of(sent) != "0", "a workflow ended without its number"
    else:
        assert await end_of(sent) in (str(number), "failed 404"), "a workflow ended with the number of another"
    heard = await end_of(waiting)
    assert heard == str(GONE), f"somebody who waited in vain heard {heard}"


WORKFLOWS = Workload(
    program=program,
    actors=(Rounds, Brief, Decree, Tally, Clerk),
    retry=RetryPolicy(initial=0.5),
)

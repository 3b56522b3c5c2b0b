"""Restart in place: what is paused begins anew under its id, for its callers (rules W1, W2)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably import (
    Context,
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import begin
from tests.semantics.test_awakeables import WAYS

ONCE = RetryPolicy(max_attempts=1)


class Code:
    """Which code runs, and what it has done outside."""

    def __init__(self) -> None:
        self.is_new = False
        self.done: list[str] = []

    async def act(self, what: str) -> str:
        self.done.append(what)
        return what


class Order(VirtualObject):
    """Its older code cannot go on, and its newer code begins differently."""

    lines: list[str] = state(default=[])

    def __init__(self, code: Code) -> None:
        self.code = code

    @handler(retry=ONCE)
    async def place(self, ctx: ObjectContext, line: str) -> list[Any]:
        self.lines.append(line)
        first = await ctx.run("new" if self.code.is_new else "old", self.code.act, f"{line} of the new code")
        word = await ctx.signal("word", str)
        unique = ctx.uuid()
        if not self.code.is_new:
            await ctx.object(Order, "other").note("called by the old code")
            raise RuntimeError("a mistake of the older code")
        again = await ctx.signal("word", str)
        return [first, word, again, [*self.lines], ctx.request.id, str(unique) != "", ctx.request.attempt]

    @handler
    async def note(self, ctx: ObjectContext, line: str) -> None:
        self.lines.append(line)

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.lines


class Desk(Service):
    def __init__(self, code: Code) -> None:
        self.code = code

    @handler
    async def order(self, ctx: Context, key: str) -> list[Any]:
        return await ctx.object(Order, key).place("a chair")

    @handler(retry=ONCE)
    async def stumble(self, ctx: Context) -> str:
        await ctx.sleep(1)
        if not self.code.is_new:
            raise RuntimeError("a mistake")
        return ctx.request.id


async def paused(app: Harness, key: str) -> str:
    """The order of this key, after it has stumbled."""
    async for invocation in app.invocations(target=f"Order/{key}/place"):
        assert await invocation.status() is InvocationStatus.PAUSED
        return invocation.id
    raise AssertionError("there is none")


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("way", [*WAYS])
async def test_what_is_paused_begins_anew_on_new_code_for_its_callers(way: str, crashes: bool) -> None:
    code, store = Code(), MemoryStore()
    async with Harness(Order, Desk, dependencies={Code: code}, store=store, **WAYS[way]) as app:
        asked = await app.service(Desk).order.send("o")
        heard = begin(asked.result())
        await app.settle()
        async for invocation in app.invocations(target="Order/o/place"):
            await invocation.signal("word", "first")
            await invocation.signal("word", "second")
        with pytest.raises(PausedInvocationError):
            await heard
        id = await paused(app, "o")
        queued = await app.object(Order, "o").note.send("queued")
        assert await app.object(Order, "o").look() == ["a chair"]
        code.is_new = True
        if crashes:
            await app.crash()
        assert await app.restart(id) == [id]
        if crashes:
            await app.crash()
        await app.settle()
        first, word, again, lines, own_id, _, attempt = await asked.output()
        assert (first, word, again) == ("a chair of the new code", "first", "second")
        assert (lines, own_id, attempt) == (["a chair"], id, 1)
        await queued.result()
        assert (await app.state(Order, "o"))["lines"] == ["a chair", "queued"]
        assert (await app.state(Order, "other"))["lines"] == ["called by the old code"]


@pytest.mark.parametrize("way", [*WAYS])
async def test_all_that_are_paused_of_a_target_are_restarted(way: str) -> None:
    code = Code()
    async with Harness(Order, Desk, dependencies={Code: code}, **WAYS[way]) as app:
        sent = [await app.service(Desk).stumble.send() for _ in range(3)]
        heard = [begin(one.result()) for one in sent]
        await app.advance(2)
        for one in await asyncio.gather(*heard, return_exceptions=True):
            assert isinstance(one, PausedInvocationError)
        code.is_new = True
        assert sorted(await app.restart("Desk/stumble")) == sorted(one.id for one in sent)
        assert await app.restart("Desk") == []
        await app.advance(2)
        assert [await one.output() for one in sent] == [one.id for one in sent]


async def test_what_is_not_paused_is_not_restarted() -> None:
    async with Harness(Order, Desk, dependencies={Code: Code()}) as app:
        sent = await app.object(Order, "o").place.send("x")
        await app.settle()
        with pytest.raises(InvocationStatusError, match=r"is suspended, not paused\. Pause it, then restart it"):
            await app.restart(sent.id)
        with pytest.raises(UnknownTargetError):
            await app.restart("inv_1nobody")
        await app.pause(sent.id)
        assert await app.restart(sent.id) == [sent.id]
        assert await sent.status() is not InvocationStatus.PAUSED
        await app.kill(sent.id)
        with pytest.raises(InvocationStatusError, match="already completed"):
            await app.restart(sent.id)


async def test_one_whose_outcome_is_fixed_is_not_restarted() -> None:
    code = Code()
    async with Harness(Order, Desk, dependencies={Code: code}) as app:
        sent = await app.object(Order, "o").place.options(timeout=10).send("x")
        await app.settle()
        await app.pause(sent.id)
        await app.restart(sent.id)
        await app.advance(11)
        assert await sent.status() is InvocationStatus.COMPLETED, "its deadline stays"


class Trip(VirtualObject):
    """Many steps, of which the last one fails in the older code."""

    log: list[str] = state(default=[])

    def __init__(self, code: Code) -> None:
        self.code = code

    @handler(retry=ONCE)
    async def book(self, ctx: ObjectContext) -> list[str]:
        told: list[str] = []
        for number in range(4):
            await ctx.run(f"act {number}", self.code.act, f"act {number}")
            told.append(f"{number} {ctx.uuid()} {ctx.random().random()} {await ctx.signal('word', str)}")
            self.log.append(told[-1])
        called = ctx.object(Trip, "other").own_id()
        handle = await ctx.invocation_of(called)
        told.append("right" if handle.id == await called else "wrong")
        await ctx.sleep(1)
        if not self.code.is_new:
            raise RuntimeError("a mistake")
        return [*told, await ctx.object(Trip, "other").own_id(), ctx.request.id]

    @handler(retry=ONCE)
    async def wait(self, ctx: ObjectContext) -> None:
        asleep = asyncio.ensure_future(ctx.sleep(100))
        await ctx.run("act", self.code.act, "act")
        if not self.code.is_new:
            raise RuntimeError("a mistake")
        await asleep

    @handler(retry=ONCE, atomic=True)
    async def at_once(self, ctx: ObjectContext) -> None:
        await ctx.run("act", self.code.act, "act")
        raise RuntimeError("a mistake")

    @shared
    async def log_so_far(self, ctx: SharedContext) -> list[str]:
        return self.log

    @handler
    async def own_id(self, ctx: ObjectContext) -> str:
        return ctx.request.id


async def failed_trip(app: Harness) -> str:
    """A trip that has stumbled."""
    sent = await app.object(Trip, "t").book.send()
    heard = begin(sent.result())
    for number in range(4):
        await sent.signal("word", f"word {number}")
    await app.advance(1)
    with pytest.raises(PausedInvocationError):
        await heard
    return sent.id


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("from_step", range(1, 9))
@pytest.mark.parametrize("way", [*WAYS])
async def test_what_is_paused_begins_anew_from_any_of_its_steps(way: str, from_step: int, crashes: bool) -> None:
    code = Code()
    async with Harness(Trip, dependencies={Code: code}, **WAYS[way]) as app:
        id = await failed_trip(app)
        first_log = list(code.done)
        code.is_new = True
        assert await app.restart(id, from_step=from_step) == [id]
        for _ in range(3):
            await app.settle()
            if crashes:
                await app.crash()
        await app.advance(10)
        told = await app.invocation(id, list[str]).output()
        kept = (from_step + 1) // 2  # An act is kept with the step that asks for it.
        assert code.done == [*first_log, *(f"act {number}" for number in range(kept, 4))]
        assert [line.rpartition("word")[2] for line in told[:4]] == [" 0", " 1", " 2", " 3"]
        assert told[4] == "right"
        assert len({*told}) == len(told) - (told[5:].count(told[4])), "each execution has its own numbers"
        assert told[-1] == id
        assert (await app.state(Trip, "t"))["log"] == told[:4]


@pytest.mark.parametrize("crashes", [False, True])
async def test_what_comes_before_the_step_is_the_same_and_what_comes_after_is_new(crashes: bool) -> None:
    """Numbers, UUIDs and the ids of calls; also when it is restarted twice, later and earlier."""
    code = Code()
    async with Harness(Trip, dependencies={Code: code}) as app:
        id = await failed_trip(app)
        logs = [list(await app.object(Trip, "t").log_so_far())]
        for from_step in (5, 8, 3):
            await app.restart(id, from_step=from_step)
            heard = begin(app.invocation(id, list[str]).result())
            await app.advance(1)
            with pytest.raises(PausedInvocationError):
                await heard
            if crashes:
                await app.crash()
            logs.append(list(await app.object(Trip, "t").log_so_far()))
            kept = from_step // 2  # A line is made of what is drawn right after its act.
            assert logs[-1][:kept] == logs[-2][:kept]
            assert not {*logs[-1][kept:]} & {*logs[-2][kept:]}


@pytest.mark.parametrize(
    ("handler_name", "from_step", "words"),
    [
        ("book", 13, r"it has \d+ steps"),
        ("book", -1, r"it has \d+ steps"),
        ("wait", 1, r"waits for what has not come yet \(Sleep\)"),
        ("at_once", 1, "its handler is atomic"),
    ],
)
async def test_a_step_from_which_it_cannot_go_on_is_refused(handler_name: str, from_step: int, words: str) -> None:
    async with Harness(Trip, dependencies={Code: Code()}) as app:
        if handler_name == "book":
            id = await failed_trip(app)
        else:
            sent = await app.send("Trip", handler_name, key="t")
            with pytest.raises(PausedInvocationError):
                await sent.result()
            id = sent.id
        with pytest.raises(InvocationStatusError, match=words) as told:
            await app.restart(id, from_step=from_step)
        assert told.value.code == 400
        await app.kill(id)

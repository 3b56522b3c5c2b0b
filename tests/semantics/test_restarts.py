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

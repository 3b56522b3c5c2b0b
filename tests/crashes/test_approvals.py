"""Whoever waits for a word has it once, at whichever commit the process dies: awakeables, signals, own messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durably import (
    Awakeable,
    Context,
    ObjectContext,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    action_context,
    handler,
    shared,
    state,
)
from durably.testing import Simulation, for_each_crash_point


class Post(VirtualObject, name="CrashPost"):
    """Waits for words in every way."""

    asked: Awakeable[str] | None = state(default=None)
    log: list[str] = state(default=[])

    @handler
    async def ask(self, ctx: ObjectContext) -> str:
        asked = self.asked = ctx.awakeable(str)
        try:
            async with asyncio.timeout(5):
                word = await asked
        except TimeoutError:
            word = f"late {await asked}"
        self.log.append(word)
        return word

    @handler
    async def listen(self, ctx: ObjectContext, pause: float) -> list[str]:
        await ctx.sleep(pause)
        words = [await ctx.signal("word", str) for _ in range(2)]
        try:
            async with asyncio.timeout(3):
                words.append(await ctx.signal("word", str))
        except TimeoutError:
            words.append(f"late {await ctx.signal('word', str)}")
        self.log += words
        return words

    @handler
    async def remind(self, ctx: ObjectContext, left: int) -> None:
        attempt = await ctx.run("look", lambda: action_context().attempt)
        self.log.append(f"{left} {attempt}")
        if ctx.patched("reminders") and left:
            await self.remind.after(seconds=1).send(left - 1)

    @shared
    async def pending(self, ctx: SharedContext) -> str:
        return "" if self.asked is None else self.asked.id

    @shared
    async def read(self, ctx: SharedContext) -> list[str]:
        return self.log


class Teller(Service, name="CrashTeller"):
    @handler
    async def resolve(self, ctx: Context, id: str, word: str) -> None:
        await ctx.resolve_awakeable(id, word)

    @handler
    async def tell(self, ctx: Context, id: str, words: list[str], pause: float) -> int:
        for word in words:
            await ctx.invocation(id, list[str]).signal("word", word)
            await ctx.sleep(pause)
        return len(words)


class Judge(VirtualObject, name="CrashJudge"):
    @handler(atomic=True)
    async def decide(self, ctx: ObjectContext, id: str, word: str, *, holds: bool) -> None:
        await ctx.resolve_awakeable(id, word)
        await ctx.sleep(1)
        if not holds:
            raise TerminalError("it does not hold")


async def _pending(sim: Simulation) -> str:
    while not (id := await sim.client("looker").object(Post, "p").pending()):
        await sim.advance(0.1)
    return id


async def resolved_from_outside(sim: Simulation) -> Any:
    asking = await sim.client("asker").object(Post, "p").ask.send()
    await sim.client("teller").resolve_awakeable(await _pending(sim), "yes")
    return await asking.result()


async def resolved_by_a_handler_after_the_time_limit(sim: Simulation) -> Any:
    asking = await sim.client("asker").object(Post, "p").ask.send()
    id = await _pending(sim)
    await sim.advance(10)
    await sim.client("teller").service(Teller).resolve(id, "yes")
    return await asking.result()


async def resolved_by_the_outcome_of_an_atomic_handler(sim: Simulation) -> Any:
    asking = await sim.client("asker").object(Post, "p").ask.send()
    id = await _pending(sim)
    judge = sim.client("judge").object(Judge, "j")
    try:
        await judge.decide(id, "never", holds=False)
    except TerminalError:
        await judge.decide(id, "yes", holds=True)
    return await asking.result()


async def told_before_and_while_it_waits(sim: Simulation) -> Any:
    listening = await sim.client("asker").object(Post, "p").listen.send(1.5)
    told = await sim.client("teller").service(Teller).tell(listening.id, ["one", "two", "three"], 1)
    return [told, *await listening.result()]


async def told_after_a_wait_in_vain(sim: Simulation) -> Any:
    listening = await sim.client("asker").object(Post, "p").listen.send(0)
    told = await sim.client("teller").service(Teller).tell(listening.id, ["one", "two", "three"], 5)
    return [told, *await listening.result()]


async def reminded(sim: Simulation) -> Any:
    await sim.client("asker").object(Post, "p").remind(2)
    await sim.advance(30)
    return await sim.client("asker").object(Post, "p").read()


Program = Callable[[Simulation], Coroutine[Any, Any, Any]]
ENDS: dict[Program, Any] = {
    resolved_from_outside: "yes",
    resolved_by_a_handler_after_the_time_limit: "late yes",
    resolved_by_the_outcome_of_an_atomic_handler: "yes",
    told_before_and_while_it_waits: [3, "one", "two", "three"],
    told_after_a_wait_in_vain: [3, "one", "two", "late three"],
    reminded: ["2 1", "1 1", "0 1"],
}


@pytest.mark.parametrize("program", ENDS, ids=lambda program: program.__name__)
def test_the_end_is_the_same_whichever_commit_dies(program: Program) -> None:
    async def same(sim: Simulation) -> Any:
        end = await program(sim)
        if isinstance(end, str):
            assert sim.snapshots[Post, "p"].log == [end]
        left = [row.signals for row in sim.disk.rows.values() if row.signals]
        assert not left, left
        assert end == ENDS[program], end
        return end

    for_each_crash_point(same, Post, Teller, Judge, place=("before_commit", "after_commit"))

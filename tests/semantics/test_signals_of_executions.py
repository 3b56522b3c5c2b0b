"""Rule W1: which of what comes for an invocation its next execution takes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably import InvocationStatus, ObjectContext, VirtualObject, handler
from durably.testing import Harness


class Reader(VirtualObject):
    """Reads a word in each execution."""

    @handler
    async def read(self, ctx: ObjectContext, words: list[str], left: int) -> list[str]:
        words = [*words, await ctx.signal("word", str)]
        if left == 1:
            return words
        await ctx.sleep(1)
        return ctx.continue_as_new(Reader.read, words, left - 1)


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("suspend_after", [0, 60])
async def test_signals_that_nobody_has_taken_go_on_to_the_next_execution_in_order(
    suspend_after: float, crashes: bool
) -> None:
    async with Harness(Reader, suspend_after=suspend_after) as app:
        sent = await app.object(Reader, "r").read.send([], 3)
        await app.settle()
        for word in "abc":
            await sent.signal("word", word)
            if crashes:
                await app.crash()
        for _ in range(3):
            await app.advance(1)
            if crashes:
                await app.crash()
        assert await sent.result() == ["a", "b", "c"]


class Turn(NamedTuple):
    """What one execution does before it goes on as a new one."""

    reads: Literal["one", "two", "limited", "raced", "none"]
    waits: bool
    """It waits for a timer after it has read."""


class Taker(VirtualObject):
    """Takes words in each execution, in some way, and goes on with those that it has."""

    @handler
    async def take(self, ctx: ObjectContext, turns: list[Turn], words: list[str], wanted: int) -> list[str]:
        missing = wanted - len(words)
        if not missing:
            return words
        turn, rest = (turns[0], turns[1:]) if turns else (Turn("one", False), [])
        read: list[asyncio.Task[str]] = []
        match turn.reads:
            case "one":
                words = [*words, await ctx.signal("word", str)]
            case "two":
                words = [*words, *await asyncio.gather(*(ctx.signal("word", str) for _ in range(min(2, missing))))]
            case "limited":
                with contextlib.suppress(TimeoutError):
                    words = [*words, await asyncio.wait_for(ctx.signal("word", str), 1)]
            case "raced":
                read = [asyncio.ensure_future(ctx.signal("word", str)) for _ in range(2)]
                await asyncio.wait(read, return_when=asyncio.FIRST_COMPLETED)
            case "none":
                pass
        if turn.waits:
            await ctx.sleep(0.5)
        words = [*words, *(one.result() for one in read if one.done())]
        return ctx.continue_as_new(Taker.take, rest, words, wanted)


turns = st.builds(Turn, st.sampled_from(["one", "two", "limited", "raced", "none"]), st.booleans())


@given(
    st.lists(turns, max_size=6), st.lists(st.sampled_from(["word", "crash", "second"]), max_size=10),
    st.booleans(), st.integers(0, 6),
)  # fmt: skip
@example([Turn("one", False)] * 3, ["word"], False, 3)
@example([Turn("one", False)] * 3, ["word"] * 3, False, 3)
@example([Turn("two", False)] * 3, ["word"] * 6, False, 6)
@example([Turn("raced", False)] * 6, ["word"] * 6, False, 6)
@example([Turn("raced", True)] * 6, ["second", "word", "word", "crash", "word"], True, 3)
def test_each_signal_is_taken_once_and_in_order_by_one_of_the_executions(
    turns: list[Turn], events: list[str], nothing_resident: bool, at_once: int
) -> None:
    asyncio.run(_check(turns, events, nothing_resident, at_once))


async def _check(turns: list[Turn], events: list[str], nothing_resident: bool, at_once: int) -> None:
    sent = [str(number) for number in range(at_once + events.count("word"))]
    async with Harness(Taker, nothing_resident=nothing_resident) as app:
        taker = await app.object(Taker, "t").take.send(turns, [], len(sent))
        words = iter(sent)
        for _ in range(at_once):
            await taker.signal("word", next(words))
        for event in events:
            match event:
                case "word":
                    if await taker.status() is not InvocationStatus.COMPLETED:
                        await taker.signal("word", next(words))
                case "crash":
                    await app.crash()
                case _:
                    await app.advance(1)
        await app.advance(60)
        assert await taker.status() is InvocationStatus.COMPLETED
        assert await taker.output() == sent

"""Rule W1: which of what comes for an invocation its next execution takes."""

from __future__ import annotations

import pytest

from durably import ObjectContext, VirtualObject, handler
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

"""A `TerminalError` is an outcome: it reaches the caller with class and fields. Anything else is tried again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from durably import (
    Context,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    TerminalError,
    VirtualObject,
    handler,
    state,
)
from durably.testing import Harness


@dataclass(eq=False)
class OutOfStockError(TerminalError):
    article: str
    left: int
    code = 409


class Shelf(VirtualObject):
    left: int = state(default=2)

    @handler
    async def take(self, ctx: ObjectContext, count: int) -> int:
        if count > self.left:
            raise OutOfStockError(self.key, self.left)
        self.left -= count
        return self.left


class Shop(Service):
    @handler
    async def buy(self, ctx: Context, article: str, count: int) -> str:
        try:
            await ctx.object(Shelf, article).take(count)
        except OutOfStockError as error:
            return f"only {error.left} of {error.article}"
        return "bought"

    @handler
    async def open(self, ctx: Context) -> str:
        if ctx.request.attempt < 3:
            raise ConnectionError("the key does not turn")
        return "open"

    @handler
    async def close(self, ctx: Context) -> str:
        raise ValueError("a bug")


async def test_an_error_reaches_the_caller_with_its_fields() -> None:
    async with Harness(Shelf) as app:
        with pytest.raises(OutOfStockError) as failed:
            await app.object(Shelf, "apple").take(5)
        assert (failed.value.article, failed.value.left, failed.value.code) == ("apple", 2, 409)


async def test_a_handler_catches_it_like_any_exception() -> None:
    async with Harness(Shelf, Shop) as app:
        assert await app.service(Shop).buy("apple", 5) == "only 2 of apple"
        assert await app.service(Shop).buy("apple", 1) == "bought"


async def test_any_other_error_is_tried_again_with_growing_pauses() -> None:
    async with Harness(Shop, retry=RetryPolicy(initial=1, factor=2)) as app:
        opening = asyncio.ensure_future(app.service(Shop).open())
        await app.advance(2)
        assert not opening.done()
        await app.advance(1)
        assert await opening == "open"


async def test_when_trying_is_over_it_waits_for_a_person() -> None:
    async with Harness(Shop) as app:
        with pytest.raises(PausedInvocationError, match="ValueError: a bug") as paused:
            await app.service(Shop).close()
        assert isinstance(paused.value.__cause__, ValueError)

"""`self.handler` in a handler: what an object or a service sends to itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durably import Context, HandlerMistakeError, ObjectContext, Service, VirtualObject, handler, state
from durably.testing import Harness
from tests.semantics.test_awakeables import WAYS


class Reminder(VirtualObject):
    said: list[str] = state(default=[])

    @handler
    async def begin(self, ctx: ObjectContext) -> None:
        await self.say.send("soon")
        await self.say.after(minutes=5).send("later")
        await self.say.at(ctx.now() + timedelta(minutes=10)).send("last")
        again = self.say.options(idempotency_key="once")
        first, second = await again.send("keyed"), await again.send("ignored")
        assert first.id == second.id

    @handler
    async def say(self, ctx: ObjectContext, word: str) -> None:
        self.said.append(word)

    @handler
    async def call_itself(self, ctx: ObjectContext) -> None:
        await self.say("never")


class Ticker(Service, name="Tick"):
    @handler
    async def tick(self, ctx: Context, left: int) -> None:
        await ctx.object(Reminder, "ticks").say.send(str(left))
        if left:
            await self.tick.after(seconds=1).send(left - 1)


@pytest.mark.parametrize("way", [*WAYS])
async def test_an_object_sends_to_itself(way: str) -> None:
    async with Harness(Reminder, **WAYS[way]) as app:
        await app.object(Reminder, "a").begin()
        await app.advance(minutes=20)
        state = await app.state(Reminder, "a")
        assert state["said"] == ["soon", "keyed", "later", "last"]
        assert await app.state(Reminder, "b") == {}


@pytest.mark.parametrize("way", [*WAYS])
async def test_a_service_sends_to_itself(way: str) -> None:
    async with Harness(Reminder, Ticker, **WAYS[way]) as app:
        await app.service(Ticker).tick(3)
        await app.advance(seconds=5)
        assert (await app.state(Reminder, "ticks"))["said"] == ["3", "2", "1", "0"]


async def test_a_call_to_oneself_says_what_to_write() -> None:
    async with Harness(Reminder) as app:
        with pytest.raises(Exception, match=r"send: `await self\.say\.send\(\.\.\.\)`") as told:
            await app.object(Reminder, "a").call_itself()
        cause: Any = told.value.__cause__
        assert isinstance(cause or told.value, HandlerMistakeError)

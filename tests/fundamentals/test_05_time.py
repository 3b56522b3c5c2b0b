"""Sleeping is durable: a handler that waits for an hour holds no thread and no memory, and a crash does not wake it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from durably import Context, ObjectContext, Service, SharedContext, VirtualObject, handler, shared, state
from durably.testing import Harness


class Egg(VirtualObject):
    is_done: bool = state(default=False)

    @handler
    async def boil(self, ctx: ObjectContext) -> str:
        begun = ctx.now()
        await ctx.sleep(timedelta(minutes=5))
        self.is_done = True
        return str(ctx.now() - begun)

    @shared
    async def look(self, ctx: SharedContext) -> str:
        return "done" if self.is_done else "raw"


async def test_it_wakes_at_its_time() -> None:
    async with Harness(Egg) as app:
        boiling = asyncio.ensure_future(app.object(Egg, "mine").boil())
        await app.advance(minutes=4, seconds=59)
        assert await app.object(Egg, "mine").look() == "raw"
        await app.advance(seconds=1)
        assert await app.object(Egg, "mine").look() == "done"
        assert await boiling == "0:05:00"


async def test_a_crash_does_not_change_the_time() -> None:
    async with Harness(Egg) as app:
        boiling = asyncio.ensure_future(app.object(Egg, "mine").boil())
        for _ in range(5):
            await app.advance(minutes=1)
            await app.crash()
        await app.settle()
        assert await boiling == "0:05:00"


async def test_a_time_limit_is_plain_asyncio() -> None:
    class Hungry(Service):
        @handler
        async def eat(self, ctx: Context) -> str:
            try:
                async with asyncio.timeout(60):
                    return await ctx.object(Egg, "mine").boil()
            except TimeoutError:
                return "eaten raw"

    async with Harness(Egg, Hungry) as app:
        eating = asyncio.ensure_future(app.service(Hungry).eat())
        await app.advance(minutes=1)
        assert await eating == "eaten raw"
        await app.advance(minutes=4)
        assert await app.object(Egg, "mine").look() == "done"

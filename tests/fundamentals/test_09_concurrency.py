"""Concurrency in a handler is plain asyncio: `gather`, `TaskGroup`, `timeout`, queues. All of it replays exactly."""

from __future__ import annotations

import asyncio

import pytest

from durably import Context, ObjectContext, Service, VirtualObject, handler, select
from durably.testing import Harness


class Shop(VirtualObject):
    @handler
    async def price(self, ctx: ObjectContext) -> int:
        await ctx.sleep(len(self.key))
        return 100 - len(self.key)


class Comparison(Service):
    @handler
    async def all(self, ctx: Context, shops: list[str]) -> list[int]:
        return await asyncio.gather(*(ctx.object(Shop, shop).price() for shop in shops))

    @handler
    async def best(self, ctx: Context, shops: list[str]) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.object(Shop, shop).price()) for shop in shops]
        return min(task.result() for task in tasks)

    @handler
    async def fastest(self, ctx: Context, shops: list[str]) -> list[str]:
        order: list[str] = []
        queue = asyncio.Queue[str]()

        async def ask(shop: str) -> None:
            await ctx.object(Shop, shop).price()
            await queue.put(shop)

        async with asyncio.TaskGroup() as group:
            for shop in shops:
                group.create_task(ask(shop))
            while len(order) < len(shops):
                order.append(await queue.get())
        return order

    @handler
    async def first(self, ctx: Context) -> str:
        name, _ = await select(corner=ctx.object(Shop, "corner").price(), mall=ctx.object(Shop, "big mall").price())
        return name


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_calls_run_beside_each_other(suspend_after: float) -> None:
    async with Harness(Shop, Comparison, suspend_after=suspend_after) as app:
        asking = asyncio.ensure_future(app.service(Comparison).all(["aa", "b", "cccc"]))
        await app.advance(4)
        assert await asking == [98, 99, 96]


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_a_task_group_waits_for_all_of_them(suspend_after: float) -> None:
    async with Harness(Shop, Comparison, suspend_after=suspend_after) as app:
        asking = asyncio.ensure_future(app.service(Comparison).best(["aa", "b", "cccc"]))
        await app.advance(4)
        assert await asking == 96


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_answers_come_in_the_order_in_which_they_arrive_after_a_crash_too(suspend_after: float) -> None:
    async with Harness(Shop, Comparison, suspend_after=suspend_after) as app:
        asking = asyncio.ensure_future(app.service(Comparison).fastest(["aa", "b", "cccc"]))
        await app.advance(1)
        await app.crash()
        await app.advance(3)
        assert await asking == ["b", "aa", "cccc"]


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_select_names_the_first_to_finish(suspend_after: float) -> None:
    async with Harness(Shop, Comparison, suspend_after=suspend_after) as app:
        asking = asyncio.ensure_future(app.service(Comparison).first())
        await app.advance(10)
        assert await asking == "corner"

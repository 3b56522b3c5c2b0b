"""A program whose handler lets asyncio keep tasks in sets, for a test that replays its journal under other hashes."""

from __future__ import annotations

import asyncio
import sys

from durably import Context, ObjectContext, Runtime, Service, VirtualObject, handler, state
from durably.storage import SqliteStore


class Door(VirtualObject):
    visitors: list[str] = state(default=[])

    @handler
    async def enter(self, ctx: ObjectContext, name: str) -> str:
        self.visitors.append(name)
        return f"{name} is number {len(self.visitors)}"


class Party(Service):
    @handler
    async def hold(self, ctx: Context) -> list[str]:
        async def arrive(name: str) -> str:
            try:
                await ctx.sleep(3600)
            except asyncio.CancelledError:
                await ctx.object(Door, "front").enter.send(f"cancelled {name}")
                raise
            return name

        async def called(name: str) -> str:
            return await ctx.object(Door, "front").enter(name)

        tasks = [asyncio.create_task(arrive(f"guest {number}")) for number in range(10)]
        calls = {asyncio.create_task(called(f"caller {number}")) for number in range(10)}
        done, _ = await asyncio.wait({*tasks, *calls}, return_when=asyncio.FIRST_COMPLETED)
        first = [task.result() for task in done]
        rest = await asyncio.gather(*(calls - done))
        for task in set(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        await ctx.sleep(0.3)
        return [*first, *rest]


async def begin(path: str) -> None:
    async with Runtime(SqliteStore(path), [Door, Party], drain=0) as runtime:
        await runtime.service(Party).hold.options(idempotency_key="party").send()
        await runtime.object(Door, "other").enter("x")
    print("suspended")


async def end(path: str) -> None:
    async with Runtime(SqliteStore(path), [Door, Party]) as runtime:
        print(await runtime.service(Party).hold.options(idempotency_key="party").attach())


if __name__ == "__main__":
    asyncio.run({"begin": begin, "end": end}[sys.argv[1]](sys.argv[2]))

"""A handler that waits long leaves memory. When its answer comes, its code is replayed and goes on."""

from __future__ import annotations

import asyncio

from durably import Context, InvocationStatus, Service, handler
from durably.testing import Harness


class Counting:
    def __init__(self) -> None:
        self.begun = 0


class Patient(Service):
    def __init__(self, counting: Counting) -> None:
        self.counting = counting

    @handler
    async def wait(self, ctx: Context) -> list[str]:
        self.counting.begun += 1
        ids = [str(ctx.uuid())]
        for _ in range(3):
            await ctx.sleep(300)
            ids.append(str(ctx.uuid()))
        return ids


async def test_one_that_waits_is_suspended() -> None:
    async with Harness(Patient, dependencies={Counting: Counting()}) as app:
        sent = await app.service(Patient).wait.send()
        await app.settle()
        assert await sent.status() is InvocationStatus.SUSPENDED


async def test_its_code_runs_again_and_sees_the_same() -> None:
    results: list[list[str]] = []
    begun: list[int] = []
    for suspend_after in (10_000, 0):
        counting = Counting()
        async with Harness(Patient, dependencies={Counting: counting}, suspend_after=suspend_after) as app:
            waiting = asyncio.ensure_future(app.service(Patient).wait())
            await app.advance(minutes=15)
            results.append(await waiting)
            begun.append(counting.begun)
    assert results[0] == results[1]
    assert begun[0] < begun[1]

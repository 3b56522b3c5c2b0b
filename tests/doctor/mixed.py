"""A program with a bit of everything that a store can hold, and the file of a runtime that has stopped in the midst."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from durably import (
    FOREVER,
    Context,
    DurableDict,
    DurableList,
    DurablePromise,
    Lazy,
    Limit,
    Limits,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    SharedWorkflowContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    promise,
    shared,
    state,
)
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness

LIMITS = Limits(named={"one": Limit(at_once=1)})
PATIENT = RetryPolicy(initial=6_000, maximum=6_000)
LARGE = "x" * 40_000


async def act() -> int:
    return 1


class Box(VirtualObject, ttl=timedelta(days=30)):
    number: int = state(default=0)
    names: DurableDict[str, int] = state()
    numbers: DurableList[int] = state()
    rarely: Lazy[list[int]] = state()

    @handler
    async def fill(self, ctx: ObjectContext) -> None:
        self.number = 1
        for n in range(3):
            self.names[f"k{n}"] = n
            self.numbers.append(n)
        self.rarely.set([1, 2])

    @handler
    async def read_and_sleep(self, ctx: ObjectContext) -> None:
        await self.names.get("k1")
        self.number += 1
        await ctx.run("act", act)
        await ctx.sleep(hours=5)

    @handler
    async def call(self, ctx: ObjectContext, key: str) -> None:
        await ctx.object(Box, key).fill()

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        raise ValueError("a bug")

    @handler(retry=RetryPolicy(max_attempts=1))
    async def pause(self, ctx: ObjectContext) -> None:
        await ctx.run("act", act)
        raise ValueError("a bug")

    @handler(timeout=9_000)
    async def wait(self, ctx: ObjectContext) -> None:
        await asyncio.gather(ctx.signal("go", str), ctx.awakeable(str))

    @shared
    async def look(self, ctx: SharedContext) -> None:
        await self.names.get(f"k{self.number}")
        await ctx.sleep(hours=1)

    @handler(atomic=True)
    async def at_once(self, ctx: ObjectContext) -> None:
        self.number = 5
        await ctx.object(Box, "other").fill.send()
        await ctx.sleep(hours=1)


class Vote(Workflow):
    opened: bool = state(default=False)
    decided: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        self.opened = True
        return await self.decided

    @shared
    async def decide(self, ctx: SharedWorkflowContext) -> None:
        await self.decided.resolve("yes")


class Clerk(Service, retention=FOREVER):
    @handler(limit="one")
    async def limited(self, ctx: Context) -> None:
        await ctx.sleep(hours=1)

    @handler
    async def attach(self, ctx: Context, id: str) -> None:
        await ctx.invocation(id, type(None))

    @handler(journal_retention=FOREVER)
    async def kept(self, ctx: Context) -> int:
        return await ctx.run("act", act)

    @handler
    async def delayed(self, ctx: Context, text: str) -> None: ...

    @handler
    async def several(self, ctx: Context) -> None:
        await asyncio.gather(
            ctx.object(Box, "sleeper").fill(), ctx.sleep(hours=2), ctx.workflow(Vote, "open").run.attach()
        )

    @cron("0 4 * * *")
    @handler
    async def tick(self, ctx: Context) -> None: ...


ACTORS = (Box, Vote, Clerk)


async def fill(app: Harness) -> None:
    """At least one of each kind of record."""
    box = app.object
    await box(Box, "full").fill()
    await box(Box, "sleeper").fill()
    sleeper = await box(Box, "sleeper").read_and_sleep.send()
    await box(Box, "sleeper").fill.options(idempotency_key="once").send()
    await box(Box, "sleeper").look.send()
    await box(Box, "caller").call.send("sleeper")
    await box(Box, "failing").fail.send()
    with suppress(PausedInvocationError):
        await box(Box, "paused").pause()
    await box(Box, "paused").fill.send()
    waiting = await box(Box, "waiting").wait.send()
    await box(Box, "atomic").at_once.send()
    await app.workflow(Vote, "open").run.send()
    await app.workflow(Vote, "closed").run.send()
    await app.workflow(Vote, "closed").decide()
    clerk = app.service(Clerk)
    await clerk.limited.send()
    await clerk.limited.send()
    await clerk.attach.send(sleeper.id)
    await clerk.kept.options(idempotency_key="kept")()
    await clerk.delayed.after(hours=1).send(LARGE)
    await clerk.several.send()
    await app.settle()
    await waiting.signal("later", "early")
    await app.settle()


async def write_mixed(path: Path) -> None:
    """Make the file."""
    async with Harness(*ACTORS, store=SqliteStore(path), limits=LIMITS, retry=PATIENT) as app:
        await fill(app)

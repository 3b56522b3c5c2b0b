"""With a codec no value of any kind is in the files, and those who look inside see all of them decoded (rule V8)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from durably import (
    DurableDict,
    DurableList,
    DurablePromise,
    InvocationStatus,
    Lazy,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    action_context,
    handler,
    promise,
    shared,
    state,
)
from durably.codecs import AesGcmCodec
from durably.models import Machine, Model, TransitionContext, initial

SECRET = "the-secret-of-mary"
LATER = RetryPolicy(initial=1_000, maximum=1_000)


class Paper(Model, index=("text",)):
    text: str


class Written(Paper):
    pass


class Papers(Machine[Paper]):
    @initial
    async def write(self, ctx: TransitionContext, text: str) -> Written:
        return Written(text=text)


class Vault(VirtualObject):
    field: str = state(default="")
    entries: DurableDict[str, str] = state()
    items: DurableList[str] = state()
    lazy: Lazy[str] = state()

    @handler
    async def fill(self, ctx: ObjectContext, secret: str) -> str:
        self.field = self.entries["key"] = secret
        self.items.append(secret)
        self.lazy.set(secret)
        ctx.set("by name", secret)
        await self.fill.after(1_000).send(secret)
        await ctx.run("read", lambda: secret)
        return await ctx.signal("go", str)

    @handler
    async def refuse(self, ctx: ObjectContext, secret: str) -> None:
        raise TerminalError(secret, metadata={"name": secret})

    @handler(retry=RetryPolicy(max_attempts=1))
    async def pause(self, ctx: ObjectContext, secret: str) -> None:
        raise RuntimeError(secret)

    @handler(retry=LATER)
    async def stumble(self, ctx: ObjectContext, secret: str) -> None:
        def fail() -> None:
            raise RuntimeError(f"{secret} {action_context().attempt}")

        await ctx.run("fail", fail)


class Trust(Workflow):
    heir: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, secret: str) -> str:
        return await ctx.signal("never", str)

    @shared
    async def name(self, ctx: SharedWorkflowContext, secret: str) -> None:
        await self.heir.resolve(secret)


async def test_every_kind_of_value_is_encoded_and_seen_by_those_who_look_inside(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with Runtime(url, [Vault, Trust, Papers], codec=AesGcmCodec(bytes(32))) as runtime:
        filling = await runtime.object(Vault, "a").fill.options(idempotency_key="k", headers={"x": SECRET}).send(SECRET)
        with pytest.raises(TerminalError, match=SECRET):
            await runtime.object(Vault, "b").refuse.options(idempotency_key="k")(SECRET)
        with pytest.raises(PausedInvocationError, match=SECRET):
            await runtime.object(Vault, "c").pause(SECRET)
        stumbling = await runtime.object(Vault, "d").stumble.send(SECRET)
        trust = await runtime.workflow(Trust, "t").run.send(SECRET)
        await runtime.workflow(Trust, "t").name(SECRET)
        await trust.signal("waits", SECRET)
        await filling.signal("go", SECRET)
        assert await filling.result() == SECRET
        async with asyncio.timeout(60):
            while SECRET not in str(await runtime.why(stumbling.id)):
                await asyncio.sleep(0)
        papers = runtime.machine(Papers)
        paper, written = await papers.write.options(note=SECRET)(SECRET)
        copy = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-copy"))
        files = {one.name: one.read_bytes() for one in copy.iterdir()}
        assert {"app.db", "app.db-wal"} <= files.keys()
        assert not [name for name, data in files.items() if SECRET.encode() in data]

        assert await runtime.state(Vault, "a") == {"field": SECRET, "by name": SECRET}
        assert await papers.find_all(Paper, text=SECRET) == [paper]
        assert await papers.get_transition(written.id) == written
        read = [await runtime.entries(Vault, "a", name) for name in ("entries", "items", "lazy")]
        assert read == [[("key", SECRET)], [(0, SECRET)], [(None, SECRET)]]
        assert SECRET in str(await runtime.journal(filling.id))
        paused = [one async for one in runtime.invocations(status=InvocationStatus.PAUSED)]
        assert [SECRET in str(await runtime.why(one.id)) for one in paused] == [True]
        for name in ("Vault", "Trust"):
            await runtime.kill(name)

"""Rule E2: a kill ends a tree without its code, in one transition for each invocation, whatever happens in between."""

from __future__ import annotations

import asyncio

import pytest

from durably import (
    CancelledInvocationError,
    InvocationStatus,
    ObjectContext,
    RetryPolicy,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, turns


class Link(VirtualObject):
    """Calls the next one, and never ends by itself."""

    log: list[str] = state(default=[])

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def chain(self, ctx: ObjectContext, left: int) -> None:
        self.log.append("began")
        try:
            if left:
                await ctx.object(Link, f"{left}").chain(left - 1)
            else:
                await ctx.run("act", self.world.act, "act")
        except asyncio.CancelledError:
            self.log.append("cleaned up")  # A kill asks for nothing.
            raise

    @handler(atomic=True)
    async def atomic(self, ctx: ObjectContext) -> None:
        self.log.append("atomic")
        await ctx.sleep(1_000)

    @handler
    async def sends(self, ctx: ObjectContext) -> None:
        await ctx.object(Link, "sent").note.send()
        await ctx.object(Link, "shielded").wait.send()
        await asyncio.shield(ctx.object(Link, "shielded too").wait())

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        self.log.append("waits")
        await ctx.sleep(100)
        self.log.append("waited")

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def fail(self, ctx: ObjectContext) -> None:
        self.log.append("fails")
        await ctx.sleep(1)
        raise RuntimeError("again")

    @handler
    async def note(self, ctx: ObjectContext) -> list[str]:
        self.log.append("note")
        return self.log

    @shared
    async def look(self, ctx: SharedContext) -> list[str]:
        return self.log


@pytest.fixture(params=[60.0, 0.0], ids=["in-memory", "suspended"])
def suspend_after(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value


async def test_a_killed_tree_is_free_at_once_and_keeps_what_its_steps_have_changed(suspend_after: float) -> None:
    world = World()
    store = MemoryStore()
    async with Harness(Link, dependencies={World: world}, store=store, suspend_after=suspend_after) as app:
        root = await app.object(Link, "root").chain.send(3)
        await turns()
        assert world.started == ["act"]
        assert await app.kill(root.id) == [root.id]
        await app.settle()
        assert world.cancelled == ["act"]
        with pytest.raises(CancelledInvocationError, match="killed"):
            await root.result()
        for key in ("root", "3", "2", "1"):
            assert await app.object(Link, key).note() == ["began", "note"]
        assert [record.id for record in store.disk.records()] == [root.id]
        assert not store.disk.orders


async def test_a_kill_between_any_two_commits_and_a_crash_after_each() -> None:
    """Nothing of a tree is in memory: each callee is killed in a transition of its own, ordered by its caller's."""
    for commits in range(12):
        store = PuppetStore()
        async with Harness(Link, dependencies={World: World()}, store=store, suspend_after=0) as app:
            root = await app.object(Link, "root").sends.send()
            await app.settle()
            deep = await app.object(Link, "deep").chain.send(4)
            await turns(400)
            store.hold()
            killing = begin(asyncio.gather(app.kill(root.id), app.kill(deep.id), return_exceptions=True))
            for _ in range(commits):
                await turns()
                if store.waiting:
                    await store.let_one()
            await store.lose(app)
            await killing
            for id in (root.id, deep.id):
                if await app.invocation(id, str).status() is not InvocationStatus.COMPLETED:
                    await app.kill(id)
            await app.settle()
            for key in ("root", "deep", "4", "3", "2", "1", "shielded too"):
                assert (await app.object(Link, key).note())[-1] == "note", f"{key} after {commits} commits"
            assert (await app.object(Link, "sent").look()) == ["note"]
            await app.advance(100)
            assert (await app.object(Link, "shielded").look()) == ["waits", "waited"]
            assert not store.memory.disk.orders


async def test_what_an_atomic_handler_has_changed_goes_with_it() -> None:
    async with Harness(Link, dependencies={World: World()}) as app:
        sent = await app.object(Link, "a").atomic.send()
        await app.settle()
        await app.kill(sent.id)
        assert await app.object(Link, "a").look() == []


@pytest.mark.parametrize("paused", [False, True])
async def test_what_fails_for_ever_or_is_paused_can_be_killed(paused: bool) -> None:
    store = MemoryStore()
    async with Harness(Link, dependencies={World: World()}, store=store) as app:
        sent = await app.object(Link, "a").fail.send()
        await app.advance(1)
        if paused:
            await app.pause(sent.id)
        await app.kill("Link/a")
        assert await app.object(Link, "a").note() == ["fails", "note"]
        await app.advance(200)
        assert [row.timers for row in store.disk.rows.values() if row.timers] == []


async def test_what_has_not_started_ends_too() -> None:
    async with Harness(Link, dependencies={World: World()}) as app:
        holder = await app.object(Link, "a").wait.send()
        queued = await app.object(Link, "a").note.send()
        delayed = await app.object(Link, "a").note.after(1_000).send()
        await app.settle()
        assert await app.kill("Link/a/note") == [queued.id, delayed.id]
        await app.advance(2_000)
        await holder.result()
        assert await app.object(Link, "a").look() == ["waits", "waited"]

"""Pause, resume, purge and restart: what an operator does to one invocation, or to all of a target."""

from __future__ import annotations

import asyncio

import pytest

from durably import (
    InvocationStatus,
    InvocationStatusError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    VirtualObject,
    handler,
    state,
)
from durably.runtime.gateway.control import Verb
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import World, begin, turns


class Job(VirtualObject):
    runs: int = state(default=0)

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def work(self, ctx: ObjectContext, seconds: float = 100) -> int:
        await ctx.sleep(seconds)
        self.runs += 1
        return self.runs

    @handler
    async def act(self, ctx: ObjectContext) -> str:
        return await ctx.run("act", self.world.act, "act")

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def fail(self, ctx: ObjectContext) -> None:
        raise RuntimeError("again")

    @handler
    async def forget(self, ctx: ObjectContext) -> None:
        self.runs = 0

    @handler
    async def count(self, ctx: ObjectContext) -> int:
        return self.runs


def harness(store: MemoryStore | None = None, suspend_after: float = 60.0) -> Harness:
    return Harness(Job, dependencies={World: World()}, store=store, suspend_after=suspend_after)


@pytest.fixture(params=[60.0, 0.0], ids=["in-memory", "suspended"])
def suspend_after(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value


async def test_the_handle_of_what_was_listed_reads_a_result_that_is_nothing() -> None:
    async with harness() as app:
        await app.object(Job, "j").forget.send()
        await app.settle()
        assert [await one.result() async for one in app.invocations(target="Job/j/forget")] == [None]
        (listed,) = [one async for one in app.invocations(target="Job/j/forget")]
        again = await app.restart_as_new(listed.id)
        await app.settle()
        assert await again.output() is None
        assert await app.invocation(again.id, None).output() is None  # type: ignore[func-returns-value]


class TestPause:
    @pytest.mark.parametrize("crashes", [False, True])
    async def test_a_paused_one_begins_nothing_until_it_is_resumed(self, crashes: bool, suspend_after: float) -> None:
        async with harness(suspend_after=suspend_after) as app:
            call = begin(app.object(Job, "j").work.options(idempotency_key="k")())
            await app.settle()
            (id,) = await app.pause("Job/j")
            with pytest.raises(PausedInvocationError, match="somebody paused it") as told:
                await call
            assert all(f"runtime.{verb}" in str(told.value) for verb in ("resume", "cancel", "kill"))
            assert await app.pause(id) == []
            if crashes:
                await app.crash()
            await app.advance(200)
            assert await app.invocation(id, int).status() is InvocationStatus.PAUSED
            assert await app.resume(id) == [id]
            assert await app.invocation(id, int).result() == 1

    async def test_an_action_goes_on_and_its_result_is_kept(self) -> None:
        world = World()
        async with Harness(Job, dependencies={World: world}) as app:
            sent = await app.object(Job, "j").act.send()
            await turns()
            await app.pause(sent.id)
            world.end("act")
            await turns()
            assert await sent.status() is InvocationStatus.PAUSED
            await app.resume(sent.id)
            assert await sent.result() == "act done"
            assert world.started == ["act"]

    async def test_one_that_backs_off_is_not_tried_again(self) -> None:
        store = MemoryStore()
        async with harness(store) as app:
            sent = await app.object(Job, "j").fail.send()
            await app.settle()
            await app.pause(sent.id)
            await app.settle()
            assert [row.timers for row in store.disk.rows.values() if row.timers] == []
            await app.kill(sent.id)

    async def test_what_has_not_started_or_has_ended_is_refused(self) -> None:
        async with harness() as app:
            first = await app.object(Job, "j").work.send()
            queued = await app.object(Job, "j").work.send()
            await app.settle()
            with pytest.raises(InvocationStatusError, match="not started"):
                await app.pause(queued.id)
            with pytest.raises(InvocationStatusError) as told:
                await app.request_control(Verb.RESUME, queued.id)
            assert told.value.code == 425
            assert await app.resume(queued.id) == []
            await app.advance(200)
            with pytest.raises(InvocationStatusError, match="already completed"):
                await app.pause(first.id)
            assert await app.pause("Job") == await app.resume("Job") == []


class TestPurge:
    async def test_a_purged_outcome_is_gone_and_its_key_is_free(self, suspend_after: float) -> None:
        store = MemoryStore()
        async with harness(store, suspend_after) as app:
            work = app.object(Job, "j").work.options(idempotency_key="k")
            sent = await work.send(1)
            with pytest.raises(InvocationStatusError, match="not yet completed"):
                await app.purge(sent.id)
            await app.advance(1)
            assert await sent.result() == 1
            assert await app.purge("Job/j") == [sent.id]
            await app.settle()
            assert list(store.disk.records()) == []
            again = await work.send(1)
            assert again.id != sent.id
            await app.advance(1)
            assert await again.result() == 2

    async def test_one_that_has_ended_a_moment_ago_can_be_purged(self) -> None:
        async with harness() as app:
            sent = await app.object(Job, "j").count.send()
            count, purged = await asyncio.gather(sent.result(), app.purge(sent.id))
            assert (count, purged) == (0, [sent.id])


class TestRestart:
    async def test_what_has_ended_begins_once_more_under_another_id(self, suspend_after: float) -> None:
        async with harness(suspend_after=suspend_after) as app:
            sent = await app.object(Job, "j").work.options(idempotency_key="k").send(5)
            with pytest.raises(InvocationStatusError, match="not yet completed"):
                await app.restart_as_new(sent.id)
            await app.advance(5)
            again = await app.restart_as_new(sent.id)
            assert again.id != sent.id
            await app.advance(5)
            assert (await sent.result(), await again.result()) == (1, 2)

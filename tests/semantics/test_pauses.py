"""Rule E6: no caller outside hangs because of a pause, and a shared handler that cannot succeed leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durably import (
    Context,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import begin, tuned

MENDED = {"code": False}


@pytest.fixture(autouse=True)
def broken() -> None:
    MENDED["code"] = False


class Door(VirtualObject):
    opened: int = state(default=0)

    @handler
    async def open(self, ctx: ObjectContext) -> int:
        self.opened += 1
        if not MENDED["code"]:
            raise RuntimeError("the lock is stuck")
        return self.opened

    @handler
    async def knock(self, ctx: ObjectContext) -> str:
        return "come in"

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        if not MENDED["code"]:
            raise RuntimeError("it is dark")
        return self.opened

    @shared
    async def peek_later(self, ctx: SharedContext) -> int:
        await ctx.sleep(1)
        if not MENDED["code"]:
            raise RuntimeError("it is dark")
        return self.opened


class Guest(VirtualObject):
    @handler
    async def visit(self, ctx: ObjectContext, door: str) -> str:
        return await ctx.object(Door, door).knock()

    @handler
    async def visit_later(self, ctx: ObjectContext, door: str) -> str:
        await ctx.sleep(10)
        return await ctx.object(Door, door).knock()

    @handler
    async def wave(self, ctx: ObjectContext) -> str:
        return "hello"


class Butler(Service):
    @handler
    async def announce(self, ctx: Context, guest: str) -> str:
        return await ctx.object(Guest, guest).visit("front")

    @handler
    async def announce_once(self, ctx: Context, guest: str) -> str:
        return await ctx.object(Guest, guest).visit.options(idempotency_key=guest)("front")

    @handler
    async def announce_again(self, ctx: Context) -> str:
        await ctx.sleep(10)
        return await ctx.object(Guest, "ann").visit.options(idempotency_key="ann").attach()


async def stuck_door(app: Harness) -> str:
    with pytest.raises(PausedInvocationError, match="the lock is stuck") as paused:
        await app.object(Door, "front").open()
    return paused.value.id


WAYS_BEHIND: dict[str, Callable[[Harness], Awaitable[object]]] = {
    "its caller": lambda app: app.object(Door, "front").open(),
    "queued behind it": lambda app: app.object(Door, "front").knock(),
    "calls what is queued behind it": lambda app: app.object(Guest, "ann").visit("front"),
    "queued behind one that waits for it": lambda app: app.object(Guest, "ann").wave(),
    "two calls away": lambda app: app.service(Butler).announce("bob"),
}


@pytest.mark.parametrize("way", [way for way in WAYS_BEHIND if way != "its caller"])
@pytest.mark.parametrize("suspend_after", [60, 0])
@pytest.mark.parametrize("restart", [False, True])
async def test_those_who_come_later_are_refused_at_once_and_answered_after_a_resume(
    way: str, suspend_after: float, restart: bool
) -> None:
    store = MemoryStore()
    async with Harness(Door, Guest, Butler, store=store, suspend_after=suspend_after) as app:
        paused = await stuck_door(app)
        if way == "queued behind one that waits for it":
            await app.object(Guest, "ann").visit.send("front")
            await app.settle()
        if restart:
            await app.crash()
        with pytest.raises(PausedInvocationError, match=f"the lock is stuck.*{paused}"):
            await WAYS_BEHIND[way](app)
        assert sum(map(len, store.disk.unfinished.values())) > 1  # They were accepted, and stay where they are.
        MENDED["code"] = True
        assert await app.resume("Door/front") == [paused]
        await app.settle()
        assert not store.disk.unfinished


@pytest.mark.parametrize("way", WAYS_BEHIND)
async def test_those_who_wait_already_are_refused_when_the_pause_comes(way: str) -> None:
    class Slow(Door, name="Door"):
        @handler
        async def open(self, ctx: ObjectContext) -> int:
            await ctx.sleep(10)
            raise RuntimeError("the lock is stuck")

    async with Harness(Slow, Guest, Butler) as app:
        opening = begin(app.object(Slow, "front").open())
        await app.settle()
        if way == "queued behind one that waits for it":
            await app.object(Guest, "ann").visit.send("front")
        waiting = opening if way == "its caller" else begin(WAYS_BEHIND[way](app))
        await app.settle()
        assert not waiting.done()
        await app.advance(10)
        for refused in {opening, waiting}:
            with pytest.raises(PausedInvocationError, match="the lock is stuck"):
                await refused


async def test_a_call_that_comes_to_wait_for_it_later_refuses_its_own_caller() -> None:
    async with Harness(Door, Guest) as app:
        visiting = begin(app.object(Guest, "ann").visit_later("front"))
        await app.settle()
        paused = await stuck_door(app)
        assert not visiting.done()
        await app.advance(10)
        with pytest.raises(PausedInvocationError, match=paused):
            await visiting


async def test_a_command_that_attaches_to_what_waits_for_it_refuses_its_own_caller() -> None:
    async with Harness(Door, Guest, Butler) as app:
        announcing = begin(app.service(Butler).announce_again())
        paused = await stuck_door(app)
        await app.object(Guest, "ann").visit.options(idempotency_key="ann").send("front")
        await app.settle()
        assert not announcing.done()
        await app.advance(10)
        with pytest.raises(PausedInvocationError, match=paused):
            await announcing


@pytest.mark.parametrize("crashes", [0, 1])
async def test_a_keyed_call_that_joins_what_waits_for_it_refuses_its_own_caller(crashes: int) -> None:
    async with Harness(Door, Guest, Butler) as app:
        paused = await stuck_door(app)
        for _ in range(3):
            for _ in range(crashes):
                await app.crash()
            with pytest.raises(PausedInvocationError, match=paused):
                await app.service(Butler).announce_once("ann")


async def test_resume_says_what_it_takes() -> None:
    async with Harness(Door, Guest) as app:
        await stuck_door(app)
        with pytest.raises(TypeError, match="as text, not Door"):
            await app.resume(app.object(Door, "front"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        for nothing in ("Nope", "Nope/front", "Door/front/open/now"):
            with pytest.raises(ValueError, match=f"'{nothing}' names nothing that runs here.*there are: Door, Guest"):
                await app.resume(nothing)
        with pytest.raises(ValueError, match="Door has no handler 'close'; it has: "):
            await app.resume("Door/front/close")
        with pytest.raises(UnknownTargetError):
            await app.resume("inv_1nothing")
        MENDED["code"] = True
        assert len(await app.resume("Door/front/open")) == 1


async def test_those_far_back_in_a_stored_mailbox_are_refused_too() -> None:
    app = Harness(Door)
    async with tuned(app, pending_in_memory=2):
        paused = await stuck_door(app)
        late = [begin(app.object(Door, "front").knock()) for _ in range(6)]
        for knocking in late:
            with pytest.raises(PausedInvocationError, match=paused):
                await knocking


class TestASharedHandlerThatCannotSucceed:
    async def test_fails_its_caller_and_leaves_nothing(self) -> None:
        store = MemoryStore()
        async with Harness(Door, store=store, retry=RetryPolicy(max_attempts=2, initial=1)) as app:
            for _ in range(50):
                peeking = begin(app.object(Door, "front").peek())
                await app.advance(1)
                with pytest.raises(TerminalError, match="RuntimeError: it is dark") as failed:
                    await peeking
                assert isinstance(failed.value.__cause__, RuntimeError)
            assert not store.disk.rows
            MENDED["code"] = True
            assert await app.object(Door, "front").peek() == 0

    async def test_with_a_journal_is_paused_like_others(self) -> None:
        async with Harness(Door) as app:
            peeking = begin(app.object(Door, "front").peek_later())
            await app.advance(1)
            with pytest.raises(PausedInvocationError, match="it is dark") as paused:
                await peeking
            assert await app.invocation(paused.value.id, int).status() is InvocationStatus.PAUSED


class TestResume:
    async def test_takes_a_target_with_its_key_percent_encoded(self) -> None:
        async with Harness(Door) as app:
            for key in ("a/b", "c"):
                with pytest.raises(PausedInvocationError):
                    await app.object(Door, key).open()
            MENDED["code"] = True
            assert len(await app.resume("Door/a%2Fb")) == 1
            await app.settle()
            assert await app.object(Door, "a/b").peek() == 1
            assert await app.resume("Door/a%2Fb/open") == []
            assert len(await app.resume("Door")) == 1
            await app.settle()
            assert await app.object(Door, "c").peek() == 1

    async def test_of_what_is_not_paused_changes_nothing(self) -> None:
        async with Harness(Door) as app:
            knocking = await app.object(Door, "front").knock.send()
            assert await app.resume(knocking.id) == []
            with pytest.raises(UnknownTargetError):
                await app.resume("inv_nothing")
            with pytest.raises(ValueError, match="names nothing that runs here"):
                await app.resume("Window/front")


async def test_nothing_is_looked_for_when_a_message_waits_behind_one_that_only_runs_an_action(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The usual queue of a busy object costs no search."""
    gate = asyncio.Event()

    class Busy(VirtualObject):
        @handler
        async def work(self, ctx: ObjectContext) -> None:
            await ctx.run("wait", gate.wait)

    searched: list[object] = []

    def begin_search(*found: object) -> None:
        searched.append(found)

    monkeypatch.setattr(PauseSearch, "begin", begin_search)
    async with Harness(Busy) as app:
        working = [begin(app.object(Busy, "b").work()) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*working)
    assert searched == []

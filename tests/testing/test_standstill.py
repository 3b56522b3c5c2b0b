"""A test that waits for time which nobody lets pass is told so; whoever may still let it pass is left alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from threading import Event
from typing import Any, NoReturn

import pytest

from durably import (
    Context,
    MemoryStore,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    StoreUnavailableError,
    VirtualObject,
    handler,
)
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.testing import Harness, StandstillError
from durably.testing.harness import standstill
from durably.testing.harness.virtual import one_turn


class Reminder(VirtualObject):
    @handler
    async def remind(self, ctx: ObjectContext, text: str, days: float) -> str:
        await ctx.sleep(days * 86_400)
        return text

    @handler
    async def wait_for_each_other(self, ctx: ObjectContext) -> None:
        await ctx.object(Reminder, "b" if self.key == "a" else "a").wait_for_each_other()

    @handler
    async def break_down(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a bug")


class Post(Service):
    def __init__(self, released: Event) -> None:
        self.released = released

    @handler
    async def later(self, ctx: Context, seconds: float) -> None:
        await ctx.sleep(seconds)

    @handler
    async def by_a_slow_action(self, ctx: Context) -> None:
        await ctx.run("turns", turns)

    @handler
    async def by_a_failing_action(self, ctx: Context) -> None:
        await ctx.run("fail", fail)

    @handler
    async def by_a_slow_thread_within(self, ctx: Context, seconds: float) -> None:
        await ctx.run.options(timeout=seconds)("wait", self.released.wait, 60)

    @handler
    async def by_a_slow_thread(self, ctx: Context) -> None:
        await ctx.run("wait", self.released.wait, 60)


MANY_TURNS = 10 * standstill.LOOKS
"""Enough for a standstill to be seen, were it one."""


async def fail() -> None:
    raise ConnectionError("down")


async def turns() -> None:
    for _ in range(MANY_TURNS):
        await one_turn()


@pytest.fixture(autouse=True)
def _looks_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "LOOK_EVERY_SECONDS", 0)


@pytest.fixture
def released() -> Event:
    return Event()


@pytest.fixture
async def made_by_a_fixture() -> AsyncIterator[Harness]:
    async with Harness(Reminder) as app:
        yield app


@pytest.mark.parametrize("suspend_after", [60.0, 0.0])
async def test_who_waits_for_time_that_nobody_lets_pass_is_told_what_to_write(suspend_after: float) -> None:
    async with Harness(Reminder, suspend_after=suspend_after) as app:
        with pytest.raises(StandstillError) as told:
            await app.object(Reminder, "a").remind("x", 2)
        assert "it is 2026-01-01 00:00:00+00:00, and the next timer is due at 2026-01-03 00:00" in str(told.value)
        assert "`await app.advance(days=2)`" in str(told.value)
        if suspend_after:
            assert str(told.value).startswith("Reminder/a/remind has not ended, and nothing happens any more unless")
        await app.advance(days=2)  # The invocation is under way all the same.
        await app.object(Reminder, "a").remind.send("y", 1)
        await app.advance(days=1)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (7_200, "advance(hours=2)"),
        (60, "advance(minutes=1)"),
        (1.5, "advance(seconds=1.5)"),
        (90_061, "advance(seconds=90061)"),
        (0.000_01, "advance(seconds=0.00001)"),
        (0, "settle()"),
    ],
)
async def test_the_time_is_told_as_one_would_write_it(seconds: float, written: str) -> None:
    async with Harness(Post, dependencies={Event: Event()}) as app:
        with pytest.raises(StandstillError, match=rf"^Post/later .*`await app\.{re.escape(written)}`"):
            await app.service(Post).later(seconds)


async def test_who_waits_in_a_circle_is_told_that_no_time_will_help() -> None:
    circle = r"Reminder/a/wait_for_each_other waits for .*: a circle"
    async with Harness(Reminder, deadlocks="wait") as app:
        with pytest.raises(StandstillError, match=rf"no timer is set either, so this would wait for ever\. {circle}"):
            await app.object(Reminder, "a").wait_for_each_other()


async def test_a_paused_invocation_that_may_be_waited_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(*_: object, **__: object) -> None:
        """Otherwise the caller would be refused at once."""

    monkeypatch.setattr(PauseSearch, "begin", find_nothing)
    async with Harness(Reminder) as app:
        with pytest.raises(PausedInvocationError):
            await app.object(Reminder, "a").break_down()
        with pytest.raises(
            StandstillError, match=r"Reminder/a/remind .* Reminder/a/break_down, which is paused\. .*a bug"
        ):
            await app.object(Reminder, "a").remind("x", 1)


async def test_who_shares_the_harness_of_a_fixture_is_told_too(made_by_a_fixture: Harness) -> None:
    with pytest.raises(StandstillError):
        await made_by_a_fixture.object(Reminder, "a").remind("x", 2)


async def test_several_who_wait_cannot_help_each_other() -> None:
    async def wait(app: Harness) -> None:
        with pytest.raises(StandstillError):
            await app.object(Reminder, "b").remind("x", 1)

    async with Harness(Reminder) as app:
        beside = asyncio.create_task(wait(app))
        with pytest.raises(StandstillError):
            await app.object(Reminder, "a").remind("x", 2)
        await app.advance(days=1)
        beside.cancel()


async def _itself(call: Coroutine[Any, Any, str]) -> str:
    return await call


async def _in_a_group(call: Coroutine[Any, Any, str]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(call)
    except* StandstillError as told:
        raise told.exceptions[0] from None


async def _wait(call: Coroutine[Any, Any, str]) -> None:
    done, _ = await asyncio.wait([asyncio.ensure_future(call)])
    done.pop().result()


def _wait_for(call: Coroutine[Any, Any, str]) -> Coroutine[Any, Any, str]:
    return asyncio.wait_for(call, 60)


WAITS: dict[str, Callable[[Coroutine[Any, Any, str]], Awaitable[object]]] = {
    "in a task": asyncio.create_task,
    "for several": asyncio.gather,
    "directly": _itself,
    "in a group": _in_a_group,
    "for the first": _wait,
    "for a while": _wait_for,
    "shielded": asyncio.shield,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
async def test_however_the_test_waits(wait: Callable[[Coroutine[Any, Any, str]], Awaitable[object]]) -> None:
    async with Harness(Reminder) as app:
        with pytest.raises(StandstillError):
            await wait(app.object(Reminder, "a").remind("x", 2))


async def test_a_test_that_looks_for_a_while_whether_a_call_ends_is_left_alone() -> None:
    async with Harness(Reminder) as app:
        asked = asyncio.create_task(app.object(Reminder, "a").remind("x", 2))
        looking = asyncio.create_task(asyncio.wait([asked], timeout=0.05))
        assert await looking == (set(), {asked})
        assert await asyncio.wait([asked], timeout=0.05) == (set(), {asked})
        await app.advance(days=2)
        assert await asked == "x"


async def test_a_task_that_waits_is_left_alone_while_the_test_does_something_else() -> None:
    async with Harness(Reminder) as app:
        asked = asyncio.create_task(app.object(Reminder, "a").remind("x", 2))
        await turns()
        await app.advance(days=2)
        assert await asked == "x"


async def test_the_test_is_left_alone_while_somebody_else_may_let_time_pass() -> None:
    async def advance_at_last(app: Harness) -> None:
        await turns()
        await app.advance(days=2)

    async with Harness(Reminder) as app:
        clockwork = asyncio.create_task(advance_at_last(app))
        assert await app.object(Reminder, "a").remind("x", 2) == "x"
        await clockwork


async def test_an_action_that_backs_off_is_named(released: Event) -> None:
    async with Harness(Post, dependencies={Event: released}, retry=RetryPolicy(initial=60)) as app:
        with pytest.raises(
            StandstillError, match=r"the action 'fail' of Post/by_a_failing_action failed and is tried again at .*01:00"
        ) as told:
            await app.service(Post).by_a_failing_action()
        assert "`await app.advance(minutes=1)`" in str(told.value)


async def test_an_action_that_never_ends_is_named_with_the_time_that_it_has_run(released: Event) -> None:
    async with Harness(Post, dependencies={Event: released}, action_patience=0.01) as app:
        with pytest.raises(
            StandstillError,
            match=r"the action 'wait' of Post/by_a_slow_thread has been under way for \d+\.\d s of real time.*"
            r"action_patience=60",
        ):
            await app.service(Post).by_a_slow_thread()
        with pytest.raises(
            StandstillError, match=r"the time limit of the action 'wait' of .*`await app.advance\(hours"
        ):
            await app.service(Post).by_a_slow_thread_within(3600)
        released.set()


async def test_a_store_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    async def fail(*_args: object) -> NoReturn:
        raise StoreUnavailableError("The disk is full.")

    async with Harness(Reminder, store=store) as app:
        with monkeypatch.context() as patch:
            patch.setattr(store, "commit", fail)
            patch.setattr(store, "open", fail)
            with pytest.raises(StandstillError, match="the store failed, and opening it again waits for virtual time"):
                await app.object(Reminder, "a").remind("x", 0)
        await app.advance(10)


async def test_an_action_under_way_is_no_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    released = Event()

    def release_after(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(release_after, turns - 1)
        else:  # A loop that spins takes the interpreter from the thread.
            monkeypatch.setattr(standstill, "LOOK_EVERY_SECONDS", 0.01)
            released.set()

    async with Harness(Post, dependencies={Event: released}) as app:
        await app.service(Post).by_a_slow_action()
        release_after(MANY_TURNS)
        await app.service(Post).by_a_slow_thread()

"""A harness waits for actions, inside which time is real, but not without end; their limits are virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from threading import Event
from typing import Any

import pytest

from durably import ActionTimeoutError, Context, RetryPolicy, Service, handler
from durably.testing import Harness, StandstillError
from durably.testing.harness import action_patience
from durably.testing.harness.virtual import one_turn

ONCE = RetryPolicy(max_attempts=1)


class Outside:
    """What actions wait for."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.thread_event = Event()
        self.begun = 0

    async def wait(self) -> str:
        self.begun += 1
        await self.event.wait()
        return "waited"

    def wait_in_a_thread(self) -> str:
        self.thread_event.wait(60)
        return "waited"

    async def refuse_to_end(self) -> str:
        while not self.event.is_set():
            try:
                await self.event.wait()
            except asyncio.CancelledError:
                continue
        return "waited"

    async def fail(self) -> str:
        raise ConnectionError("down")


class Worker(Service):
    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    def _action(self, name: str) -> Callable[[], Coroutine[Any, Any, str]]:
        action: Callable[[], Coroutine[Any, Any, str]] = getattr(self.outside, name)
        return action

    @handler
    async def plain(self, ctx: Context, name: str) -> str:
        return await ctx.run(name, self._action(name))

    @handler
    async def within(self, ctx: Context, name: str, seconds: float) -> str:
        try:
            async with asyncio.timeout(seconds):
                return await ctx.run(name, self._action(name))
        except TimeoutError:
            return "too late"

    @handler
    async def limited(self, ctx: Context, name: str) -> str:
        return await ctx.run.options(timeout=5, retry=ONCE)(name, self._action(name))

    @handler
    async def asks(self, ctx: Context, name: str, seconds: float) -> str:
        return await ctx.service(Worker).within(name, seconds)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time, but little of it."""
    monkeypatch.setattr(action_patience, "PATIENCE_SECONDS", 0.02)


@pytest.fixture
async def outside() -> Outside:
    return Outside()


@pytest.mark.parametrize("name", ["wait", "wait_in_a_thread", "refuse_to_end"])
@pytest.mark.parametrize("handler", ["within", "asks"])
async def test_a_time_limit_of_the_handler_ends_an_action_that_never_ends(
    outside: Outside, name: str, handler: str
) -> None:
    async with Harness(Worker, dependencies={Outside: outside}) as app:
        call = asyncio.create_task(getattr(app.service(Worker), handler)(name, 5))
        await app.advance(4)
        assert not call.done()
        await app.advance(2)
        assert await call == "too late"
        outside.thread_event.set()
        outside.event.set()


async def test_a_time_limit_of_the_action_is_virtual_time(outside: Outside) -> None:
    async with Harness(Worker, dependencies={Outside: outside}) as app:
        call = asyncio.create_task(app.service(Worker).limited("wait"))
        await app.advance(4)
        assert not call.done()
        await app.advance(1)
        with pytest.raises(ActionTimeoutError):
            await call


async def test_an_action_that_no_limit_ends_is_named_and_time_passes_all_the_same(outside: Outside) -> None:
    async with Harness(Worker, dependencies={Outside: outside}) as app:
        call = asyncio.create_task(app.service(Worker).plain("wait"))
        with pytest.raises(StandstillError, match=r"^the action 'wait' of Worker/plain did not end within"):
            await app.advance(6)
        assert app.clock.elapsed_us == 6_000_000
        outside.event.set()
        await app.advance(1)
        assert await call == "waited"


async def test_an_action_that_ends_by_itself_has_ended_before_time_passes(outside: Outside) -> None:
    async with Harness(Worker, dependencies={Outside: outside}) as app:
        call = asyncio.create_task(app.service(Worker).within("wait_in_a_thread", 5))
        asyncio.get_running_loop().call_later(0.005, outside.thread_event.set)
        await app.advance(6)
        assert await call == "waited"


async def test_each_action_is_waited_for_once(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_patience, "PATIENCE_SECONDS", 0.2)
    async with Harness(Worker, dependencies={Outside: outside}) as app:
        call = asyncio.create_task(app.service(Worker).within("wait", 20))
        began = time.monotonic()
        for _ in range(20):
            await app.advance(1)
        assert time.monotonic() - began < 1
        assert await call == "too late"


@pytest.mark.parametrize("name", ["wait", "refuse_to_end", "wait_in_a_thread"])
async def test_a_test_that_fails_beside_an_action_ends(outside: Outside, name: str) -> None:
    async def fail_beside() -> None:
        async with Harness(Worker, dependencies={Outside: outside}) as app:
            await app.service(Worker).plain.send(name)
            await _turns()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_beside()
    outside.thread_event.set()
    outside.event.set()
    await _turns()


async def test_leaving_a_harness_names_the_action_that_is_still_under_way(outside: Outside) -> None:
    with pytest.raises(StandstillError, match="'wait' of Worker/plain"):
        async with Harness(Worker, dependencies={Outside: outside}) as app:
            await app.service(Worker).plain.send("wait")


async def test_a_crash_does_not_wait_for_an_action_that_refuses_to_end(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably.runtime.supervision.supervisor.CRASH_PATIENCE_SECONDS", 0.02)
    async with Harness(Worker, dependencies={Outside: outside}) as app:
        call = asyncio.create_task(app.service(Worker).plain("refuse_to_end"))
        await _turns()
        await app.crash()
        outside.event.set()
        assert await call == "waited"


async def test_backoff_is_virtual_time(outside: Outside) -> None:
    async with Harness(Worker, dependencies={Outside: outside}, retry=RetryPolicy(initial=3600, maximum=3600)) as app:
        call = asyncio.create_task(app.service(Worker).plain("fail"))
        await app.advance(hours=3)
        assert len(app.actions("fail")) == 4
        call.cancel()


async def _turns() -> None:
    for _ in range(200):
        await one_turn()

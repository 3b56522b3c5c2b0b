"""`action_context()`: an action's own log, request, number of the attempt, and an event that says it is given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from durably import (
    ActionTimeoutError,
    Context,
    Limits,
    MemoryStore,
    RetryPolicy,
    Runtime,
    Service,
    WrongContextError,
    action_context,
    handler,
)
from durably.runtime.environment import Environment
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.testing import Harness
from tests.semantics.support import begin, turns

TWICE = RetryPolicy(max_attempts=3, initial=1)


class Outside:
    """What actions report, and what they wait for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, str]] = []
        self.given_up = threading.Event()
        self.go_on = threading.Event()

    def stumble_in_thread(self) -> int:
        return self._stumble()

    async def stumble(self) -> int:
        await asyncio.sleep(0)
        return self._stumble()

    def _stumble(self) -> int:
        mine = action_context()
        self.seen.append((mine.name, mine.attempt, mine.request.headers["tenant"]))
        mine.log.info("tried", attempt=mine.attempt)
        if mine.attempt < 3:
            raise ConnectionError("not yet")
        return mine.attempt

    def wait_in_thread(self) -> None:
        if action_context().given_up.wait_in_thread(30):
            self.given_up.set()

    async def wait(self) -> None:
        mine = action_context()
        watcher = asyncio.create_task(self._watch(mine.given_up.wait()))
        assert not mine.given_up.is_set()
        await asyncio.shield(watcher)

    async def _watch(self, given_up: Any) -> None:
        await given_up
        self.given_up.set()


class Actor(Service, name="Acts"):
    def __init__(self, outside: Outside) -> None:
        self.outside = outside

    @handler
    async def stumble(self, ctx: Context, in_thread: bool) -> int:
        run = ctx.run.options(retry=TWICE)
        if in_thread:
            return await run("stumble", self.outside.stumble_in_thread)
        return await run("stumble", self.outside.stumble)

    @handler
    async def give_up(self, ctx: Context, in_thread: bool) -> str:
        act = self.outside.wait_in_thread if in_thread else self.outside.wait
        try:
            async with asyncio.timeout(5):
                await ctx.run("wait", act)
        except TimeoutError:
            return "given up"
        return "not given up"

    @handler
    async def run_into_limit(self, ctx: Context) -> None:
        await ctx.run.options(timeout=5, retry=RetryPolicy(max_attempts=1))("wait", self.outside.wait_in_thread)

    @handler
    async def ask_in_handler(self, ctx: Context) -> None:
        action_context()


class Lines(Observer):
    """What actions log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, str]] = []

    def action_logged(
        self, id: str, action: str, attempt: int, level: str, event: str, fields: Mapping[str, Any], /
    ) -> None:
        self.lines.append((action, attempt, f"{level} {event} {dict(fields)}"))


@pytest.mark.parametrize("in_thread", [True, False])
async def test_an_action_knows_its_request_and_its_attempt(in_thread: bool) -> None:
    outside = Outside()
    async with Harness(Actor, dependencies={Outside: outside}) as app:
        stumbling = begin(app.service(Actor).stumble.options(headers={"tenant": "t"})(in_thread))
        await app.advance(30)
        assert await stumbling == 3
    assert outside.seen == [("stumble", attempt, "t") for attempt in (1, 2, 3)]


async def test_what_an_action_logs_names_it(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    environment = Environment(observer=lines)
    async with Runtime(MemoryStore(), [Actor], dependencies={Outside: Outside()}, environment=environment) as runtime:
        reply = runtime.service(Actor).stumble.options(headers={"tenant": "t"})
        await reply(in_thread=False)
    assert lines.lines[0] == ("stumble", 1, "info tried {'attempt': 1}")


@pytest.mark.parametrize("in_thread", [True, False])
async def test_an_action_that_is_given_up_is_told(in_thread: bool) -> None:
    outside = Outside()
    async with Harness(Actor, dependencies={Outside: outside}) as app:
        giving_up = begin(app.service(Actor).give_up(in_thread))
        await turns()
        await app.clock.advance(6_000_000, turns)
        assert await giving_up == "given up"
        assert await asyncio.to_thread(outside.given_up.wait, 10)


async def test_an_action_that_ran_into_its_limit_is_told() -> None:
    outside = Outside()
    async with Harness(Actor, dependencies={Outside: outside}) as app:
        running = begin(app.service(Actor).run_into_limit())
        await turns()
        await app.clock.advance(6_000_000, turns)
        with pytest.raises(ActionTimeoutError):
            await running
        assert await asyncio.to_thread(outside.given_up.wait, 10)


async def test_outside_an_action_there_is_none() -> None:
    with pytest.raises(WrongContextError, match=r"where no action of `ctx\.run` runs"):
        action_context()
    async with Harness(Actor, dependencies={Outside: Outside()}) as app:
        with pytest.raises(Exception, match=r"where no action of `ctx\.run` runs"):
            await app.service(Actor).ask_in_handler()


class Busy(Observer):
    """Hears that actions wait for threads."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.told: list[tuple[list[str], list[str]]] = []

    def threads_busy(self, waiting: list[str], running: list[str]) -> None:
        self.told.append((waiting, running))
        self.heard.set()


class Caller(Service):
    """Its actions block a thread until a handler has answered, which needs a thread as well."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: list[Any], free: threading.Event) -> None:
        self.loop, self.ask, self.free = loop, ask, free

    @handler
    async def outer(self, ctx: Context) -> str:
        return await ctx.run("call back", self._call_back)

    @handler
    async def inner(self, ctx: Context) -> str:
        return await ctx.run("answer", lambda: "answered")

    def _call_back(self) -> str:
        answer = asyncio.run_coroutine_threadsafe(self.ask[0](), self.loop)
        while not self.free.wait(0.01):
            if answer.done():
                return str(answer.result())
        return "let go"


@pytest.mark.parametrize("threads", [1, 2])
async def test_actions_that_wait_for_each_others_threads_are_told_of(threads: int) -> None:
    """They call back into the runtime; with one thread that never ends, and a warning says so."""
    busy, free = Busy(), threading.Event()
    ask: list[Any] = []
    loop = asyncio.get_running_loop()
    dependencies: dict[Any, Any] = {asyncio.AbstractEventLoop: loop, list[Any]: ask, threading.Event: free}
    environment = Environment(observer=busy, settings=Settings(action_thread_wait_us=20_000))
    async with Runtime(
        MemoryStore(),
        [Caller],
        dependencies=dependencies,
        environment=environment,
        limits=Limits(action_threads=threads),
    ) as runtime:

        async def inner() -> str:
            return await runtime.service(Caller).inner()

        ask.append(inner)
        outer = begin(runtime.service(Caller).outer())
        if threads == 1:
            await busy.heard.wait()
            assert busy.told[0] == (["answer"], ["call back"])
            free.set()
            assert await outer == "let go"
        else:
            assert await outer == "answered"
            assert busy.told == []

"""Rule S7: the line of a handler that holds up the event loop is named while it still does, and afterwards."""

from __future__ import annotations

import asyncio
import logging
from threading import Event
from typing import Any

import pytest

from durably import MemoryStore, ObjectContext, Runtime, VirtualObject, handler
from durably.runtime.environment import Environment
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings

PATIENCE_SECONDS = 30


class Blocking(VirtualObject):
    def __init__(self, gate: Event) -> None:
        self.gate = gate

    @handler
    async def block(self, ctx: ObjectContext) -> bool:
        return self.wait_for_the_disk()

    def wait_for_the_disk(self) -> bool:
        return self.gate.wait(PATIENCE_SECONDS)  # Here it blocks.

    @handler
    async def act(self, ctx: ObjectContext) -> bool:
        return await ctx.run("ask the printer", self.ask)

    async def ask(self) -> bool:
        await asyncio.sleep(0)
        return self.wait_for_the_disk()

    @handler
    async def act_in_a_task(self, ctx: ObjectContext) -> list[bool]:
        return await ctx.run("ask them all", self.ask_all)

    async def ask_all(self) -> list[bool]:
        return [*await asyncio.gather(self.ask())]

    @handler
    async def pass_by(self, ctx: ObjectContext) -> None: ...


class Listener(Observer):
    """Lets the handler go on when it has been named."""

    def __init__(self, gate: Event) -> None:
        self.gate = gate
        self.told: list[tuple[str, str, str]] = []
        self.slow_at: list[str] = []

    def blocked(self, invocation: InvocationRun, for_us: int, place: str, stack: str) -> None:
        self.told.append((invocation.target, place, stack))
        self.gate.set()

    def action_blocked(self, id: str, action: str, for_us: int, place: str, stack: str) -> None:
        self.told.append((action, place, stack))
        self.gate.set()

    def action_slow(self, id: str, action: str, took_us: int, place: str, stack: str) -> None:
        self.slow_at.append(f"{action}: {place}")

    def slow(self, invocation: InvocationRun, took_us: int, coding: Any, place: str, stack: str) -> None:
        self.slow_at.append(place)


def runtime_with(listener: Listener, **settings: Any) -> Runtime:
    return Runtime(
        MemoryStore(),
        [Blocking],
        dependencies={Event: listener.gate},
        environment=Environment(observer=listener, settings=Settings(**settings)),
    )


async def test_a_blocking_line_is_named_while_it_blocks_and_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    listener = Listener(Event())
    async with runtime_with(listener, slow_advance_us=2_000, blocked_advance_us=2_000) as runtime:
        assert await runtime.object(Blocking, "a").block()
    ((target, place, stack),) = listener.told
    assert target == "Blocking/a/block"
    assert "in wait_for_the_disk" in place or "in wait)" in place
    assert "return self.gate.wait(PATIENCE_SECONDS)  # Here it blocks." in stack
    assert "pump.py" not in stack
    assert "test_a_blocking_line" not in stack
    (at,) = listener.slow_at
    assert at == place
    assert "a handler holds up the event loop and everything in it right now" in caplog.text


async def test_without_a_watch_a_slow_advance_is_told_of_all_the_same() -> None:
    listener = Listener(Event())
    listener.gate.set()
    async with runtime_with(listener, slow_advance_us=0, blocked_advance_us=None) as runtime:
        assert await runtime.object(Blocking, "a").block()
    assert listener.slow_at == [""]
    assert listener.told == []


@pytest.mark.parametrize(("verb", "name"), [("act", "ask the printer"), ("act_in_a_task", "ask them all")])
async def test_an_async_action_that_blocks_is_named_while_it_blocks_and_once(
    verb: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    listener = Listener(Event())
    async with runtime_with(listener, slow_advance_us=2_000, blocked_advance_us=2_000) as runtime:
        assert await getattr(runtime.object(Blocking, "a"), verb)()
    ((action, place, stack),) = [told for told in listener.told if told[0] == name]
    assert action == name
    assert "in wait_for_the_disk" in place or "in wait)" in place
    assert "return self.gate.wait(PATIENCE_SECONDS)  # Here it blocks." in stack
    assert "contained.py" not in stack
    assert f"{name}: {place}" in listener.slow_at
    assert "an async action holds up the event loop and everything in it right now" in caplog.text
    assert name in caplog.text


async def test_without_a_watch_a_slow_step_of_an_action_is_told_of_all_the_same() -> None:
    listener = Listener(Event())
    listener.gate.set()
    async with runtime_with(listener, slow_advance_us=0, blocked_advance_us=None) as runtime:
        assert await runtime.object(Blocking, "a").act()
    assert "ask the printer: " in listener.slow_at
    assert listener.told == []


async def test_the_watch_ends_with_its_runtime() -> None:
    from threading import enumerate as threads

    listener = Listener(Event())
    async with runtime_with(listener) as runtime:
        await runtime.object(Blocking, "a").pass_by()
        assert "durably-watch" in [thread.name for thread in threads()]
    assert "durably-watch" not in [thread.name for thread in threads()]

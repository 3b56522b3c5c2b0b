"""Rule T1: who waits for a time of day is called at that time, however the wall clock is set meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import Any, Protocol, cast

import pytest

from durably.runtime import clock as clock_module
from durably.runtime.clock import WALL_CLOCK_LOOK_US, Clock, SystemClock
from durably.testing.harness.virtual import VirtualClock, one_turn

SECOND_US = 1_000_000
NOON_US = 1_767_225_600 * SECOND_US


class Machine(Protocol):
    """A clock whose time a test lets pass."""

    @property
    def clock(self) -> Clock: ...

    def set(self, by_us: int) -> None:
        """Set the wall clock."""
        ...

    async def pass_time(self, by_us: int) -> None: ...


class VirtualMachine:
    """Time in the kit for tests."""

    def __init__(self) -> None:
        self.clock = VirtualClock(NOON_US)

    def set(self, by_us: int) -> None:
        self.clock.set_back(-by_us)

    async def pass_time(self, by_us: int) -> None:
        await self.clock.advance(by_us, one_turn)


class RealMachine:
    """The clock of the machine and an event loop, both as this test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._elapsed = 0
        self._skew = 0
        self._calls: list[tuple[int, int, Callable[[], object], list[bool]]] = []
        time = SimpleNamespace(
            time_ns=lambda: (NOON_US + self._elapsed + self._skew) * 1000, monotonic_ns=lambda: self._elapsed * 1000
        )
        monkeypatch.setattr(clock_module, "time", time)
        self.clock = SystemClock(cast(asyncio.AbstractEventLoop, self))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Any:
        """The one method of an event loop that a clock uses."""
        cancelled = [False]
        when = self._elapsed + round(delay * SECOND_US)
        heappush(self._calls, (when, len(self._calls), lambda: callback(*args), cancelled))
        return SimpleNamespace(cancel=lambda: cancelled.__setitem__(0, True))

    def set(self, by_us: int) -> None:
        self._skew += by_us

    async def pass_time(self, by_us: int) -> None:
        until = self._elapsed + by_us
        while self._calls and self._calls[0][0] <= until:
            self._elapsed, _, call, cancelled = heappop(self._calls)
            if not cancelled[0]:
                call()
        self._elapsed = until


@pytest.fixture(params=["real", "virtual"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return RealMachine(monkeypatch) if request.param == "real" else VirtualMachine()


async def test_a_call_comes_at_its_time_of_day(machine: Machine) -> None:
    called: list[int] = []
    machine.clock.call_at(NOON_US + 90_500_000, lambda: called.append(machine.clock.now()))
    await machine.pass_time(90 * SECOND_US)
    assert called == []
    await machine.pass_time(SECOND_US)
    assert called == [NOON_US + 90_500_000]


async def test_one_that_is_late_already_comes_at_once(machine: Machine) -> None:
    called: list[str] = []
    machine.clock.call_at(NOON_US - SECOND_US, called.append, "late")
    assert called == []
    await machine.pass_time(0)
    assert called == ["late"]


async def test_a_clock_that_is_set_ahead_brings_it_within_a_second(machine: Machine) -> None:
    called: list[str] = []
    machine.clock.call_at(NOON_US + 3600 * SECOND_US, called.append, "rung")
    await machine.pass_time(10 * SECOND_US)
    machine.set(3600 * SECOND_US)
    await machine.pass_time(WALL_CLOCK_LOOK_US)
    assert called == ["rung"]


async def test_a_clock_that_is_set_back_makes_it_wait(machine: Machine) -> None:
    called: list[str] = []
    machine.clock.call_at(NOON_US + 10 * SECOND_US, called.append, "rung")
    machine.set(-60 * SECOND_US)
    await machine.pass_time(69 * SECOND_US)
    assert called == []
    await machine.pass_time(SECOND_US)
    assert called == ["rung"]


async def test_one_that_was_cancelled_never_comes(machine: Machine) -> None:
    called: list[str] = []
    call = machine.clock.call_at(NOON_US + 10 * SECOND_US, called.append, "rung")
    await machine.pass_time(5 * SECOND_US)
    call.cancel()
    await machine.pass_time(60 * SECOND_US)
    assert called == []


async def test_what_has_to_pass_does_not_ask_the_wall_clock(machine: Machine) -> None:
    called: list[str] = []
    machine.clock.call_later(10 * SECOND_US, called.append, "passed")
    machine.set(3600 * SECOND_US)
    await machine.pass_time(9 * SECOND_US)
    assert called == []
    await machine.pass_time(SECOND_US)
    assert called == ["passed"]

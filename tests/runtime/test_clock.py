"""Rule T1: a call at a time of day comes no later than was asked for, however the wall clock is set meanwhile."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.runtime import clock as clock_module
from durably.runtime.clock import WALL_CLOCK_LOOK_US, Clock, SystemClock
from durably.testing.harness.virtual import VirtualClock, one_turn
from durably.testing.simulation.clock import SimulatedClock
from durably.testing.simulation.loop import SimulatedLoop

SECOND_US = 1_000_000
NOON_US = 1_767_225_600 * SECOND_US
TEN_YEARS_US = 10 * 365 * 86_400 * SECOND_US


class Machine(Protocol):
    """A clock whose time a test lets pass."""

    @property
    def clock(self) -> Clock: ...

    def set(self, by_us: int) -> None:
        """Set the wall clock."""
        ...

    async def pass_time(self, by_us: int) -> None: ...


def in_order(ready: list[Any]) -> None:
    """Change nothing."""


class SimulatedMachine:
    """Time in a simulation."""

    def __init__(self) -> None:
        self._loop = SimulatedLoop(Random(0), shuffle=in_order, longest_us=TEN_YEARS_US)
        self.clock = SimulatedClock(self._loop)

    def set(self, by_us: int) -> None:
        self.clock.jump(by_us)

    async def pass_time(self, by_us: int) -> None:
        async def wait() -> None:
            await self.clock.sleep(by_us)
            await asyncio.sleep(1e-9)  # No time, but behind what is due by now.

        outer = asyncio.get_running_loop()
        events._set_running_loop(None)
        try:
            self._loop.run_until_complete(wait())
        finally:
            events._set_running_loop(outer)


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
        self._count = count()
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
        heappush(self._calls, (when, next(self._count), lambda: callback(*args), cancelled))
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


@pytest.fixture(params=["real", "virtual", "simulated"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return _machine(request.param, monkeypatch)


def _machine(kind: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    match kind:
        case "real":
            return RealMachine(monkeypatch)
        case "virtual":
            return VirtualMachine()
        case _:
            return SimulatedMachine()


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


async def test_a_clock_that_is_set_back_does_not_make_it_wait(machine: Machine) -> None:
    called: list[str] = []
    machine.clock.call_at(NOON_US + 10 * SECOND_US, called.append, "rung")
    machine.set(-60 * SECOND_US)
    await machine.pass_time(9 * SECOND_US)
    assert called == []
    await machine.pass_time(SECOND_US)
    assert called == ["rung"]


async def test_a_wait_that_was_asked_for_while_the_clock_was_ahead_keeps_its_length(machine: Machine) -> None:
    called: list[str] = []
    machine.set(TEN_YEARS_US)
    machine.clock.call_at(machine.clock.now() + 300_000, called.append, "during")
    machine.set(-TEN_YEARS_US)
    machine.clock.call_at(NOON_US + TEN_YEARS_US + 600_000, called.append, "after", within_us=600_000)
    await machine.pass_time(299_999)
    assert called == []
    await machine.pass_time(1)
    assert called == ["during"]
    await machine.pass_time(300_000)
    assert called == ["during", "after"]


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


events_in_order = st.lists(
    st.one_of(
        st.tuples(st.just("jump"), st.integers(-TEN_YEARS_US, TEN_YEARS_US)),
        st.tuples(st.just("wait"), st.integers(0, 100 * SECOND_US)),
        st.tuples(st.just("pass"), st.integers(0, 20 * SECOND_US)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("kind", ["real", "virtual", "simulated"])
@given(program=events_in_order)
def test_no_sequence_of_jumps_lengthens_a_wait(kind: str, program: list[tuple[str, int]]) -> None:
    """A wait is over after what was asked for; a clock set ahead may end it within a second, one set back never."""

    def note(clock: Clock, ended: list[int]) -> None:
        ended.append(clock.monotonic())

    async def run(monkeypatch: pytest.MonkeyPatch) -> None:
        machine = _machine(kind, monkeypatch)
        clock, waits = machine.clock, list[tuple[int, list[int]]]()
        for event, amount in program:
            if event == "jump":
                machine.set(amount)
            elif event == "pass":
                await machine.pass_time(amount)
            else:
                ended: list[int] = []
                waits.append((clock.monotonic() + amount, ended))
                clock.call_at(clock.now() + amount, note, clock, ended)
        await machine.pass_time(100 * SECOND_US)
        for until, ended in waits:
            assert len(ended) == 1
            assert ended[0] <= until

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(run(monkeypatch))

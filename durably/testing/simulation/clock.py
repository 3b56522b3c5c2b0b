"""`SimulatedClock`: the clock of a simulated machine. Its wall clock may be set; its monotonic one only goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from durably.runtime.clock import Cancellable
from durably.testing.harness.virtual import START_US
from durably.testing.simulation.loop import SimulatedLoop, SimulatedTimer


class SimulatedClock:
    """Satisfies `durably.runtime.clock.Clock` on a simulated loop."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.jumped_at_us = 0
        """When, in microseconds since the beginning, the wall clock was set last."""
        self._loop = loop
        self._skew_us = 0
        self._latest = 0
        self._calls: dict[WallClockCall, None] = {}

    def now(self) -> int:
        return START_US + self._loop.elapsed_us + self._skew_us

    @property
    def latest(self) -> int:
        """The latest time that it has ever shown."""
        return max(self._latest, self.now())

    def monotonic(self) -> int:
        return self._loop.elapsed_us

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> Cancellable:
        return self._loop.call_after_us(delay_us, callback, *args)

    def call_at(self, due: int, callback: Callable[..., Any], /, *args: Any) -> Cancellable:
        call = WallClockCall(self, due, callback, args)
        self._calls[call] = None
        call.wind(self._loop)
        return call

    async def sleep(self, delay_us: int, /) -> None:
        await asyncio.sleep(delay_us / 1_000_000)

    def jump(self, by_us: int) -> None:
        """Somebody sets the wall clock, ahead or (negative) back; who waits for a time of day waits anew."""
        self._latest = self.latest
        self._skew_us += by_us
        self.jumped_at_us = self._loop.elapsed_us
        for call in list(self._calls):
            call.wind(self._loop)

    def forget(self, call: WallClockCall) -> None:
        """It has been made, or nobody wants it any more."""
        self._calls.pop(call, None)


class WallClockCall:
    """A call at a time of day."""

    def __init__(self, clock: SimulatedClock, due: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._clock = clock
        self._due = due
        self._callback = callback
        self._args = args
        self._context = copy_context()
        self._timer: SimulatedTimer | None = None

    def wind(self, loop: SimulatedLoop) -> None:
        """Set the timer by what the clock says now."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_after_us(self._due - self._clock.now(), self._ring, context=self._context)

    def cancel(self) -> None:
        self._clock.forget(self)
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._clock.forget(self)
        self._callback(*self._args)

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
        self._set_back_us = 0
        self._calls: dict[WallClockCall, None] = {}

    def now(self) -> int:
        return START_US + self._loop.elapsed_us + self._skew_us

    @property
    def latest(self) -> int:
        """What it would show had it never been set back: no wait that it has measured can be over later (rule T1)."""
        return self.now() + self._set_back_us

    def monotonic(self) -> int:
        return self._loop.elapsed_us

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> Cancellable:
        return self._loop.call_after_us(delay_us, callback, *args)

    def call_at(
        self, due: int, callback: Callable[..., Any], /, *args: Any, within_us: int | None = None
    ) -> Cancellable:
        until = self._loop.elapsed_us + (due - self.now() if within_us is None else within_us)
        call = WallClockCall(self, due, until, callback, args)
        self._calls[call] = None
        call.wind(self._loop)
        return call

    async def sleep(self, delay_us: int, /) -> None:
        await asyncio.sleep(delay_us / 1_000_000)

    def jump(self, by_us: int) -> None:
        """Set the wall clock ahead or (negative) back; waits for a time of day end earlier or stay as they are."""
        self._set_back_us += max(-by_us, 0)
        self._skew_us += by_us
        self.jumped_at_us = self._loop.elapsed_us
        for call in list(self._calls):
            call.wind(self._loop)

    def forget(self, call: WallClockCall) -> None:
        """The call has been made, or was cancelled."""
        self._calls.pop(call, None)


class WallClockCall:
    """A call at a time of day, or after a while: whichever comes first."""

    def __init__(
        self, clock: SimulatedClock, due: int, until: int, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._clock = clock
        self._due = due
        self._until = until
        self._callback = callback
        self._args = args
        self._context = copy_context()
        self._timer: SimulatedTimer | None = None

    def wind(self, loop: SimulatedLoop) -> None:
        """Set the timer by what both clocks say now."""
        if self._timer is not None:
            self._timer.cancel()
        left_us = min(self._due - self._clock.now(), self._until - loop.elapsed_us)
        self._timer = loop.call_after_us(left_us, self._ring, context=self._context)

    def cancel(self) -> None:
        self._clock.forget(self)
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._clock.forget(self)
        self._callback(*self._args)

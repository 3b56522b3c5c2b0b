"""Time, the only file that reads it. Everything else is handed a `Clock`, which is what makes virtual time possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

US_PER_SECOND = 1_000_000
WALL_CLOCK_LOOK_US = 1_000_000
"""How often a wait for a time of day looks at the wall clock again: people set clocks, and machines sleep (rule T1)."""


class Cancellable(Protocol):
    """A call that has not happened yet."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall-clock time in microseconds since 1970 UTC, and calls in the future."""

    def now(self) -> int:
        """Microseconds since 1970 UTC; may step back when somebody sets the clock."""
        ...

    def monotonic(self) -> int:
        """Microseconds since some moment; never steps back."""
        ...

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> Cancellable:
        """Call back on the host loop when `delay_us` have passed."""
        ...

    def call_at(
        self, due: int, callback: Callable[..., Any], /, *args: Any, within_us: int | None = None
    ) -> Cancellable:
        """Call back on the host loop at the time of day `due`, or when `within_us` have passed, if that comes first.

        `within_us` is the wait that was asked for; None is `due - now()`. It is measured by `monotonic()`, so a wall
        clock that is set back does not lengthen it. One that is set ahead of `due` ends it within a second (rule T1).
        """
        ...

    async def sleep(self, delay_us: int, /) -> None:
        """Wait on the host loop."""
        ...


class SystemClock:
    """The clock of the machine, and the timers of the event loop that runs when they are set."""

    __slots__ = ("_host",)

    def __init__(self, host: asyncio.AbstractEventLoop | None = None) -> None:
        """None: the loop that runs when a call is asked for."""
        self._host = host

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> int:
        return time.monotonic_ns() // 1000

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> Cancellable:
        return (self._host or asyncio.get_running_loop()).call_later(delay_us / US_PER_SECOND, callback, *args)

    def call_at(
        self, due: int, callback: Callable[..., Any], /, *args: Any, within_us: int | None = None
    ) -> Cancellable:
        return WallClockCall(self, due, due - self.now() if within_us is None else within_us, callback, args)

    async def sleep(self, delay_us: int, /) -> None:
        await asyncio.sleep(delay_us / US_PER_SECOND)


class WallClockCall:
    """A call at a time of day, or after a while: whichever comes first. It looks at both clocks every second."""

    __slots__ = ("_args", "_callback", "_clock", "_due", "_timer", "_until")

    def __init__(
        self, clock: Clock, due: int, within_us: int, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._clock = clock
        self._due = due
        self._until = clock.monotonic() + within_us
        self._callback = callback
        self._args = args
        self._timer = self._wind()

    def cancel(self) -> None:
        self._timer.cancel()

    def _left_us(self) -> int:
        return min(self._due - self._clock.now(), self._until - self._clock.monotonic())

    def _wind(self) -> Cancellable:
        return self._clock.call_later(min(max(self._left_us(), 0), WALL_CLOCK_LOOK_US), self._look)

    def _look(self) -> None:
        if self._left_us() > 0:
            self._timer = self._wind()
        else:
            self._callback(*self._args)


class ThreadShare:
    """How busy this thread was since it was last asked: the share of the time that it spent on the processor."""

    __slots__ = ("_cpu", "_wall")

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.thread_time()

    def busy(self) -> float:
        """Between 0 (idle) and 1 (never waited)."""
        wall, cpu = time.perf_counter(), time.thread_time()
        elapsed, used = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        return used / elapsed if elapsed > 0 else 1.0


def block_thread(seconds: float) -> None:
    """Stand still with the interpreter lock released, so that other threads run."""
    time.sleep(seconds)

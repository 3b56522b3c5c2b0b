"""Virtual time and repeatable randomness: the two seams that make a runtime's run repeatable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from heapq import heappop, heappush
from random import Random
from types import coroutine
from typing import Any

START_US = 1_767_225_600_000_000
"""Where virtual time begins: 2026-01-01, UTC."""


class VirtualCall:
    """A call at a moment of virtual time. Once it has been made it counts as cancelled."""

    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class VirtualClock:
    """A `Clock` that stands still until it is told to move. Satisfies `durably.runtime.clock.Clock`."""

    def __init__(self, start_us: int = START_US) -> None:
        self._start = start_us
        self._elapsed = 0
        self._skew = 0
        self._calls: list[tuple[int, int, VirtualCall]] = []
        """By the time that has passed; the wall clock has no effect."""
        self._calls_by_wall_clock: list[tuple[int, int, VirtualCall]] = []
        self._count = 0
        self.calls_made = 0
        """How often anything was called because its time had come."""

    @property
    def elapsed_us(self) -> int:
        """Virtual microseconds since it was made."""
        return self._elapsed

    def now(self) -> int:
        return self._start + self._elapsed + self._skew

    def monotonic(self) -> int:
        return self._elapsed

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> VirtualCall:
        return self._add(self._calls, self._elapsed + max(delay_us, 0), VirtualCall(callback, args))

    def call_at(
        self, due: int, callback: Callable[..., Any], /, *args: Any, within_us: int | None = None
    ) -> VirtualCall:
        """The call stands in both orders, so there is no need to look at the wall clock each second."""
        call = self.call_later(due - self.now() if within_us is None else within_us, callback, *args)
        return self._add(self._calls_by_wall_clock, due, call)

    async def sleep(self, delay_us: int, /) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = self.call_later(delay_us, _wake, woken)
        try:
            await woken
        finally:
            call.cancel()

    def set_back(self, by_us: int) -> None:
        """Set the wall clock back (or ahead, if `by_us` is negative); monotonic time goes on."""
        self._skew -= by_us

    async def advance(self, by_us: int, settle: Callable[[], Awaitable[None]], *, due: bool = True) -> None:
        """Let time pass, from one call to the next; `settle` lets each moment's consequences happen before that.

        Without `due`, what is due at the very last moment has not been called yet.
        """
        until = self._elapsed + by_us
        last = until if due else until - 1
        await settle()
        while (moment := self._next_moment()) is not None and moment <= last:
            self._elapsed = max(self._elapsed, moment)
            for call in self._take_due():
                # In a callback of the host loop, as the real clock's timers are.
                asyncio.get_running_loop().call_soon(self._make, call)
            await settle()
        self._elapsed = until
        await settle()

    def until_next_us(self, otherwise: int) -> int:
        """How long it is until something is due; `otherwise`, if nothing is."""
        moment = self._next_moment()
        return otherwise if moment is None else max(moment - self._elapsed, 1)

    def _add(self, calls: list[tuple[int, int, VirtualCall]], when: int, call: VirtualCall) -> VirtualCall:
        self._count += 1
        heappush(calls, (when, self._count, call))
        return call

    def _next_moment(self) -> int | None:
        """When, in virtual microseconds since it was made, the next call is due."""
        moments: list[int] = []
        for calls, offset in ((self._calls, 0), (self._calls_by_wall_clock, self._start + self._skew)):
            while calls and calls[0][2].cancelled:
                heappop(calls)
            if calls:
                moments.append(calls[0][0] - offset)
        return min(moments, default=None)

    def _take_due(self) -> list[VirtualCall]:
        """The calls whose moment has come, in the order of their moments."""
        due: list[tuple[int, int, VirtualCall]] = []
        for calls, offset in ((self._calls, 0), (self._calls_by_wall_clock, self._start + self._skew)):
            while calls and calls[0][0] - offset <= self._elapsed:
                when, count, call = heappop(calls)
                due.append((when - offset, count, call))
        return [call for _, _, call in sorted(due, key=_moment)]  # One that stands there twice is made once.

    def _make(self, call: VirtualCall) -> None:
        if not call.cancelled:
            call.cancelled = True
            self.calls_made += 1
            call.callback(*call.args)


def _moment(due: tuple[int, int, VirtualCall]) -> tuple[int, int]:
    return due[:2]


@coroutine
def one_turn() -> Generator[None, None, None]:
    """Let the event loop go round once. No time passes, virtual or real."""
    yield


class SeededEntropy:
    """Random bytes that a seed repeats. Satisfies `durably.ids.Entropy`."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def mix(self, number: int) -> None:
        """Go on differently: a second run on the same store must not make the ids of the first again."""
        if number:
            self._random.seed(self._random.getrandbits(64) ^ number)

    def random_bytes(self, count: int, /) -> bytes:
        return self._random.randbytes(count)

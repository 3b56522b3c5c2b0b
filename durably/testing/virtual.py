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
    """A call at a moment of virtual time."""

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
        self._count = 0

    @property
    def elapsed_us(self) -> int:
        """Virtual microseconds since it was made."""
        return self._elapsed

    def now(self) -> int:
        return self._start + self._elapsed + self._skew

    def monotonic(self) -> int:
        return self._elapsed

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> VirtualCall:
        call = VirtualCall(callback, args)
        self._count += 1
        heappush(self._calls, (self._elapsed + max(delay_us, 0), self._count, call))
        return call

    async def sleep(self, delay_us: int, /) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = self.call_later(delay_us, _wake, woken)
        try:
            await woken
        finally:
            call.cancel()

    def set_back(self, by_us: int) -> None:
        """Somebody sets the wall clock back; monotonic time goes on."""
        self._skew -= by_us

    async def advance(self, by_us: int, settle: Callable[[], Awaitable[None]]) -> None:
        """Let time pass, from one call to the next; `settle` lets each moment's consequences happen before that."""
        until = self._elapsed + by_us
        await settle()
        while self._calls and self._calls[0][0] <= until:
            self._elapsed = max(self._elapsed, self._calls[0][0])
            while self._calls and self._calls[0][0] <= self._elapsed:
                _, _, call = heappop(self._calls)
                if not call.cancelled:
                    # In a callback of the host loop, as the real clock's timers are.
                    asyncio.get_running_loop().call_soon(call.callback, *call.args)
            await settle()
        self._elapsed = until
        await settle()


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

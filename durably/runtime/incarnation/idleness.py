"""`Idleness`: whether anything can still happen in an incarnation unless time passes or a request comes.

A graceful stop drains until then (rule T4), and tests let time pass only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from durably.runtime.incarnation.incarnation import Incarnation


class Idleness:
    """Parts add what makes them busy, and report when that may have ended."""

    def __init__(self, incarnation: Incarnation, actions_under_way: Callable[[], int]) -> None:
        self._incarnation = incarnation
        self._actions_under_way = actions_under_way
        self._host = asyncio.get_running_loop()
        self._conditions: list[Callable[[], bool]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self.is_awaited = False
        """Reports are wanted."""

    def add(self, is_idle: Callable[[], bool]) -> None:
        """One more part that has to be idle."""
        self._conditions.append(is_idle)

    def is_idle(self) -> bool:
        """Nothing can happen unless time passes or a request comes."""
        return self._actions_under_way() == 0 and self.is_waiting()

    def is_waiting(self) -> bool:
        """Nothing can happen unless an action ends, time passes or a request comes."""
        return all(is_idle() for is_idle in self._conditions)

    def changed(self) -> None:
        """Something has ended, or backs off: release those who wait, if that was the last beside actions."""
        if self._waiters and (self._incarnation.dead or self.is_waiting()):
            waiters, self._waiters = self._waiters, []
            self.is_awaited = False
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until_idle(self) -> None:
        """Wait until nothing can happen unless time passes or a request comes; or until the incarnation is over."""
        while not self.is_idle() and not self._incarnation.dead:
            await self._change()

    async def until_waiting(self) -> None:
        """The same, but for actions."""
        while not self.is_waiting() and not self._incarnation.dead:
            await self._change()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = self._host.create_future()
        self._waiters.append(waiter)
        self.is_awaited = True
        await waiter

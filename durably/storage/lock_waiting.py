"""`LockWaiting`: an `open` waits for other programs to let the database go, as a commit does (rule X3)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from durably.storage.sqlite_errors import is_busy

T = TypeVar("T")

logger = structlog.get_logger("durably.storage")

PAUSE_SECONDS = 0.05
"""Between two tries; SQLite itself waits too, but not in every case."""
TELL_AFTER_SECONDS = 1.0
TELL_AGAIN_SECONDS = 30.0


class LockWaiting:
    """The waiting of one `open`; it says so in the log when it takes long."""

    __slots__ = ("_began", "_loop", "_store", "_tell_at")

    def __init__(self, store: str) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._tell_at = self._began + TELL_AFTER_SECONDS

    async def unlocked(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until SQLite does not say that somebody has the database locked."""
        while True:
            try:
                return await attempt()
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise
            await self.pause("another program keeps it locked")

    async def pause(self, reason: str) -> None:
        """Wait until it is time to try again."""
        now = self._loop.time()
        if now >= self._tell_at:
            self._tell_at = now + TELL_AGAIN_SECONDS
            logger.warning(
                "the store cannot be opened yet, so this waits: end the other programs that have the database open",
                store=self._store,
                reason=reason,
                waited_seconds=round(now - self._began, 1),
            )
        passed: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(PAUSE_SECONDS, passed.set_result, None)
        try:
            await passed
        finally:
            timer.cancel()

"""`Verification`: asks the store whether it still is ours, for what is let out without a commit of its own (rule X9).

A commit checks the epoch in its own transaction. Where nothing is to be written, as for a read-only call or a status,
the store is asked instead, once for everything that was made before. It is also asked now and then while no request
needs it, so that a store that was deleted or taken over is noticed at once and not with the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.runtime.clock import Cancellable, Clock
from durably.storage.store import VERIFIED, Store


class Verification:
    """The checks of one incarnation."""

    __slots__ = ("_clock", "_dead", "_every_us", "_failed", "_host", "_store", "_tasks", "_timer")

    def __init__(
        self, failed: Callable[[BaseException], None], *, clock: Clock, every_us: int | None, store: Store
    ) -> None:
        """`failed` is told that the store is not ours any more, or cannot tell.

        `every_us` is how often it asks by itself; None: never.
        """
        self._failed = failed
        self._clock = clock
        self._every_us = every_us
        self._store = store
        self._host = asyncio.get_running_loop()
        self._tasks: set[asyncio.Future[None]] = set()
        self._timer: Cancellable | None = None
        self._dead = False
        self._wind()

    def holds(self, then: Callable[[], None]) -> bool:
        """Ask the store. True: it is ours. False: it cannot tell at once; `then` is called when it has said so.

        Where it is not ours, `failed` hears of that instead.
        """
        try:
            asked = self._store.verify()
        except USER_ERRORS as error:
            self._failed(error)
            let_signals_pass(error)
            return False
        if asked is VERIFIED:
            return True
        task = asyncio.ensure_future(asked)
        self._tasks.add(task)
        task.add_done_callback(partial(self._answered, then))
        return False

    def kill(self) -> None:
        """The incarnation is over: late answers are of no interest."""
        self._dead = True
        if self._timer is not None:
            self._timer.cancel()

    async def finish(self) -> None:
        """Wait until no question is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _answered(self, then: Callable[[], None], task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._dead:
            return
        if error is not None:
            self._failed(error)
        else:
            then()

    def _wind(self) -> None:
        if self._every_us is not None and not self._dead:
            self._timer = self._clock.call_later(self._every_us, self._look)

    def _look(self) -> None:
        if self.holds(self._wind):
            self._wind()

"""`Background`: the tasks of one incarnation. None outlives it, and one that fails is a failure of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol


class BackgroundOwner(Protocol):
    """Who hears how the tasks end."""

    def store_failed(self, error: BaseException, /) -> None: ...
    def tell_if_idle(self) -> None: ...


class Background:
    """Tasks that nobody waits for."""

    def __init__(self, owner: BackgroundOwner) -> None:
        self._owner = owner
        self._host = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something that asks the store."""
        task = self._host.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def kill(self) -> None:
        """The incarnation is over."""
        for task in self._tasks:
            task.cancel()

    async def finish(self) -> None:
        """After `kill`: wait until none runs any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._owner.store_failed(error)
        self._owner.tell_if_idle()

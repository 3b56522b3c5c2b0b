"""`Background`: the tasks of one incarnation. None outlives it, and one that fails is a failure of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation


class Background:
    """Tasks that no one awaits."""

    def __init__(self, incarnation: Incarnation, idleness: Idleness) -> None:
        self._incarnation = incarnation
        self._idleness = idleness
        self._host = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order in which they began: a set has another one in each process."""
        idleness.add(self._is_idle)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something that asks the store."""
        task = self._host.create_task(coroutine)
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def kill(self) -> None:
        """The incarnation is over."""
        for task in self._tasks:
            task.cancel()

    async def finish(self) -> None:
        """After `kill`: wait until none runs any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _is_idle(self) -> bool:
        return not self._tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._incarnation.fail(error)
        self._idleness.changed()

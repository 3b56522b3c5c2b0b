"""A negative control: an engine that awaits each future of the SDK in a task of its own, as a program would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import restate

from durably.restate import deployment
from durably.restate.hosted_execution import HostedExecution
from durably.restate.journal import Journal
from tests.restate import programs


class NaiveJournal(Journal):
    """What comes first is what the event loop says, not the journal."""

    _tasks: dict[int, asyncio.Task[None]]

    async def _first_completed(self, *more: restate.RestateDurableFuture[Any]) -> Sequence[Any]:
        if more:  # The time of a step.
            return await super()._first_completed(*more)
        waited = {number: one.future for number, one in self._pending.items()}
        if not hasattr(self, "_tasks"):
            self._tasks = {}
        for number, future in waited.items():
            if number not in self._tasks:
                self._tasks[number] = asyncio.create_task(_awaited(future))
        mine = {self._tasks[number]: number for number in waited}
        done, _ = await asyncio.wait(mine, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        first = min(mine[task] for task in done)
        await self._queue_answer(first, self._pending.pop(first))
        return ()


async def _awaited(future: restate.RestateDurableFuture[Any]) -> None:
    with suppress(restate.TerminalError):
        await future


deployment.ENGINES = {"public": (NaiveJournal, HostedExecution)}  # type: ignore[misc]
app = deployment.app(*programs.ACTORS, suspend_after=0)

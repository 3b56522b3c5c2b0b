"""`SlicedWork`: decodes large payloads a slice at a time, with a turn of the event loop between two slices.

One slice is done in each turn, whatever is to be done, so a loop is held up no longer by many large payloads than by
one. Python's garbage collector does not look through what a slice has made: it would look through all of it each time
that it has grown by a quarter, which holds the loop up for longer than all slices together.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from durably.actors.values.slices import Slices
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

T = TypeVar("T")


class _Job(NamedTuple):
    slices: Slices[Any]
    then: Callable[[Any], None]
    failed: Callable[[BaseException], None]


class SlicedWork:
    """First in, first out, a slice each."""

    def __init__(self, on_mistake: Callable[[BaseException], None], changed: Callable[[], None]) -> None:
        """`on_mistake` hears what `then` or `failed` raises; `changed`, that nothing is left to do."""
        self._host = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._ages: bool | None = None
        """What slices make becomes old at once. Not where the host has frozen its objects, which that would undo. To
        ask takes as long as there are such objects, so it is asked once, when the first slice is done."""
        self._on_mistake = on_mistake
        self._changed = changed

    def begin(self, slices: Slices[T], then: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Do something in slices, beginning in another turn; `then` is given the result, `failed` the error."""
        self._jobs.append(_Job(slices, then, failed))
        if len(self._jobs) == 1:
            self._host.call_soon(self._take_turn)

    def is_idle(self) -> bool:
        """Nothing is left to do."""
        return not self._jobs

    def kill(self) -> None:
        """Drop what is left."""
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            job.slices.close()

    def _take_turn(self) -> None:
        if not self._jobs:  # It was killed.
            return
        job = self._jobs[0]
        if self._ages is None:
            self._ages = gc.get_freeze_count() == 0
        ended = _next_slice(job, ages=self._ages)
        if self._jobs and self._jobs[0] is job:
            self._jobs.popleft()
            if ended is None:
                self._jobs.append(job)
        if self._jobs:
            self._host.call_soon(self._take_turn)
        if ended is None:
            return
        try:
            ended()
        except USER_ERRORS as error:
            let_signals_pass(error)
            self._on_mistake(error)
        if not self._jobs:
            self._changed()


def _next_slice(job: _Job, *, ages: bool) -> Callable[[], None] | None:
    """What is to be done if that was the last one."""
    is_collecting = ages and gc.isenabled()
    if is_collecting:
        gc.disable()
    try:
        next(job.slices)
    except StopIteration as stop:
        result = stop.value
        return lambda: job.then(result)
    except BaseException as raised:
        error = raised
        return lambda: job.failed(error)
    finally:
        if is_collecting:
            # Together these make everything old, which takes no time.
            gc.freeze()
            gc.unfreeze()
            gc.enable()
    return None

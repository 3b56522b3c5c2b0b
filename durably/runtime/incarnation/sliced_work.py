"""`SlicedWork`: decodes large payloads a slice at a time, with a turn of the event loop between two slices.

One slice is done in each turn, however much is to be done, so many large payloads hold the loop up no longer than one
does. Python's garbage collector does not look through what a slice has made: it would look through all of it each time
that it has grown by a quarter, which holds the loop up for longer than all slices together. Only when very much has
been made so does it look through everything, since cycles of garbage would stay for ever.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from durably.actors.values.slices import Slices
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

T = TypeVar("T")

MOST_AGED: Final = 2_000_000
"""Containers that become old unseen until the garbage collector looks; more where the process holds more."""


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
        self._ageing: Ageing | None = None
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
        if self._ageing is None:
            self._ageing = Ageing()
        ended = _next_slice(job, self._ageing)
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


class Ageing:
    """What slices make becomes old at once, so that the garbage collector does not look through it.

    Not where the host has frozen its objects, which that would undo. To ask takes as long as there are such objects, so
    it is asked once, when the first slice is done.
    """

    def __init__(self) -> None:
        self._is_wanted = gc.get_freeze_count() == 0
        self._aged = 0
        self._most = MOST_AGED

    def is_wanted(self) -> bool:
        return self._is_wanted and gc.isenabled()

    def age(self) -> None:
        """Make everything old, which takes no time. The collector forgets by it how much there is to look through."""
        young, middle, older = gc.get_count()
        of_young, of_middle, _ = gc.get_threshold()
        if young <= of_young:  # Not worth it, and the collector goes on counting.
            return
        self._aged += young + middle * of_young + older * of_young * of_middle
        if self._aged < self._most:
            gc.freeze()
            gc.unfreeze()
            return
        gc.collect()
        self._aged, self._most = 0, max(MOST_AGED, len(gc.get_objects()))


def _next_slice(job: _Job, ageing: Ageing) -> Callable[[], None] | None:
    """What is to be done if that was the last one."""
    is_ageing = ageing.is_wanted()
    if is_ageing:
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
        if is_ageing:
            ageing.age()
            gc.enable()
    return None

"""Python's garbage collector beside many requests that wait: `tune_garbage_collection`, and a line when it would help.

A full collection goes through all objects that the process holds, and holds up the event loop meanwhile. All who wait
are such objects, and with Python's thresholds a loop that falls behind looks through them again and again.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from durably.runtime.clock import Clock
from durably.runtime.observation.observer import Observer

YOUNG_OBJECTS: Final = 50_000
"""How many new containers there may be before the garbage collector looks; the default, 700, is a few requests."""
OLDER_GENERATIONS: Final = 10
OLDEST_GENERATION: Final = 2
MANY_WAITING: Final = 100
"""Requests. Where fewer wait, the collector is busy with the host's own objects."""


def tune_garbage_collection() -> None:
    """Let Python's garbage collector look at requests in bulk, and not at the program again.

    What exists now is never looked at again, and the collector looks when 50,000 new containers have come, not 700. It
    is a matter of the whole process, so a `Runtime` does not do it by itself; `durably serve` does. Call it once, when
    everything is imported and before requests come. In exchange cycles of garbage stay in memory somewhat longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER_GENERATIONS, OLDER_GENERATIONS)


class CollectionWatch:
    """Tells once that a full collection held up the loop while many requests waited, if the collector is untuned.

    It costs two calls for each collection. Those come at any moment, in any thread, within any code, so all that is
    done there is to look at two numbers.
    """

    def __init__(
        self, observer: Observer, *, clock: Clock, slow_collection_us: int | None, waiting: Callable[[], int]
    ) -> None:
        self._observer = observer
        self._clock = clock
        self._slow_us = slow_collection_us
        self._waiting = waiting
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_told = False
        self._began_at_us = 0

    def begin(self) -> None:
        """Watch from now on, unless no collection is slow enough."""
        if self._slow_us is not None and self._loop is None and not self._has_told:
            self._loop = asyncio.get_running_loop()
            gc.callbacks.append(self._look)

    def end(self) -> None:
        """Watch no longer."""
        if self._loop is not None:
            self._loop = None
            gc.callbacks.remove(self._look)

    def _look(self, phase: Literal["start", "stop"], info: Mapping[str, Any]) -> None:
        if info["generation"] != OLDEST_GENERATION or self._has_told:
            return
        now_us = self._clock.monotonic()
        if phase == "start":
            self._began_at_us = now_us
            return
        took_us, waiting = now_us - self._began_at_us, self._waiting()
        assert self._slow_us is not None
        if took_us < self._slow_us or waiting < MANY_WAITING or gc.get_threshold()[0] >= YOUNG_OBJECTS:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._has_told = True
            self._loop.call_soon_threadsafe(self._tell, took_us, waiting)

    def _tell(self, took_us: int, waiting: int) -> None:
        self.end()  # Not within the collection: it is going through the callbacks.
        self._observer.collected_slowly(took_us, waiting)

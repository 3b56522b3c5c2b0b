"""`LoopWatch`: which action holds up the event loop, and since when (rule S7).

An `async def` action runs on the host's loop, and nothing else does until it awaits something. Each of its steps is
timed: a slow one is told of when it has ended. A thread reads `stepping` and tells of one that goes on.
"""

from __future__ import annotations

from collections.abc import Callable

from durably.runtime.clock import Clock
from durably.runtime.observation.observer import Observer


class LoopWatch:
    """The steps of all actions of a runtime, one at a time."""

    def __init__(self, clock: Clock, observer: Observer, slow_us: int) -> None:
        self.stepping: ActionStep | None = None
        """The action whose code runs on the loop right now."""
        self.since = 0
        """When the step began that runs, or ran last, by the monotonic clock."""
        self.sample: tuple[int, str, str] = (0, "", "")
        """What a thread saw of a step: when that began, the line and the stack."""
        self.monotonic: Callable[[], int] = clock.monotonic
        self._observer = observer
        self._slow_us = slow_us

    def slow(self, step: ActionStep) -> None:
        """Tell of a step that has just ended, if it was slow."""
        took_us = self.monotonic() - self.since
        if took_us > self._slow_us:
            sampled_at, place, stack = self.sample
            where = (place, stack) if sampled_at == self.since else ("", "")
            self._observer.action_slow(step.id, step.name, took_us, *where)


class ActionStep:
    """Marks the steps of one action (`StepWatch`)."""

    __slots__ = ("_watch", "id", "name")

    def __init__(self, watch: LoopWatch, id: str, name: str) -> None:
        self._watch = watch
        self.id = id
        self.name = name

    def begin(self) -> None:
        watch = self._watch
        watch.since = watch.monotonic()
        watch.stepping = self

    def end(self) -> None:
        self._watch.stepping = None
        self._watch.slow(self)

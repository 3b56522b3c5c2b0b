"""`AdvanceWatch`: names the line of a handler or an action that holds up the event loop, while it still does (rule S7).

A thread looks from time to time at which invocation is being advanced, or which action runs on the loop, and since
when. The loop pays for that with one number that it writes down for each, and nothing else. Code that keeps the
interpreter's lock (a regular expression, a large sort in C) holds up the thread too, and is named when it has ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Event, Thread, get_ident
from typing import Final

from durably.runtime.actions.loop_watch import LoopWatch
from durably.runtime.clock import US_PER_SECOND, Clock
from durably.runtime.engine.engine import Engine
from durably.runtime.execution.failure_text import code_that_runs
from durably.runtime.observation.observer import Observer

QUICKEST_LOOK_US: Final = 1_000
RAREST_LOOK_US: Final = 1_000_000
"""How often it looks where nothing is advanced."""
PATIENCE_SECONDS: Final = 1.0
"""How long a stop waits for a look that is under way."""


class AdvanceWatch:
    """Looks after the engine of one runtime."""

    def __init__(
        self,
        observer: Observer,
        engine: Callable[[], Engine | None],
        actions: Callable[[], LoopWatch],
        *,
        clock: Clock,
        slow_us: int,
        blocked_us: int | None,
    ) -> None:
        """An advance of `blocked_us` is told of while it goes on; None: no one looks. Of each of `slow_us` it is known
        where it was, for what is told when it has ended.
        """
        self._observer = observer
        self._engine = engine
        self._actions = actions
        self._clock = clock
        self._slow_us = slow_us
        self._blocked_us = blocked_us
        self._ended = Event()
        self._thread: Thread | None = None
        self._loop_thread = 0
        self._told_of = 0
        """When the advance or step of an action began that has been told of."""

    def begin(self) -> None:
        """Watch the thread of the caller from now on."""
        if self._blocked_us is not None and self._thread is None:
            self._ended.clear()
            self._loop_thread = get_ident()
            self._thread = Thread(target=self._run, args=(self._blocked_us,), name="durably-watch", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Watch no longer."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            thread.join(PATIENCE_SECONDS)

    def _run(self, blocked_us: int) -> None:
        often_us = max(min(self._slow_us, blocked_us) // 2, QUICKEST_LOOK_US)
        pause_us, seen = often_us, (0, 0)
        while not self._ended.wait(pause_us / US_PER_SECOND):
            engine, actions = self._engine(), self._actions()
            began = 0 if engine is None else engine.incarnation.advancing_since
            is_advancing = engine is not None and bool(engine.incarnation.suspect)
            is_at_rest = seen == (began, actions.since) and not is_advancing and actions.stepping is None
            pause_us = min(2 * pause_us, RAREST_LOOK_US) if is_at_rest else often_us
            seen = (began, actions.since)
            if engine is not None and is_advancing:
                self._look(engine, began, often_us, blocked_us)
            elif actions.stepping is not None:
                self._look_at_action(actions, often_us, blocked_us)

    def _look(self, engine: Engine, began: int, often_us: int, blocked_us: int) -> None:
        incarnation = engine.incarnation
        id, held_us = incarnation.suspect, self._clock.monotonic() - began
        if held_us < often_us:
            return
        place, stack = self._code_of_loop()
        if incarnation.advancing_since != began or not incarnation.suspect:  # It went on meanwhile.
            return
        incarnation.sample = (began, place, stack)
        invocation = engine.parts.registry.live.get(id)
        if held_us >= blocked_us and began != self._told_of and invocation is not None:
            self._told_of = began
            self._observer.blocked(invocation, held_us, place, stack)

    def _look_at_action(self, actions: LoopWatch, often_us: int, blocked_us: int) -> None:
        step, began = actions.stepping, actions.since
        held_us = self._clock.monotonic() - began
        if step is None or held_us < often_us:
            return
        place, stack = self._code_of_loop()
        if actions.since != began or actions.stepping is not step:
            return
        actions.sample = (began, place, stack)
        if held_us >= blocked_us and began != self._told_of:
            self._told_of = began
            self._observer.action_blocked(step.id, step.name, held_us, place, stack)

    def _code_of_loop(self) -> tuple[str, str]:
        """Where the code of the user is in the thread of the loop; empty if that has gone."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - Documented, in spite of its name.
        frame = frames.get(self._loop_thread)
        del frames
        return ("", "") if frame is None else code_that_runs(frame)

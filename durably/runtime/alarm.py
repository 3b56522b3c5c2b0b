"""`Alarm`: rings for timers whose time has come. Those due soon are in memory, all others in the store only (rule T2)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from durably.runtime.clock import Cancellable, Clock
from durably.runtime.settings import Settings
from durably.runtime.timers import Deadlines
from durably.storage.records import TimerRecord
from durably.storage.store import Store


class AlarmOwner(Protocol):
    def time_has_come(self, timer: TimerRecord, /) -> None: ...
    def poke(self) -> None: ...
    def spawn(self, coroutine: Coroutine[Any, Any, None], /) -> None: ...
    def when_durable(self, callback: Callable[[Any], None], argument: Any, /) -> None: ...


class Alarm:
    """The timers of one incarnation."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, owner: AlarmOwner) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._owner = owner
        self._deadlines = Deadlines(clock.now() + settings.timer_window_us)
        self._timer: Cancellable | None = None
        self._rings_at: int | None = None
        self._window_timer: Cancellable | None = None
        self._dead = False

    def set(self, timer: TimerRecord) -> bool:
        """Ring at `timer.due`; False if that is beyond the window, so that the store will bring it back."""
        if timer.due > self._deadlines.window_until:
            return False
        self._deadlines.add(timer)
        if self._rings_at is None or timer.due < self._rings_at:
            self._wind()
        return True

    def clear(self, number: int, command: int) -> None:
        """It is not wanted any more."""
        self._deadlines.clear(number, command)

    def open_window(self) -> None:
        """Look further ahead: move the window first, then read what the store has in it, once that is all there (rule T2)."""
        if self._dead:
            return
        until = self._deadlines.window_until = self._clock.now() + self._settings.timer_window_us
        self._window_timer = self._clock.call_later(self._settings.timer_window_us // 2, self.open_window)
        self._owner.when_durable(lambda until: self._owner.spawn(self._read(until)), until)
        self._owner.poke()

    def kill(self) -> None:
        self._dead = True
        for timer in (self._timer, self._window_timer):
            if timer is not None:
                timer.cancel()

    async def _read(self, until: int) -> None:
        after: tuple[int, int, int] | None = None
        while not self._dead:
            timers = await self._store.timers(until, self._settings.recovery_portion, after=after)
            for timer in timers:
                self._deadlines.add(timer)
            self._wind()
            if len(timers) < self._settings.recovery_portion:
                return
            last = timers[-1]
            after = (last.due, last.number, last.command)

    def _wind(self) -> None:
        """Ring at the next due time, or earlier: the wall clock is looked at again every second (rule T1)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, None
        due = self._deadlines.next_due()
        if due is None or self._dead:
            return
        self._rings_at = due
        delay = min(max(due - self._clock.now(), 0), self._settings.sweep_us)
        self._timer = self._clock.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, None
        now = self._clock.now()
        while not self._dead and (timer := self._deadlines.pop_due(now)) is not None:
            self._owner.time_has_come(timer)
        self._wind()
        self._owner.poke()

"""`TimerService`: records timers and rings when their time has come.

Those due soon are in memory, all others in the store only (rule T2). The wall clock may be set while they wait. Nothing
happens here while nothing is due: the window moves when there is something to bring into it.
"""

from __future__ import annotations

from collections.abc import Callable

from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.settings import Settings
from durably.runtime.timers.timer_heap import TimerHeap
from durably.storage.records import NO_COMMAND, TimerKind, TimerPlace, TimerRecord
from durably.storage.store import Store

LAST_MOMENT = LAST_NUMBER = (1 << 63) - 1
"""Come after every due time, and every number."""


class TimerService:
    """The timers of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        background: Background,
        clock: Clock,
        committer: Committer,
        ready: ReadyQueue,
        settings: Settings,
        store: Store,
    ) -> None:
        self.on_due: Callable[[TimerRecord], None] = _no_one_waits
        """What is done with a timer that is due."""
        self._incarnation = incarnation
        self._ready = ready
        self._background = background
        self._clock = clock
        self._committer = committer
        self._settings = settings
        self._store = store
        self._heap = TimerHeap(clock.now() + settings.timer_window_us)
        self._timer: Cancellable | None = None
        self._rings_at: int | None = None
        self._window_timer: Cancellable | None = None
        self._first_beyond: int | None = None
        """The earliest due time beyond the window that is known of."""
        self._dead = False

    def set(
        self,
        transition: Transition,
        invocation: InvocationRun,
        kind: TimerKind,
        due: int,
        command: int = NO_COMMAND,
    ) -> bool:
        """Record that an invocation is to be woken; False if that is so late that only the store remembers."""
        timer = TimerRecord(invocation.number, kind, command, due, invocation.address)
        transition.set_timer(timer)
        latest = self._clock.now() + self._settings.timer_window_us
        if latest < self._heap.window_until:  # The wall clock has been set back, and the window goes with it.
            self._heap.window_until = latest
        if due > self._heap.window_until:
            self._open_before(due)
            return False
        self._heap.add(timer)
        if self._rings_at is None or due < self._rings_at:
            self._wind()
        return True

    def drop(self, transition: Transition, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        """Delete a timer, and its row."""
        transition.clear_timer(number, kind, command)
        self._heap.clear((number, kind, command))

    def forget(self, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        """Delete a timer whose row goes with its invocation."""
        self._heap.clear((number, kind, command))

    def next_due(self) -> int | None:
        """When the next timer within the window is due, in microseconds since 1970 UTC."""
        return self._heap.next_due()

    def open_window(self) -> None:
        """Look further ahead (rule T2): move the window, then read what the store has in it, once that is all there."""
        if self._dead:
            return
        self._window_timer = self._first_beyond = None
        until = self._heap.window_until = self._clock.now() + self._settings.timer_window_us
        self._committer.when_durable(self._look_ahead, until)
        self._ready.schedule()

    def kill(self) -> None:
        self._dead = True
        for timer in (self._timer, self._window_timer):
            if timer is not None:
                timer.cancel()

    def _open_before(self, due: int) -> None:
        """Something is due beyond the window: it has to move in time for that."""
        if self._dead or (self._first_beyond is not None and self._first_beyond <= due):
            return
        self._first_beyond = due
        if self._window_timer is not None:
            self._window_timer.cancel()
        self._window_timer = self._clock.call_at(due - self._settings.timer_window_us // 2, self.open_window)

    def _look_ahead(self, until: int) -> None:
        self._background.spawn(self._read(until))

    async def _read(self, until: int) -> None:
        after: TimerPlace | None = None
        while not self._dead:
            timers = await self._store.timers(until, self._settings.recovery_portion, after=after)
            for timer in timers:
                if timer.due > self._heap.window_until:
                    self._open_before(timer.due)
                self._heap.add(timer)
            self._wind()
            if len(timers) < self._settings.recovery_portion:
                break
            after = timers[-1].place
        for timer in await self._store.timers(LAST_MOMENT, 1, after=_last_place(until)):
            self._open_before(timer.due)

    def _wind(self) -> None:
        """Ring at the next due time (rule T1: by the wall clock, whatever becomes of that)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, None
        due = self._heap.next_due()
        if due is None or self._dead:
            return
        self._rings_at = due
        self._timer = self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, None
        now = self._clock.now()
        try:
            while not self._dead and (timer := self._heap.pop_due(now)) is not None:
                self.on_due(timer)
        except Exception as error:  # A mistake of ours: without the rest of the timers nothing would ever wake again.
            self._incarnation.fail(error)
            return
        self._wind()
        self._ready.schedule()


def _last_place(due: int) -> TimerPlace:
    """Comes after every timer that is due then."""
    return (due, LAST_NUMBER, TimerKind.START, NO_COMMAND)


def _no_one_waits(timer: TimerRecord) -> None:
    raise AssertionError(f"{timer} is due before the machine is put together")

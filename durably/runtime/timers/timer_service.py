"""`TimerService`: records timers and rings when their time has come.

A timer rings when the wall clock reaches its due time, or when the wait that was asked for has passed by the monotonic
clock, whichever comes first: setting the wall clock can bring it forward, never put it off (rule T1). Timers due soon
are in memory, others only while there are few (rule T2); those in the store only have nothing but their due time.
Nothing happens here while nothing is due: the window moves when there is something to bring into it.
"""

from __future__ import annotations

from collections.abc import Callable

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
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
        self._heap = TimerHeap()
        self._timer: Cancellable | None = None
        self._rings_at: tuple[int, int] | None = None
        """The due time and the moment, whichever comes first."""
        self._window_timer: Cancellable | None = None
        self._first_beyond: int | None = None
        """The earliest due time beyond the window that is known of."""
        self._dead = False

    @property
    def in_memory(self) -> int:
        """How many timers are in memory."""
        return len(self._heap)

    def set(
        self,
        transition: Transition,
        invocation: InvocationRun,
        kind: TimerKind,
        due: int,
        command: int = NO_COMMAND,
        not_before: int = 0,
    ) -> bool:
        """Record that an invocation is to be woken; False if that is so late that the store has to remember it.

        The wait is what is left until `due` from now, or from `not_before`, the time of the step that asks for it: a
        handler whose time ran ahead with a wrong clock still waits for as long as it asked.
        """
        asked_at = max(self._clock.now(), not_before)
        timer = TimerRecord(invocation.number, kind, command, due, invocation.address, asked_at)
        transition.set_timer(timer)
        wait_us = due - asked_at
        is_soon = wait_us <= self._settings.timer_window_us
        if is_soon or len(self._heap) < self._settings.timers_in_memory:
            moment = self._clock.monotonic() + wait_us
            self._heap.add(timer, moment)
            if self._rings_at is None or due < self._rings_at[0] or moment < self._rings_at[1]:
                self._wind()
        else:
            self._heap.leave_out(timer)
        if not is_soon:
            self._open_before(due, wait_us)
        return is_soon

    def drop(self, transition: Transition, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        """Delete a timer, and its row."""
        transition.clear_timer(number, kind, command)
        self._heap.clear((number, kind, command))

    def forget(self, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        """Delete a timer whose row goes with its invocation."""
        self._heap.clear((number, kind, command))

    def next_due(self) -> int | None:
        """When the next timer in memory rings if the wall clock is not set, in microseconds since 1970 UTC."""
        coming = self._heap.next()
        if coming is None:
            return None
        due, moment = coming
        return min(due, self._clock.now() + moment - self._clock.monotonic())

    def due_of(self, number: int, kind: TimerKind) -> int | None:
        """When the timer of a kind is due that an invocation has; None: it has none in memory."""
        return self._heap.due_of((number, kind, NO_COMMAND))

    def take_over(self) -> None:
        """At the start: look ahead, and find what was asked for while the clock was ahead of what it says now."""
        self._background.spawn(self._read_what_was_asked_ahead(self._clock.now()))
        self.open_window()

    def open_window(self) -> None:
        """Look further ahead (rule T2): move the window, then read what the store has in it, once that is all there."""
        if self._dead:
            return
        self._window_timer = self._first_beyond = None
        until = self._clock.now() + self._settings.timer_window_us
        self._committer.when_durable(self._look_ahead, until)
        self._ready.schedule()

    def kill(self) -> None:
        self._dead = True
        for timer in (self._timer, self._window_timer):
            if timer is not None:
                timer.cancel()

    def _open_before(self, due: int, wait_us: int) -> None:
        """Something is due beyond the window: it has to move in time for that."""
        if self._dead or (self._first_beyond is not None and self._first_beyond <= due):
            return
        self._first_beyond = due
        if self._window_timer is not None:
            self._window_timer.cancel()
        early_us = self._settings.timer_window_us // 2
        self._window_timer = self._clock.call_at(due - early_us, self.open_window, within_us=wait_us - early_us)

    async def _read_what_was_asked_ahead(self, now: int) -> None:
        """Rule T1: their times of day come from a wrong clock, so they wait from now on, for as long as was asked."""
        self._heap.read_begins()
        try:
            await self._read_asked_ahead(now)
        finally:
            self._heap.read_ends()

    async def _read_asked_ahead(self, now: int) -> None:
        after: TimerPlace | None = None
        portion = self._settings.recovery_portion
        while not self._dead:
            timers = await self._store.timers(LAST_MOMENT, portion, after=after, asked_after=now)
            elapsed = self._clock.monotonic()  # Not earlier: a timer that was set meanwhile would ring too soon.
            for timer in timers:
                self._heap.add_stored(timer, elapsed + timer.due - timer.asked_at)
            if timers:
                self._wind()
            if len(timers) < portion:
                return
            after = timers[-1].place

    def _look_ahead(self, until: int) -> None:
        self._background.spawn(self._read(until))

    async def _read(self, until: int) -> None:
        self._heap.read_begins()
        try:
            await self._read_until(until)
        finally:
            self._heap.read_ends()
        for timer in await self._store.timers(LAST_MOMENT, 1, after=_last_place(until)):
            self._open_before(timer.due, timer.due - self._clock.now())

    async def _read_until(self, until: int) -> None:
        ahead_us = self._clock.now() - self._clock.monotonic()
        after: TimerPlace | None = None
        while not self._dead:
            timers = await self._store.timers(until, self._settings.recovery_portion, after=after)
            for timer in timers:
                self._heap.add_stored(timer, timer.due - ahead_us)
            self._wind()
            if len(timers) < self._settings.recovery_portion:
                return
            after = timers[-1].place

    def _wind(self) -> None:
        """Ring when the next timer comes (rule T1)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        coming = self._rings_at = self._heap.next()
        if coming is None or self._dead:
            return
        due, moment = coming
        self._timer = self._clock.call_at(due, self._ring, within_us=moment - self._clock.monotonic())

    def _ring(self) -> None:
        self._timer, self._rings_at = None, None
        now, elapsed = self._clock.now(), self._clock.monotonic()
        try:
            while not self._dead and (timer := self._heap.pop_due(now, elapsed)) is not None:
                self.on_due(timer)
        except USER_ERRORS as error:  # A mistake of ours: without the rest of the timers nothing would ever wake again.
            self._incarnation.fail(error)
            let_signals_pass(error)
            return
        self._wind()
        self._ready.schedule()


def _last_place(due: int) -> TimerPlace:
    """Comes after every timer that is due then."""
    return (due, LAST_NUMBER, TimerKind.START, NO_COMMAND)


def _no_one_waits(timer: TimerRecord) -> None:
    raise AssertionError(f"{timer} is due before the machine is put together")

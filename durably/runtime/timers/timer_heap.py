"""`TimerHeap`: the timers in memory, in the order in which they come.

A timer comes when its due time is reached by the wall clock, or when the wait that was asked for has passed by the
monotonic clock, whichever is first (rule T1). So it stands in two heaps. Clearing a timer leaves its entries to be
skipped when their time comes; when most entries are dead the heaps are made anew, so memory follows the live timers.
Tested in tests/runtime/test_timers.py.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from durably.storage.records import TimerKey, TimerPlace, TimerRecord

_DEAD_ENTRIES = 1_024
"""So many dead entries are never worth making the heaps anew."""


class TimerHeap:
    """Timers by due time (wall clock) and by moment (monotonic clock); equal ones by number, kind and command."""

    __slots__ = ("_by_due", "_by_moment", "_left_out", "_reads", "_timers")

    def __init__(self) -> None:
        self._by_due: list[TimerPlace] = []
        self._by_moment: list[TimerPlace] = []
        self._timers: dict[TimerKey, tuple[TimerRecord, int]] = {}
        self._reads = 0
        """Reads of the store under way."""
        self._left_out: dict[TimerKey, int] = {}
        """The due times of timers that were set meanwhile and are in the store only."""

    def __len__(self) -> int:
        return len(self._timers)

    def add(self, timer: TimerRecord, moment: int) -> None:
        """Keep a timer. One that is known with the same due time keeps the earlier of its moments."""
        key = timer.key
        known = self._timers.get(key)
        is_known = known is not None and known[0].due == timer.due
        if known is not None and is_known and known[1] <= moment:
            return
        self._timers[key] = timer, moment
        heappush(self._by_moment, (moment, *key))
        if not is_known:
            heappush(self._by_due, timer.place)
        if len(self._by_moment) > 2 * len(self._timers) + _DEAD_ENTRIES:
            self._make_anew()

    def leave_out(self, timer: TimerRecord) -> None:
        """A timer is set that only the store remembers, until it is read from there. What was here of it is old."""
        self._timers.pop(timer.key, None)
        if self._reads:
            self._left_out[timer.key] = timer.due

    def read_begins(self) -> None:
        self._reads += 1

    def read_ends(self) -> None:
        self._reads -= 1
        if not self._reads:
            self._left_out.clear()

    def add_stored(self, timer: TimerRecord, moment: int) -> None:
        """Keep a timer that was read from the store, unless it was set anew while the store was read."""
        known = self._timers.get(timer.key)
        due = self._left_out.get(timer.key) if known is None else known[0].due
        if due is None or due == timer.due:
            self.add(timer, moment)

    def clear(self, key: TimerKey) -> None:
        self._timers.pop(key, None)

    def due_of(self, key: TimerKey) -> int | None:
        """When a timer is due; None: it is not here."""
        known = self._timers.get(key)
        return None if known is None else known[0].due

    def pop_due(self, now: int, elapsed: int) -> TimerRecord | None:
        """The next timer that has come, when the wall clock says `now` and the monotonic one `elapsed`."""
        due = self._first_due()
        if due is not None and due[0] <= now:
            heappop(self._by_due)
            return self._timers.pop(due[1:])[0]
        moment = self._first_moment()
        if moment is not None and moment[0] <= elapsed:
            heappop(self._by_moment)
            return self._timers.pop(moment[1:])[0]
        return None

    def next(self) -> tuple[int, int] | None:
        """The earliest due time and the earliest moment, perhaps of two timers; None: there is no timer."""
        due, moment = self._first_due(), self._first_moment()
        return None if due is None or moment is None else (due[0], moment[0])

    def _first_due(self) -> TimerPlace | None:
        heap = self._by_due
        while heap:
            known = self._timers.get(heap[0][1:])
            if known is not None and known[0].due == heap[0][0]:
                return heap[0]
            heappop(heap)
        return None

    def _first_moment(self) -> TimerPlace | None:
        heap = self._by_moment
        while heap:
            known = self._timers.get(heap[0][1:])
            if known is not None and known[1] == heap[0][0]:
                return heap[0]
            heappop(heap)
        return None

    def _make_anew(self) -> None:
        self._by_due = [timer.place for timer, _ in self._timers.values()]
        self._by_moment = [(moment, *key) for key, (_, moment) in self._timers.items()]
        heapify(self._by_due)
        heapify(self._by_moment)

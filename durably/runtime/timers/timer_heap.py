"""Due times. `TimerHeap` is the heap of what is due soon; everything later is in the store only (rule T2).

The cost of a timer is one heap push; clearing one leaves its heap entry to be skipped when its time comes, so the heap
may hold as many dead entries as were cleared within one window. Tested in tests/runtime/test_timers.py.
"""

from __future__ import annotations

from heapq import heappop, heappush

from durably.storage.records import TimerKey, TimerPlace, TimerRecord


class TimerHeap:
    """Timers up to `window_until`, in the order of their places: (due, number, kind, command)."""

    __slots__ = ("_heap", "_timers", "window_until")

    def __init__(self, window_until: int) -> None:
        self._heap: list[TimerPlace] = []
        self._timers: dict[TimerKey, TimerRecord] = {}
        self.window_until = window_until

    def __len__(self) -> int:
        return len(self._timers)

    def add(self, timer: TimerRecord) -> None:
        """Keep a timer if it is within the window; adding the same one twice is the same as once."""
        if timer.due > self.window_until:
            return
        key = timer.key
        known = self._timers.get(key)
        self._timers[key] = timer
        if known is None or known.due != timer.due:
            heappush(self._heap, timer.place)

    def clear(self, key: TimerKey) -> None:
        self._timers.pop(key, None)

    def pop_due(self, now: int) -> TimerRecord | None:
        """The next timer whose time has come."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            place = heappop(heap)
            timer = self._timers.get(place[1:])
            if timer is not None and timer.due == place[0]:
                del self._timers[place[1:]]
                return timer
        return None

    def next_due(self) -> int | None:
        """When the next timer is due, if any is within the window."""
        heap = self._heap
        while heap:
            place = heap[0]
            timer = self._timers.get(place[1:])
            if timer is not None and timer.due == place[0]:
                return timer.due
            heappop(heap)
        return None

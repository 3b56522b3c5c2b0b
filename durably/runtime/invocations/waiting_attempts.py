"""`WaitingAttempts`: attempts that wait in memory for something durable, least recently woken first.

One that stays goes on at once when its answer comes; one that leaves is replayed from the beginning of its journal. So
they stay while there is room: there may be so many of them, and together they may take up so many bytes. A handler may
bound its wait in memory, too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class _Waiting(msgspec.Struct, Generic[T], frozen=True):
    attempt: T
    turn: int
    until: int | None
    size_bytes: int


class WaitingAttempts(Generic[T]):
    """At most `most` of them with at most `most_bytes`, but always room for one."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.count = 0
        self.size_bytes = 0
        self._most = most
        self._most_bytes = most_bytes
        self._turn = 0
        self._by_bound: dict[int | None, OrderedDict[int, _Waiting[T]]] = {}
        """Those with the same bound of their waits are due in the order in which they came."""

    def add(self, number: int, attempt: T, size_bytes: int, *, now: int, bound_us: int | None) -> None:
        """It has been woken and waits again, for at most `bound_us`."""
        self.remove(number)
        self._turn += 1
        until = None if bound_us is None else now + bound_us
        self._by_bound.setdefault(bound_us, OrderedDict())[number] = _Waiting(attempt, self._turn, until, size_bytes)
        self.count += 1
        self.size_bytes += size_bytes

    def remove(self, number: int) -> None:
        """It is gone."""
        for waiting in self._by_bound.values():
            found = waiting.pop(number, None)
            if found is not None:
                self._removed(found)
                return

    def take_excess(self) -> Iterator[T]:
        """Take out what there is no room for."""
        while self.count > 1 and (self.count > self._most or self.size_bytes > self._most_bytes):
            oldest = min(filter(None, self._by_bound.values()), key=lambda waiting: next(iter(waiting.values())).turn)
            yield self._removed(oldest.popitem(last=False)[1])

    def take_due(self, now: int) -> Iterator[T]:
        """Take out what has waited as long as it may."""
        for waiting in self._by_bound.values():
            while waiting and (until := next(iter(waiting.values())).until) is not None and until <= now:
                yield self._removed(waiting.popitem(last=False)[1])

    def next_due(self) -> int | None:
        """When the next one has waited as long as it may; None: all may stay."""
        heads = (next(iter(waiting.values())).until for waiting in self._by_bound.values() if waiting)
        return min((until for until in heads if until is not None), default=None)

    def __iter__(self) -> Iterator[T]:
        return iter([one.attempt for waiting in self._by_bound.values() for one in waiting.values()])

    def _removed(self, one: _Waiting[T]) -> T:
        self.count -= 1
        self.size_bytes -= one.size_bytes
        return one.attempt

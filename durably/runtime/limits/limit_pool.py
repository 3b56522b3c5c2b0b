"""`LimitPool`: the places of one limit, or of one key of it, and who waits for them. Pure: no clock, no store.

A place belongs to the invocation that took it and to those that it calls under the same limit; it is free again when
all of them have ended. Who waits is served in the order of the log positions at which they joined their mailboxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from durably.ids import InvocationStatus

if TYPE_CHECKING:
    from durably.actors.limits import Limit
    from durably.runtime.clock import Cancellable
    from durably.runtime.invocations.invocation import InvocationRun


LEFT_IN_ORDER = 64
"""How many entries of a queue may be left of those that have given up, besides as many as wait."""


class Holder(NamedTuple):
    """One whose end a place waits for."""

    number: int
    id: str


class LimitPool:
    """One limit, or what one key has of it."""

    __slots__ = ("_full_at", "_order", "key", "limit", "name", "places", "timer", "waiting")

    def __init__(self, name: str, key: str, limit: Limit | None, since_us: int) -> None:
        """`limit` is None for one that no handler has any more. `since_us`: from then on its rate fills up, from 0."""
        self.name = name
        self.key = key
        self.limit = limit
        self.places: dict[int, dict[int, str]] = {}
        """Who keeps each place taken, ids by number: who took it first, as long as that runs."""
        self.waiting: dict[int, InvocationRun] = {}
        """By number."""
        self.timer: Cancellable | None = None
        """Until the rate allows the next start."""
        self._order: list[tuple[int, int]] = []
        """(log position, number), a heap; who has stopped waiting is passed over."""
        self._full_at = 0.0
        """When as many may start together as there ever may: a start puts it off by one interval."""
        if limit is not None:
            self.use(limit, since_us)

    def __repr__(self) -> str:
        return f"<{self.describe()}: {len(self.places)} taken, {len(self.waiting)} waiting>"

    def describe(self) -> str:
        """For people: `stripe`, `mail of 'tenant-7'`."""
        return f"{self.name} of {self.key!r}" if self.key else self.name

    def use(self, limit: Limit, since_us: int) -> None:
        """A handler has it, after all."""
        self.limit = limit
        self._full_at = since_us + limit.burst * limit.interval_us

    # ------------------------------------------------------------------ places

    def has_room(self) -> bool:
        """A place is free."""
        return not self.is_shut_by(len(self.places))

    def is_shut_by(self, taken: int) -> bool:
        """No place is free while this many stay taken."""
        return self.limit is not None and self.limit.at_once is not None and taken >= self.limit.at_once

    def taken_too_many(self) -> int:
        """How many places are taken beyond the number that there is by now: it was a larger one once."""
        at_once = None if self.limit is None else self.limit.at_once
        return 0 if at_once is None else max(0, len(self.places) - at_once)

    def delay_us(self, now_us: int) -> int:
        """How long the rate lets the next one wait."""
        limit = self.limit
        if limit is None or limit.per_second is None:
            return 0
        return max(0, ceil(self._full_at - (limit.burst - 1) * limit.interval_us - now_us))

    def take(self, number: int, id: str, now_us: int) -> None:
        """It starts, on a place of its own."""
        self.places[number] = {number: id}
        if self.limit is not None:
            self._full_at = max(self._full_at, now_us) + self.limit.interval_us

    def join(self, place: int, number: int, id: str) -> None:
        """It keeps this place taken too."""
        self.places.setdefault(place, {})[number] = id

    def leave(self, place: int, number: int) -> bool:
        """It has ended. Returns whether the place is free now."""
        members = self.places.get(place)
        if members is None or members.pop(number, None) is None:
            return False
        if members:
            return False
        del self.places[place]
        return True

    def renew(self, place: int, previous: int, number: int) -> None:
        """It goes on under a new number, at the same rank among those that keep the place."""
        members = self.places.get(place)
        if members is not None and previous in members:
            self.places[place] = {number if one == previous else one: id for one, id in members.items()}

    def holders(self) -> Iterator[Holder]:
        """Whose ends the places wait for first, one for each."""
        for members in self.places.values():
            number = next(iter(members))
            yield Holder(number, members[number])

    # ------------------------------------------------------------------ who waits

    def enqueue(self, invocation: InvocationRun, position: int) -> None:
        self.waiting[invocation.number] = invocation
        heappush(self._order, (position, invocation.number))

    def leave_queue(self, number: int) -> None:
        """It waits no longer, without having got a place. What it leaves in the order goes now and then."""
        self.waiting.pop(number, None)
        if len(self._order) > 2 * len(self.waiting) + LEFT_IN_ORDER:
            self._order = [entry for entry in self._order if entry[1] in self.waiting]
            heapify(self._order)

    def next(self) -> InvocationRun | None:
        """Take who is first, of those that still wait."""
        while self._order:
            _, number = heappop(self._order)
            invocation = self.waiting.pop(number, None)
            if invocation is not None and invocation.status is InvocationStatus.PENDING:
                return invocation
        return None

    def ahead_of(self, number: int) -> int:
        """How many come first, of those that wait."""
        places = {waiting: position for position, waiting in self._order if waiting in self.waiting}
        return sum(position < places[number] for position in places.values())

    def is_idle(self, now_us: int) -> bool:
        """It is as if it had never been used."""
        return not self.places and not self.waiting and self._full_at <= now_us

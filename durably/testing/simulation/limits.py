"""`LimitWatch`: what the named limits promise (guarantee 16), watched from outside.

It knows from the machine's log whose code has begun, who ended, and who was told to wait; from the messages who called
whom. What the machine itself notes of places it looks at for one thing alone: whose time to start came before a crash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from durably.actors.limits import Limit
from durably.errors import DurablyError
from durably.ids import InvocationStatus
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.memory import Disk
from durably.testing.simulation.clock import SimulatedClock
from durably.testing.simulation.trace import shown, shown_id

STARTS_LOOKED_AT = 64
LATE_US = 5_000_000
"""How much later than its rate allows a start may come."""
HAS_BEGUN = (InvocationStatus.SUSPENDED, InvocationStatus.BACKING_OFF, InvocationStatus.PAUSED)


class Pool(NamedTuple):
    """A limit, or what one key has of it."""

    name: str
    key: str


class Begun(NamedTuple):
    """One that counts: those with the same root count as one."""

    pool: Pool
    root: str
    number: int


class LimitWatch:
    """Watches one run. `broken` is told what is wrong."""

    def __init__(self, disk: Disk, clock: SimulatedClock, broken: Callable[[str], None]) -> None:
        self._disk = disk
        self._clock = clock
        self._broken = broken
        self._limits: dict[Pool, Limit] = {}
        self._parents: dict[int, tuple[str, int | None]] = {}
        """The id of each invocation whose code has run, and the number of its caller, by number."""
        self._begun: dict[str, Begun] = {}
        self._ever: dict[str, Begun] = {}
        self._waiting: dict[str, tuple[Pool, int]] = {}
        """Who was told to wait, and the place in the order that it has."""
        self._waits_since_us: dict[str, int] = {}
        self._ended: set[str] = set()
        """In this incarnation."""
        self._starts: dict[Pool, deque[int]] = {}
        """When the last ones started, in this incarnation."""
        self._since_us = 0
        self._was_given: frozenset[str] = frozenset()
        """Who had a place when this incarnation began: it was their time before."""

    # ------------------------------------------------------------------ what the machine tells

    def attempted(self, invocation: InvocationRun) -> None:
        """Code of it is about to run."""
        caller = invocation.caller
        self._parents[invocation.number] = invocation.id, None if caller is None else caller.number
        if invocation.handler.limit is None or invocation.id in self._begun or invocation.id in self._ended:
            return  # What has ended may be replayed once more, in vain.
        pool = self._pool_of(invocation)
        if pool is None:
            return
        inside = next(self._callers_in(invocation, pool), None)
        if inside is None:
            self._takes_place(invocation, pool)
        root = invocation.id if inside is None else inside.root
        self._begun[invocation.id] = self._ever[invocation.id] = Begun(pool, root, invocation.number)
        self._waiting.pop(invocation.id, None)

    def waits(self, invocation: InvocationRun) -> None:
        """It was told to wait for a place, or for time to pass."""
        pool = self._pool_of(invocation)
        if pool is not None:
            self._waiting[invocation.id] = pool, invocation.mailbox_position or invocation.number
            self._waits_since_us[invocation.id] = self._clock.monotonic()

    def given(self, invocation: InvocationRun) -> None:
        """It has waited, and has a place now."""
        pool, place = self._waiting.pop(invocation.id, (None, 0))
        for id, (waits_in, other) in self._waiting.items():
            if waits_in == pool and other < place:
                self._broken(
                    f"{shown(invocation)} is given a place, and {shown_id(id)}, which came first, waits for the same."
                )

    def ended(self, invocation: InvocationRun) -> None:
        self._ended.add(invocation.id)
        self._begun.pop(invocation.id, None)
        self._waiting.pop(invocation.id, None)

    def incarnation_begins(self) -> None:
        """What was not durable has not begun."""
        self._waiting.clear()
        self._ended.clear()
        self._starts.clear()
        self._was_given = frozenset(place.id for place in self._disk.places.values() if place.counts)
        self._since_us = self._clock.monotonic()
        self._begun = {id: begun for id, begun in self._ever.items() if self._is_on_disk(id)}

    def _is_on_disk(self, id: str) -> bool:
        """It has begun and has not ended, durably."""
        number = self._disk.numbers_by_id.get(id)
        if number is None:
            return False
        row = self._disk.rows[number]
        if row.record.status is InvocationStatus.COMPLETED:
            return False
        return bool(row.steps or row.record.attempts) or row.record.status in HAS_BEGUN

    # ------------------------------------------------------------------ what is asked

    def holders(self, id: str) -> list[int] | None:
        """Who keeps the places of the limit that an invocation waits for, one for each; None if that is no reason.

        Empty: a place is free, and time has to pass.
        """
        waiting = self._waiting.get(id)
        if waiting is None:
            return None
        pool, _ = waiting
        at_once = self._limits[pool].at_once
        places: dict[str, int] = {}
        for begun in self._begun.values():
            if begun.pool == pool:
                places.setdefault(begun.root, self._number(begun))
        return [] if at_once is None or len(places) < at_once else [*places.values()]

    def places(self, id: str) -> tuple[list[list[str]], int] | None:
        """The ids of all who keep each place taken of the limit that an invocation waits for, and how many there are.

        None: it waits for none, or its limit has none.
        """
        if id not in self._waiting:
            return None
        pool, _ = self._waiting[id]
        at_once = self._limits[pool].at_once
        members: dict[str, list[str]] = {}
        for member, begun in self._begun.items():
            if begun.pool == pool:
                members.setdefault(begun.root, []).append(member)
        return None if at_once is None else ([*members.values()], at_once)

    def may_wait(self, id: str) -> bool:
        """Whether there is a reason why it has not begun."""
        holders = self.holders(id)
        if holders is None:
            return False
        if holders:
            return True
        pool, _ = self._waiting[id]
        limit, starts = self._limits[pool], self._starts.get(pool)
        last_us = max(starts[-1] if starts else 0, self._waits_since_us[id])
        return limit.per_second is not None and self._clock.monotonic() - last_us < limit.interval_us + LATE_US

    # ------------------------------------------------------------------ inside

    def _number(self, begun: Begun) -> int:
        return next((number for number, (id, _) in reversed(self._parents.items()) if id == begun.root), begun.number)

    def _pool_of(self, invocation: InvocationRun) -> Pool | None:
        bound = invocation.handler.limit
        assert bound is not None
        try:
            key = bound.key(invocation.address.key, invocation.handler.decode(invocation.argument))
        except DurablyError:
            return None
        pool = Pool(bound.name, key)
        self._limits[pool] = bound.limit
        return pool

    def _callers_in(self, invocation: InvocationRun, pool: Pool) -> Iterator[Begun]:
        """Those above it whose place is still taken."""
        taken = {begun.root for begun in self._begun.values() if begun.pool == pool}
        at = invocation.caller
        number = None if at is None else at.number
        while number is not None:
            id, above = self._caller(number)
            found = self._ever.get(id)
            if found is not None and found.pool == pool and found.root in taken:
                yield found
            number = above

    def _caller(self, number: int) -> tuple[str, int | None]:
        known = self._parents.get(number)
        if known is not None:
            return known
        row = self._disk.rows.get(number)
        caller = None if row is None else row.record.caller
        return "" if row is None else row.record.id, None if caller is None else caller.number

    def _takes_place(self, invocation: InvocationRun, pool: Pool) -> None:
        limit, what = self._limits[pool], shown(invocation)
        taken = {begun.root for begun in self._begun.values() if begun.pool == pool}
        if limit.at_once is not None and len(taken) >= limit.at_once:
            others = ", ".join(map(shown_id, sorted(taken)))
            self._broken(f"{what} begins, and the limit of {limit.describe()} is taken by {others}.")
        if limit.per_second is not None and invocation.id not in self._was_given:
            self._check_rate(what, pool, limit)

    def _check_rate(self, what: str, pool: Pool, limit: Limit) -> None:
        now = self._clock.monotonic()
        starts = self._starts.setdefault(pool, deque(maxlen=STARTS_LOOKED_AT))
        starts.append(now)
        for count, start in enumerate(reversed(starts)):
            if count >= limit.burst and now - start < (count - limit.burst + 1) * limit.interval_us - count - 1:
                self._broken(f"{what} begins, as the {count + 1}th in {now - start} us under {limit.describe()}.")
        if len(starts) < STARTS_LOOKED_AT and now - self._since_us < len(starts) * limit.interval_us - len(starts):
            self._broken(f"{what} begins too early after a restart for {limit.describe()}.")

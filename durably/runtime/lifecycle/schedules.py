"""`Schedules`: the clock calls handlers (`@cron`). A tick is a message, and the schedule moves on in its transition.

What a schedule has delivered is a durable row: its position, and the spans of ticks that it has delivered. The tick and
the new row are one transition, so no tick is delivered twice and none is lost even if the process or the store fails in
between. The spans hold where the position cannot, when the wall clock is set back, however often and however far. The
idempotency key of the tick says the same to those who look from outside. A schedule begins when a runtime first has it
in its code, and ends when it has it no longer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import msgspec

from durably.actors.cron import TICK_HEADER, CronSchedule, datetime_of, tick_key
from durably.actors.definition.arguments import NO_ARGUMENTS
from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.errors import StoreUnavailableError, UnknownTargetError
from durably.ids import Entropy, KeyScope, new_identity, run_scope
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import SCHEDULES
from durably.storage.store import Store

LOOK_AGAIN_US = 3_600_000_000
"""How long a wall clock that ran ahead and was corrected can keep a schedule waiting."""
SET_BACK_US = 60_000_000
"""A position that lies further ahead of the wall clock shows that it was set back."""
KEPT_US = 86_400_000_000
"""The outcome of a tick is kept at least so long: its key keeps a clock that is set back from giving the tick twice."""


SPANS_KEPT = 32
"""How many spans of delivered ticks a schedule remembers, besides those that lie ahead of it."""


class ScheduleStatus(StrEnum):
    """Where a schedule stands. The store keeps the name."""

    ON = "on"
    PAUSED = "paused"
    """No tick is delivered. When it is resumed, those that passed meanwhile have been missed."""
    CANCELLED = "cancelled"
    """No tick is delivered, and those that pass are lost."""


class Span(NamedTuple):
    """Every tick of the schedule from the first to the last has been delivered."""

    first: int
    last: int


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps of a schedule."""

    expression: str
    zone: str
    position: int
    """Ticks up to here are dealt with."""
    reached: int = 0
    """Where the position was before a wall clock that had run ahead was corrected, if it was further."""
    status: ScheduleStatus = ScheduleStatus.ON
    last_tick: int | None = None
    last_id: str | None = None
    """The invocation of the last tick."""
    delivered: tuple[Span, ...] = ()
    """What has been delivered, oldest first: more than one span where ticks were left out, or came early by a clock
    that ran ahead. Rows of earlier versions say it from some tick on only.
    """

    def has_delivered(self, tick: int) -> bool:
        return any(span.first <= tick <= span.last for span in self.delivered)

    def delivers(self, tick: int, declared: CronSchedule) -> tuple[Span, ...]:
        """The spans with one more tick in them."""
        spans = sorted([*self.delivered, Span(tick, tick)])
        joined = [spans[0]]
        for span in spans[1:]:
            if tick in (span.first, joined[-1].last) and declared.next_after(joined[-1].last) == span.first:
                joined[-1] = Span(joined[-1].first, span.last)
            else:
                joined.append(span)
        past = sum(span.last <= self.position for span in joined)
        if past > SPANS_KEPT:  # Ticks that were left out so long ago are not delivered any more.
            joined[: past - SPANS_KEPT + 1] = [Span(joined[0].first, joined[past - SPANS_KEPT].last)]
        return tuple(joined)

    def back_to(self, moment: int) -> ScheduleRow:
        """The wall clock was set back. Ticks that were delivered after this moment are known by their keys."""
        return msgspec.structs.replace(self, position=moment, reached=max(self.reached, self.position))

    def undelivered_after(self, now: int) -> int:
        """Each tick after this moment can be delivered: if it has been already, its key still says so."""
        return max(self.position, min(self.reached, now - KEPT_US))


class Scheduled:
    """A schedule in memory."""

    def __init__(self, handler: BoundActorHandler, declared: CronSchedule) -> None:
        self.handler = handler
        self.declared = declared
        self.name = schedule_name(handler.service, declared.key, handler.name)
        self.row = ScheduleRow(expression="", zone="", position=0)
        self.next_tick: int | None = None
        """None: none comes, or it is not on."""
        self.ticks: deque[int] = deque()
        """What is being delivered."""
        self.looked_at = 0
        """When it was last looked at, on the monotonic clock."""

    def take(self, row: ScheduleRow) -> None:
        self.row = row
        self.next_tick = self.declared.next_after(row.position) if row.status is ScheduleStatus.ON else None

    def is_same(self, row: ScheduleRow) -> bool:
        """It is that schedule still, in today's code."""
        return (row.expression, row.zone) == (self.declared.expression, self.declared.zone)


class Schedules:
    """The schedules of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        acceptance: Acceptance,
        actors: Mapping[str, BoundActor],
        background: Background,
        clock: Clock,
        committer: Committer,
        entropy: Entropy,
        has_rows: bool,
        idleness: Idleness,
        observer: Observer,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        store: Store,
        targets: Targets,
    ) -> None:
        """`has_rows`: the store knows schedules, be they of today's code or not."""
        self._incarnation = incarnation
        self._acceptance = acceptance
        self._background = background
        self._clock = clock
        self._committer = committer
        self._entropy = entropy
        self._has_rows = has_rows
        self._host = asyncio.get_running_loop()
        self._idleness = idleness
        self._observer = observer
        self._ready = ready
        self._registry = registry
        self._store = store
        self._targets = targets
        self._scheduled = {one.name: one for one in _declared(actors.values())}
        self._taken_over: asyncio.Future[None] = self._host.create_future()
        self._timer: Cancellable | None = None
        idleness.add(self._is_idle)

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        if self._scheduled or self._has_rows:
            self._background.spawn(self._take_over())
        else:
            self._taken_over.set_result(None)

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._taken_over.done():
            self._taken_over.set_exception(StoreUnavailableError("The store failed. Ask for the schedules again."))
            self._taken_over.exception()  # There may be none who waits.

    async def known(self) -> list[Scheduled]:
        """All of them, once the store has told where they stand."""
        await asyncio.shield(self._taken_over)
        return [*self._scheduled.values()]

    async def set_status(self, name: str, status: ScheduleStatus) -> bool:
        """Turn a schedule on or off; whether that changed anything.

        Raises:
            UnknownTargetError: there is none of this name.
        """
        await asyncio.shield(self._taken_over)
        one = self._scheduled.get(name)
        if one is None:
            known = sorted(self._scheduled)
            there = f"There are: {', '.join(known)}." if known else "There are none."
            raise UnknownTargetError(f"There is no schedule {name!r}. {there}", known=known)
        was = one.row.status
        if was is status:
            return False
        is_anew = was is ScheduleStatus.CANCELLED
        one.ticks.clear()
        if is_anew:
            one.take(one.row.back_to(self._clock.now()))
        self._keep(self._committer.begin(), one, status=status)
        self._look()
        self._ready.schedule()
        return True

    async def _take_over(self) -> None:
        """Compare what the store knows with today's code."""
        (stored,) = await self._store.load([SCHEDULES], pending_limit=0)
        if self._incarnation.dead:
            return
        now = self._clock.now()
        rows = {name: row for name, value in stored.state.items() if (row := self._read(name, value)) is not None}
        transition = self._committer.begin()
        for name in stored.state:
            if name not in self._scheduled:
                transition.keep_schedule(name, None)
                self._observer.schedule_gone(name)
        for one in self._scheduled.values():
            one.looked_at = self._clock.monotonic()
            row = rows.get(one.name)
            if row is not None and one.is_same(row):
                one.take(row)
                continue
            # What its last expression has missed is no tick of this one.
            declared = one.declared
            is_paused = row is not None and row.status is ScheduleStatus.PAUSED
            status = ScheduleStatus.PAUSED if is_paused else ScheduleStatus.ON
            one.row = ScheduleRow(expression=declared.expression, zone=declared.zone, position=now)
            self._keep(transition, one, status=status)
            self._observer.schedule_begins(one.name, _shown(one.next_tick))
        self._taken_over.set_result(None)
        self._ready.schedule()
        self._look()

    def _read(self, name: str, value: bytes) -> ScheduleRow | None:
        try:
            return schedule_row(value)
        except ValueError as error:  # Rule L5: it begins anew.
            self._observer.schedule_unreadable(name, error)
            return None

    def _is_idle(self) -> bool:
        return not any(one.ticks for one in self._scheduled.values())

    # ------------------------------------------------------------------ ticks

    def _look(self) -> None:  # Rule T6
        """Deliver what is due, and wind the timer for what comes next."""
        if self._incarnation.dead or self._incarnation.stopping:  # Rule T4
            return
        for one in self._scheduled.values():
            if one.row.status is ScheduleStatus.ON and not one.ticks:
                self._look_at(one)
        self._wind()

    def _look_at(self, one: Scheduled) -> None:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        last_look = now - (monotonic - one.looked_at)
        one.looked_at = monotonic
        if one.row.position > now + SET_BACK_US:
            # By this clock nothing has been looked for since the last look.
            one.take(one.row.back_to(last_look))
        if one.next_tick is None or one.next_tick > now:
            return
        one.ticks.extend(one.declared.to_deliver(one.row.undelivered_after(now), now))
        first = one.ticks[0] if one.ticks else None
        if first is None or first > one.next_tick:
            self._observer.ticks_missed(one.name, _shown(one.row.position), _shown(now if first is None else first))
        if first is None:
            one.take(msgspec.structs.replace(one.row, position=now))
        else:
            self._deliver_next(one)

    def _deliver_next(self, one: Scheduled) -> None:
        """Rule L3: ask for the key, then decide in the same callback."""
        tick = one.ticks[0]
        self._registry.by_key(self._scope(one, tick), partial(self._deliver, one, tick))

    def _deliver(self, one: Scheduled, tick: int, found: Found) -> None:
        """The tick becomes an invocation, unless its key has one, and the schedule moves on."""
        if not one.ticks or one.ticks[0] != tick:  # It was turned off meanwhile.
            return
        # Rule T4: the next runtime finds it due. Rule T6: so does this one, if the clock has been set back meanwhile.
        if self._incarnation.stopping or tick > self._clock.now():
            one.ticks.clear()
            self._idleness.changed()
            self._host.call_soon(self._look)
            return
        transition = self._committer.begin()
        has_come, delivered = one.row.has_delivered(tick), one.row.delivered
        if not has_come:
            delivered = one.row.delivers(tick, one.declared)
        if found is not None or not has_come:
            id = self._accept(transition, one, tick) if found is None else found.id
            self._keep(transition, one, position=tick, last_tick=tick, last_id=id, delivered=delivered)
        else:  # Its outcome is no longer kept.
            self._keep(transition, one, position=tick)
        one.ticks.popleft()
        if one.ticks:
            self._host.call_soon(self._deliver_rest, one)
        else:
            self._host.call_soon(self._look)
        self._ready.schedule()

    def _deliver_rest(self, one: Scheduled) -> None:
        if not self._incarnation.dead:
            self._deliver_next(one)

    def _accept(self, transition: Transition, one: Scheduled, tick: int) -> str:
        handler, scope = one.handler, self._scope(one, tick)
        key = scope.key or None
        id, seed = new_identity(self._entropy, handler.service, key)
        headers = {TICK_HEADER: datetime_of(tick).isoformat()}
        kept_us = max(self._targets.retention_us(handler), KEPT_US)
        message = Message(handler, key, NO_ARGUMENTS, id, seed, headers, None, scope, None, kept_us)
        self._acceptance.accept(transition, message)
        return id

    def _scope(self, one: Scheduled, tick: int) -> KeyScope:
        handler, key = one.handler, tick_key(one.handler.name, tick)
        if handler.kind == "workflow":
            return run_scope(handler.service, key)
        return KeyScope(handler.service, one.declared.key or "", handler.name, key)

    def _keep(self, transition: Transition, one: Scheduled, **changes: object) -> None:
        one.take(msgspec.structs.replace(one.row, **changes))
        transition.keep_schedule(one.name, msgspec.json.encode(one.row))

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        coming = [one.next_tick for one in self._scheduled.values() if one.next_tick is not None and not one.ticks]
        if coming:
            # It may ring early by a clock that was set back meanwhile (rule T1), and is wound again then.
            self._timer = self._clock.call_at(min(min(coming), self._clock.now() + LOOK_AGAIN_US), self._look)


def schedule_name(service: str, key: str | None, handler: str) -> str:
    """What a schedule is called, in the store too. A name of a service or a handler has no slash in it."""
    return f"{service}/{handler}" if key is None else f"{service}/{key}/{handler}"


def schedule_row(value: bytes) -> ScheduleRow:
    """
    Raises:
        ValueError: it is damaged; says how.
    """
    return msgspec.json.decode(value, type=ScheduleRow)


def _declared(actors: Iterable[BoundActor]) -> list[Scheduled]:
    handlers = [handler for actor in actors for handler in actor.handlers.values()]
    return [Scheduled(handler, schedule) for handler in handlers for schedule in handler.schedules]


def _shown(moment: int | None) -> str | None:
    return None if moment is None else datetime_of(moment).isoformat()

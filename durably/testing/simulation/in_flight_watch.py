"""`InFlightWatch`: how many messages of a subscription or a feed are under way (guarantee 25), watched from outside.

What waits or runs is counted on the disk at each commit, those behind a paused invocation left out (rules P2, P7).
Where as many are under way as may be, nothing is added; and where there is room, and nothing happens, nothing waits to
be added. Both hold over restarts, since the disk does not know of them. When a person lets a paused invocation go on,
what waits behind it counts again, and what was read before that may still come: one portion is excused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from durably.actors.definition.binding import BoundActorHandler
from durably.ids import Address, InvocationStatus
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.subscriptions import SubscriptionRow, SubscriptionStatus, is_fed, subscription_name
from durably.sources import Feed
from durably.storage.memory import Disk
from durably.storage.records import Batch, EventRecord, InvocationRecord

Broken = Callable[[str], None]


class Fed(NamedTuple):
    """A subscription or a feed, and how many messages of it may be under way."""

    name: str
    handler: BoundActorHandler
    most: int
    is_source: bool


class Taken(NamedTuple):
    """A record of a source that became a message, and where in the log it did."""

    source: str
    id: str
    position: int


class InFlightWatch:
    """Watches one run, and calls `broken` with a sentence about what is wrong."""

    def __init__(self, disk: Disk, broken: Broken) -> None:
        self._disk = disk
        self._broken = broken
        self._fed: list[Fed] = []
        self._young: list[Taken] = []
        """What may not be durable."""
        self._of_source: dict[str, set[str]] = {}
        """The ids of a feed's own messages. Its handler may have others, which it does not count."""
        self._held_up: set[Address] = set()
        """Where something is paused."""
        self._pausing: dict[Address, int] = {}
        """The same of pauses that may not be durable, with their positions."""
        self._is_excused: set[str] = set()

    # ------------------------------------------------------------------ what the machine tells

    def process_begins(
        self,
        handlers: Iterable[BoundActorHandler],
        events_in_flight: int,
        feeds: Iterable[tuple[Feed, BoundActorHandler]],
    ) -> None:
        """Other code may run, under other limits."""
        self._fed = [Fed(subscription_name(one), one, events_in_flight, False) for one in handlers if is_fed(one)]
        self._fed += [Fed(feed.name, handler, feed.in_flight, True) for feed, handler in feeds]

    def incarnation_begins(self) -> None:
        """What was not durable has not happened. It counts anew, so that nothing is excused."""
        self._young.clear()
        self._pausing.clear()
        self._is_excused.clear()

    def taken(self, source: str, id: str, position: int) -> None:
        """A record becomes a message, in the log of the machine."""
        self._young.append(Taken(source, id, position))

    def paused(self, invocation: InvocationRun) -> None:
        """It waits for a person, in the log of the machine."""
        if self._fed:
            self._pausing[invocation.address] = invocation.position

    # ------------------------------------------------------------------ what is on the disk

    def committed(self, batch: Batch) -> None:
        """A batch is on the disk."""
        if not self._fed:
            return
        for taken in self._young:
            if taken.position <= batch.last_position:
                self._of_source.setdefault(taken.source, set()).add(taken.id)
        self._young = [taken for taken in self._young if taken.position > batch.last_position]
        before = self._held_up | {at for at, position in self._pausing.items() if position <= batch.last_position}
        self._pausing = {at: position for at, position in self._pausing.items() if position > batch.last_position}
        services = {one.handler.service for one in self._fed}
        held_up = self._held_up = {
            at for at in self._disk.unfinished if at.service in services and self._is_held_up(at)
        }
        let_go = {at.service for at in before - held_up}
        new = {record.number for record in batch.accepted}
        for one in self._fed:
            if one.handler.service in let_go or (batch.events_forgotten and not one.is_source):  # A dead letter again.
                self._is_excused.add(one.name)
            under_way = [record.number for record in self._under_way(one, is_own=True)]
            if not new.isdisjoint(under_way):
                self._check(one, len(under_way), len(new.intersection(under_way)))

    def _check(self, one: Fed, under_way: int, new: int) -> None:
        is_too_many = under_way - new >= one.most if one.is_source else under_way > one.most
        if is_too_many and one.name not in self._is_excused:
            self._broken(
                f"{one.name} has {under_way} messages under way, {new} of them new, and may have {one.most}"
                f"{' before it is read on' if one.is_source else ''}."
            )
        self._is_excused.discard(one.name)

    def at_rest(
        self, events: Iterable[EventRecord], rows: Mapping[str, SubscriptionRow], waiting_for_room: Iterable[str]
    ) -> None:
        """Nothing happens. `rows` are those of subscriptions; `waiting_for_room` are feeds that say so."""
        last: dict[str, int] = {}
        for event in events:
            last[event.stream] = max(event.position, last.get(event.stream, 0))
        waiting = set(waiting_for_room)
        for one in self._fed:
            row = None if one.is_source else rows.get(one.name)
            is_behind = row is not None and row.position < last.get(row.stream, 0)
            is_on = row is not None and row.status is SubscriptionStatus.ON
            if not (one.name in waiting if one.is_source else is_behind and is_on):
                continue
            under_way = sum(1 for _ in self._under_way(one, is_own=False))
            if under_way < one.most:
                self._broken(
                    f"{one.name} has {under_way} messages under way and may have {one.most}, and stands still with "
                    "more to come."
                )

    def _under_way(self, one: Fed, *, is_own: bool) -> Iterator[InvocationRecord]:
        """Its messages that count; not `is_own`: all that may be its."""
        own = self._of_source.get(one.name, ()) if one.is_source and is_own else None
        for address, numbers in self._disk.unfinished.items():
            if address.service != one.handler.service or address in self._held_up:
                continue
            for record in (self._disk.rows[number].record for number in numbers):
                if record.handler == one.handler.name and _counts(record) and (own is None or record.id in own):
                    yield record

    def _is_held_up(self, address: Address) -> bool:
        records = (self._disk.rows[number].record for number in self._disk.unfinished[address])
        is_service = any(one.handler.kind == "service" for one in self._fed if one.handler.service == address.service)
        return any(
            record.status is InvocationStatus.PAUSED and (is_service or record.mailbox_position is not None)
            for record in records
        )


def _counts(record: InvocationRecord) -> bool:
    """A message as events and records become them, which has not ended."""
    is_open = record.status not in (InvocationStatus.SCHEDULED, InvocationStatus.COMPLETED)
    return is_open and record.is_from_outside and record.scope is None and record.keep_outcome_us is None

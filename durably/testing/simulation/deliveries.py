"""`DeliveryWatch`: what subscriptions to events promise (guarantee 23), watched from outside.

It knows from the machine's log which events were delivered, and from the disk what was published and where each
subscription stands. When one has moved on, each event in between that it wants has been delivered, once and in order,
in that very batch; and no event is forgotten that a subscription has not come to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from durably.actors.definition.binding import BoundActorHandler
from durably.runtime.lifecycle.subscriptions import SubscriptionRow, is_fed, subscription_name
from durably.storage.records import SUBSCRIPTIONS, Batch, EventRecord

Broken = Callable[[str], None]


class Delivered(NamedTuple):
    """An event that became a message, or a dead letter, and where in the log it did."""

    event: int
    position: int


class DeliveryWatch:
    """Watches one run. `broken` is told what is wrong."""

    def __init__(self, broken: Broken) -> None:
        self._broken = broken
        self._events: dict[int, EventRecord] = {}
        """On the disk, by position."""
        self._rows: dict[str, SubscriptionRow] = {}
        """Where subscriptions stand on the disk."""
        self._young: dict[str, list[Delivered]] = {}
        """What was delivered, and may not be durable."""

    @property
    def rows(self) -> Mapping[str, SubscriptionRow]:
        """Where subscriptions stand on the disk, by name."""
        return self._rows

    def delivered(self, subscription: str, event: int, position: int) -> None:
        """An event becomes a message of a subscription, in the log of the machine."""
        self._young.setdefault(subscription, []).append(Delivered(event, position))

    def incarnation_begins(self) -> None:
        """What was not durable has not happened; what was, has been looked at."""
        self._young.clear()

    def committed(self, batch: Batch, handlers: Mapping[tuple[str, str], BoundActorHandler]) -> None:
        """A batch is on the disk; `handlers` are those of the process."""
        moved = {one.field: one.value for one in batch.state if one.address == SUBSCRIPTIONS}
        if not (moved or batch.events or batch.events_forgotten or self._young):
            return
        wanted_by = {subscription_name(one): one for one in handlers.values() if is_fed(one)}
        for name, value in moved.items():
            before = self._rows.get(name)
            if value is None:
                self._rows.pop(name, None)
                continue
            row = self._rows[name] = msgspec.json.decode(value, type=SubscriptionRow)
            if before is not None and before.stream == row.stream and name in wanted_by:
                self._check(name, before.position, row, wanted_by[name], batch.last_position)
        for name, young in self._young.items():
            if any(one.position <= batch.last_position for one in young):
                self._broken(f"events were delivered to {name}, which has not moved past them.")
        for position in batch.events_forgotten:
            event = self._events.pop(position, None)
            if event is not None:
                self._check_forgotten(event)
        self._events.update({one.position: one for one in batch.events})

    def _check(
        self, name: str, before: int, row: SubscriptionRow, handler: BoundActorHandler, last_position: int
    ) -> None:
        declared = handler.subscription
        assert declared is not None
        wanted = [
            one.position
            for one in self._events.values()
            if one.stream == row.stream
            and before < one.position <= row.position
            and declared.wants(one.name)
            and one.at >= row.since
        ]
        young = self._young.pop(name, [])
        given = [one.event for one in young if one.position <= last_position]
        if given != sorted(wanted):
            self._broken(
                f"{name} moved from {before} to {row.position}, past the events {sorted(wanted)}; it was given {given}."
            )
        later = [one for one in young if one.position > last_position]
        if later:
            self._young[name] = later

    def _check_forgotten(self, event: EventRecord) -> None:
        for name, row in self._rows.items():
            if row.stream == event.stream and row.position < event.position:
                self._broken(f"{event.name} ({event.id}) is forgotten, and {name} has not come to it.")

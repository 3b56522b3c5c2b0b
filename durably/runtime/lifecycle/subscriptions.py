"""`Subscriptions`: events become messages, each exactly once for each subscription, in order for each key (rule P2).

Where a subscription stands is a durable row, its position in the log. A transition moves it from one event to a later
one, and accepts a message for each event in between that it wants. So no event is missed and none comes twice, even if
the process or the store fails in between. A subscription that is new begins at the position at which this incarnation
began, before any request was admitted, or with the oldest event that is kept (rule P3). One that the code has no longer
stays for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.event_values import Delivery, decode_stored
from durably.actors.headers import NO_HEADERS
from durably.actors.values.durations import moment_us
from durably.errors import CodecError, EventDeliveryError, InvalidArgumentError, UnencodableError, UnknownTargetError
from durably.ids import Entropy, InvocationStatus, new_identity
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Cancellable, Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck, Receiver
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.dead_letters import DeadLetters, decode_letter
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.in_flight import InFlight, holds_up
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.event_feeds import EventFeeds
from durably.runtime.messaging.events import Events
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.storage.records import (
    LATEST_POSITION,
    DamagedEvent,
    EventAnswer,
    EventQuery,
    EventRecord,
    OpenMessages,
    Unreadable,
    event_part,
)
from durably.storage.store import Store

PORTION = 256
"""So many events are read, and delivered, at a time."""
DETACHED_US = 7 * 86_400_000_000
"""How long the place of a subscription is kept that no class declares any more (rule P3)."""


class SubscriptionStatus(StrEnum):
    """Where a subscription stands. The store keeps the name."""

    ON = "on"
    PAUSED = "paused"
    """No event is delivered. When it is resumed, it goes on where it was."""


class SubscriptionRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps of a subscription."""

    stream: str
    position: int
    """Events up to here are dealt with."""
    since: int = 0
    """Events that were published before this moment are passed over."""
    status: SubscriptionStatus = SubscriptionStatus.ON
    detached_at: int | None = None
    """Since when no class declares it."""
    refused: int | None = None
    """The position of the event that cannot be read, for which it is paused."""
    reason: str | None = None
    """Why it is paused, if the machine has done that."""


class Subscribed:
    """A subscription in memory."""

    def __init__(self, handler: BoundActorHandler, stream: str) -> None:
        """`stream` is the full name."""
        assert handler.subscription is not None
        self.handler = handler
        self.declared = handler.subscription
        self.stream = stream
        self.name = subscription_name(handler)
        self.row = SubscriptionRow(stream=stream, position=0)
        self.in_flight = InFlight()
        self.is_reading = False
        self.is_behind = True
        """There may be events that it has not been given."""

    def is_due(self, most_in_flight: int) -> bool:
        """It has something to read, and room for what that becomes."""
        is_on = self.is_behind and not self.is_reading and self.row.status is SubscriptionStatus.ON
        return is_on and self.in_flight.counted < most_in_flight


class Subscriptions:
    """The subscriptions of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        acceptance: Acceptance,
        activations: Activations,
        actors: Mapping[str, BoundActor],
        background: Background,
        clock: Clock,
        committer: Committer,
        dead_letters: DeadLetters,
        endings: Endings,
        entropy: Entropy,
        events: Events,
        feeds: EventFeeds,
        idleness: Idleness,
        left: Mapping[BoundActorHandler, Sequence[OpenMessages]],
        observer: Observer,
        payloads: PayloadCheck,
        ready: ReadyQueue,
        rows: Mapping[str, bytes],
        settings: Settings,
        shortened: Collection[str],
        store: Store,
    ) -> None:
        """`rows`: what the store keeps of subscriptions, be they of today's code or not. `left`: messages of theirs
        that have not ended. `shortened`: the streams of which events have been forgotten.
        """
        self._incarnation = incarnation
        self._acceptance = acceptance
        self._background = background
        self._clock = clock
        self._committer = committer
        self._dead_letters = dead_letters
        self._entropy = entropy
        self._feeds = feeds
        self._host = asyncio.get_running_loop()
        self._idleness = idleness
        self._observer = observer
        self._payloads = payloads
        self._ready = ready
        self._rows = rows
        self._shortened = shortened
        self._store = store
        self._subscribed = {one.name: one for one in _declared(actors.values(), events)}
        self._of_stream: dict[str, list[Subscribed]] = {}
        for one in self._subscribed.values():
            self._of_stream.setdefault(one.stream, []).append(one)
            one.in_flight.take_over(left.get(one.handler, ()))
        self._forgotten_letters: set[int] = set()
        """Positions of dead letters that a read of the store may still find."""
        self._detached: dict[str, SubscriptionRow] = {}
        """Of those that no class declares any more."""
        self._timer: Cancellable | None = None
        """Rings when one of these goes."""
        self.on_moved: Callable[[str], None] = _no_one_listens
        """Hears that a subscription of a stream has moved on."""
        self._published: dict[str, int] = {}
        """Streams with events that are not durable yet, with the position of the latest."""
        self._of_handler = {one.handler: one for one in self._subscribed.values()}
        self._of_service: dict[str, list[Subscribed]] = {}
        for one in self._subscribed.values():
            self._of_service.setdefault(one.handler.service, []).append(one)
        self._most_in_flight = settings.events_in_flight
        events.on_published = self._note
        endings.on_delivered = self._has_ended
        if self._subscribed:
            committer.on_pause_changed.append(self._has_pause_changed)
            activations.on_queued.append(self._has_queued)
        idleness.add(self._is_idle)

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        """Compare what the store knows with today's code, in the first transition of this incarnation."""
        if not self._subscribed and not self._rows:
            return
        now, began = self._clock.now(), self._committer.position
        stored = {name: row for name, value in self._rows.items() if (row := self._read(name, value)) is not None}
        changed: dict[str, SubscriptionRow] = {}
        for name, row in stored.items():
            if name not in self._subscribed:
                if row.detached_at is None:
                    row = changed[name] = msgspec.structs.replace(row, detached_at=now)
                self._detached[name] = row
        for one in self._subscribed.values():
            row = stored.get(one.name)
            if row is None or row.stream != one.stream:
                row = changed[one.name] = _begun(one, began)
                self._observer.subscription_begins(one.name, str(one.declared.start))
                if one.declared.start == "beginning" and one.stream in self._shortened:
                    self._observer.subscription_begins_late(one.name)
            elif row.detached_at is not None:
                row = changed[one.name] = msgspec.structs.replace(row, detached_at=None)
            one.row = row
        if changed:
            transition = self._committer.begin()
            for name, kept in changed.items():
                transition.keep_subscription(name, msgspec.json.encode(kept))
            self._ready.schedule()
        self._drop_detached()
        self._look()

    def kill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _drop_detached(self) -> None:
        """The places go of those that no class has declared for long (rule P3)."""
        if not self._detached or self._incarnation.dead or self._incarnation.stopping:
            return
        now = self._clock.now()
        for name in [name for name, row in self._detached.items() if _goes_at(row) <= now]:
            stream = self._detached.pop(name).stream
            self._committer.begin().keep_subscription(name, None)
            self._observer.subscription_gone(name)
            self.on_moved(stream)
        self._ready.schedule()
        if self._detached:
            self._timer = self._clock.call_at(min(map(_goes_at, self._detached.values())), self._drop_detached)

    def known(self) -> list[Subscribed]:
        """All of today's code, by name."""
        return [self._subscribed[name] for name in sorted(self._subscribed)]

    def floor(self, stream: str) -> int:
        """Up to which position all subscriptions of a stream are past its events, detached ones included (rule P4)."""
        rows = (*self._detached.values(), *(one.row for one in self._subscribed.values()))
        return min((row.position for row in rows if row.stream == stream), default=LATEST_POSITION)

    def set_status(self, name: str, status: SubscriptionStatus, *, passes_over: bool = False) -> bool:
        """Turn a subscription on or off; whether that changed anything. `passes_over` the event that cannot be read.

        Raises:
            UnknownTargetError: there is none of this name.
        """
        one = self._known(name)
        if one.row.status is status:
            return False
        position = one.row.refused if passes_over and one.row.refused is not None else one.row.position
        self._keep(self._committer.begin(), one, status=status, position=position, refused=None, reason=None)
        self._ready.schedule()
        self._look()
        return True

    def redeliver(self, letter: EventRecord) -> None:
        """A dead letter becomes a message again, behind what waits for its key.

        Raises:
            UnknownTargetError: it has gone already, or its subscription has.
            EventDeliveryError: no object can get it.
        """
        one = self._known(letter.key)
        try:
            stored = decode_letter(letter.value)
        except msgspec.DecodeError as error:  # Rule L5
            raise EventDeliveryError(f"The dead letter {letter.id} is damaged ({error}). Drop it.") from error
        delivery = stored.delivery
        if stored.is_cut:
            raise EventDeliveryError(f"The event of the dead letter {letter.id} was too large to be kept. Drop it.")
        if one.declared.routing is None or not one.declared.wants(delivery.name):
            raise UnknownTargetError(f"{one.name} gets no {delivery.name} any more. Drop the dead letter.")
        key = one.declared.routing.key_of(delivery)
        argument = self._argument(one, key, delivery)
        self._send(self.forget_letter(letter), one, key, argument)

    def forget_letter(self, letter: EventRecord) -> Transition:
        """A dead letter goes.

        Raises:
            UnknownTargetError: it has gone already.
        """
        if letter.position in self._forgotten_letters:
            raise UnknownTargetError(f"There is no dead letter {letter.id} any more.")
        self._forgotten_letters.add(letter.position)
        transition = self._committer.begin()
        transition.forget_event(letter.position)
        self._ready.schedule()
        return transition

    def _known(self, name: str) -> Subscribed:
        one = self._subscribed.get(name)
        if one is None:
            known = sorted(self._subscribed)
            there = f"There are: {', '.join(known)}." if known else "There are none."
            raise UnknownTargetError(f"There is no subscription {name!r}. {there}", known=known)
        return one

    def _read(self, name: str, value: bytes) -> SubscriptionRow | None:
        try:
            return msgspec.json.decode(value, type=SubscriptionRow)
        except ValueError as error:  # Rule L5: it begins anew.
            self._observer.subscription_unreadable(name, error)
            return None

    def _is_idle(self) -> bool:
        return not self._published and not any(
            one.is_reading or (one.is_due(self._most_in_flight) and not self._incarnation.stopping)
            for one in self._subscribed.values()
        )

    # ------------------------------------------------------------------ events

    def _note(self, stream: str) -> None:
        """An event is in the log. It is delivered once it is durable, since it is read from the store."""
        if stream in self._of_stream or self._feeds.wants(stream):
            if stream not in self._published:
                self._host.call_soon(self._wait_for, stream)
            self._published[stream] = self._committer.position

    def _wait_for(self, stream: str) -> None:
        if not self._incarnation.dead:
            self._committer.when_durable(self._arrived, stream)
            self._ready.schedule()

    def _arrived(self, stream: str) -> None:
        if self._committer.durable < self._published[stream]:  # More was published while this was written.
            self._wait_for(stream)
        else:
            del self._published[stream]
        self._feeds.arrived(stream)
        for one in self._of_stream.get(stream, ()):
            one.is_behind = True
        self._look()

    def _look(self) -> None:
        if self._incarnation.dead or self._incarnation.stopping:  # Rule T4
            return
        for one in self._subscribed.values():
            if one.is_due(self._most_in_flight):
                one.is_reading, one.is_behind = True, False
                self._background.spawn(self._ask(one))

    def _portion(self, one: Subscribed) -> int:
        return max(1, min(PORTION, self._most_in_flight - one.in_flight.counted))

    async def _ask(self, one: Subscribed) -> None:
        query = EventQuery(stream=one.stream, after=one.row.position, limit=self._portion(one))
        answer = await self._store.events(query)
        # Back on the host loop, but in a plain callback: deliveries lead to advances.
        self._host.call_soon(self._deliver, one, query, answer)

    def _deliver(self, one: Subscribed, query: EventQuery, answer: EventAnswer) -> None:
        """Its position moves, and what it wants becomes messages, in one transition."""
        if self._incarnation.dead:
            return
        one.is_reading = False
        is_stale = query.after != one.row.position
        if self._incarnation.stopping or is_stale or one.row.status is not SubscriptionStatus.ON:
            one.is_behind = True
        elif answer.last is not None:
            self._take(one, answer)
            one.is_behind = True
        self._ready.schedule()
        self._look()
        self._idleness.changed()

    def _take(self, one: Subscribed, answer: EventAnswer) -> None:
        """Deliver events up to the first that cannot be read, which pauses the subscription (rule L5)."""
        transition, position = self._committer.begin(), answer.last or one.row.position
        damaged = answer.damaged[0] if answer.damaged else None
        for event in answer.events:
            if damaged is not None and event.position > damaged.record.position:
                break
            if one.declared.wants(event.name) and event.at >= one.row.since:
                try:
                    self._deliver_one(transition, one, event)
                    if self._observer.detailed:
                        self._observer.event_delivered(one.name, event, transition.position)
                except (InvalidArgumentError, UnencodableError, CodecError, msgspec.DecodeError) as error:
                    part = event_part(event.id, event.stream, event.key)
                    damaged = DamagedEvent(event, Unreadable(part, str(error)))
                    break
        if damaged is None:
            self._keep(transition, one, position=position)
        else:
            self._pause_before(transition, one, damaged)

    def _pause_before(self, transition: Transition, one: Subscribed, damaged: DamagedEvent) -> None:
        """All before it has been delivered."""
        part, reason, position = damaged.unreadable.part, damaged.unreadable.reason, damaged.record.position
        self._observer.event_unreadable(one.name, part, reason)
        self._keep(
            transition,
            one,
            position=position - 1,
            status=SubscriptionStatus.PAUSED,
            refused=position,
            reason=f"Next is {part}, which cannot be read: {reason}",
        )

    def _deliver_one(self, transition: Transition, one: Subscribed, event: EventRecord) -> None:
        """
        Raises:
            InvalidArgumentError, msgspec.DecodeError: the store tells it as no one has published it.
            UnencodableError, CodecError: the store does not take it as a message.
        """
        routing = one.declared.routing
        if routing is None:
            argument = one.handler.admit(event.value)
            self._check(one, event.key, argument)
            self._send(transition, one, event.key, argument)
            return
        delivery = _delivery(event)
        try:
            key = routing.key_of(delivery)
            argument = self._argument(one, key, delivery)
        except EventDeliveryError as error:  # Rule P4
            self._dead_letters.keep(transition, one.name, delivery, error)
        else:
            self._send(transition, one, key, argument)

    def _argument(self, one: Subscribed, key: str, delivery: Delivery) -> bytes:
        """An event as an argument, which the store takes.

        Raises:
            EventDeliveryError: it is too large.
            CodecError: the codec refuses it.
        """
        argument = msgspec.json.encode(delivery)
        try:
            self._check(one, key, argument)
        except UnencodableError as error:
            raise EventDeliveryError(error.message) from error
        return argument

    def _check(self, one: Subscribed, key: str, argument: bytes) -> None:
        self._payloads.message(Receiver(one.handler.service, key, one.handler.name, NO_HEADERS), argument)

    def _send(self, transition: Transition, one: Subscribed, key: str, argument: bytes) -> None:
        """An event becomes a message, at a position of its own."""
        id, seed = new_identity(self._entropy, one.handler.service, key)
        transition.next_position()
        self._acceptance.accept(transition, Message(one.handler, key, argument, id, seed, {}, None))
        one.in_flight.add(key)

    def _has_ended(self, transition: Transition, invocation: InvocationRun, outcome: Outcome) -> None:
        """A message has: there may be room for another one, and a dead letter to be written (rule P4)."""
        one = self._of_handler.get(invocation.handler)
        if one is None or invocation.caller is not None or invocation.sender_id is not None:
            return
        was_full = one.in_flight.counted >= self._most_in_flight
        one.in_flight.end(invocation.address.key, was_first=invocation.activation.current is invocation)
        if was_full:
            self._host.call_soon(self._look)
        if outcome.failed and one.declared.routing is not None:
            self._dead_letters.has_failed(transition, invocation, one.name, outcome)

    def _has_pause_changed(self, invocation: InvocationRun) -> None:
        """A message of a subscription has paused or goes on, or the invocation that such messages wait behind."""
        for one in self._of_service.get(invocation.address.service, ()):
            if holds_up(invocation, one.handler):
                one.in_flight.pause_changed(invocation)
                self._host.call_soon(self._look)

    def _has_queued(self, invocation: InvocationRun, holder: InvocationRun) -> None:
        """A message waits behind another one, which an earlier incarnation may have paused."""
        one = self._of_handler.get(invocation.handler)
        if one is not None and holder.status is InvocationStatus.PAUSED:
            one.in_flight.pause(invocation.address.key)
            self._host.call_soon(self._look)

    def _keep(self, transition: Transition, one: Subscribed, **changes: object) -> None:
        one.row = msgspec.structs.replace(one.row, **changes)
        transition.keep_subscription(one.name, msgspec.json.encode(one.row))
        self.on_moved(one.stream)


def _no_one_listens(stream: str) -> None:
    raise AssertionError("a subscription moved on before the machine was put together")


def subscription_name(handler: BoundActorHandler) -> str:
    """What its place is kept under (rule P1)."""
    declared = handler.subscription
    if declared is None or declared.name is None:
        return f"{handler.service}/{handler.name}"
    return declared.name if "/" in declared.name else f"{handler.service}/{declared.name}"


def is_fed(handler: BoundActorHandler) -> bool:
    """Whether events become messages to it. Those of a service wait in the mailboxes of a class beside it."""
    return handler.subscription is not None and handler.kind != "service"


def _goes_at(detached: SubscriptionRow) -> int:
    assert detached.detached_at is not None
    return detached.detached_at + DETACHED_US


def _begun(one: Subscribed, now_position: int) -> SubscriptionRow:
    """A new one, as it is declared (rule P3)."""
    start = one.declared.start
    if isinstance(start, datetime):
        return SubscriptionRow(stream=one.stream, position=0, since=moment_us(start))
    return SubscriptionRow(stream=one.stream, position=now_position if start == "now" else 0)


def _delivery(event: EventRecord) -> Delivery:
    """An event as its subscribers get it.

    Raises:
        msgspec.DecodeError: it is damaged.
    """
    stored = decode_stored(event.value)
    return Delivery(
        id=event.id,
        name=event.name,
        version=stored.version,
        stream=event.stream,
        key=event.key,
        at=event.at,
        value=stored.value,
    )


def _declared(actors: Iterable[BoundActor], events: Events) -> list[Subscribed]:
    handlers = (handler for actor in actors for handler in actor.handlers.values() if is_fed(handler))
    return [
        Subscribed(one, events.full_name(one.subscription.stream)) for one in handlers if one.subscription is not None
    ]

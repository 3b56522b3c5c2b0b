"""`Transition`: a set of changes that become durable together, while it is being made. The one way to change anything
durable.

It owns its log position and the way into the open batch, and keeps `changed_at` of every activation that it changes, on
which rule L4 depends. It is filled synchronously, and passed to every function that takes part in it. A function
without a `Transition` among its arguments changes nothing durable, or makes one of its own. No batch is cut before the
callback that makes it has returned (rule X2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec.structs import replace

from durably.actors.migrations import FIRST_STATE_VERSION
from durably.actors.protocol.entries import EntryChanges, is_of_entries
from durably.ids import GOING_FIELD, INTERNAL_FIELDS, STATE_VERSION_FIELD, InvocationStatus
from durably.runtime.execution.step import Undoing
from durably.runtime.invocations.activation import Activation, RecentEntries
from durably.runtime.invocations.signals import outlives
from durably.runtime.invocations.statuses import LEGAL_MOVES, illegal_move
from durably.storage.records import (
    NO_COMMAND,
    SCHEDULES,
    SOURCES,
    STREAMS,
    SUBSCRIPTIONS,
    CallerRecord,
    CompletionRecord,
    EventRecord,
    InvocationRecord,
    KeptJournalRecord,
    OrderRecord,
    PlaceRecord,
    PromiseRecord,
    SignalRecord,
    TimerKind,
    TimerRecord,
)

if TYPE_CHECKING:
    from durably.runtime.commit.open_batch import OpenBatch
    from durably.runtime.execution.step import CodeVersion, Outcome, Step
    from durably.runtime.invocations.invocation import InvocationRun

A = TypeVar("A")

COMPLETED, PAUSED = InvocationStatus.COMPLETED, InvocationStatus.PAUSED
IS_GOING = b"1"


class Log(Protocol):
    """The committer, as a transition sees it."""

    batch: OpenBatch
    on_expiry: Callable[[int], None]
    on_pause_changed: list[Callable[[InvocationRun], None]]
    position: int
    durable: int

    def when_durable(self, callback: Callable[[A], object], argument: A) -> None: ...


class Transition:
    """Its methods are the verbs that records know."""

    __slots__ = ("_batch", "_log", "position")

    def __init__(self, log: Log) -> None:
        """Takes the next position of the log."""
        self._log = log
        self._batch = log.batch
        self.position = log.position = log.position + 1
        log.batch.transitions += 1

    def next_position(self) -> int:
        """A further log position in this transition: for another invocation that it accepts, another answer."""
        log = self._log
        self.position = log.position = log.position + 1
        log.batch.transitions += 1
        return self.position

    # ------------------------------------------------------------------ an invocation's life

    def accept(self, invocation: InvocationRun) -> None:
        """It exists from now on."""
        invocation.activation.changed_at = self.position
        self._batch.accept(invocation)

    def move(self, invocation: InvocationRun, status: InvocationStatus) -> None:
        """Its status, with its attempts, failure and mailbox position as they now are."""
        assert status in LEGAL_MOVES[invocation.status], illegal_move(invocation, status)
        is_pause = status is PAUSED or invocation.status is PAUSED
        invocation.status = status
        invocation.position = invocation.activation.changed_at = self.position
        self._batch.change(invocation)
        if is_pause:
            self._tell_of_pause(invocation)

    def step(
        self,
        invocation: InvocationRun,
        index: int,
        step: Step,
        version: CodeVersion | None = None,
        undoing: Undoing = Undoing.NOTHING,
    ) -> None:
        """Adds a step to the invocation's journal; `version` is the code version, given only where it has changed."""
        invocation.position = invocation.activation.changed_at = self.position
        self._batch.step(invocation.number, index, step, version, undoing)

    def renew(self, invocation: InvocationRun, seed: bytes, argument: bytes) -> None:
        """It goes on in a new execution, under a new number (rule W1): what belonged to the old number goes."""
        running = InvocationStatus.RUNNING
        assert running in LEGAL_MOVES[invocation.status], illegal_move(invocation, running)
        previous = invocation.number
        invocation.number = invocation.position = invocation.activation.changed_at = self.next_position()
        invocation.seed, invocation.argument = seed, argument
        number = invocation.number
        invocation.signals = tuple(replace(one, number=number) for one in invocation.signals if outlives(one))
        was_paused = invocation.status is PAUSED
        invocation.status = running
        self._batch.renew(invocation, previous)
        if was_paused:
            self._tell_of_pause(invocation)

    def end(
        self,
        invocation: InvocationRun,
        outcome: Outcome,
        *,
        expires_at: int | None,
        kept_journal: KeptJournalRecord | None = None,
    ) -> bool:
        """Its outcome. Its row stays until `expires_at`, or goes at once (None, rule X7); its history goes, but for a
        journal that is kept.

        Returns whether a row of it may be in the store, or on its way there.
        """
        ended = COMPLETED
        assert ended in LEGAL_MOVES[invocation.status], illegal_move(invocation, ended)
        invocation.outcome = outcome
        was_paused = invocation.status is PAUSED
        invocation.status = ended
        if was_paused:
            self._tell_of_pause(invocation)
        invocation.expires_at = expires_at
        invocation.activation.changed_at = self.position
        if expires_at is not None:
            self._log.on_expiry(expires_at if kept_journal is None else min(expires_at, kept_journal.expires_at))
        return self._batch.end(invocation, keep=expires_at is not None, kept_journal=kept_journal)

    def _tell_of_pause(self, invocation: InvocationRun) -> None:
        for hear in self._log.on_pause_changed:
            hear(invocation)

    def forget_journal(self, number: int) -> None:
        """A kept journal is wanted no longer."""
        self._batch.forget_journal(number)

    def trim_journal(self, number: int, steps: int, most: int) -> None:
        """Of a journal with so many steps, of what has ended, the last `most` go, and as many completions."""
        self._batch.trim_journal(number, steps, most)

    def fix(self, invocation: InvocationRun, outcome: Outcome, *, expires_at: int | None) -> None:
        """The invocation's outcome is known from now on; what its code still does cannot change it (rule E7)."""
        invocation.fixed, invocation.expires_at = outcome, expires_at
        invocation.position = invocation.activation.changed_at = self.position
        if expires_at is not None:
            self._log.on_expiry(expires_at)
        self._batch.change(invocation)

    def remove(self, number: int) -> None:
        """A kept outcome is wanted no longer."""
        self._batch.remove(number)

    def postpone_expiry(self, record: InvocationRecord, until: int) -> None:
        """A kept outcome, in the store only, is looked at again then; `LEAVING`: what goes with it has begun to go."""
        self._log.on_expiry(until)
        self._batch.postpone_expiry(record, until)

    # ------------------------------------------------------------------ answers

    def answer(self, invocation: InvocationRun, command: int, failed: bool, value: bytes) -> None:
        """The answer to a command of an invocation in memory."""
        invocation.activation.changed_at = position = self.next_position()
        self._batch.complete(CompletionRecord(invocation.number, command, position, failed, value))

    def answer_stored(self, caller: CallerRecord, outcome: Outcome, activation: Activation | None) -> None:
        """The answer to a command of an invocation in the store, which can run from now on (rule T3).

        `activation` is its object's, if that is on its way into memory.
        """
        position = self.next_position()
        if activation is not None:
            activation.changed_at = position
        self._batch.complete(CompletionRecord(caller.number, caller.command, position, outcome.failed, outcome.value))
        self._batch.wake(caller.number)

    def signal(
        self, number: int, name: str, outcome: Outcome, activation: Activation | None, place: int | None = None
    ) -> SignalRecord:
        """Something came for an unfinished invocation by name, and waits until it is taken.

        `activation` is its object's, if that is in memory or on its way; `place` is for what had come before.
        """
        position = self.next_position()
        if activation is not None:
            activation.changed_at = position
        position = position if place is None else place
        signal = SignalRecord(number, position, name, outcome.failed, outcome.value)
        self._batch.signal(signal)
        return signal

    def take_signal(self, invocation: InvocationRun, signal: SignalRecord) -> None:
        """It waits no longer: a command has taken it, or none ever will."""
        invocation.activation.changed_at = self.position
        self._batch.take_signal(signal)

    def wake(self, number: int) -> None:
        """Something has come for an invocation that is in the store only (rule T3)."""
        self._batch.wake(number)

    def attach(self, number: int, caller: CallerRecord) -> None:
        """One more command is answered when the invocation `number` ends."""
        self._batch.attach(number, caller)

    def alias(self, id: str, number: int) -> None:
        """`id` leads to the invocation `number` too (rule C7)."""
        self._batch.alias(id, number)

    # ------------------------------------------------------------------ orders

    def order(self, order: OrderRecord) -> None:
        """An order to another invocation, until it is carried out."""
        self._batch.order(order)

    def order_done(self, position: int) -> None:
        self._batch.order_done(position)

    # ------------------------------------------------------------------ places of limits

    def run_on_place(self, activation: Activation, place: PlaceRecord) -> None:
        """An invocation runs on a place of a limit, or is called by one that does (rule C9)."""
        activation.changed_at = self.position
        self._batch.run_on_place(place)

    def leave_places(self, number: int, *, is_stored: bool) -> None:
        """An invocation runs on no place any more; `is_stored`: a row may say so."""
        self._batch.leave_places(number, is_stored=is_stored)

    # ------------------------------------------------------------------ events

    def publish(self, stream: str, key: str, name: str, id: str, at: int, value: bytes) -> int:
        """An event becomes part of its stream, at a position of its own (rule P1); returns that."""
        position = self.next_position()
        self._batch.publish(EventRecord(position, stream, key, name, id, at, value))
        return position

    def forget_event(self, position: int) -> None:
        """An event is wanted no longer."""
        self._batch.forget_event(position)

    # ------------------------------------------------------------------ timers and state

    def set_timer(self, timer: TimerRecord) -> None:
        self._batch.set_timer(timer)

    def clear_timer(self, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        self._batch.clear_timer(number, kind, command)

    def keep_schedule(self, name: str, row: bytes | None) -> None:
        """Where a schedule stands from now on. None: it is none any more."""
        self._batch.set_state(SCHEDULES, name, row)

    def keep_subscription(self, name: str, row: bytes | None) -> None:
        """Where a subscription stands from now on. None: it is none any more."""
        self._batch.set_state(SUBSCRIPTIONS, name, row)

    def keep_source(self, name: str, row: bytes) -> None:
        """How far a source outside was read from now on."""
        self._batch.set_state(SOURCES, name, row)

    def forgets_until(self, stream: str, position: int) -> None:
        """The events of a stream up to this position are forgotten."""
        self._batch.set_state(STREAMS, stream, b"%d" % position)

    def keep_promise(self, activation: Activation, promise: PromiseRecord) -> None:
        """A promise is completed, or expires at another time."""
        if promise.expires_at is not None:
            self._log.on_expiry(promise.expires_at)
        activation.promises[promise.name] = promise
        activation.changed_at = self.position
        self._batch.keep_promise(promise)

    def expire_object(self, activation: Activation, expires_at: int | None) -> None:
        """When the state of an object goes by itself; None: it stays."""
        activation.changed_at = self.position
        if expires_at is not None:
            self._log.on_expiry(expires_at)
        self._batch.expire_object(activation.address, expires_at)

    def trim_entries(self, activation: Activation, most: int) -> None:
        """So many entries of an object go; from the first of them on no one sees what is left (rules W3, W6)."""
        activation.changed_at = activation.entries_changed_at = self.position
        if not activation.is_being_emptied:
            activation.is_being_emptied = True
            self._batch.set_state(activation.address, GOING_FIELD, IS_GOING)
        self._batch.trim_entries(activation.address, most)

    def vacate(self, activation: Activation) -> None:
        """State, entries and promises of a workflow go (rule W3), or those of an object."""
        activation.changed_at = self.position
        fields = [*activation.snapshot, *INTERNAL_FIELDS]
        self._batch.vacate(activation.address, fields, [*activation.promises])
        activation.recorded_state_version = FIRST_STATE_VERSION
        activation.snapshot.clear()
        activation.state_bytes = 0
        activation.is_being_emptied = False
        activation.promises.clear()
        large = activation.actor.large_fields()
        if large:
            gone = EntryChanges()
            for field in large:
                gone.changed(field).clear()
            self._note_entries(activation, gone)

    def change_state(self, activation: Activation, changes: Mapping[str, bytes | None]) -> None:
        """Changed fields become part of the object's snapshot; changed entries among them are for `change_entries`."""
        snapshot, address, batch = activation.snapshot, activation.address, self._batch
        activation.changed_at = self.position
        keeps_entries = activation.actor.keeps_entries
        for name, value in changes.items():
            if keeps_entries and is_of_entries(name):
                continue
            grown = -len(snapshot.get(name, b""))
            if value is None:
                snapshot.pop(name, None)
            else:
                snapshot[name] = value
                grown += len(value)
            if grown:
                activation.state_bytes += grown
            batch.set_state(address, name, value)
        version = activation.state_version if snapshot else FIRST_STATE_VERSION
        if version != activation.recorded_state_version:
            activation.recorded_state_version = version
            recorded = None if version == FIRST_STATE_VERSION else b"%d" % version
            batch.set_state(address, STATE_VERSION_FIELD, recorded)

    def change_entries(self, activation: Activation, changes: EntryChanges) -> None:
        """Changed entries become part of what the object keeps apart from its snapshot (rule V7)."""
        activation.changed_at = self.position
        for field, changed in changes.fields.items():
            if changed.is_cleared or changed.entries:
                self._batch.change_entries(activation.address, field, changed)
        self._note_entries(activation, changes)

    def _note_entries(self, activation: Activation, changes: EntryChanges) -> None:
        """Reads know of changes that the store may not have yet."""
        activation.entries_changed_at = self.position
        if activation.recent_entries is None:
            activation.recent_entries = RecentEntries()
            self._log.when_durable(partial(_forget_recent, self._log), activation)
        activation.recent_entries.take(changes, self.position, self._log.durable)
        for reader in activation.entry_readers or ():
            reader.changed(changes)


def _forget_recent(log: Log, activation: Activation) -> None:
    """What the store has by now needs no room in memory."""
    recent = activation.recent_entries
    if recent is None:
        return
    if recent.forget(log.durable):
        activation.recent_entries = None
    else:
        log.when_durable(partial(_forget_recent, log), activation)

"""`OpenBatch`: transitions on their way to the store, coalesced as they come. Pure; holds no `await` and no I/O.

What begins and ends within one batch leaves no trace but its effects: an invocation that was accepted and finished here
leaves its outcome (if somebody may come for it) and the state, not its history. Rows are made only when the batch is
cut, from the invocations as they then stand, so that what is coalesced away costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from durably.actors.protocol.entries import FieldChanges
from durably.ids import Address
from durably.runtime.execution.step import Answer, CodeVersion, Step, Undoing, encode_step
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.signals import outlives
from durably.storage.records import (
    LEAVING,
    NO_COMMAND,
    AliasRecord,
    AttachmentRecord,
    Batch,
    CallerRecord,
    CompletionRecord,
    EntriesPortion,
    EntryRecord,
    EventRecord,
    ExecutionRecord,
    FieldKey,
    InvocationRecord,
    InvocationUpdate,
    JournalPortion,
    KeptJournalRecord,
    ObjectExpiryRecord,
    OrderRecord,
    PlaceKey,
    PlaceRecord,
    PromiseRecord,
    SignalKey,
    SignalRecord,
    StateRecord,
    StepRecord,
    TimerKey,
    TimerKind,
    TimerRecord,
)

KEPT_BYTES = 4 * 1024
"""A larger answer stays a record of its own: in a step its bytes take a third more."""
_RECORD_BYTES = 64
"""What a record takes besides its payload, roughly; for the limits only."""


class OpenBatch:
    """The batch that is being filled."""

    __slots__ = (
        "_accepted", "_aliases", "_attachments", "_changed", "_completions", "_ended", "_entries",
        "_entries_trimmed", "_events", "_events_forgotten", "_holds_history", "_journals_trimmed", "_kept",
        "_object_expiries", "_orders", "_orders_done", "_places", "_places_left", "_postponed", "_promises", "_removed",
        "_renewed", "_signals", "_signals_taken", "_state", "_steps", "_timers", "_timers_cleared", "_vacated",
        "_woken", "bytes_held", "heaviest", "heaviest_bytes", "opened_at", "transitions",
    )  # fmt: skip

    def __init__(self) -> None:
        self.transitions = 0
        self.bytes_held = 0
        self.heaviest = ""
        """The id of the invocation of which it holds most at once."""
        self.heaviest_bytes = 0
        self.opened_at: int | None = None
        self._holds_history = False
        """There are steps, completions, timers, attachments or aliases; most batches of calls have none."""
        self._accepted: dict[int, InvocationRun] = {}
        self._renewed: dict[int, tuple[int, InvocationRun]] = {}
        """New executions of stored invocations, with the number that the store knows."""
        self._changed: dict[int, InvocationRun] = {}
        self._postponed: dict[int, InvocationUpdate] = {}
        self._woken: set[int] = set()
        self._ended: set[int] = set()
        self._removed: set[int] = set()
        self._steps: dict[int, list[tuple[int, Step, CodeVersion | None, Undoing]]] = {}
        self._completions: dict[int, list[CompletionRecord]] = {}
        self._timers: dict[int, dict[TimerKey, TimerRecord]] = {}
        self._timers_cleared: set[TimerKey] = set()
        self._attachments: dict[int, list[AttachmentRecord]] = {}
        self._aliases: dict[int, list[AliasRecord]] = {}
        self._signals: dict[int, dict[int, SignalRecord]] = {}
        self._signals_taken: list[SignalKey] = []
        self._state: dict[tuple[Address, str], bytes | None] = {}
        self._entries: dict[Address, dict[str, FieldChanges]] = {}
        self._vacated: dict[Address, None] = {}
        self._entries_trimmed: dict[Address, int] = {}
        self._journals_trimmed: dict[int, int] = {}
        self._promises: dict[tuple[Address, str], PromiseRecord] = {}
        self._orders: dict[int, OrderRecord] = {}
        self._orders_done: list[int] = []
        self._kept: dict[int, KeptJournalRecord] = {}
        self._object_expiries: dict[Address, int | None] = {}
        self._places: dict[int, dict[PlaceKey, PlaceRecord]] = {}
        self._places_left: set[int] = set()
        self._events: dict[int, EventRecord] = {}
        self._events_forgotten: list[int] = []

    def note_weight(self, id: str, size_bytes: int) -> None:
        """So much of it comes from one invocation."""
        if size_bytes > self.heaviest_bytes:
            self.heaviest, self.heaviest_bytes = id, size_bytes

    def accept(self, invocation: InvocationRun) -> None:
        self._accepted[invocation.number] = invocation
        self.bytes_held += _RECORD_BYTES + len(invocation.argument)

    def change(self, invocation: InvocationRun) -> None:
        """Records that the invocation's status, mailbox position, failure or outcome changed."""
        if invocation.number not in self._accepted:
            self._changed[invocation.number] = invocation
            self.bytes_held += _RECORD_BYTES

    def renew(self, invocation: InvocationRun, previous: int) -> None:
        """It goes on under its new number. One that was accepted, or renewed, in this very batch leaves no trace of the
        number that it had meanwhile.
        """
        number = invocation.number
        self.bytes_held += _RECORD_BYTES + len(invocation.argument)
        if self._accepted.pop(previous, None) is not None:
            self._accepted[number] = invocation
        else:
            stored, _ = self._renewed.pop(previous, (previous, invocation))
            self._renewed[number] = (stored, invocation)
            self._changed.pop(previous, None)
            self._changed[number] = invocation
        self._woken.discard(previous)
        signals = self._signals.pop(previous, {})
        self._signals_taken = [(number if one == previous else one, position) for one, position in self._signals_taken]
        attachments, aliases = self._attachments.pop(previous, []), self._aliases.pop(previous, [])
        self._forget_history(previous)
        if attachments:
            self._attachments[number] = [AttachmentRecord(number, attachment.caller) for attachment in attachments]
        if aliases:
            self._aliases[number] = [AliasRecord(alias.id, number) for alias in aliases]
        kept = {signal.position: replace(signal, number=number) for signal in signals.values() if outlives(signal)}
        if kept:
            self._signals[number] = kept

    def end(self, invocation: InvocationRun, *, keep: bool, kept_journal: KeptJournalRecord | None) -> bool:
        """It has its outcome; the row stays only if a caller may still ask for it (rule X7), and so does the journal.

        Returns whether it was accepted in an earlier batch.
        """
        number = invocation.number
        is_earlier = number not in self._accepted
        if not keep:
            self.remove(number)
            return is_earlier
        self.change(invocation)
        if invocation.outcome is not None:
            self.bytes_held += len(invocation.outcome.value)
        if kept_journal is not None:
            self._kept[number] = kept_journal
            self._forget_waits(number)
            return is_earlier
        if is_earlier:
            self._ended.add(number)
        self._forget_history(number)
        return is_earlier

    def forget_journal(self, number: int) -> None:
        """The journal of a stored invocation, which has ended, is wanted no longer."""
        if number not in self._removed:
            if number not in self._accepted:
                self._ended.add(number)
            self._kept.pop(number, None)
            self._journals_trimmed.pop(number, None)
            self._forget_history(number)

    def trim_journal(self, number: int, steps: int, most: int) -> None:
        """A portion of the journal of a stored invocation, which has ended, is wanted no longer."""
        if number not in self._removed:
            self._journals_trimmed[number] = self._journals_trimmed.get(number, 0) + most
            self._kept[number] = KeptJournalRecord(number, LEAVING, max(0, steps - most))
            self.bytes_held += _RECORD_BYTES

    def remove(self, number: int) -> None:
        """Nothing of this invocation is wanted any more. One that was accepted in this very batch leaves no row."""
        if self._accepted.pop(number, None) is None:
            self._removed.add(number)
            self._changed.pop(number, None)
            self._postponed.pop(number, None)
            self._ended.discard(number)
        self._kept.pop(number, None)
        self._journals_trimmed.pop(number, None)
        if self._holds_history:
            self._aliases.pop(number, None)
            self._forget_history(number)

    def step(
        self,
        number: int,
        index: int,
        step: Step,
        version: CodeVersion | None = None,
        undoing: Undoing = Undoing.NOTHING,
    ) -> None:
        self._holds_history = True
        self._steps.setdefault(number, []).append((index, step, version, undoing))
        self.bytes_held += _RECORD_BYTES
        if step.changes is not None:
            self.bytes_held += sum([len(value) for value in step.changes.values() if value is not None])

    def complete(self, completion: CompletionRecord) -> None:
        self._holds_history = True
        self._completions.setdefault(completion.number, []).append(completion)
        self.bytes_held += _RECORD_BYTES + len(completion.value)

    def wake(self, number: int) -> None:
        """It has an answer and is in the store only: from now on it can run (rule T3)."""
        self._woken.add(number)

    def set_timer(self, timer: TimerRecord) -> None:
        key = timer.key
        self._holds_history = True
        self._timers.setdefault(timer.number, {})[key] = timer
        self._timers_cleared.discard(key)
        self.bytes_held += _RECORD_BYTES

    def clear_timer(self, number: int, kind: TimerKind, command: int = NO_COMMAND) -> None:
        """A sleep's timer that was set in this very batch leaves no row (rule C5)."""
        key = (number, kind, command)
        timers = self._timers.get(number)
        set_here = timers is not None and timers.pop(key, None) is not None
        if not set_here or kind is not TimerKind.SLEEP:  # The others are set more than once, so there may be a row.
            self._timers_cleared.add(key)

    def attach(self, number: int, caller: CallerRecord) -> None:
        self._holds_history = True
        self._attachments.setdefault(number, []).append(AttachmentRecord(number, caller))
        self.bytes_held += _RECORD_BYTES

    def alias(self, id: str, number: int) -> None:
        self._holds_history = True
        self._aliases.setdefault(number, []).append(AliasRecord(id, number))
        self.bytes_held += _RECORD_BYTES

    def signal(self, signal: SignalRecord) -> None:
        self._holds_history = True
        self._signals.setdefault(signal.number, {})[signal.position] = signal
        self.bytes_held += _RECORD_BYTES + len(signal.value)

    def take_signal(self, signal: SignalRecord) -> None:
        """One that came in this very batch leaves no row."""
        signals = self._signals.get(signal.number)
        if signals is None or signals.pop(signal.position, None) is None:
            self._signals_taken.append((signal.number, signal.position))

    def order(self, order: OrderRecord) -> None:
        self._orders[order.position] = order
        self.bytes_held += _RECORD_BYTES

    def order_done(self, position: int) -> None:
        """One that was given in this very batch leaves no row."""
        if self._orders.pop(position, None) is None:
            self._orders_done.append(position)

    def run_on_place(self, place: PlaceRecord) -> None:
        self._places.setdefault(place.number, {})[place.order] = place
        self.bytes_held += _RECORD_BYTES

    def leave_places(self, number: int, *, is_stored: bool) -> None:
        """Of one that was accepted in this very batch there is no row."""
        self._places.pop(number, None)
        if is_stored:
            self._places_left.add(number)

    def publish(self, event: EventRecord) -> None:
        self._events[event.position] = event
        self.bytes_held += _RECORD_BYTES + len(event.value)

    def forget_event(self, position: int) -> None:
        self._events_forgotten.append(position)

    def set_state(self, address: Address, field: str, value: bytes | None) -> None:
        self._state[address, field] = value
        self.bytes_held += _RECORD_BYTES + (0 if value is None else len(value))

    def change_entries(self, address: Address, field: str, changes: FieldChanges) -> None:
        held = self._entries.setdefault(address, {}).setdefault(field, FieldChanges())
        if changes.is_cleared:
            held.clear()
        held.entries.update(changes.entries)
        for value in changes.entries.values():
            self.bytes_held += _RECORD_BYTES + (0 if value is None else len(value))

    def expire_object(self, address: Address, expires_at: int | None) -> None:
        """When the state of an object goes; None: it stays."""
        self._object_expiries[address] = expires_at
        self.bytes_held += _RECORD_BYTES

    def postpone_expiry(self, record: InvocationRecord, until: int) -> None:
        if record.number not in self._removed:
            self._postponed[record.number] = InvocationUpdate(
                number=record.number,
                status=record.status,
                mailbox_position=record.mailbox_position,
                attempts=record.attempts,
                failure=record.failure,
                outcome=record.outcome,
                expires_at=until,
            )
            self.bytes_held += _RECORD_BYTES + len(record.outcome or b"")

    def trim_entries(self, address: Address, most: int) -> None:
        self._entries_trimmed[address] = self._entries_trimmed.get(address, 0) + most
        self.bytes_held += _RECORD_BYTES

    def keep_promise(self, promise: PromiseRecord) -> None:
        self._promises[promise.address, promise.name] = promise
        self.bytes_held += _RECORD_BYTES + len(promise.value)

    def vacate(self, address: Address, fields: Sequence[str], promises: Sequence[str]) -> None:
        """State, entries and promises of an object go; these fields and promises are all that have a value."""
        self._entries.pop(address, None)
        self._entries_trimmed.pop(address, None)
        for field in fields:
            self._state.pop((address, field), None)
        for name in promises:
            self._promises.pop((address, name), None)
        self._vacated[address] = None
        self.bytes_held += _RECORD_BYTES

    def cut(self, last_position: int) -> Batch | None:
        """The rows of this batch, or None if everything in it cancelled out."""
        batch = Batch(last_position=last_position)
        if self._renewed:
            batch.renewed = [
                ExecutionRecord(number=number, previous=previous, seed=invocation.seed, argument=invocation.argument)
                for number, (previous, invocation) in self._renewed.items()
            ]
        if self._accepted:
            batch.accepted = [invocation.record() for invocation in self._accepted.values()]
        if self._changed or self._postponed:
            updates = (invocation.update() for invocation in self._changed.values())
            batch.updated = [*(update for update in updates if update is not None), *self._postponed.values()]
        if self._woken or self._removed or self._ended:
            batch.woken, batch.removed, batch.ended = [*self._woken], [*self._removed], [*self._ended]
        if self._state:
            batch.state = [StateRecord(address, field, value) for (address, field), value in self._state.items()]
        if self._holds_history:
            self._cut_history(batch)
        if self._timers_cleared:
            batch.timers_cleared = [*self._timers_cleared]
        if self._vacated or self._promises:
            batch.vacated, batch.promises = [*self._vacated], [*self._promises.values()]
        batch.signals_taken = self._signals_taken
        if self._entries:
            self._cut_entries(batch)
        if self._orders or self._orders_done:
            batch.orders, batch.orders_done = [*self._orders.values()], self._orders_done
        if self._entries_trimmed:
            batch.entries_trimmed = [EntriesPortion(*portion) for portion in self._entries_trimmed.items()]
        if self._kept:
            batch.kept = [*self._kept.values()]
            batch.journals_trimmed = [JournalPortion(*portion) for portion in self._journals_trimmed.items()]
        if self._object_expiries:
            batch.object_expiries = [ObjectExpiryRecord(*expiry) for expiry in self._object_expiries.items()]
        if self._places or self._places_left:
            batch.places = [place for places in self._places.values() for place in places.values()]
            batch.places_left = [*self._places_left]
        if self._events or self._events_forgotten:
            batch.events, batch.events_forgotten = [*self._events.values()], self._events_forgotten
        return batch if self._holds_anything(batch) else None

    def _cut_entries(self, batch: Batch) -> None:
        for address, fields in self._entries.items():
            for field, changes in fields.items():
                if changes.is_cleared:
                    batch.entries_cleared.append(FieldKey(address, field))
                batch.entries += [EntryRecord(address, field, key, value) for key, value in changes.entries.items()]

    def _cut_history(self, batch: Batch) -> None:
        """What belongs to invocations that have not ended."""
        batch.steps = self._step_records()  # Takes answers out of the completions.
        batch.completions = [one for completions in self._completions.values() for one in completions]
        batch.timers = [timer for timers in self._timers.values() for timer in timers.values()]
        batch.attachments = [attachment for attachments in self._attachments.values() for attachment in attachments]
        batch.aliases = [alias for aliases in self._aliases.values() for alias in aliases]
        batch.signals = [signal for signals in self._signals.values() for signal in signals.values()]

    def _step_records(self) -> list[StepRecord]:
        """Steps with the answers that were recorded and taken in within this batch (rule C2); cancels stand apart."""
        records: list[StepRecord] = []
        for number, steps in self._steps.items():
            completions = self._completions.get(number, [])
            for index, step, version, undoing in steps:
                kept: list[Answer] = []
                if completions and step.deliveries:
                    kept = [
                        Answer(one.command, one.failed, one.value)
                        for one in completions
                        if one.command in step.deliveries and one.command >= 0 and len(one.value) <= KEPT_BYTES
                    ]
                if kept:
                    commands = {answer.command for answer in kept}
                    completions = [one for one in completions if one.command not in commands]
                records.append(StepRecord(number, index, encode_step(step, kept, version, undoing)))
            if completions:
                self._completions[number] = completions
            else:
                self._completions.pop(number, None)
        return records

    def _forget_history(self, number: int) -> None:
        self._steps.pop(number, None)
        self._completions.pop(number, None)
        self._forget_waits(number)

    def _forget_waits(self, number: int) -> None:
        self._timers.pop(number, None)
        self._attachments.pop(number, None)
        self._signals.pop(number, None)

    @staticmethod
    def _holds_anything(batch: Batch) -> bool:
        return bool(
            batch.renewed or batch.accepted or batch.updated or batch.removed or batch.ended or batch.steps
            or batch.completions or batch.timers or batch.timers_cleared or batch.attachments or batch.aliases
            or batch.vacated or batch.state or batch.promises or batch.signals or batch.signals_taken
            or batch.orders or batch.orders_done or batch.entries or batch.entries_cleared
            or batch.entries_trimmed or batch.kept
            or batch.object_expiries or batch.places or batch.places_left
            or batch.events or batch.events_forgotten
        )  # fmt: skip

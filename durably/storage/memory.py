"""`MemoryStore`: the specification of a store as a program, in plain dictionaries. Nothing survives the process.

What was committed outlives `close` and `open` of the same `MemoryStore`, so that a test can drop a runtime and start
another one on what is "on disk". A batch that contradicts what is stored is refused whole: the code that made the batch
has a mistake, and the sentence names the record.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from durably.errors import StoreInUseError, StoreUnavailableError
from durably.ids import AWAKEABLE_PREFIX, Address, EntryKey, InvocationStatus, KeyScope
from durably.queries import TableLayout, TableQuery
from durably.storage.ownership import held_sentence, taken_over_sentence
from durably.storage.records import (
    EVER,
    LEAVING,
    MARKER,
    PENDING_BYTES,
    PLAIN_FIELD,
    SCHEDULES,
    SUBSCRIPTIONS,
    AliasRecord,
    AttachmentRecord,
    Batch,
    CompletionRecord,
    EntryAnswer,
    EntryQuery,
    EntryRecord,
    EventAnswer,
    EventQuery,
    EventRecord,
    ExecutionRecord,
    InvocationRecord,
    InvocationUpdate,
    JournalSize,
    KeptJournalRecord,
    MailboxRecord,
    ObjectSummary,
    Opened,
    OpenMessages,
    OrderRecord,
    Owner,
    PlaceKey,
    PlaceRecord,
    PromiseRecord,
    SignalRecord,
    StateRecord,
    StepRecord,
    StoredInvocation,
    StoredObject,
    TimerKind,
    TimerPlace,
    TimerRecord,
    VersionsAnswer,
)
from durably.storage.store import VALUE_LIMIT_BYTES, VERIFIED, check_size

if TYPE_CHECKING:
    from durably.storage.connections import Connection

LOAD_LIMIT_BYTES = 1 << 30
NOT_STARTED = (InvocationStatus.PENDING, InvocationStatus.SCHEDULED, InvocationStatus.COMPLETED)


class ContradictionError(StoreUnavailableError):
    """A batch contradicts what is stored, by a mistake of the program that made it."""


class StoredRow:
    """An invocation with everything that belongs to it."""

    __slots__ = ("attachments", "completions", "kept", "record", "signals", "steps", "timers")

    def __init__(self, record: InvocationRecord) -> None:
        self.record = record
        self.clear()

    def clear(self) -> None:
        """Forget all but the record itself."""
        self.steps: dict[int, StepRecord] = {}
        self.completions: dict[tuple[int, int], CompletionRecord] = {}
        self.timers: dict[tuple[TimerKind, int], TimerRecord] = {}
        self.attachments: dict[tuple[int, int], AttachmentRecord] = {}
        self.signals: dict[int, SignalRecord] = {}
        self.kept: KeptJournalRecord | None = None
        """It has ended, and its journal has not gone."""

    def keep_journal(self, kept: KeptJournalRecord) -> None:
        """It has ended, and its journal stays for a while."""
        self.timers, self.attachments, self.signals, self.kept = {}, {}, {}, kept

    def trim_journal(self, most: int) -> None:
        """The last steps and completions go."""
        for index in sorted(self.steps, reverse=True)[:most]:
            del self.steps[index]
        for place in sorted(self.completions, key=lambda place: place[1], reverse=True)[:most]:
            del self.completions[place]

    @property
    def is_leaving(self) -> bool:
        """Its journal goes a portion at a time."""
        return self.kept is not None and self.kept.expires_at == LEAVING

    def size_bytes(self) -> int:
        """What a load of it has to hold."""
        return (
            len(self.record.argument)
            + sum(len(step.content) for step in self.steps.values())
            + sum(len(completion.value) for completion in self.completions.values())
            + sum(len(signal.value) for signal in self.signals.values())
        )


class StoredEntries:
    """The entries of one field, in order."""

    __slots__ = ("keys", "named", "values")

    def __init__(self) -> None:
        self.values: dict[EntryKey, bytes] = {}
        self.keys: list[EntryKey] = []
        self.named = 0
        """Entries of dictionaries, which are counted."""

    def put(self, key: EntryKey, value: bytes) -> None:
        if key not in self.values:
            insort(self.keys, key)
            self.named += key.name != ""
        self.values[key] = value

    def remove(self, key: EntryKey) -> None:
        if self.values.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]
            self.named -= key.name != ""

    def answer(self, query: EntryQuery) -> EntryAnswer:
        found = [(key, b"" if query.only_keys else self.values[key]) for key in query.keys if key in self.values]
        if query.limit:
            first = 0 if query.after is None else bisect_right(self.keys, query.after)
            end = len(self.keys) if query.before is None else bisect_left(self.keys, query.before)
            if query.is_backward:
                wanted = self.keys[max(first, end - query.limit) : end][::-1]
            else:
                wanted = self.keys[first : min(end, first + query.limit)]
            found += [(key, self.values[key]) for key in wanted]
        return EntryAnswer(entries=found, count=self.named if query.counts else 0)


_numbers = count(1)


class Disk:
    """What is on the imagined disk. Only `apply` changes it: all of a batch, or nothing."""

    def __init__(self) -> None:
        self.epoch = 0
        self.last_position = 0
        self.holder: Owner | None = None
        self.rows: dict[int, StoredRow] = {}
        self.state: dict[Address, dict[str, bytes]] = {}
        self.promises: dict[Address, dict[str, PromiseRecord]] = {}
        self.aliases: dict[str, int] = {}
        self.orders: dict[int, OrderRecord] = {}
        self.entries: dict[Address, dict[str, StoredEntries]] = {}
        self.object_expiries: dict[Address, int] = {}
        self.places: dict[PlaceKey, PlaceRecord] = {}
        self.events: dict[int, EventRecord] = {}
        self.store_id = f"memory{next(_numbers)}"
        """Tells it from others of this process."""

        # Where to look, so that a load does not walk over everything. Each follows from `rows`.
        self.numbers_by_id: dict[str, int] = {}
        self.numbers_by_scope: dict[KeyScope, int] = {}
        self.unfinished: dict[Address, set[int]] = {}

    # ------------------------------------------------------------ writing

    def apply(self, batch: Batch) -> None:
        """Apply a batch, in the order that `Batch` promises."""
        self._refuse_contradictions(batch)
        for execution in batch.renewed:
            self._renew(execution)
        for number in batch.ended:
            self.rows[number].clear()
        for number in batch.removed:
            self._remove(number)
        for record in batch.accepted:
            self._accept(record)
        for number in batch.woken:
            self._wake(number)
        for update in batch.updated:
            self._update(update)
        for step in batch.steps:
            self.rows[step.number].steps[step.index] = step
        for completion in batch.completions:
            self._complete(completion)
        for number, kind, command in batch.timers_cleared:
            if number in self.rows:
                self.rows[number].timers.pop((kind, command), None)
        for timer in batch.timers:
            self.rows[timer.number].timers[timer.kind, timer.command] = timer
        for attachment in batch.attachments:
            if attachment.number in self.rows:
                key = (attachment.caller.number, attachment.caller.command)
                self.rows[attachment.number].attachments.setdefault(key, attachment)
        for number, position in batch.signals_taken:
            if number in self.rows:
                self.rows[number].signals.pop(position, None)
        for signal in batch.signals:
            row = self.rows.get(signal.number)
            if row is not None and row.record.status is not InvocationStatus.COMPLETED:
                row.signals[signal.position] = signal
        for alias in batch.aliases:
            self.aliases[alias.id] = alias.number
        for address in batch.vacated:
            self.state.pop(address, None)
            self.promises.pop(address, None)
            self.entries.pop(address, None)
        for change in batch.state:
            self._change_state(change)
        for address, field in batch.entries_cleared:
            self._drop_entries(address, field)
        for portion in batch.entries_trimmed:
            self._trim_entries(portion.address, portion.most)
        for entry in batch.entries:
            self._change_entry(entry)
        for promise in batch.promises:
            self.promises.setdefault(promise.address, {})[promise.name] = promise
        for position in batch.orders_done:
            self.orders.pop(position, None)
        for order in batch.orders:
            self.orders[order.position] = order
        for kept in batch.kept:
            self.rows[kept.number].keep_journal(kept)
        for part in batch.journals_trimmed:
            if part.number in self.rows:
                self.rows[part.number].trim_journal(part.most)
        for expiry in batch.object_expiries:
            if expiry.expires_at is None:
                self.object_expiries.pop(expiry.address, None)
            else:
                self.object_expiries[expiry.address] = expiry.expires_at
        for number in batch.places_left:
            for which in [which for which in self.places if which[0] == number]:
                del self.places[which]
        for place in batch.places:
            self.places[place.order] = place
        for position in batch.events_forgotten:
            self.events.pop(position, None)
        for event in batch.events:
            self.events[event.position] = event
        self.last_position = max(self.last_position, batch.last_position)

    def _renew(self, execution: ExecutionRecord) -> None:
        """Rule W1: the old number is gone with all that belongs to it; who waits for the invocation goes on waiting."""
        old = self.rows.pop(execution.previous)
        self._note_status(old.record, finished=True)
        row = StoredRow(
            msgspec.structs.replace(
                old.record, number=execution.number, seed=execution.seed, argument=execution.argument
            )
        )
        for place, attachment in old.attachments.items():
            row.attachments[place] = AttachmentRecord(execution.number, attachment.caller)
        for position, signal in old.signals.items():
            if not signal.name.startswith(AWAKEABLE_PREFIX):
                row.signals[position] = msgspec.structs.replace(signal, number=execution.number)
        self.rows[execution.number] = row
        self.numbers_by_id[row.record.id] = execution.number
        if row.record.scope is not None:
            self.numbers_by_scope[row.record.scope] = execution.number
        self.aliases.update({
            alias: execution.number for alias, number in self.aliases.items() if number == execution.previous
        })  # fmt: skip
        self._note_status(row.record, finished=row.record.status is InvocationStatus.COMPLETED)

    def _remove(self, number: int) -> None:
        record = self.rows.pop(number).record
        del self.numbers_by_id[record.id]
        if record.scope is not None:
            del self.numbers_by_scope[record.scope]
        for alias in [alias for alias, owner in self.aliases.items() if owner == number]:
            del self.aliases[alias]
        self._note_status(record, finished=True)

    def _accept(self, record: InvocationRecord) -> None:
        self.rows[record.number] = StoredRow(record)
        self.numbers_by_id[record.id] = record.number
        if record.scope is not None:
            self.numbers_by_scope[record.scope] = record.number
        self._note_status(record, finished=record.status is InvocationStatus.COMPLETED)

    def _wake(self, number: int) -> None:
        row = self.rows.get(number)
        if row is not None and row.record.status is InvocationStatus.SUSPENDED:
            row.record = msgspec.structs.replace(row.record, status=InvocationStatus.RUNNING)

    def _complete(self, completion: CompletionRecord) -> None:
        """Rule C3: the invocation may no longer wait for it, and only the first answer to a command counts."""
        row = self.rows.get(completion.number)
        if row is not None and all(command != completion.command for _, command in row.completions):
            row.completions[completion.position, completion.command] = completion

    def _update(self, update: InvocationUpdate) -> None:
        row = self.rows[update.number]
        row.record = msgspec.structs.replace(
            row.record,
            status=update.status,
            mailbox_position=update.mailbox_position,
            attempts=update.attempts,
            failure=update.failure,
            outcome=row.record.outcome if update.outcome is None else update.outcome,
            expires_at=update.expires_at,
        )
        self._note_status(row.record, finished=update.status is InvocationStatus.COMPLETED)

    def _note_status(self, record: InvocationRecord, *, finished: bool) -> None:
        numbers = self.unfinished.setdefault(record.address, set())
        if finished:
            numbers.discard(record.number)
        else:
            numbers.add(record.number)
        if not numbers:
            del self.unfinished[record.address]

    def _change_state(self, change: StateRecord) -> None:
        fields = self.state.setdefault(change.address, {})
        if change.value is None:
            fields.pop(change.field, None)
        else:
            fields[change.field] = change.value
        if not fields:
            del self.state[change.address]

    def _change_entry(self, change: EntryRecord) -> None:
        fields = self.entries.setdefault(change.address, {})
        stored = fields.setdefault(change.field, StoredEntries())
        if change.value is None:
            stored.remove(change.key)
        else:
            stored.put(change.key, change.value)
        if not stored.values:
            self._drop_entries(change.address, change.field)

    def _drop_entries(self, address: Address, field: str) -> None:
        fields = self.entries.get(address, {})
        fields.pop(field, None)
        if not fields:
            self.entries.pop(address, None)

    def _trim_entries(self, address: Address, most: int) -> None:
        """The first entries of an object go."""
        fields = self.entries.get(address, {})
        for field in sorted(fields):
            for key in fields[field].keys[:most]:
                fields[field].remove(key)
                most -= 1
            if not fields[field].values:
                self._drop_entries(address, field)

    def _refuse_contradictions(self, batch: Batch) -> None:
        """Every record belongs to an invocation that is there, and none is there already."""
        removed, accepted = set(batch.removed), {record.number for record in batch.accepted}
        forgotten = removed.union(batch.ended)
        began = {execution.number: execution.previous for execution in batch.renewed}
        known = self.rows.keys() - began.values() | began.keys()

        for number, previous in began.items():
            fits = previous in self.rows and number not in self.rows and number not in accepted
            _refuse_unless(fits, "a new execution", previous)
        for number in (*batch.ended, *batch.removed):
            _refuse_unless(number in known, "the end", number)
        for record in batch.accepted:
            clashing = {number for number in self._clashing(record) if _now(number, began) not in removed}
            _refuse_unless(not clashing, "the acceptance", record.number)
        parts: list[StepRecord | InvocationUpdate | TimerRecord | AliasRecord | KeptJournalRecord]
        parts = [*batch.steps, *batch.updated, *batch.timers, *batch.aliases, *batch.kept]
        for part in parts:
            exists = part.number in accepted or (part.number in known and part.number not in removed)
            _refuse_unless(exists, f"a record ({type(part).__name__})", part.number)
        for step in batch.steps:
            repeated = (
                step.number not in forgotten and step.number in self.rows and step.index in self.rows[step.number].steps
            )
            _refuse_unless(not repeated, "a second record (StepRecord)", step.number)
        for alias in batch.aliases:
            holder = self.aliases.get(alias.id)
            _refuse_unless(holder is None or _now(holder, began) in removed, "an alias", alias.number)

    def _clashing(self, record: InvocationRecord) -> set[int]:
        """Stored invocations that have the number, the id or the idempotency key of this one."""
        by_scope = self.numbers_by_scope.get(record.scope) if record.scope is not None else None
        found = (record.number if record.number in self.rows else None, self.numbers_by_id.get(record.id), by_scope)
        return {number for number in found if number is not None}

    # ------------------------------------------------------------ reading

    def records(self) -> Iterable[InvocationRecord]:
        """All invocations by number."""
        return (self.rows[number].record for number in sorted(self.rows))

    def load(self, address: Address, pending_limit: int, limit_bytes: int) -> StoredObject:
        rows = [self.rows[number] for number in sorted(self.unfinished.get(address, ()))]
        pending = sorted(
            (row for row in rows if waits_in_mailbox(row.record)), key=lambda row: mailbox_order(row.record)
        )
        started = [
            row for row in rows
            if not waits_in_mailbox(row.record) and row.record.status is not InvocationStatus.SCHEDULED
        ]  # fmt: skip
        head = list(_bounded(pending[:pending_limit]))
        state = self.state.get(address, {})
        promises = self.promises.get(address, {})
        state_bytes = sum(map(len, state.values())) + sum(len(promise.value) for promise in promises.values())
        is_left_out = state_bytes > limit_bytes
        return StoredObject(
            address=address,
            state={} if is_left_out else dict(state),
            started=[self.journal(row, limit_bytes) for row in started],
            pending=[self.journal(row, limit_bytes) for row in head],
            pending_beyond=len(pending) - len(head),
            promises=[] if is_left_out else [promises[name] for name in sorted(promises)],
            left_out_bytes=state_bytes if is_left_out else None,
        )

    def answer(self, query: EntryQuery) -> EntryAnswer:
        """What it has of entries."""
        stored = self.entries.get(query.address, {}).get(query.field)
        return EntryAnswer() if stored is None else stored.answer(query)

    def published(self, query: EventQuery) -> EventAnswer:
        """What it has of events."""
        found = [
            event
            for position, event in self.events.items()
            if event.stream == query.stream
            and query.after < position < query.before
            and query.key in (None, event.key)
            and query.id in (None, event.id)
        ]
        found.sort(key=lambda event: event.position, reverse=query.is_backward)
        return EventAnswer(found[: query.limit])

    def journal(self, row: StoredRow, limit_bytes: int) -> StoredInvocation:
        size_bytes = row.size_bytes()
        is_left_out = size_bytes > limit_bytes
        return StoredInvocation(
            record=msgspec.structs.replace(row.record, argument=b"") if is_left_out else row.record,
            steps=[] if is_left_out else [row.steps[index] for index in sorted(row.steps)],
            completions=[] if is_left_out else [row.completions[place] for place in sorted(row.completions)],
            attachments=[row.attachments[caller] for caller in sorted(row.attachments)],
            sender_unfinished=self.is_unfinished(row.record.sender_id),
            left_out_bytes=size_bytes if is_left_out else None,
            signals=[] if is_left_out else [row.signals[position] for position in sorted(row.signals)],
        )

    def summary(self, address: Address) -> ObjectSummary:
        records = [self.rows[number].record for number in self.unfinished.get(address, ())]
        waiting = sum(map(waits_in_mailbox, records))
        scheduled = sum(record.status is InvocationStatus.SCHEDULED for record in records)
        state_bytes = sum(map(len, self.state.get(address, {}).values()))
        return ObjectSummary(address.key, state_bytes, waiting, len(records) - waiting - scheduled)

    def is_unfinished(self, invocation_id: str | None) -> bool:
        number = self.numbers_by_id.get(invocation_id) if invocation_id is not None else None
        return number is not None and self.rows[number].record.status is not InvocationStatus.COMPLETED

    def find(self, invocation_id: str) -> InvocationRecord | None:
        number = self.numbers_by_id.get(invocation_id, self.aliases.get(invocation_id))
        return None if number is None else self.rows[number].record

    def can_run(self, record: InvocationRecord) -> bool:
        """Rule T3, as far as the store can tell."""
        if record.status is InvocationStatus.RUNNING or is_outside_mailboxes(record):
            return True
        if not waits_in_mailbox(record):
            return False
        others = [self.rows[number].record for number in self.unfinished[record.address] if number != record.number]
        return not any(
            holds_mailbox(other) or (waits_in_mailbox(other) and mailbox_order(other) < mailbox_order(record))
            for other in others
        )

    def is_held_up(self, record: InvocationRecord) -> bool:
        """It may wait in a circle (rule E4): only other invocations can wake it, and others wait for it."""
        row = self.rows[record.number]
        if record.status is not InvocationStatus.SUSPENDED or any(kind is TimerKind.SLEEP for kind, _ in row.timers):
            return False
        if row.attachments or record.mailbox_position is None:
            return bool(row.attachments)
        queued = (self.rows[number] for number in self.unfinished[record.address])
        return any(
            waits_in_mailbox(one.record) and (one.record.caller is not None or one.attachments) for one in queued
        )


def _is_open_message(record: InvocationRecord) -> bool:
    is_open = record.status not in (InvocationStatus.SCHEDULED, InvocationStatus.COMPLETED)
    return is_open and record.is_from_outside and record.scope is None and record.keep_outcome_us is None


def _now(number: int, began: Mapping[int, int]) -> int:
    """The number under which a stored invocation goes on."""
    return next((later for later, previous in began.items() if previous == number), number)


def waits_in_mailbox(record: InvocationRecord) -> bool:
    """Has a place in the mailbox of its object, and has not started."""
    return record.status is InvocationStatus.PENDING and record.mailbox_position is not None


def is_outside_mailboxes(record: InvocationRecord) -> bool:
    """Has not started, and no mailbox holds it up: it waits for a limit (rule C9)."""
    return record.status is InvocationStatus.PENDING and record.mailbox_position is None


def holds_mailbox(record: InvocationRecord) -> bool:
    """Nothing else in the mailbox of its object may start."""
    return record.mailbox_position is not None and record.status not in NOT_STARTED


def _bounded(pending: Iterable[StoredRow]) -> Iterator[StoredRow]:
    """The first of these messages, up to a number of bytes."""
    held = 0
    for row in pending:
        if held >= PENDING_BYTES:
            return
        yield row
        held += len(row.record.argument)


def mailbox_order(record: InvocationRecord) -> int:
    assert record.mailbox_position is not None
    return record.mailbox_position


def _refuse_unless(condition: bool, what: str, number: int) -> None:
    if not condition:
        raise ContradictionError(
            f"The batch was refused: {what} of invocation {number} contradicts what is stored. "
            "This is a mistake of the program that made the batch; please report it."
        )


class MemoryStore:
    """Keeps everything in memory. For tests, for trying things out, and as the specification of every other store."""

    def __init__(
        self,
        disk: Disk | None = None,
        *,
        load_limit_bytes: int = LOAD_LIMIT_BYTES,
        value_limit_bytes: int = VALUE_LIMIT_BYTES,
    ) -> None:
        """What holds more than `load_limit_bytes` is not loaded: an invocation with its journal, or a snapshot.

        A value of more than `value_limit_bytes` is not stored.
        """
        self.disk = disk if disk is not None else Disk()
        self._load_limit_bytes = load_limit_bytes
        self.value_limit_bytes = value_limit_bytes
        self._owner: Owner | None = None
        self._epoch = 0

    def describe(self) -> str:
        return "memory"

    def congestion(self) -> str | None:
        return None

    async def query_connection(self) -> Connection:
        """As `durably.storage.querying.QueriedStore`."""
        from durably.storage.copies import copied  # It knows of both stores.

        return await copied(self.disk)

    async def open(self, owner: Owner, /) -> Opened:
        holder = self.disk.holder
        if holder is not None and holder != owner:
            raise StoreInUseError(held_sentence(self.describe(), holder))
        if self._owner is not None:
            self._refuse_if_superseded()  # Rule X9: there was no other owner since.
        self.disk.holder = self._owner = owner
        self.disk.epoch += 1
        self._epoch = self.disk.epoch
        is_encoded = any(field != PLAIN_FIELD for field in self.disk.state.get(MARKER, ()))
        has_schedules = bool(self.disk.state.get(SCHEDULES))
        return Opened(
            epoch=self._epoch, last_position=self.disk.last_position, has_schedules=has_schedules,
            has_subscriptions=bool(self.disk.state.get(SUBSCRIPTIONS)), is_encoded=is_encoded,
            has_events=any("/" in one.stream for one in self.disk.events.values()),
            store_id=self.disk.store_id, has_places=bool(self.disk.places),
        )  # fmt: skip

    async def close(self) -> None:
        if self._owner is not None and self._epoch == self.disk.epoch:
            self.disk.holder = None
        self._owner = None

    @property
    def checks_every_value(self) -> bool:
        return False

    def check(self, value: bytes, /) -> None:
        check_size(value, self.value_limit_bytes)

    async def commit(self, batch: Batch, /) -> None:
        disk = self._opened()
        self._refuse_if_superseded()  # Rule X4
        if self.value_limit_bytes < VALUE_LIMIT_BYTES:
            for value in batch.values():
                check_size(value, self.value_limit_bytes)
        disk.apply(batch)

    def verify(self) -> Awaitable[None]:
        self._opened()
        self._refuse_if_superseded()
        return VERIFIED

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        disk = self._opened()
        return [disk.load(address, pending_limit, self._load_limit_bytes) for address in addresses]

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        disk = self._opened()
        return [disk.answer(query) for query in queries]

    async def events(self, query: EventQuery, /) -> EventAnswer:
        return self._opened().published(query)

    async def event_sizes(self) -> list[tuple[str, int]]:
        sizes: dict[str, int] = {}
        for one in self._opened().events.values():
            if "/" in one.stream:
                sizes[one.stream] = sizes.get(one.stream, 0) + len(one.value)
        return [*sizes.items()]

    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        self._opened()

    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        self._opened()
        return None

    async def count_objects(self, query: TableQuery, /) -> int | None:
        self._opened()
        return None

    async def versions(self, table: TableLayout, /, *, after: str, limit: int) -> VersionsAnswer:
        found = sorted(
            (address.key, fields[table.field])
            for address, fields in self._opened().state.items()
            if address.service == table.service and table.field in fields and address.key > after
        )
        return VersionsAnswer(found[:limit], is_all=len(found) <= limit)

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        disk = self._opened()
        found = ((invocation_id, disk.find(invocation_id)) for invocation_id in ids)
        return {invocation_id: record for invocation_id, record in found if record is not None}

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        disk = self._opened()
        numbers = disk.numbers_by_scope
        return {scope: disk.rows[numbers[scope]].record for scope in scopes if scope in numbers}

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        disk = self._opened()
        rows = ((number, disk.rows[number]) for number in numbers if number in disk.rows)
        return {
            number: disk.journal(row, self._load_limit_bytes)
            for number, row in rows
            if disk.is_unfinished(row.record.id)
        }

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        disk = self._opened()
        rows = ((number, disk.rows[number]) for number in numbers if number in disk.rows)
        return {
            number: disk.journal(row, self._load_limit_bytes)
            for number, row in rows
            if row.record.status is InvocationStatus.COMPLETED and not row.is_leaving
        }

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        return sum(len(stored.keys) for stored in self._opened().entries.get(address, {}).values()) > most

    async def journal_size(self, number: int, /) -> JournalSize:
        row = self._opened().rows.get(number)
        return JournalSize(0, 0) if row is None else JournalSize(len(row.steps), len(row.completions))

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        disk = self._opened()
        found = (record for record in disk.records() if record.number > after and disk.can_run(record))
        return [(record.number, record.address) for record in found][:limit]

    async def held_up(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        disk = self._opened()
        found = (record for record in disk.records() if record.number > after and disk.is_held_up(record))
        return [(record.number, record.address) for record in found][:limit]

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        rows = self._opened().rows.values()
        due = [
            timer
            for row in rows
            for timer in row.timers.values()
            if timer.due <= until and timer.asked_at > asked_after
        ]
        due.sort(key=lambda timer: timer.place)
        return [timer for timer in due if after is None or timer.place > after][:limit]

    async def orders(self, after: int, limit: int, /) -> list[OrderRecord]:
        orders = self._opened().orders
        return [orders[position] for position in sorted(orders) if position > after][:limit]

    async def places(self, limit: int, /, *, after: PlaceKey | None = None) -> list[PlaceRecord]:
        places = self._opened().places
        return [places[key] for key in sorted(places) if after is None or key > after][:limit]

    async def open_messages(self, service: str, handler: str, /) -> list[OpenMessages]:
        here = [record for record in self._opened().records() if record.address.service == service]
        ids: dict[str, list[str]] = {}
        for record in here:
            if record.handler == handler and _is_open_message(record):
                ids.setdefault(record.address.key, []).append(record.id)
        paused = [record for record in here if record.status is InvocationStatus.PAUSED]
        held_up = {
            record.address.key for record in paused
            if record.mailbox_position is not None or (record.handler == handler and _is_open_message(record))
        }  # fmt: skip
        return [
            OpenMessages(key, len(ids[key]), key in held_up, () if key in held_up else tuple(sorted(ids[key])))
            for key in sorted(ids)
        ]

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        finished = (r for r in self._opened().records() if r.status is InvocationStatus.COMPLETED)
        expired = [(r.expires_at, r.number, r) for r in finished if r.expires_at is not None and r.expires_at <= now]
        expired.sort(key=lambda entry: entry[:2])
        return [record for _, _, record in expired[:limit]]

    async def expired_promises(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        found: list[tuple[int, Address]] = []
        for address, promises in self._opened().promises.items():
            moments = [promise.expires_at for promise in promises.values() if promise.expires_at is not None]
            if moments and max(moments) <= now:
                found.append((max(moments), address))
        return sorted(found)[:limit]

    async def expired_journals(self, now: int, limit: int, /) -> list[KeptJournalRecord]:
        kept = [row.kept for row in self._opened().rows.values() if row.kept is not None and row.kept.expires_at <= now]
        return sorted(kept, key=lambda one: (one.expires_at, one.number))[:limit]

    async def expired_objects(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        found = self._opened().object_expiries.items()
        return sorted((expires_at, address) for address, expires_at in found if expires_at <= now)[:limit]

    async def paused(self, limit: int, /) -> list[InvocationRecord]:
        return [record for record in self._opened().records() if record.status is InvocationStatus.PAUSED][:limit]

    # ------------------------------------------------------------ for those who look into the store (`Introspection`)

    async def objects(self, addresses: Sequence[Address], /) -> list[StoredObject]:
        return await self.load(addresses, pending_limit=0)

    async def state(self, address: Address, /) -> Mapping[str, bytes]:
        return dict(self._opened().state.get(address, {}))

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        wanted = {"service": service, "key": key, "handler": handler, "status": status}
        records = (record for record in self._opened().records() if record.number > after)
        return [record for record in records if _matches(record, wanted)][:limit]

    async def summaries(self, service: str, /, *, after: str, limit: int) -> list[ObjectSummary]:
        disk = self._opened()
        addresses = {*disk.state, *disk.entries, *disk.promises, *disk.unfinished}
        keys = sorted(key for owner, key in addresses if owner == service and key > after)
        return [disk.summary(Address(service, key)) for key in keys[:limit]]

    async def mailbox(self, address: Address, /, *, before: int) -> MailboxRecord:
        disk = self._opened()
        records = [disk.rows[number].record for number in disk.unfinished.get(address, ())]
        holders = sorted((mailbox_order(record), record.id) for record in records if holds_mailbox(record))
        ahead = sum(waits_in_mailbox(record) and mailbox_order(record) < before for record in records)
        return MailboxRecord(holders[0][1] if holders else None, ahead)

    async def timers_of(self, numbers: Sequence[int], /) -> list[TimerRecord]:
        rows = self._opened().rows
        return [timer for number in numbers if number in rows for timer in rows[number].timers.values()]

    def _refuse_if_superseded(self) -> None:
        if self._epoch != self.disk.epoch:
            raise StoreInUseError(taken_over_sentence(self.describe(), self.disk.holder))

    def _opened(self) -> Disk:
        if self._owner is None:
            raise StoreUnavailableError("The store is not open. Open it before using it.")
        return self.disk


def _matches(record: InvocationRecord, wanted: Mapping[str, str | None]) -> bool:
    service, key = record.address
    has = {"service": service, "key": key, "handler": record.handler, "status": record.status}
    return all(value is None or has[name] == value for name, value in wanted.items())

"""Records as rows: a list of records is one JSON array of arrays in column order, in one piece.

Payloads are nearly always JSON text and are kept as text, readable with any SQL tool. Other bytes (not UTF-8, or with a
NUL, which SQL text cannot hold) are kept as `base64:…`; so is text that happens to begin like that. Payloads of more
than `LARGE_BYTES` are no part of the JSON: each is bound to a statement of its own as the bytes that it is, because
JSON that holds a payload is copied and searched several times over. Every payload comes back as exactly the bytes that
went in. Names (addresses, ids, fields) are Unicode text without NUL; others are refused here, because SQL text would
cut them short and one object would read another's rows.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec
import orjson

from durably.storage.records import (
    AliasRecord,
    AttachmentRecord,
    Batch,
    CompletionRecord,
    EventRecord,
    ExecutionRecord,
    InvocationRecord,
    InvocationUpdate,
    KeptJournalRecord,
    ObjectExpiryRecord,
    OrderRecord,
    PlaceRecord,
    PromiseRecord,
    SignalRecord,
    StateRecord,
    StepRecord,
    TimerRecord,
)

T = TypeVar("T")

BASE64_TAG = "base64:"
NO_HEADERS = "{}"
LARGE_BYTES = 16 * 1024
"""Payloads beyond this go another way than JSON. Below it, one statement for all of them is cheaper."""
LARGE_AMONG_MANY_BYTES = 1024
"""The same where all rows together are too much for one statement."""
STATEMENT_BYTES = 32 << 20
"""What a statement takes at most, as long as it is more than one row: SQLite has a limit, and takes several times the
memory."""

Parameters: TypeAlias = tuple[int | bytes | None, ...]
"""Of the statement `commit_batch`."""
Put: TypeAlias = tuple[str, tuple[object, ...]]
"""A further statement of a batch, with its parameters; mostly one large payload, then what it belongs to."""

_ESCAPED_NUL = b"\\u0000"
"""A NUL as JSON escapes it; also what is left of the letters after an escaped backslash."""


# ---------------------------------------------------------------- payloads


def text_of(payload: bytes) -> str:
    """Bytes as the text that is kept of them."""
    if b"\0" not in payload:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            pass
        else:
            if not text.startswith(BASE64_TAG):
                return text
    return BASE64_TAG + b2a_base64(payload, newline=False).decode("ascii")


def bytes_of(text: str) -> bytes:
    """The bytes that a text was made of.

    Raises:
        ValueError: it is damaged.
    """
    if text.startswith(BASE64_TAG):
        return a2b_base64(text[len(BASE64_TAG) :], strict_mode=True)
    return text.encode()


# ---------------------------------------------------------------- writing


def encode_rows(records: Sequence[T], row_of: Callable[[T], object] | None = None) -> bytes | None:
    """Records, each as the row that it is, as one JSON array; None for none: the statement has nothing to do for them.

    Raises:
        ValueError: a name holds what SQL text cannot hold.
    """
    if not records:
        return None
    try:
        encoded = orjson.dumps(records if row_of is None else [row_of(record) for record in records])
    except TypeError as error:
        raise ValueError(f"A name cannot be stored: {error}. Names are valid Unicode.") from error
    if _ESCAPED_NUL in encoded and _has_nul(encoded):
        raise ValueError("A name cannot be stored: it holds a NUL character. Names are Unicode text without NUL.")
    return encoded


def _has_nul(encoded: bytes) -> bool:
    """Whether a string in this JSON holds a NUL: the backslash before the letters is not itself an escaped one."""
    found = encoded.find(_ESCAPED_NUL)
    while found >= 0:
        first = found
        while encoded[first - 1 : first] == b"\\":
            first -= 1
        if (found - first) % 2 == 0:
            return True
        found = encoded.find(_ESCAPED_NUL, found + 1)
    return False


class EncodedBatch(NamedTuple):
    """A batch as the store writes it."""

    statement: str
    parameters: Parameters
    further: list[Parameters]
    """Of further statements `commit_batch`, for what is too much for one; in the same transaction."""
    puts: list[Put]
    """What is stored after that, in the same transaction; both are empty for nearly all batches (rule X5)."""
    inline_bytes: int
    """What all parameters hold."""

    @property
    def last_position(self) -> int:
        position = self.parameters[1]
        assert isinstance(position, int)
        return position

    @property
    def size_bytes(self) -> int:
        return self.inline_bytes + sum(
            len(part) for _, values in self.puts for part in values if isinstance(part, bytes)
        )


def encode_batch(batch: Batch, epoch: int) -> EncodedBatch:
    """A batch as the parameters of its statement, and the large payloads apart."""
    encoded = _encoded(batch, epoch, LARGE_BYTES)
    if encoded.inline_bytes <= STATEMENT_BYTES:
        return encoded
    encoded = _encoded(batch, epoch, min(LARGE_BYTES, LARGE_AMONG_MANY_BYTES))
    first, *further = list(_in_pieces(_of_any_batch(encoded)))
    return encoded._replace(statement="commit_batch", parameters=first, further=further)


def _encoded(batch: Batch, epoch: int, large_bytes: int) -> EncodedBatch:
    """A batch as one statement, with payloads of more than `large_bytes` apart.

    Most lists of most batches are empty. Where a caller is alone, each commit is for one call, and pays for this.
    """
    large = LargePayloads(large_bytes)
    forgotten = [*batch.ended, *batch.removed]
    if batch.renewed:
        forgotten += [execution.previous for execution in batch.renewed]
    state = [
        (change.address[0], change.address[1], change.field, text_of(change.value))
        for change in batch.state
        if change.value is not None and len(change.value) <= large_bytes
    ]
    cleared: list[tuple[str, ...]] = []
    if len(state) < len(batch.state):
        cleared = [(*change.address, change.field) for change in batch.state if change.value is None]
        large.put_state(batch.state)
    fields = encode_rows(state) if state else None
    before = (
        encode_rows(batch.renewed, large.execution_row) if batch.renewed else None,
        encode_rows(forgotten) if forgotten else None,
        encode_rows(batch.removed) if batch.removed else None,
        encode_rows(batch.accepted, large.invocation_row) if batch.accepted else None,
        encode_rows(batch.woken) if batch.woken else None,
        encode_rows(batch.updated, large.update_row) if batch.updated else None,
        encode_rows(large.without_steps(batch.steps), _step_row) if batch.steps else None,
        encode_rows(large.without_completions(batch.completions), _completion_row) if batch.completions else None,
        encode_rows(batch.timers_cleared) if batch.timers_cleared else None,
        encode_rows(batch.timers, _timer_row) if batch.timers else None,
        encode_rows(batch.attachments, _attachment_row) if batch.attachments else None,
        encode_rows(batch.aliases, _alias_row) if batch.aliases else None,
        encode_rows(cleared) if cleared else None,
    )
    behind = (
        encode_rows(large.without_signals(batch.signals), _signal_row) if batch.signals else None,
        encode_rows(batch.signals_taken) if batch.signals_taken else None,
        encode_rows([tuple(address) for address in batch.vacated]) if batch.vacated else None,
        encode_rows(large.without_promises(batch.promises), _promise_row) if batch.promises else None,
        encode_rows(batch.orders, _order_row) if batch.orders else None,
        encode_rows(batch.orders_done) if batch.orders_done else None,
    )
    puts = large.puts(batch)
    if batch.kept or batch.object_expiries:
        kept = encode_rows(batch.kept, _kept_row)
        puts.append(("commit_kept", (kept, encode_rows(batch.object_expiries, _object_expiry_row))))
    if batch.events or batch.events_forgotten:
        puts += _event_puts(batch, large_bytes)
    if batch.entries or batch.entries_cleared:
        puts = [*_entry_puts(batch, large_bytes), *puts]
    if batch.entries_trimmed or batch.journals_trimmed:
        puts = [*_trims_of_entries(batch), *puts, *_trims_of_journals(batch)]
    # The driver looks for an adapter of each null anew: twenty cost as much as the commit of a field.
    if any(before) or any(behind):
        rows = (*before, fields, *behind)
        inline_bytes = sum([len(part) for part in rows if part is not None])
        return EncodedBatch("commit_batch", (epoch, batch.last_position, *rows), [], puts, inline_bytes)
    inline_bytes = 0 if fields is None else len(fields)
    return EncodedBatch("commit_state", (epoch, batch.last_position, fields), [], puts, inline_bytes)


def _entry_puts(batch: Batch, large_bytes: int) -> Iterator[Put]:
    """Changed entries as statements that follow the batch: one for all of them, as a rule."""
    removed = [(*one.address, one.field, *one.key) for one in batch.entries if one.value is None]
    small = [
        (*one.address, one.field, *one.key, text_of(one.value))
        for one in batch.entries
        if one.value is not None and len(one.value) <= large_bytes
    ]
    cleared = [(*address, field) for address, field in batch.entries_cleared]
    lists = [
        [] if rows is None else list(_cut(rows))
        for rows in (encode_rows(cleared), encode_rows(removed), encode_rows(small))
    ]
    if all(len(pieces) <= 1 for pieces in lists):
        if any(lists):
            yield "commit_entries", tuple(pieces[0] if pieces else None for pieces in lists)
    else:
        for place, pieces in enumerate(lists):
            for piece in pieces:
                yield "commit_entries", tuple(piece if place == other else None for other in range(len(lists)))
    for one in batch.entries:
        if one.value is not None and len(one.value) > large_bytes:
            yield "put_entry", (one.value, *one.address, one.field, *one.key)


def _trims_of_entries(batch: Batch) -> Iterator[Put]:
    """Before the entries of the batch come."""
    for portion in batch.entries_trimmed:
        yield "trim_entries", (*portion.address, portion.most)


def _trims_of_journals(batch: Batch) -> Iterator[Put]:
    for portion in batch.journals_trimmed:
        yield "trim_steps", (portion.number, portion.most)
        yield "trim_completions", (portion.number, portion.most)


def _event_puts(batch: Batch, large_bytes: int) -> Iterator[Put]:
    """What is published, and what of that is wanted no longer, as statements that follow the batch."""
    if batch.events_forgotten:
        for piece in _cut(encode_rows(batch.events_forgotten) or b""):
            yield "drop_events", (piece,)
    rows = encode_rows([one for one in batch.events if len(one.value) <= large_bytes], _event_row)
    for piece in () if rows is None else _cut(rows):
        yield "put_events", (piece,)
    for one in batch.events:
        if len(one.value) > large_bytes:
            yield "put_event", (one.value, one.position, one.stream, one.key, one.name, one.id, one.at)


_APPLIED = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 16, 18, 19, 14, 15, 21, 20)
"""The parameters that hold rows, in the order in which the statement applies them."""
_FORGOTTEN, _REMOVED, _STATE = 3, 4, 15


def _of_any_batch(encoded: EncodedBatch) -> Parameters:
    """The parameters of `commit_batch`, also of a batch that holds nothing but state."""
    if encoded.statement == "commit_batch":
        return encoded.parameters
    epoch, last_position, fields = encoded.parameters
    return (epoch, last_position, *(fields if place == _STATE else None for place in sorted(_APPLIED)))


def _in_pieces(parameters: Parameters) -> Iterator[Parameters]:
    """The same as several statements, each of which goes on where the one before it ended."""
    fixed = parameters[:2]
    rows: dict[int, bytes] = {}
    size = 0
    for place in _APPLIED:
        whole = parameters[place]
        assert not isinstance(whole, int)
        for piece in () if whole is None else _cut(whole):
            if place in rows or (rows and size + len(piece) > STATEMENT_BYTES):
                yield (*fixed, *(rows.get(one) for one in range(2, len(parameters))))
                rows, size = {}, 0
            rows[place] = piece
            size += len(piece)
            if place == _REMOVED:  # The statement looks at these among those only.
                rows.setdefault(_FORGOTTEN, piece)
    yield (*fixed, *(rows.get(one) for one in range(2, len(parameters))))


def _cut(rows: bytes) -> Iterator[bytes]:
    """A JSON array as several."""
    if len(rows) <= STATEMENT_BYTES:
        yield rows
        return
    some: list[msgspec.Raw] = []
    size = 0
    for row in msgspec.json.decode(rows, type=list[msgspec.Raw]):
        if some and size + len(row) > STATEMENT_BYTES:
            yield msgspec.json.encode(some)
            some, size = [], 0
        some.append(row)
        size += len(row) + 1
    yield msgspec.json.encode(some)


class LargePayloads:
    """Collects the large payloads of one batch while its rows are made."""

    def __init__(self, large_bytes: int) -> None:
        self._large_bytes = large_bytes
        self._found: dict[tuple[object, ...], bytes] = {}
        """By the statement that stores it and what it belongs to."""

    def puts(self, batch: Batch) -> list[Put]:
        """With what belongs to limits, which most batches have nothing of."""
        puts = self._puts()
        if batch.places_left:
            puts += [("drop_places", (piece,)) for piece in _cut(encode_rows(batch.places_left) or b"")]
        if batch.places:
            puts += [("put_places", (piece,)) for piece in _cut(encode_rows(batch.places, _place_row) or b"")]
        return puts

    def _puts(self) -> list[Put]:
        return [(str(statement), (payload, *key)) for (statement, *key), payload in self._found.items()]

    def without_steps(self, steps: list[StepRecord]) -> list[StepRecord]:
        """The steps whose content is small."""
        if not any(len(step.content) > self._large_bytes for step in steps):
            return steps
        for step in steps:
            if len(step.content) > self._large_bytes:
                self._found["put_step", step.number, step.index] = step.content
        return [step for step in steps if len(step.content) <= self._large_bytes]

    def without_completions(self, completions: list[CompletionRecord]) -> list[CompletionRecord]:
        """The completions whose value is small."""
        if not any(len(completion.value) > self._large_bytes for completion in completions):
            return completions
        # Rule C3: which answer to a command is the first must not depend on their sizes.
        first = {(one.number, one.command): one for one in reversed(completions)}
        for one in first.values():
            if len(one.value) > self._large_bytes:
                key = (one.number, one.position, one.command, int(one.failed), one.number)
                self._found["put_completion", *key] = one.value
        return [one for one in first.values() if len(one.value) <= self._large_bytes]

    def without_promises(self, promises: list[PromiseRecord]) -> list[PromiseRecord]:
        """The promises whose value is small."""
        for promise in promises:
            if len(promise.value) > self._large_bytes:
                key = (*promise.address, promise.name, int(promise.failed), promise.expires_at)
                self._found["put_promise", *key] = promise.value
        return [promise for promise in promises if len(promise.value) <= self._large_bytes]

    def without_signals(self, signals: list[SignalRecord]) -> list[SignalRecord]:
        """The signals whose value is small."""
        if not any(len(signal.value) > self._large_bytes for signal in signals):
            return signals
        for one in signals:
            if len(one.value) > self._large_bytes:
                key = (one.number, one.position, one.name, int(one.failed), one.number)
                self._found["put_signal", *key] = one.value
        return [signal for signal in signals if len(signal.value) <= self._large_bytes]

    def put_state(self, changes: list[StateRecord]) -> None:
        """Take the fields whose value is large."""
        for change in changes:
            if change.value is not None and len(change.value) > self._large_bytes:
                self._found["put_state", *change.address, change.field] = change.value

    def inline(self, payload: bytes | None, statement: str, number: int) -> str | None:
        """A payload as it stands in a row: as text, or not at all where it is large."""
        if payload is not None and len(payload) > self._large_bytes:
            self._found[statement, number] = payload
            return None
        if self._found:  # What was accepted with a large one may be updated to another in the same batch.
            self._found.pop((statement, number), None)
        return None if payload is None else text_of(payload)

    def execution_row(self, execution: ExecutionRecord) -> tuple[object, ...]:
        argument = self.inline(execution.argument, "put_argument", execution.number)
        return (execution.number, execution.previous, execution.seed.hex(), argument)

    def invocation_row(self, record: InvocationRecord) -> tuple[object, ...]:
        scope = record.scope or (None, None, None, None)
        caller = record.caller
        return (
            record.number,
            record.id,
            record.address[0],
            record.address[1],
            record.handler,
            record.seed.hex(),
            self.inline(record.argument, "put_argument", record.number),
            orjson.dumps(record.headers).decode() if record.headers else NO_HEADERS,
            scope[0],
            scope[1],
            scope[2],
            scope[3],
            caller.address[0] if caller else None,
            caller.address[1] if caller else None,
            caller.number if caller else None,
            caller.command if caller else None,
            record.sender_id,
            record.deadline,
            record.accepted_at,
            record.keep_outcome_us,
            record.status,
            record.mailbox_position,
            record.attempts,
            self.inline(record.failure, "put_failure", record.number),
            self.inline(record.outcome, "put_outcome", record.number),
            record.expires_at,
            record.due,
        )

    def update_row(self, update: InvocationUpdate) -> tuple[object, ...]:
        return (
            update.number,
            update.status,
            update.mailbox_position,
            update.attempts,
            self.inline(update.failure, "put_failure", update.number),
            # None leaves the one that is there, also a large one of the same batch.
            None if update.outcome is None else self.inline(update.outcome, "put_outcome", update.number),
            update.expires_at,
        )


def _step_row(step: StepRecord) -> tuple[object, ...]:
    return (step.number, step.index, text_of(step.content))


def _completion_row(completion: CompletionRecord) -> tuple[object, ...]:
    return (
        completion.number,
        completion.position,
        completion.command,
        int(completion.failed),
        text_of(completion.value),
    )


def _signal_row(signal: SignalRecord) -> tuple[object, ...]:
    return (signal.number, signal.position, signal.name, int(signal.failed), text_of(signal.value))


def _timer_row(timer: TimerRecord) -> tuple[object, ...]:
    return (timer.number, timer.kind, timer.command, timer.due, *timer.address, timer.asked_at)


def _promise_row(promise: PromiseRecord) -> tuple[object, ...]:
    return (*promise.address, promise.name, int(promise.failed), promise.expires_at, text_of(promise.value))


def _alias_row(alias: AliasRecord) -> tuple[object, ...]:
    return (alias.id, alias.number)


def _order_row(order: OrderRecord) -> tuple[object, ...]:
    caller = order.caller
    place = (None,) * 4 if caller is None else (*caller.address, caller.number, caller.command)
    return (order.position, order.id, order.kind, *place)


def _kept_row(record: KeptJournalRecord) -> tuple[object, ...]:
    return (record.number, record.expires_at, record.steps)


def _object_expiry_row(record: ObjectExpiryRecord) -> tuple[object, ...]:
    return (*record.address, record.expires_at)


def _event_row(event: EventRecord) -> tuple[object, ...]:
    return (event.position, event.stream, event.key, event.name, event.id, event.at, text_of(event.value))


def _place_row(place: PlaceRecord) -> tuple[object, ...]:
    return (place.number, place.id, place.name, place.key, place.place, int(place.counts))


def _attachment_row(record: AttachmentRecord) -> tuple[object, ...]:
    caller = record.caller
    return (record.number, caller.number, caller.command, caller.address[0], caller.address[1])

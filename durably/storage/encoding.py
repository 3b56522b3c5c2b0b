"""Records as rows: a list of records is one JSON array of arrays in column order, in one piece.

Payloads are nearly always JSON text and are kept as text, readable with any SQL tool. Other bytes (not UTF-8, or with a
NUL, which SQL text cannot hold) are kept as `base64:…`; so is text that happens to begin like that. Payloads of more
than `LARGE_BYTES` are no part of the JSON: each is bound to a statement of its own as the bytes that it is, because
JSON that holds a payload is copied and searched several times over. Every payload comes back as exactly the bytes that
went in. Names (addresses, ids, fields) are Unicode text without NUL; others are refused here, because SQL text would
cut them short and one object would read another's rows.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import orjson

from durably.storage.records import (
    AliasRecord,
    AttachmentRecord,
    Batch,
    CompletionRecord,
    ExecutionRecord,
    InvocationRecord,
    InvocationUpdate,
    OrderRecord,
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

Put: TypeAlias = tuple[str, tuple[object, ...]]
"""A statement that stores one large payload, with its parameters: the payload, then what it belongs to."""

# A NUL as JSON escapes it, and not the end of an escaped backslash followed by the letters.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


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
    # The plain search is the fast one; it also finds the letters in harmless places, which the pattern tells apart.
    if b"\\u0000" in encoded and _ESCAPED_NUL.search(encoded):
        raise ValueError("A name cannot be stored: it holds a NUL character. Names are Unicode text without NUL.")
    return encoded


class EncodedBatch(NamedTuple):
    """A batch as the store writes it."""

    statement: str
    parameters: tuple[int | bytes | None, ...]
    puts: list[Put]
    """What is stored after that, in the same transaction; empty for nearly all batches (rule X5)."""

    @property
    def last_position(self) -> int:
        position = self.parameters[1]
        assert isinstance(position, int)
        return position

    @property
    def size_bytes(self) -> int:
        inline = sum(len(part) for part in self.parameters if isinstance(part, bytes))
        return inline + sum(len(part) for _, values in self.puts for part in values if isinstance(part, bytes))


def encode_batch(batch: Batch, epoch: int) -> EncodedBatch:
    """A batch as the parameters of its statement, and the large payloads apart.

    Most lists of most batches are empty. Where a caller is alone, each commit is for one call, and pays for this.
    """
    large = LargePayloads()
    forgotten = [*batch.ended, *batch.removed]
    if batch.renewed:
        forgotten += [execution.previous for execution in batch.renewed]
    state = [
        (change.address[0], change.address[1], change.field, text_of(change.value))
        for change in batch.state
        if change.value is not None and len(change.value) <= LARGE_BYTES
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
    # The driver looks for an adapter of each null anew: twenty cost as much as the commit of a field.
    if any(before) or any(behind):
        return EncodedBatch("commit_batch", (epoch, batch.last_position, *before, fields, *behind), large.puts())
    return EncodedBatch("commit_state", (epoch, batch.last_position, fields), large.puts())


class LargePayloads:
    """Collects the large payloads of one batch while its rows are made."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], bytes] = {}
        """By the statement that stores it and what it belongs to."""

    def puts(self) -> list[Put]:
        return [(str(statement), (payload, *key)) for (statement, *key), payload in self._found.items()]

    def without_steps(self, steps: list[StepRecord]) -> list[StepRecord]:
        """The steps whose content is small."""
        if not any(len(step.content) > LARGE_BYTES for step in steps):
            return steps
        for step in steps:
            if len(step.content) > LARGE_BYTES:
                self._found["put_step", step.number, step.index] = step.content
        return [step for step in steps if len(step.content) <= LARGE_BYTES]

    def without_completions(self, completions: list[CompletionRecord]) -> list[CompletionRecord]:
        """The completions whose value is small."""
        if not any(len(completion.value) > LARGE_BYTES for completion in completions):
            return completions
        # Rule C3: which answer to a command is the first must not depend on their sizes.
        first = {(one.number, one.command): one for one in reversed(completions)}
        for one in first.values():
            if len(one.value) > LARGE_BYTES:
                key = (one.number, one.position, one.command, int(one.failed), one.number)
                self._found["put_completion", *key] = one.value
        return [one for one in first.values() if len(one.value) <= LARGE_BYTES]

    def without_promises(self, promises: list[PromiseRecord]) -> list[PromiseRecord]:
        """The promises whose value is small."""
        for promise in promises:
            if len(promise.value) > LARGE_BYTES:
                key = (*promise.address, promise.name, int(promise.failed), promise.expires_at)
                self._found["put_promise", *key] = promise.value
        return [promise for promise in promises if len(promise.value) <= LARGE_BYTES]

    def without_signals(self, signals: list[SignalRecord]) -> list[SignalRecord]:
        """The signals whose value is small."""
        if not any(len(signal.value) > LARGE_BYTES for signal in signals):
            return signals
        for one in signals:
            if len(one.value) > LARGE_BYTES:
                key = (one.number, one.position, one.name, int(one.failed), one.number)
                self._found["put_signal", *key] = one.value
        return [signal for signal in signals if len(signal.value) <= LARGE_BYTES]

    def put_state(self, changes: list[StateRecord]) -> None:
        """Take the fields whose value is large."""
        for change in changes:
            if change.value is not None and len(change.value) > LARGE_BYTES:
                self._found["put_state", *change.address, change.field] = change.value

    def inline(self, payload: bytes | None, statement: str, number: int) -> str | None:
        """A payload as it stands in a row: as text, or not at all where it is large."""
        if payload is not None and len(payload) > LARGE_BYTES:
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


def _attachment_row(record: AttachmentRecord) -> tuple[object, ...]:
    caller = record.caller
    return (record.number, caller.number, caller.command, caller.address[0], caller.address[1])

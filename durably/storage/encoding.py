"""Records as rows and back: a list of records is one JSON array of arrays in column order, in one piece.

Payloads are nearly always JSON text and are kept as text, readable with any SQL tool. Other bytes (not UTF-8, or with a
NUL, which SQL text cannot hold) are kept as `base64:…`; so is text that happens to begin like that. Every payload comes
back as exactly the bytes that went in. Names (addresses, ids, fields) are Unicode text without NUL; others are refused
here, because SQL text would cut them short and one object would read another's rows.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
import orjson

from durably.ids import Address, InvocationStatus, KeyScope
from durably.storage.records import (
    AliasRecord,
    AttachmentRecord,
    Batch,
    CallerRecord,
    CompletionRecord,
    InvocationRecord,
    InvocationUpdate,
    StepRecord,
    StoredInvocation,
    StoredObject,
    TimerKind,
    TimerRecord,
)

T = TypeVar("T")

BASE64_TAG = "base64:"
NO_HEADERS = "{}"

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
    """The bytes that a text was made of."""
    if text.startswith(BASE64_TAG):
        return a2b_base64(text[len(BASE64_TAG) :])
    return text.encode()


def optional_text_of(payload: bytes | None) -> str | None:
    return None if payload is None else text_of(payload)


def optional_bytes_of(text: str | None) -> bytes | None:
    return None if text is None else bytes_of(text)


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


def encode_batch(batch: Batch, epoch: int) -> tuple[int | bytes | None, ...]:
    """The parameters of the statement `commit_batch`."""
    return (
        epoch,
        batch.last_position,
        encode_rows([*batch.ended, *batch.removed]),
        encode_rows(batch.removed),
        encode_rows(batch.accepted, _invocation_row),
        encode_rows(batch.woken),
        encode_rows(batch.updated, _update_row),
        encode_rows(batch.steps, _step_row),
        encode_rows(batch.completions, _completion_row),
        encode_rows(batch.timers_cleared),
        encode_rows(batch.timers, _timer_row),
        encode_rows(batch.attachments, _attachment_row),
        encode_rows(batch.aliases, _alias_row),
        encode_rows([(s.address[0], s.address[1], s.field) for s in batch.state if s.value is None]),
        encode_rows(
            [(s.address[0], s.address[1], s.field, text_of(s.value)) for s in batch.state if s.value is not None]
        ),
    )


def _invocation_row(record: InvocationRecord) -> tuple[object, ...]:
    scope = record.scope or (None, None, None, None)
    caller = record.caller
    return (
        record.number,
        record.id,
        record.address[0],
        record.address[1],
        record.handler,
        record.seed.hex(),
        text_of(record.argument),
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
        optional_text_of(record.failure),
        optional_text_of(record.outcome),
        record.expires_at,
        record.due,
    )


def _update_row(update: InvocationUpdate) -> tuple[object, ...]:
    return (
        update.number,
        update.status,
        update.mailbox_position,
        update.attempts,
        optional_text_of(update.failure),
        optional_text_of(update.outcome),
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


def _timer_row(timer: TimerRecord) -> tuple[object, ...]:
    return (timer.number, timer.kind, timer.command, timer.due, timer.address[0], timer.address[1])


def _alias_row(alias: AliasRecord) -> tuple[object, ...]:
    return (alias.id, alias.number)


def _attachment_row(record: AttachmentRecord) -> tuple[object, ...]:
    caller = record.caller
    return (record.number, caller.number, caller.command, caller.address[0], caller.address[1])


# ---------------------------------------------------------------- reading


class InvocationRow(msgspec.Struct, array_like=True):
    """The columns of an invocation, in the order of the view `encoded_invocations`."""

    number: int
    id: str
    service: str
    key: str
    handler: str
    seed: str
    argument: str
    headers: str
    scope_service: str | None
    scope_key: str | None
    scope_handler: str | None
    idempotency_key: str | None
    caller_service: str | None
    caller_key: str | None
    caller_number: int | None
    caller_command: int | None
    sender_id: str | None
    deadline: int | None
    accepted_at: int
    keep_outcome_us: int | None
    status: InvocationStatus
    mailbox_position: int | None
    attempts: int
    failure: str | None
    outcome: str | None
    expires_at: int | None
    due: int | None


class JournalRow(msgspec.Struct, array_like=True):
    """An invocation with what belongs to it, in the order of the view `encoded_journals`."""

    invocation: InvocationRow
    steps: list[tuple[int, str]]
    completions: list[tuple[int, int, int, str]]
    attachments: list[tuple[int, int, str, str]]
    sender_unfinished: int


class ObjectRow(msgspec.Struct, array_like=True):
    """One answer of the statement `load`."""

    state: dict[str, str]
    started: list[JournalRow]
    pending: list[JournalRow]
    waiting: int


_decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_decode_invocations = msgspec.json.Decoder(list[InvocationRow]).decode
_decode_found = msgspec.json.Decoder(list[tuple[str, InvocationRow]]).decode
_decode_keyed = msgspec.json.Decoder(list[tuple[int, InvocationRow]]).decode
_decode_journals = msgspec.json.Decoder(list[JournalRow]).decode
_decode_objects = msgspec.json.Decoder(list[ObjectRow]).decode
_decode_state = msgspec.json.Decoder(dict[str, str]).decode
_decode_count = msgspec.json.Decoder(tuple[int]).decode
_decode_recoverable = msgspec.json.Decoder(list[tuple[int, str, str]]).decode
_decode_timers = msgspec.json.Decoder(list[tuple[int, TimerKind, int, int, str, str]]).decode


def decode_invocations(answer: str) -> list[InvocationRecord]:
    return [_invocation(row) for row in _decode_invocations(answer)]


def decode_found(answer: str) -> dict[str, InvocationRecord]:
    return {asked: _invocation(row) for asked, row in _decode_found(answer)}


def decode_keyed(answer: str, scopes: Sequence[KeyScope]) -> dict[KeyScope, InvocationRecord]:
    return {scopes[place]: _invocation(row) for place, row in _decode_keyed(answer)}


def decode_journals(answer: str) -> dict[int, StoredInvocation]:
    return {row.invocation.number: _journal(row) for row in _decode_journals(answer)}


def decode_objects(answer: str, addresses: Sequence[Address]) -> list[StoredObject]:
    rows = _decode_objects(answer)
    return [_object(address, row) for address, row in zip(addresses, rows, strict=True)]


def decode_object(pieces: Iterable[tuple[str, str]], address: Address) -> StoredObject:
    """One object that came in pieces."""
    row = ObjectRow({}, [], [], 0)
    for kind, piece in pieces:
        match kind:
            case "state":
                row.state.update(_decode_state(piece))
            case "started":
                row.started += _decode_journals(f"[{piece}]")
            case "pending":
                row.pending += _decode_journals(f"[{piece}]")
            case _:
                row.waiting = _decode_count(piece)[0]
    return _object(address, row)


def decode_state(answer: str) -> dict[str, bytes]:
    return {field: bytes_of(value) for field, value in _decode_state(answer).items()}


def decode_recoverable(answer: str) -> list[tuple[int, Address]]:
    return [(number, Address(service, key)) for number, service, key in _decode_recoverable(answer)]


def decode_timers(answer: str) -> list[TimerRecord]:
    rows = _decode_timers(answer)
    return [
        TimerRecord(number, kind, command, due, Address(service, key))
        for number, kind, command, due, service, key in rows
    ]


def _object(address: Address, row: ObjectRow) -> StoredObject:
    started = sorted(row.started, key=lambda journal: journal.invocation.number)
    return StoredObject(
        address=address,
        state={field: bytes_of(value) for field, value in row.state.items()},
        started=_journals(started),
        pending=_journals(row.pending),
        pending_beyond=row.waiting - len(row.pending),
    )


def _journals(rows: Iterable[JournalRow]) -> list[StoredInvocation]:
    return [_journal(row) for row in rows]


def _journal(row: JournalRow) -> StoredInvocation:
    number = row.invocation.number
    return StoredInvocation(
        record=_invocation(row.invocation),
        steps=[StepRecord(number, index, bytes_of(content)) for index, content in row.steps],
        completions=[
            CompletionRecord(number, command, position, bool(failed), bytes_of(value))
            for position, command, failed, value in row.completions
        ],
        attachments=[
            AttachmentRecord(number, CallerRecord(Address(service, key), caller, command))
            for caller, command, service, key in row.attachments
        ],
        sender_unfinished=bool(row.sender_unfinished),
    )


def _invocation(row: InvocationRow) -> InvocationRecord:
    return InvocationRecord(
        number=row.number,
        id=row.id,
        address=Address(row.service, row.key),
        handler=row.handler,
        seed=bytes.fromhex(row.seed),
        argument=bytes_of(row.argument),
        headers={} if row.headers == NO_HEADERS else _decode_headers(row.headers),
        scope=_scope(row),
        caller=_caller(row),
        sender_id=row.sender_id,
        deadline=row.deadline,
        accepted_at=row.accepted_at,
        keep_outcome_us=row.keep_outcome_us,
        status=row.status,
        mailbox_position=row.mailbox_position,
        attempts=row.attempts,
        failure=optional_bytes_of(row.failure),
        outcome=optional_bytes_of(row.outcome),
        expires_at=row.expires_at,
        due=row.due,
    )


def _scope(row: InvocationRow) -> KeyScope | None:
    if row.idempotency_key is None:
        return None
    assert row.scope_service is not None
    assert row.scope_key is not None
    assert row.scope_handler is not None
    return KeyScope(row.scope_service, row.scope_key, row.scope_handler, row.idempotency_key)


def _caller(row: InvocationRow) -> CallerRecord | None:
    if row.caller_number is None:
        return None
    assert row.caller_service is not None
    assert row.caller_key is not None
    assert row.caller_command is not None
    return CallerRecord(Address(row.caller_service, row.caller_key), row.caller_number, row.caller_command)

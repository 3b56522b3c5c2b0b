"""Answers of the store as records. An answer is JSON; in place of a large payload it holds the payload's size.

An answer without large payloads is decoded here as it is. One that has some, or a row that no version has written,
raises `NeedsPiecesError`, and the store asks again by `durably.storage.pieces`, which reads each large payload as the
bytes that it is, and notes what is damaged (rule L5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn, Protocol, TypeAlias

import msgspec

from durably.ids import CONTINUED_SEED_BYTES, SEED_BYTES, Address, InvocationStatus, KeyScope
from durably.storage.encoding import NO_HEADERS, bytes_of
from durably.storage.records import (
    ARGUMENT_PART,
    CALLER_PART,
    SCOPE_PART,
    SEED_PART,
    STATUS_PART,
    AttachmentRecord,
    CallerRecord,
    CompletionRecord,
    InvocationRecord,
    KeptJournalRecord,
    MailboxRecord,
    ObjectSummary,
    OpenMessages,
    OrderKind,
    OrderRecord,
    PlaceRecord,
    PromiseRecord,
    SignalRecord,
    StepRecord,
    StoredInvocation,
    StoredObject,
    TimerKind,
    TimerRecord,
)

StoredPayload: TypeAlias = str | int
"""The text of a payload, or the size in bytes of a large one."""


class NeedsPiecesError(Exception):
    """An answer holds the size of a payload instead of the payload, or something that cannot be read."""


class ReadPayload(Protocol):
    """Makes bytes of a payload; `statement` and `key` read a large one."""

    def __call__(self, stored: StoredPayload, statement: str, *key: object) -> bytes: ...


class NoteDamage(Protocol):
    """Hears that a part of a row cannot be read, and why. The record has something harmless in its place."""

    def __call__(self, part: str, reason: str, /) -> None: ...


STATUSES: Final = {str(status): status for status in InvocationStatus}
UNKNOWN_STATUS: Final = InvocationStatus.PAUSED
"""Stands in a record for a status that no version has written: it waits for a person."""


class InvocationRow(msgspec.Struct, array_like=True):
    """The columns of an invocation, in the order of the view `encoded_invocations`."""

    number: int
    id: str
    service: str
    key: str
    handler: str
    seed: str
    argument: StoredPayload | None
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
    status: str
    mailbox_position: int | None
    attempts: int
    failure: StoredPayload | None
    outcome: StoredPayload | None
    expires_at: int | None
    due: int | None


class JournalRow(msgspec.Struct, array_like=True):
    """An invocation with what belongs to it, in the order of the view `encoded_journals`."""

    invocation: InvocationRow
    steps: list[tuple[int, StoredPayload]]
    completions: list[tuple[int, int, int, StoredPayload]]
    attachments: list[tuple[int, int, str, str]]
    sender_unfinished: int
    signals: list[tuple[int, str, int, StoredPayload]]


class ObjectRow(msgspec.Struct, array_like=True):
    """One answer of the statement `load`."""

    state: dict[str, StoredPayload]
    started: list[JournalRow]
    pending: list[JournalRow]
    waiting: int
    promises: list[tuple[str, int, int | None, StoredPayload]]


decode_headers = msgspec.json.Decoder(dict[str, str]).decode
decode_invocation_rows = msgspec.json.Decoder(list[InvocationRow]).decode
decode_invocation_row = msgspec.json.Decoder(InvocationRow).decode
decode_found_rows = msgspec.json.Decoder(list[tuple[str, InvocationRow]]).decode
decode_keyed_rows = msgspec.json.Decoder(list[tuple[int, InvocationRow]]).decode
decode_step_rows = msgspec.json.Decoder(list[tuple[int, StoredPayload]]).decode
decode_completion_rows = msgspec.json.Decoder(list[tuple[int, int, int, StoredPayload]]).decode
decode_signal_rows = msgspec.json.Decoder(list[tuple[int, str, int, StoredPayload]]).decode
decode_attachment_rows = msgspec.json.Decoder(list[tuple[int, int, str, str]]).decode
_decode_journals = msgspec.json.Decoder(list[JournalRow]).decode
_decode_objects = msgspec.json.Decoder(list[ObjectRow]).decode
_decode_recoverable = msgspec.json.Decoder(list[tuple[int, str, str]]).decode
_decode_moments = msgspec.json.Decoder(list[tuple[int, str, str]]).decode
_decode_kept = msgspec.json.Decoder(list[tuple[int, int, int]]).decode
_decode_orders = msgspec.json.Decoder(
    list[tuple[int, str, OrderKind, str | None, str | None, int | None, int | None]]
).decode
_decode_open_messages = msgspec.json.Decoder(list[tuple[str, int, int, list[str]]]).decode
_decode_places = msgspec.json.Decoder(list[tuple[int, str, str, str, int, int]]).decode
_decode_summaries = msgspec.json.Decoder(list[ObjectSummary]).decode
_decode_mailbox = msgspec.json.Decoder(MailboxRecord).decode
_decode_timers = msgspec.json.Decoder(list[tuple[int, TimerKind, int, int, str, str, int]]).decode


def small(stored: StoredPayload, statement: str, *key: object) -> bytes:
    """The bytes of a payload that stands in the answer itself.

    Raises:
        NeedsPiecesError: only its size does, or it is damaged.
    """
    if isinstance(stored, int):
        raise NeedsPiecesError(statement, *key)
    try:
        return bytes_of(stored)
    except ValueError as error:
        raise NeedsPiecesError(statement, *key) from error


def decode_invocations(answer: str) -> list[InvocationRecord]:
    return [invocation_of(row) for row in decode_invocation_rows(answer)]


def decode_found(answer: str) -> dict[str, InvocationRecord]:
    return {asked: invocation_of(row) for asked, row in decode_found_rows(answer)}


def decode_keyed(answer: str, scopes: Sequence[KeyScope]) -> dict[KeyScope, InvocationRecord]:
    return {scopes[place]: invocation_of(row) for place, row in decode_keyed_rows(answer)}


def decode_journals(answer: str) -> dict[int, StoredInvocation]:
    return {row.invocation.number: _journal(row) for row in _decode_journals(answer)}


def decode_objects(answer: str, addresses: Sequence[Address]) -> list[StoredObject]:
    rows = _decode_objects(answer)
    return [_object(address, row) for address, row in zip(addresses, rows, strict=True)]


def decode_recoverable(answer: str) -> list[tuple[int, Address]]:
    return [(number, Address(service, key)) for number, service, key in _decode_recoverable(answer)]


def decode_moments(answer: str) -> list[tuple[int, Address]]:
    return [(moment, Address(service, key)) for moment, service, key in _decode_moments(answer)]


def decode_kept(answer: str) -> list[KeptJournalRecord]:
    return [KeptJournalRecord(number, expires_at, steps) for number, expires_at, steps in _decode_kept(answer)]


def decode_orders(answer: str) -> list[OrderRecord]:
    return [
        OrderRecord(position, id, kind, caller_of(service, key, number, command, refuse_damage))
        for position, id, kind, service, key, number, command in _decode_orders(answer)
    ]


def decode_places(answer: str) -> list[PlaceRecord]:
    return [
        PlaceRecord(number, id, name, key, place, bool(counts))
        for number, id, name, key, place, counts in _decode_places(answer)
    ]


def decode_open_messages(answer: str) -> list[OpenMessages]:
    found = _decode_open_messages(answer)
    return [OpenMessages(key, count, bool(held_up), tuple(sorted(ids))) for key, count, held_up, ids in sorted(found)]


def decode_timers(answer: str) -> list[TimerRecord]:
    rows = _decode_timers(answer)
    return [
        TimerRecord(number, kind, command, due, Address(service, key), asked_at)
        for number, kind, command, due, service, key, asked_at in rows
    ]


def decode_summaries(answer: str) -> list[ObjectSummary]:
    return _decode_summaries(answer)


def decode_mailbox(answer: str) -> MailboxRecord:
    return _decode_mailbox(answer)


def _object(address: Address, row: ObjectRow) -> StoredObject:
    started = sorted(row.started, key=lambda journal: journal.invocation.number)
    return StoredObject(
        address=address,
        state={field: small(value, "large_state", *address, field) for field, value in row.state.items()},
        started=_journals(started),
        pending=_journals(row.pending),
        pending_beyond=row.waiting - len(row.pending),
        promises=promises_of(address, row.promises),
    )


def _journals(rows: Iterable[JournalRow]) -> list[StoredInvocation]:
    return [_journal(row) for row in rows]


def _journal(row: JournalRow) -> StoredInvocation:
    number = row.invocation.number
    return StoredInvocation(
        record=invocation_of(row.invocation),
        steps=[StepRecord(number, index, small(content, "large_step", number, index)) for index, content in row.steps],
        completions=[
            CompletionRecord(number, command, position, bool(failed), small(value, "large_completion", number, command))
            for position, command, failed, value in row.completions
        ],
        attachments=attachments_of(number, row.attachments),
        sender_unfinished=bool(row.sender_unfinished),
        signals=[
            SignalRecord(number, position, name, bool(failed), small(value, "large_signal", number, position))
            for position, name, failed, value in row.signals
        ],
    )


def promises_of(
    address: Address, rows: Iterable[tuple[str, int, int | None, StoredPayload]], read: ReadPayload = small
) -> list[PromiseRecord]:
    """The promises of an object, by name."""
    return [
        PromiseRecord(address, name, bool(failed), read(value, "large_promise", *address, name), expires_at)
        for name, failed, expires_at, value in rows
    ]


def attachments_of(number: int, rows: Iterable[tuple[int, int, str, str]]) -> list[AttachmentRecord]:
    return [
        AttachmentRecord(number, CallerRecord(Address(service, key), caller, command))
        for caller, command, service, key in rows
    ]


def small_headers(stored: str) -> dict[str, str]:
    """
    Raises:
        NeedsPiecesError: they are damaged.
    """
    try:
        return decode_headers(stored)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise NeedsPiecesError("headers") from error


def refuse_damage(part: str, reason: str) -> NoReturn:
    """
    Raises:
        NeedsPiecesError: always.
    """
    raise NeedsPiecesError(part, reason)


def invocation_of(
    row: InvocationRow,
    read: ReadPayload = small,
    headers_of: Callable[[str], dict[str, str]] = small_headers,
    damaged: NoteDamage = refuse_damage,
) -> InvocationRecord:
    """The record of a row; `read` makes bytes of the payloads in it."""
    number = row.number
    return InvocationRecord(
        number=number,
        id=row.id,
        address=Address(row.service, row.key),
        handler=row.handler,
        seed=_seed(row.seed, damaged),
        argument=_no_argument(damaged) if row.argument is None else read(row.argument, "large_argument", number),
        headers={} if row.headers == NO_HEADERS else headers_of(row.headers),
        scope=_scope(row, damaged),
        caller=caller_of(row.caller_service, row.caller_key, row.caller_number, row.caller_command, damaged),
        sender_id=row.sender_id,
        deadline=row.deadline,
        accepted_at=row.accepted_at,
        keep_outcome_us=row.keep_outcome_us,
        status=STATUSES.get(row.status) or _unknown_status(row.status, damaged),
        mailbox_position=row.mailbox_position,
        attempts=row.attempts,
        failure=None if row.failure is None else read(row.failure, "large_failure", number),
        outcome=None if row.outcome is None else read(row.outcome, "large_outcome", number),
        expires_at=row.expires_at,
        due=row.due,
    )


def _seed(stored: str, damaged: NoteDamage) -> bytes:
    try:
        seed = bytes.fromhex(stored)
    except ValueError:
        damaged(SEED_PART, f"It is damaged: {stored!r} is not hexadecimal.")
        return bytes(SEED_BYTES)
    if len(seed) != SEED_BYTES and len(seed) < CONTINUED_SEED_BYTES:
        damaged(SEED_PART, f"It is damaged: it has {len(seed)} bytes.")
        return bytes(SEED_BYTES)
    return seed


def _no_argument(damaged: NoteDamage) -> bytes:
    damaged(ARGUMENT_PART, "It is not there.")
    return b""


def _unknown_status(stored: str, damaged: NoteDamage) -> InvocationStatus:
    damaged(STATUS_PART, f"It is {stored!r}, which no version has written.")
    return UNKNOWN_STATUS


def _scope(row: InvocationRow, damaged: NoteDamage) -> KeyScope | None:
    service, key, handler, idempotency_key = row.scope_service, row.scope_key, row.scope_handler, row.idempotency_key
    if idempotency_key is None and service is None and key is None and handler is None:
        return None
    if idempotency_key is None or service is None or key is None or handler is None:
        damaged(SCOPE_PART, "Only some of its columns are there.")
        return None
    return KeyScope(service, key, handler, idempotency_key)


def caller_of(
    service: str | None, key: str | None, number: int | None, command: int | None, damaged: NoteDamage
) -> CallerRecord | None:
    """Four columns as the command that they name, if they name one."""
    if number is None and service is None and key is None and command is None:
        return None
    if number is None or service is None or key is None or command is None:
        damaged(CALLER_PART, "Only some of its columns are there.")
        return None
    return CallerRecord(Address(service, key), number, command)

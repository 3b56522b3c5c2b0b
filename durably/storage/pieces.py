"""Reads what does not fit into one answer: piece by piece, on the thread of a connection, in one snapshot (rule L2).

A large payload is fetched by a statement of its own as the bytes that it is, so a load takes little more memory than
the bytes that it returns. A journal or snapshot beyond `limit_bytes` is measured and left out: it must not take the
process down that loads it. A payload that is damaged is left out of its record, which says so (rule L5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from durably.errors import UndecodableError
from durably.ids import Address, KeyScope
from durably.storage.damage import NO_UNICODE, DamagedError, bytes_if_sound, size_of_text
from durably.storage.decoding import (
    InvocationRow,
    StoredPayload,
    attachments_of,
    decode_attachment_rows,
    decode_completion_rows,
    decode_found_rows,
    decode_headers,
    decode_invocation_row,
    decode_invocation_rows,
    decode_keyed_rows,
    decode_signal_rows,
    decode_step_rows,
    invocation_of,
    promises_of,
)
from durably.storage.records import (
    ARGUMENT_PART,
    FAILURE_PART,
    HEADERS_PART,
    NAMES_PART,
    OUTCOME_PART,
    PENDING_BYTES,
    CompletionRecord,
    InvocationRecord,
    PromiseRecord,
    SignalRecord,
    StepRecord,
    StoredInvocation,
    StoredObject,
    Unreadable,
    answer_part,
    at_the_beginning,
    field_part,
    promise_part,
    step_part,
)
from durably.storage.row_source import RowSource

T = TypeVar("T")

PORTION_RECORDS = 32
"""How many steps, completions or signals come in one piece."""
PAGE_BYTES = 32 << 20
"""A page of records ends once their payloads hold so much."""
PAGE_RECORDS = 25_000
"""How many records a page has at most that does not fit into one answer."""


def _part(statement: str, *key: object) -> str:
    """What a payload is called, by the statement that reads it where it is large, and the key that it is given."""
    match statement, key:
        case "large_step", (_, int(index)):
            return step_part(index)
        case "large_completion", (_, int(command)):
            return answer_part(command)
        case "large_signal", (_, position):
            return f"the signal of log position {position}"
        case "large_state", (_, _, field):
            return field_part(str(field))
        case "large_promise", (_, _, name):
            return promise_part(str(name))
        case _:
            return PARTS_OF_RECORDS[statement]


PARTS_OF_RECORDS: Final = {
    "large_argument": ARGUMENT_PART,
    "large_failure": FAILURE_PART,
    "large_outcome": OUTCOME_PART,
}


class PieceReader:
    """Reads in pieces on one connection."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._unreadable: list[Unreadable] = []
        """What could not be read of the record that is being read."""

    # ------------------------------------------------------------ objects and journals

    def load(self, address: Address, pending_limit: int, limit_bytes: int) -> StoredObject:
        """One object, as `Store.load` answers."""
        place = {"service": address.service, "key": address.key}
        with self._source.snapshot():
            state, promises, left_out_bytes = self._kept(address, limit_bytes)
            unreadable = self._take_unreadable()
            parameters = {**place, "pending_limit": pending_limit, "pending_bytes": PENDING_BYTES}
            found = [*self._rows("records_of_object", parameters)]
            journals = [
                (kind, self._journal(decode_invocation_row(record), bool(unfinished), limit_bytes))
                for kind, record, unfinished in found
            ]
            ((waiting,),) = self._rows("waiting_of_object", place)
        started = [journal for kind, journal in journals if kind == "started"]
        pending = [journal for kind, journal in journals if kind == "pending"]
        return StoredObject(
            address=address,
            state=state,
            started=sorted(started, key=lambda journal: journal.record.number),
            pending=pending,
            pending_beyond=waiting - len(pending),
            promises=promises,
            left_out_bytes=left_out_bytes,
            unreadable=unreadable[0] if unreadable else None,
        )

    def fetch(self, number: int, limit_bytes: int, *, ended: bool = False) -> dict[int, StoredInvocation]:
        """One unfinished invocation, as `Store.fetch` answers, or one that has ended."""
        with self._source.snapshot():
            found = [*self._rows("record_of_ended" if ended else "record_of_number", {"number": number})]
            journals = [
                self._journal(decode_invocation_row(record), bool(unfinished), limit_bytes)
                for record, unfinished in found
            ]
            return {journal.record.number: journal for journal in journals}

    def state(self, address: Address) -> dict[str, bytes]:
        """The snapshot of one object, however large it is.

        Raises:
            UndecodableError: a field cannot be read; names it.
        """
        with self._source.snapshot():
            state = self._state(address, self._stored_state(address))
        for unreadable in self._take_unreadable():
            part = at_the_beginning(unreadable.part)
            raise UndecodableError(f"{part} of {address.service}/{address.key} cannot be read: {unreadable.reason}")
        return state

    def _kept(self, address: Address, limit_bytes: int) -> tuple[dict[str, bytes], list[PromiseRecord], int | None]:
        """State and promises, or the bytes that they hold where these are too many to load."""
        state = self._stored_state(address)
        promises = [*self._rows("promises_of_object", {"service": address.service, "key": address.key})]
        size = sum(map(_size_of, state.values())) + sum(_size_of(value) for *_, value in promises)
        if size > limit_bytes:
            return {}, [], size
        return self._state(address, state), promises_of(address, promises, self._payload), None

    def _stored_state(self, address: Address) -> dict[str, StoredPayload]:
        return dict(self._rows("state_of_object", {"service": address.service, "key": address.key}))

    def _state(self, address: Address, stored: Mapping[str, StoredPayload]) -> dict[str, bytes]:
        return {field: self._payload(value, "large_state", *address, field) for field, value in stored.items()}

    def _journal(self, row: InvocationRow, sender_unfinished: bool, limit_bytes: int) -> StoredInvocation:
        number = row.number
        kept = KeptPayloads(limit_bytes)
        kept.add(row.argument or "")
        steps = [
            (index, kept.add(content)) for index, content in self._portions("steps_of_number", number, decode_step_rows)
        ]
        completions = [
            (position, command, failed, kept.add(value))
            for position, command, failed, value in self._portions(
                "completions_of_number", number, decode_completion_rows
            )
        ]
        signals = [
            (position, name, failed, kept.add(value))
            for position, name, failed, value in self._portions("signals_of_number", number, decode_signal_rows)
        ]
        ((attachments,),) = self._rows("attachments_of_number", {"number": number})
        left_out = kept.size_bytes > limit_bytes
        if left_out:
            steps.clear()
            completions.clear()
            signals.clear()
            row.argument = ""
        record = self._record(row)
        return StoredInvocation(
            record=record,
            steps=[
                StepRecord(number, index, self._payload(content, "large_step", number, index))
                for index, content in sorted(steps, key=lambda step: step[0])
            ],
            completions=[
                CompletionRecord(
                    number, command, position, bool(failed), self._payload(value, "large_completion", number, command)
                )
                for position, command, failed, value in sorted(completions, key=lambda answer: answer[:2])
            ],
            attachments=attachments_of(number, decode_attachment_rows(attachments)),
            sender_unfinished=sender_unfinished,
            left_out_bytes=kept.size_bytes if left_out else None,
            signals=[
                SignalRecord(
                    number, position, name, bool(failed), self._payload(value, "large_signal", number, position)
                )
                for position, name, failed, value in sorted(signals, key=lambda signal: signal[0])
            ],
            unreadable=next(iter(self._take_unreadable()), None),
        )

    def _portions(self, name: str, number: int, decode: Callable[[str], list[T]]) -> Iterator[T]:
        for (piece,) in self._rows(name, {"number": number, "portion": PORTION_RECORDS}):
            yield from decode(piece)

    # ------------------------------------------------------------ records

    def find(self, parameters: Mapping[str, object]) -> dict[str, InvocationRecord]:
        """As `Store.find` answers."""
        with self._source.snapshot():
            rows = decode_found_rows(self._answer("find", parameters))
            return {asked: self._record(row) for asked, row in rows}

    def find_keyed(
        self, parameters: Mapping[str, object], scopes: Sequence[KeyScope]
    ) -> dict[KeyScope, InvocationRecord]:
        """As `Store.find_keyed` answers."""
        with self._source.snapshot():
            rows = decode_keyed_rows(self._answer("find_keyed", parameters))
            return {scopes[place]: self._record(row) for place, row in rows}

    def page(self, name: str, parameters: Mapping[str, object]) -> list[InvocationRecord]:
        """Records in order, and fewer than there are where they are large."""
        with self._source.snapshot():
            return list(self._page(decode_invocation_rows(self._answer(name, parameters))))

    def _page(self, rows: Iterable[InvocationRow]) -> Iterator[InvocationRecord]:
        held = 0
        for row in rows:
            held += sum(_size_of(part) for part in (row.argument, row.failure, row.outcome) if part is not None)
            yield self._record(row)
            if held >= PAGE_BYTES:
                return

    # ------------------------------------------------------------ inside

    def _record(self, row: InvocationRow) -> InvocationRecord:
        record = invocation_of(row, self._payload, self._headers, self._damaged)
        names = (record.id, *record.address, record.handler, *(record.scope or ()))
        if any(NO_UNICODE in name for name in names):
            self._damaged(NAMES_PART, "It is damaged: it is not UTF-8.")
        unreadable = self._take_unreadable()
        return replace(record, unreadable=tuple(unreadable)) if unreadable else record

    def _payload(self, stored: StoredPayload | bytes, statement: str, *key: object) -> bytes:
        """The bytes of a payload; none where it is damaged, which is noted."""
        try:
            if isinstance(stored, bytes):
                return stored
            if isinstance(stored, str):
                return bytes_if_sound(stored)
            ((payload,),) = [*self._rows(statement, key)] or [(None,)]
            if payload is None:
                raise DamagedError("It is damaged: its name is not UTF-8.")
            if isinstance(payload, str):
                return bytes_if_sound(payload)
            if not isinstance(payload, bytes):
                raise DamagedError("It is a number.")
        except DamagedError as error:
            self._damaged(_part(statement, *key), str(error))
            return b""
        return payload

    def _damaged(self, part: str, reason: str) -> None:
        self._unreadable.append(Unreadable(part, reason))

    def _headers(self, stored: str) -> dict[str, str]:
        try:
            headers = decode_headers(stored)
        except (msgspec.DecodeError, UnicodeError) as error:
            self._damaged(HEADERS_PART, f"They are damaged: {error}.")
            return {}
        if NO_UNICODE in stored:
            self._damaged(HEADERS_PART, "They are damaged: they are not UTF-8.")
            return {}
        return headers

    def _take_unreadable(self) -> list[Unreadable]:
        taken, self._unreadable = self._unreadable, []
        return taken

    def _answer(self, name: str, parameters: Mapping[str, object]) -> str:
        ((answer,),) = self._rows(name, parameters)
        return str(answer)

    def _rows(self, name: str, parameters: Sequence[object] | Mapping[str, object]) -> Iterator[tuple[Any, ...]]:
        return self._source.rows(name, parameters)


class KeptPayloads:
    """Adds up what payloads hold, and keeps the small ones only while all of them are within the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    def add(self, stored: StoredPayload) -> bytes | str | int:
        """What is kept of a payload; of a damaged one, its text."""
        payload: bytes | str | int = stored
        if isinstance(stored, str):
            with suppress(DamagedError):
                payload = bytes_if_sound(stored)
        self.size_bytes += payload if isinstance(payload, int) else len(payload)
        return payload if self.size_bytes <= self._limit_bytes else 0


def _size_of(stored: StoredPayload) -> int:
    return stored if isinstance(stored, int) else size_of_text(stored)

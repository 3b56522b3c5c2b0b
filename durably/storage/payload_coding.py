"""`PayloadCoding`: a codec around every stored value (rule V8).

Wrapped are arguments, results, failures, header values, state, entries, events, steps (with the arguments, changed
fields and results in them), completions, promises and signals. Readable stay the names of services, handlers, fields,
promises, signals, headers, events and actions, keys (of dictionaries too), ids, idempotency keys and times: the store
finds records by them.

What is wrapped begins with a mark. Values without it are in plain. They are refused unless the store is known to hold
some: who can write to the file could else put one in the place of an encrypted one. A store that does hold some has a
mark of its own, drawn when all of its values were in plain, so none of them begins with it.

A value that the codec cannot read is left out of its record, which says so (`Unreadable`): one record never takes the
store down (rule L5).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import getattr_static
from types import FunctionType
from typing import Final, Protocol, TypeAlias, TypeVar, cast

from msgspec.structs import replace

from durably.errors import CodecError, UndecodableError
from durably.storage.records import (
    ARGUMENT_PART,
    FAILURE_PART,
    HEADERS_PART,
    OUTCOME_PART,
    Batch,
    DamagedEvent,
    EntryAnswer,
    EntryQuery,
    EventAnswer,
    EventRecord,
    InvocationRecord,
    StoredInvocation,
    StoredObject,
    Unreadable,
    VersionsAnswer,
    answer_part,
    entry_part,
    event_part,
    field_part,
    promise_part,
    signal_part,
    step_part,
)

T = TypeVar("T")

MARK: Final = b"\x00\xd1\x9c\x01"
"""No JSON begins like this."""
HEADER_MARK: Final = "durably-coded:"


class Codec(Protocol):
    """Wraps stored values. What `decode` cannot read it refuses with an error.

    A codec may say `encodes_everything = True`: it encodes any bytes, to at most twice as many and a kilobyte. Then the
    machine does not try each value before it accepts it, and encodes only what it stores.
    """

    def encode(self, data: bytes, /) -> bytes: ...
    def decode(self, data: bytes, /) -> bytes: ...


def is_codec(given: object) -> bool:
    """A codec, and not a class of codecs: that has methods which need an instance."""
    if isinstance(given, type) and isinstance(getattr_static(given, "encode", None), FunctionType):
        return False
    return hasattr(given, "encode") and hasattr(given, "decode")


class PayloadCoding:
    """The records of a store, with their values wrapped and unwrapped by one codec.

    `accepts_plain`: values that do not begin with the mark are read as they are.
    """

    def __init__(self, codec: Codec, *, accepts_plain: bool = False, mark: bytes = MARK) -> None:
        self._codec = codec
        self._name = getattr(codec, "name", type(codec).__name__)
        self._mark = mark
        self.accepts_plain = accepts_plain

    # ------------------------------------------------------------------ one value

    def wrap(self, data: bytes) -> bytes:
        """
        Raises:
            CodecError: the codec cannot write it.
        """
        try:
            coded = cast("object", self._codec.encode(data))
        except Exception as error:  # The codec may be the user's.
            reason = str(error) or type(error).__name__
            raise CodecError(f"The codec {self._name} cannot encode a value of {len(data)} bytes: {reason}.") from error
        if not isinstance(coded, bytes):
            raise CodecError(f"{self._name}.encode gave {type(coded).__name__}, not bytes. Mend the codec.")
        return self._mark + coded

    def unwrap(self, data: bytes) -> bytes:
        """
        Raises:
            UndecodableError: the codec cannot read it.
        """
        if not data.startswith(self._mark):
            if self.accepts_plain:
                return data
            raise UndecodableError("A stored value is in plain, and no codec wrote it. Somebody else did.")
        try:
            decoded = cast("object", self._codec.decode(data[len(self._mark) :]))
        except UndecodableError:
            raise
        except Exception as error:  # The codec may be the user's.
            raise UndecodableError(f"The codec cannot read a stored value: {error}") from error
        if not isinstance(decoded, bytes):
            raise UndecodableError(f"{self._name}.decode gave {type(decoded).__name__}, not bytes. Mend the codec.")
        return decoded

    def check(self, data: bytes) -> None:
        """See that the codec decodes what it encodes.

        Raises:
            CodecError: it does not.
        """
        try:
            decoded = self.unwrap(self.wrap(data))
        except UndecodableError as error:
            raise CodecError(
                f"The codec {self._name} cannot decode what it has just encoded: {error.message}"
            ) from error
        if decoded != data:
            raise CodecError(f"The codec {self._name} decodes what it has encoded as something else. Mend the codec.")

    def wrap_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: HEADER_MARK + b64encode(self.wrap(value.encode())).decode() for name, value in headers.items()}

    def unwrap_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._unwrap_header(value) for name, value in headers.items()}

    def _unwrap_header(self, value: str) -> str:
        coded = _coded_header(value)
        if self.accepts_plain and (coded is None or not coded.startswith(self._mark)):
            return value
        try:
            return self.unwrap(value.encode() if coded is None else coded).decode()
        except UndecodableError:
            raise
        except ValueError as error:
            raise UndecodableError(f"A stored value is damaged: {error}.") from error

    # ------------------------------------------------------------------ on the way to the store

    def batch(self, batch: Batch) -> Batch:
        """The same batch, its values wrapped."""
        wrap = self.wrap
        return replace(
            batch,
            renewed=[replace(one, argument=wrap(one.argument)) for one in batch.renewed],
            accepted=[self._accepted(one) for one in batch.accepted],
            updated=[
                replace(one, failure=_if_any(wrap, one.failure), outcome=_if_any(wrap, one.outcome))
                for one in batch.updated
            ],
            steps=[replace(one, content=wrap(one.content)) for one in batch.steps],
            completions=[replace(one, value=wrap(one.value)) for one in batch.completions],
            signals=[replace(one, value=wrap(one.value)) for one in batch.signals],
            state=[replace(one, value=_if_any(wrap, one.value)) for one in batch.state],
            promises=[replace(one, value=wrap(one.value)) for one in batch.promises],
            entries=[replace(one, value=_if_any(wrap, one.value)) for one in batch.entries],
            events=[replace(one, value=wrap(one.value)) for one in batch.events],
        )

    def _accepted(self, record: InvocationRecord) -> InvocationRecord:
        return replace(
            record,
            argument=self.wrap(record.argument),
            headers=self.wrap_headers(record.headers),
            failure=_if_any(self.wrap, record.failure),
            outcome=_if_any(self.wrap, record.outcome),
        )

    # ------------------------------------------------------------------ on the way back

    def invocation(self, record: InvocationRecord, *, has_argument: bool = True) -> InvocationRecord:
        """An invocation as it was before it was stored. One that is too large to load comes without its argument."""
        found = Unwrapping(self.unwrap, known=record.unreadable)
        no_headers: dict[str, str] = {}
        headers = found.read(HEADERS_PART, partial(self.unwrap_headers, record.headers), no_headers)
        return replace(
            record,
            argument=found.payload(ARGUMENT_PART, record.argument) if has_argument else b"",
            headers=headers,
            failure=found.optional(FAILURE_PART, record.failure),
            outcome=found.optional(OUTCOME_PART, record.outcome),
            unreadable=(*record.unreadable, *found.unreadable),
        )

    def stored(self, stored: StoredInvocation) -> StoredInvocation:
        """An invocation with its journal, as they were."""
        found = Unwrapping(self.unwrap)
        return replace(
            stored,
            record=self.invocation(stored.record, has_argument=stored.left_out_bytes is None),
            steps=[replace(one, content=found.payload(step_part(one.index), one.content)) for one in stored.steps],
            completions=[
                replace(one, value=found.payload(answer_part(one.command), one.value)) for one in stored.completions
            ],
            signals=[replace(one, value=found.payload(signal_part(one.name), one.value)) for one in stored.signals],
            unreadable=stored.unreadable or found.first,
        )

    def object(self, stored: StoredObject) -> StoredObject:
        """An object with what it begins with, as they were."""
        found = Unwrapping(self.unwrap)
        return replace(
            stored,
            state={field: found.payload(field_part(field), value) for field, value in stored.state.items()},
            started=[self.stored(one) for one in stored.started],
            pending=[self.stored(one) for one in stored.pending],
            promises=[replace(one, value=found.payload(promise_part(one.name), one.value)) for one in stored.promises],
            unreadable=stored.unreadable or found.first,
        )

    def entries(self, query: EntryQuery, answer: EntryAnswer) -> EntryAnswer:
        """Entries of a field, as they were."""
        if not answer.entries or (query.only_keys and not query.limit):
            return answer
        found = Unwrapping(self.unwrap)
        entries = [
            # Those that were asked for by key come without their values, and before the others.
            (key, found.payload(entry_part(query.field, key), value) if value or not query.only_keys else value)
            for key, value in answer.entries
        ]
        return replace(answer, entries=entries, unreadable=answer.unreadable or found.first)

    def events(self, answer: EventAnswer) -> EventAnswer:
        """Events, as they were."""
        found = Unwrapping(self.unwrap)
        events: list[EventRecord] = []
        damaged = [*answer.damaged]
        for one in answer.events:
            known = len(found.unreadable)
            value = found.payload(event_part(one.id, one.stream, one.key), one.value)
            if len(found.unreadable) == known:
                events.append(replace(one, value=value))
            else:
                damaged.append(DamagedEvent(replace(one, value=b""), found.unreadable[-1]))
        return EventAnswer(events, sorted(damaged, key=lambda one: one.record.position))

    def versions(self, field: str, answer: VersionsAnswer) -> VersionsAnswer:
        """One field of some objects, as it was."""
        versions: list[tuple[str, bytes]] = []
        first = answer.unreadable
        for key, value in answer.versions:
            found = Unwrapping(self.unwrap)
            read = found.payload(field_part(field), value)
            if found.first is None:
                versions.append((key, read))
            first = first or found.first
        return VersionsAnswer(versions, first, answer.is_all)

    def state(self, state: Mapping[str, bytes]) -> dict[str, bytes]:
        """The fields of an object, as they were.

        Raises:
            UndecodableError: the codec cannot read one; names it.
        """
        found = Unwrapping(self.unwrap)
        read = {field: found.payload(field_part(field), value) for field, value in state.items()}
        if found.first is not None:
            raise UndecodableError(f"{found.first.part} cannot be read: {found.first.reason}")
        return read


Unwrap: TypeAlias = Callable[[bytes], bytes]


class Unwrapping:
    """Reads the payloads of one record, and notes those that cannot be read."""

    __slots__ = ("_known", "_unwrap", "unreadable")

    def __init__(self, unwrap: Unwrap, *, known: Sequence[Unreadable] = ()) -> None:
        """`known` are those of which it is known already."""
        self._unwrap = unwrap
        self._known = frozenset(one.part for one in known)
        self.unreadable: list[Unreadable] = []

    @property
    def first(self) -> Unreadable | None:
        return self.unreadable[0] if self.unreadable else None

    def payload(self, part: str, data: bytes) -> bytes:
        return self.read(part, partial(self._unwrap, data), b"")

    def optional(self, part: str, data: bytes | None) -> bytes | None:
        return None if data is None else self.read(part, partial(self._unwrap, data), None)

    def read(self, part: str, read: Callable[[], T], instead: T) -> T:
        if part in self._known:
            return instead
        try:
            return read()
        except UndecodableError as error:
            self.unreadable.append(Unreadable(part, error.message))
            return instead


def _coded_header(value: str) -> bytes | None:
    """What a codec made of a header value; None: it is in plain, or damaged."""
    if not value.startswith(HEADER_MARK):
        return None
    try:
        return b64decode(value[len(HEADER_MARK) :], validate=True)
    except ValueError:
        return None


def _if_any(code: Callable[[bytes], bytes], data: bytes | None) -> bytes | None:
    return None if data is None else code(data)

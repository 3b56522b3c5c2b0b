"""`PayloadCoding`: a codec around every stored value (rule V8).

Wrapped are arguments, results, failures, header values, state, steps (with the arguments, changed fields and results in
them), completions, promises and signals. Readable stay the names of services, handlers, fields, promises, signals,
headers and actions, keys, ids, idempotency keys and times: the store finds records by them.

What is wrapped begins with a mark. Values without it were written before there was a codec, and are read as they are.
So a store can be given a codec at any time; what is written from then on is wrapped.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

from msgspec.structs import replace

from durably.errors import UndecodableError
from durably.storage.records import Batch, InvocationRecord, StoredInvocation, StoredObject

T = TypeVar("T")

MARK: Final = b"\x00\xd1\x9c\x01"
"""No JSON begins like this."""
HEADER_MARK: Final = "durably-coded:"


class Codec(Protocol):
    """Wraps stored values. What `decode` cannot read it refuses with an error."""

    def encode(self, data: bytes, /) -> bytes: ...
    def decode(self, data: bytes, /) -> bytes: ...


class PayloadCoding:
    """The records of a store, with their values wrapped and unwrapped by one codec."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    # ------------------------------------------------------------------ one value

    def wrap(self, data: bytes) -> bytes:
        return MARK + self._codec.encode(data)

    def unwrap(self, data: bytes) -> bytes:
        """
        Raises:
            UndecodableError: the codec cannot read it.
        """
        if not data.startswith(MARK):
            return data
        try:
            return self._codec.decode(data[len(MARK) :])
        except UndecodableError:
            raise
        except Exception as error:  # The codec may be the user's.
            raise UndecodableError(f"The codec cannot read a stored value: {error}") from error

    def _wrap_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: HEADER_MARK + b64encode(self.wrap(value.encode())).decode() for name, value in headers.items()}

    def _unwrap_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {
            name: self.unwrap(b64decode(value[len(HEADER_MARK) :])).decode() if value.startswith(HEADER_MARK) else value
            for name, value in headers.items()
        }

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
        )

    def _accepted(self, record: InvocationRecord) -> InvocationRecord:
        return replace(
            record,
            argument=self.wrap(record.argument),
            headers=self._wrap_headers(record.headers),
            failure=_if_any(self.wrap, record.failure),
            outcome=_if_any(self.wrap, record.outcome),
        )

    # ------------------------------------------------------------------ on the way back

    def invocation(self, record: InvocationRecord) -> InvocationRecord:
        """An invocation as it was before it was stored."""
        return replace(
            record,
            argument=self.unwrap(record.argument),
            headers=self._unwrap_headers(record.headers),
            failure=_if_any(self.unwrap, record.failure),
            outcome=_if_any(self.unwrap, record.outcome),
        )

    def stored(self, stored: StoredInvocation) -> StoredInvocation:
        """An invocation with its journal, as they were."""
        return replace(
            stored,
            record=self.invocation(stored.record),
            steps=[replace(one, content=self.unwrap(one.content)) for one in stored.steps],
            completions=[replace(one, value=self.unwrap(one.value)) for one in stored.completions],
            signals=[replace(one, value=self.unwrap(one.value)) for one in stored.signals],
        )

    def object(self, stored: StoredObject) -> StoredObject:
        """An object with what it begins with, as they were."""
        return replace(
            stored,
            state=self.state(stored.state),
            started=[self.stored(one) for one in stored.started],
            pending=[self.stored(one) for one in stored.pending],
            promises=[replace(one, value=self.unwrap(one.value)) for one in stored.promises],
        )

    def state(self, state: Mapping[str, bytes]) -> dict[str, bytes]:
        """The fields of an object, as they were."""
        return {field: self.unwrap(value) for field, value in state.items()}


def _if_any(code: Callable[[bytes], bytes], data: bytes | None) -> bytes | None:
    return None if data is None else code(data)

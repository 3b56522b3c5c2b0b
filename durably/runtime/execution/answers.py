"""Small conversions between what the machine counts in and what users read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from durably.actors.protocol.commands import StatusAnswer
from durably.ids import InvocationStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_status_encoder = msgspec.json.Encoder()
_id_decoder = msgspec.json.Decoder(str)


def from_timestamp(us: int) -> datetime:
    """Microseconds since 1970 UTC as an aware datetime, exactly."""
    return _EPOCH + timedelta(microseconds=us)


def encode_id(id: str) -> bytes:
    """The answer to a `Send` with an idempotency key."""
    return msgspec.json.encode(id)


def decode_id(answer: bytes) -> str:
    return _id_decoder.decode(answer)


def encode_status(status: InvocationStatus) -> bytes:
    """The answer to `Look`."""
    return _status_encoder.encode(StatusAnswer(status))

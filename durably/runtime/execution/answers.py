"""Small conversions between what the machine counts in and what users read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from durably.actors.protocol.commands import SendAnswer, StatusAnswer
from durably.ids import InvocationStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_status_encoder = msgspec.json.Encoder()
_send_decoder = msgspec.json.Decoder(SendAnswer)


def from_timestamp(us: int) -> datetime:
    """Microseconds since 1970 UTC as an aware datetime, exactly."""
    return _EPOCH + timedelta(microseconds=us)


def encode_send_answer(answer: SendAnswer) -> bytes:
    """The answer to a `Send` that may join an earlier invocation."""
    return msgspec.json.encode(answer)


def decode_send_answer(answer: bytes) -> SendAnswer:
    return _send_decoder.decode(answer)


def encode_status(status: InvocationStatus) -> bytes:
    """The answer to `Look`."""
    return _status_encoder.encode(StatusAnswer(status))

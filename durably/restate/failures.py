"""Failures between durably and Restate: a terminal error travels with its class and its fields as metadata.

Restate itself reads a code and a message, so callers in other languages, the admin API and people see the same failure.
"""

from __future__ import annotations

from typing import Final

import restate

from durably.actors.values.error_envelopes import METADATA_ENTRY, decode_failure, encode_failure
from durably.client.answers import STARTED_ON_RESTATE
from durably.errors import AlreadyStartedError, CancelledInvocationError, TerminalError

CONFLICT: Final = 409
CANCELLED_TEXTS: Final = frozenset({"canceled", "cancelled", "killed"})
"""What Restate says of an invocation that it has ended itself."""


def to_restate(failure: bytes) -> restate.TerminalError:
    """An encoded failure as the SDK raises it."""
    error = decode_failure(failure)
    return restate.TerminalError(error.message, status_code=error.code, metadata={METADATA_ENTRY: failure.decode()})


def is_typed(error: restate.TerminalError) -> bool:
    """A handler or an action of durably's has raised it."""
    return METADATA_ENTRY in (error.metadata or {})


def from_restate(error: restate.TerminalError) -> bytes:
    """A failure of the SDK as durably encodes it."""
    metadata = dict(error.metadata or {})
    envelope = metadata.pop(METADATA_ENTRY, None)
    if envelope is not None:
        return envelope.encode()
    if error.status_code == CONFLICT and error.message.lower() in CANCELLED_TEXTS:
        return encode_failure(CancelledInvocationError())
    if error.status_code == CONFLICT and error.message == STARTED_ON_RESTATE:
        return encode_failure(AlreadyStartedError(error.message))
    return encode_failure(TerminalError(error.message, code=error.status_code, metadata=metadata or None))

"""What a client makes of an answer: the bytes of a result, or the error that the same call raises in the process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from durably.actors.values.error_envelopes import METADATA_ENTRY, Envelope, decode_failure, restored
from durably.errors import (
    AlreadyStartedError,
    DurablyError,
    InvalidArgumentError,
    NotReadyError,
    OverloadedError,
    PausedInvocationError,
    RuntimeStoppedError,
    ServerUnreachableError,
    TerminalError,
    UnknownTargetError,
    paused_as,
)
from durably.http_headers import ACCEPTED, ERROR_SOURCE, INVOCATION_ID, NOTHING_ACCEPTED, RETRY_AFTER

CONFLICT, TOO_MANY, UNAVAILABLE = 409, 429, 503
STARTED_ON_RESTATE: Final = "the workflow method was already invoked"
"""What a Restate server says in the name of the handler when a workflow is called that was started."""
GATEWAY: Final = frozenset({502, 503, 504})
"""What a proxy says that has not reached its server, or has lost it."""
OF_INGRESS: Final[Mapping[int, type[TerminalError]]] = {
    404: UnknownTargetError,
    470: NotReadyError,
}


class Answered(msgspec.Struct, frozen=True):
    """One answer, as it came."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def nothing_was_accepted(self) -> bool:
        """It says that the request had no effect."""
        return self.status == TOO_MANY or self.headers.get(ACCEPTED) == NOTHING_ACCEPTED

    @property
    def source(self) -> str | None:
        """Who speaks in a failure: `invocation` or `ingress`; None: a proxy, or a server that does not say."""
        return self.headers.get(ERROR_SOURCE)

    @property
    def retry_after_seconds(self) -> float | None:
        text = self.headers.get(RETRY_AFTER, "")
        return float(text) if text.isdecimal() else None


class _Body(msgspec.Struct):
    """The body of a failure."""

    message: str | None = None
    code: int | None = None
    metadata: dict[str, str] = {}
    error: Envelope | None = None
    """Its class and fields, where the server is durably."""


class _Acceptance(msgspec.Struct, rename="camel"):
    """The body of the answer to a send."""

    invocation_id: str
    status: str = "Accepted"


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_acceptance = msgspec.json.Decoder(_Acceptance).decode


def acceptance_of(answered: Answered, server: str) -> tuple[str, bool]:
    """The id of the invocation, and whether it was accepted before.

    Raises:
        ServerUnreachableError: the answer is none of an ingress.
    """
    try:
        acceptance = _decode_acceptance(answered.body)
    except msgspec.MsgspecError:
        raise _no_ingress(answered, server) from None
    return acceptance.invocation_id, acceptance.status == "PreviouslyAccepted"


def error_of(answered: Answered, server: str) -> DurablyError:
    """The error that an answer without success stands for."""
    try:
        body = _decode_body(answered.body)
    except msgspec.MsgspecError:
        return _no_ingress(answered, server)
    if body.error is not None:
        return restored(body.error)
    if METADATA_ENTRY in body.metadata:  # A handler of durably's, on Restate.
        return decode_failure(body.metadata[METADATA_ENTRY].encode())
    id = answered.headers.get(INVOCATION_ID)
    message = f"{server} answered with {answered.status}." if body.message is None else body.message
    if answered.source == "invocation" and answered.status == UNAVAILABLE and id is not None:
        return _paused(id, message)
    code = body.code or answered.status
    if answered.source == "invocation" and code == CONFLICT and message == STARTED_ON_RESTATE:
        return AlreadyStartedError(message)
    if answered.source == "invocation":
        return TerminalError(message, code=code, metadata=body.metadata or None)
    if answered.status == TOO_MANY:
        return OverloadedError(message, retry_after=answered.retry_after_seconds)
    if answered.status in GATEWAY:
        if id is not None:
            return RuntimeStoppedError(message, id=id)
        return ServerUnreachableError(message, nothing_accepted=answered.nothing_was_accepted)
    if answered.status == CONFLICT and answered.source is not None:
        return AlreadyStartedError(message)
    cls = OF_INGRESS.get(answered.status, InvalidArgumentError if 400 <= answered.status < 500 else TerminalError)
    error = cls(message)
    error.code = code
    return error


def _paused(id: str, message: str) -> PausedInvocationError:
    """With the sentence of the server, which says what to do."""
    error = PausedInvocationError(id, message.partition(paused_as(id))[0])
    error.args = (message,)
    error.message = message
    return error


def _no_ingress(answered: Answered, server: str) -> DurablyError:
    shown = answered.body[:200].decode(errors="replace")
    return ServerUnreachableError(
        f"{server} answered with {answered.status} and {shown!r}, which no ingress says. Look at what listens there: "
        "the client takes the address of `durably serve`, or of the place where runtime.asgi() is mounted."
    )

"""What a client gets: status, headers and body of every answer, in the shapes that Restate's clients read.

A failure always says who speaks, in the body and in `x-restate-error-source`: `invocation` is the outcome of a
handler and must not be repeated blindly; `ingress` refused the request or cannot tell its outcome, and a 503 says
whether repeating is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final, Literal

import msgspec

from durably import http_headers
from durably.actors.values.error_envelopes import code_of, envelope_of, message_of, metadata_of
from durably.errors import (
    DurablyError,
    OverloadedError,
    PausedInvocationError,
    RuntimeStoppedError,
    StoreInUseError,
    StoreUnavailableError,
    TerminalError,
    paused_as,
)
from durably.runtime.gateway.requests import Acceptance, Reply

Headers = list[tuple[bytes, bytes]]
Source = Literal["ingress", "invocation"]

INVOCATION_ID: Final = http_headers.INVOCATION_ID.encode()
EXPIRES: Final = b"idempotency-expires"
ERROR_SOURCE: Final = http_headers.ERROR_SOURCE.encode()
RETRY_AFTER: Final = http_headers.RETRY_AFTER.encode()
NOTHING_ACCEPTED: Final = (http_headers.ACCEPTED.encode(), http_headers.NOTHING_ACCEPTED.encode())
TYPED_ERRORS: Final = http_headers.TYPED_ERRORS.encode()
JSON_TYPE: Final = "application/json"
JSON: Final = (b"content-type", JSON_TYPE.encode())

SAFE_WITH_THIS_KEY: Final = "The request has an 'idempotency-key', so it can be safely retried."
SAFE_WITH_A_KEY: Final = (
    "If the request has an 'idempotency-key', it can be safely retried, otherwise submitting it again may result in "
    "executing the invocation twice."
)
SAFE_ANYHOW: Final = "The request can be safely retried."
NOT_RUNNING: Final = (
    "the runtime is stopping or has not started yet. The request was not accepted, so it can be safely retried."
)
NOT_SERVING: Final = "the runtime accepts no requests: it is stopping, has not started yet, or has lost its store"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One HTTP response."""

    status: int
    headers: Headers
    body: bytes


def result_answer(reply: Reply, *, typed_errors: bool = False) -> Answer:
    """The outcome of a call."""
    if reply.failure is not None:
        return _failure_answer(reply.id, reply.failure, typed=typed_errors, expires_at=reply.expires_at)
    headers: Headers = [(INVOCATION_ID, reply.id.encode())]
    if reply.content_type == JSON_TYPE:
        headers.append(JSON)
    elif reply.content_type is not None:
        headers.append((b"content-type", reply.content_type.encode()))
    if reply.expires_at is not None:
        headers.append((EXPIRES, rfc3339(reply.expires_at).encode()))
    return Answer(200, headers, reply.body)


def acceptance_answer(acceptance: Acceptance) -> Answer:
    """A send that is durable."""
    body = {
        "invocationId": acceptance.id,
        "status": "PreviouslyAccepted" if acceptance.previously_accepted else "Accepted",
    }
    if acceptance.due is not None:
        body["executionTime"] = rfc3339(acceptance.due)
    return Answer(202, [JSON, (INVOCATION_ID, acceptance.id.encode())], _encode(body))


def lookup_answer(invocation_id: str) -> Answer:
    """The id of an invocation that was named otherwise."""
    return Answer(200, [JSON, (INVOCATION_ID, invocation_id.encode())], _encode({"invocationId": invocation_id}))


def error_answer(
    status: int, message: str, *, source: Source = "ingress", code: int | None = None,
    metadata: Mapping[str, str] | None = None, invocation_id: str | None = None, headers: Headers | None = None,
    error: TerminalError | None = None,
) -> Answer:  # fmt: skip
    """A failure or a refusal. `code` is the body's, where it differs from the status; `error` goes into it as well."""
    body: dict[str, Any] = {"code": status if code is None else code, "message": message, "source": source}
    if metadata:
        body["metadata"] = metadata
    if error is not None:
        body["error"] = envelope_of(error)
    identity: Headers = [] if invocation_id is None else [(INVOCATION_ID, invocation_id.encode())]
    return Answer(status, [JSON, (ERROR_SOURCE, source.encode()), *identity, *(headers or [])], _encode(body))


def application_answer(error: DurablyError) -> Answer:
    """What an application of the host answers where a call of its own raised this."""
    if isinstance(error, TerminalError):
        return _failure_answer(None, error)
    return refusal_answer(error, is_keyed=None)


def refusal_answer(error: DurablyError, *, is_keyed: bool | None, typed_errors: bool = False) -> Answer:
    """What a runtime's refusal is over HTTP. `is_keyed`: the request had an idempotency key; None: it knows of none."""
    repeat = "" if is_keyed is None else f" {SAFE_WITH_THIS_KEY if is_keyed else SAFE_WITH_A_KEY}"
    match error:
        case OverloadedError():
            return error_answer(429, _overloaded(error), headers=[*_retry_after(error), NOTHING_ACCEPTED])
        case StoreUnavailableError(nothing_accepted=True):
            return error_answer(503, f"{error} {SAFE_ANYHOW}", headers=[NOTHING_ACCEPTED])
        case StoreUnavailableError() | StoreInUseError():
            return error_answer(503, f"{error}{repeat}")
        case RuntimeStoppedError(id=None):
            return error_answer(503, NOT_RUNNING, headers=[NOTHING_ACCEPTED])
        case RuntimeStoppedError(id=invocation_id):
            return error_answer(503, f"{error}{repeat}", invocation_id=invocation_id)
        case PausedInvocationError():
            return error_answer(503, _paused(error), source="invocation", invocation_id=error.id)
        case TerminalError():
            return error_answer(
                _status(code_of(error)), message_of(error), code=code_of(error), metadata=metadata_of(error),
                error=error if typed_errors else None,
            )  # fmt: skip
        case _:
            return error_answer(500, str(error))


def rfc3339(microseconds: int) -> str:
    """A moment, given as microseconds since 1970 UTC."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")


def _failure_answer(
    invocation_id: str | None, failure: TerminalError, *, typed: bool = False, expires_at: int | None = None
) -> Answer:
    return error_answer(
        _status(code_of(failure)),
        message_of(failure),
        source="invocation",
        code=code_of(failure),
        metadata=metadata_of(failure),
        invocation_id=invocation_id,
        headers=None if expires_at is None else [(EXPIRES, rfc3339(expires_at).encode())],
        error=failure if typed else None,
    )


def _paused(error: PausedInvocationError) -> str:
    """The sentence of the error, with what a client over HTTP can do."""
    act = f"PATCH /invocations/{error.id}"
    return (
        f"{error.reason.rstrip('.')}{paused_as(error.id)} Mend the cause, then let it go on: {act}/resume on the port "
        f"for operators. Or end it: {act}/cancel lets the handler clean up, {act}/kill does not."
    )


def _overloaded(error: OverloadedError) -> str:
    held_up_by = error.held_up_by
    if held_up_by is None:
        return error.message
    act = (
        f"POST /internal/invocations_batch_operations/resume with {_encode({'target': held_up_by}).decode()}"
        if "/" in held_up_by
        else f"PATCH /invocations/{held_up_by}/resume"
    )
    return (
        f"{error.reason} If what holds it is stuck: {act} on the port for operators lets it go on, cancel or kill in "
        "place of resume ends it."
    )


def _status(code: int) -> int:
    return code if 400 <= code <= 599 else 500


def _retry_after(error: OverloadedError) -> Headers:
    """Whole seconds, rounded up, and at least one: zero would invite a busy loop."""
    return [(RETRY_AFTER, b"%d" % max(1, ceil(error.retry_after or 0)))]

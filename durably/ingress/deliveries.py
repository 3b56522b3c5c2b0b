"""What is sent over HTTP to invocations under way: values for awakeables, and signals.

    POST /restate/awakeables/{id}/resolve             the body is the value, as JSON; none is null. With another content
                                                      type it is bytes, for who awaits it with a Serde
    POST /restate/awakeables/{id}/reject              the body is the reason, as text; ?code=409 is the error's code
    POST /restate/a/{id}/resolve, /restate/a/{id}/reject
    POST /restate/invocations/{id}/signals/{name}             a value, as above
    POST /restate/invocations/{id}/signals/{name}/reject      a reason

The answer is 202 once it is durable. That an awakeable was completed before, or is gone, is no error (rule E5); a
signal that nothing can take is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import parse_qs

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from durably.actors.protocol.commands import CompleteAwakeable, SendSignal
from durably.actors.sent_values import REJECTION_CODE, Sent, checked_id, checked_signal_name, sent_body, sent_failure
from durably.errors import DurablyError
from durably.ingress.answers import Answer, error_answer, refusal_answer
from durably.ingress.paths import path_segments, segment_text
from durably.ingress.targets import RefusedRequestError

ReadBody = Callable[[Scope, Receive], Awaitable[bytes | None]]
Respond = Callable[[Answer, Scope, Send], Awaitable[None]]

ACCEPTED = 202


class Recipient(Protocol):
    """The part of a `Runtime` that takes them in."""

    def request_completion(self, command: CompleteAwakeable, /) -> Awaitable[None]: ...
    def request_signal(self, command: SendSignal, /) -> Awaitable[None]: ...


def delivery_routes(runtime: Recipient, read_body: ReadBody, respond: Respond) -> list[Route]:
    """The routes above."""
    endpoint = _Endpoint(runtime, read_body, respond)
    paths = (
        "/restate/awakeables/{id}/resolve",
        "/restate/awakeables/{id}/reject",
        "/restate/a/{id}/resolve",
        "/restate/a/{id}/reject",
        "/restate/invocations/{id}/signals/{name:path}",
    )
    return [Route(path, endpoint, methods=["POST"]) for path in paths]


class _Endpoint:
    """Serves all of them."""

    def __init__(self, runtime: Recipient, read_body: ReadBody, respond: Respond) -> None:
        self._runtime = runtime
        self._read_body = read_body
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._read_body(scope, receive)
            if body is None:  # The client has left.
                return
            await self._deliver(scope, body)
        except RefusedRequestError as refused:
            answer = error_answer(refused.status, refused.message, headers=list(refused.headers))
        except DurablyError as error:
            answer = refusal_answer(error, is_keyed=False)
        else:
            answer = Answer(ACCEPTED, [], b"")
        await self._respond(answer, scope, send)

    def _deliver(self, scope: Scope, body: bytes) -> Awaitable[None]:
        kind, id, *rest = map(segment_text, path_segments(scope)[1:])
        if kind == "invocations":
            return self._runtime.request_signal(_signal(id, rest[1:], body, scope))
        sent = _reason(body, scope) if rest[0] == "reject" else sent_body(body, _content_type(scope))
        return self._runtime.request_completion(CompleteAwakeable(checked_id(id), sent.failed, sent.value))


def _content_type(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), "")


def _signal(id: str, rest: list[str], body: bytes, scope: Scope) -> SendSignal:
    """`rest` is the name of the signal, perhaps followed by `reject`."""
    name, *verb = rest or [""]
    if not name or verb not in ([], ["reject"]):
        raise RefusedRequestError(404, "not found; a signal is sent to /restate/invocations/{id}/signals/{name}")
    sent = _reason(body, scope) if verb else sent_body(body, _content_type(scope))
    try:
        return SendSignal(id, checked_signal_name(name), sent.failed, sent.value)
    except TypeError as error:
        raise RefusedRequestError(400, str(error)) from None


def _reason(body: bytes, scope: Scope) -> Sent:
    try:
        return sent_failure(body.decode(), _code(scope["query_string"]))
    except UnicodeDecodeError:
        raise RefusedRequestError(400, "the reason of a rejection is text in UTF-8, and the body is not") from None


def _code(query: bytes) -> int:
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("code")
    if given is None:
        return REJECTION_CODE
    if len(given) != 1 or not given[0].isdecimal() or not 400 <= int(given[0]) <= 599:
        raise RefusedRequestError(400, f"bad code query parameter {', '.join(given)}: it is one number from 400 to 599")
    return int(given[0])

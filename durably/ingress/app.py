"""`Ingress`: an ASGI application through which anyone may call the handlers of a runtime.

It guarantees that nothing is answered that the runtime has not made durable, that a request it refuses has had no
effect, and that a client which goes away abandons its answer, never the invocation. It can be served by itself or
mounted under any path of another application; the runtime's life is its owner's business.

Calls take the direct way, without request and response objects, because they are what there are many of. What stands
under `/restate/` is an ordinary Starlette application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, Self, cast
from urllib.parse import parse_qs

import msgspec.json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from durably.actors.headers import REPEATED
from durably.errors import DurablyError
from durably.ingress.answers import (
    NOT_SERVING,
    SAFE_WITH_A_KEY,
    Answer,
    Headers,
    acceptance_answer,
    error_answer,
    refusal_answer,
    result_answer,
)
from durably.ingress.delays import parse_delay
from durably.ingress.deliveries import ReadBody, Recipient, delivery_routes
from durably.ingress.paths import path_segments, scope_below
from durably.ingress.targets import RefusedRequestError, Target, Targets
from durably.runtime.gateway.requests import Acceptance, InvocationRequest, Reply, ServiceDescription

BODY_LIMIT_BYTES: Final = 32 * 1024 * 1024
PATIENCE_SECONDS: Final = 1.0
"""How long a call waits before the ingress begins to look whether its client is still there."""

RESERVED: Final = b"restate"
IDEMPOTENCY_KEY: Final = b"idempotency-key"
KEPT_BACK: Final = frozenset({b"connection", b"host", b"idempotency-key", b"idempotency-expires"})
"""Headers that are about the connection or for the ingress; a handler sees all others."""

QUERY_PARAMETERS: Final = ("delay", "limit-key")
"""Those of Restate's ingress. Requests are not limited by key here, so `limit-key` changes nothing."""

ACCEPTED_CODING: Final = ((b"accept-encoding", b"identity"),)

OUR_MISTAKE: Final = f"durably itself failed; the server's log has the traceback. {SAFE_WITH_A_KEY}"


class ServedRuntime(Recipient, Protocol):
    """The part of a `Runtime` that an ingress speaks to."""

    @property
    def accepts_requests(self) -> bool: ...
    def describe(self) -> list[ServiceDescription]: ...
    def request_call(self, request: InvocationRequest, /) -> Awaitable[Reply]: ...
    def request_send(self, request: InvocationRequest, /) -> Awaitable[Acceptance]: ...


class Ingress:
    """The handlers of one runtime over HTTP."""

    def __init__(self, runtime: ServedRuntime, *, body_limit_bytes: int = BODY_LIMIT_BYTES) -> None:
        self._runtime = runtime
        self._body_limit_bytes = body_limit_bytes
        self._targets: Targets | None = None
        self._reserved = _reserved_paths(runtime, self._read_body)

    def _read_body(self, scope: Scope, receive: Receive) -> Awaitable[bytes | None]:
        announced = dict(scope["headers"]).get(b"content-length")
        return _read_body(receive, None if announced is None else announced.decode("latin-1"), self._body_limit_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        if scope["type"] != "http":
            await self._reserved(scope, receive, send)
            return
        segments = path_segments(scope)
        if segments and segments[0] == RESERVED:
            await self._reserved(scope_below(scope, segments), receive, send)
            return
        try:
            answer = await self._answer(scope, receive, segments)
        except Exception:
            await _respond(error_answer(500, OUR_MISTAKE), scope, send)
            raise  # The server logs it.
        if answer is not None:
            await _respond(answer, scope, send)

    async def _answer(self, scope: Scope, receive: Receive, segments: Sequence[bytes]) -> Answer | None:
        """The answer to one request; None if nobody is there any more to hear it."""
        method = scope["method"]
        if method not in ("POST", "GET"):
            return _other_method(method, scope)
        try:
            return await self._invoke(scope, receive, segments)
        except RefusedRequestError as refused:
            return error_answer(refused.status, refused.message, headers=list(refused.headers))

    async def _invoke(self, scope: Scope, receive: Receive, segments: Sequence[bytes]) -> Answer | None:
        if self._targets is None:
            self._targets = Targets(self._runtime.describe())
        target = self._targets.find(segments)
        delay_us = _delay_us(scope["query_string"], target)
        headers, idempotency_key = _forwarded(scope["headers"])
        body = await _read_body(receive, headers.get("content-length"), self._body_limit_bytes)
        if body is None:
            return None
        request = InvocationRequest(
            service=target.service,
            key=target.key,
            handler=target.handler,
            body=body,
            headers=headers,
            idempotency_key=idempotency_key,
            delay_us=delay_us,
        )
        try:
            if target.is_send:
                return acceptance_answer(await self._runtime.request_send(request))
            with DisconnectWatch(receive) as client:
                return result_answer(await self._runtime.request_call(request))
            assert client.has_left
            return None
        except DurablyError as error:
            return refusal_answer(error, is_keyed=idempotency_key is not None)


class DisconnectWatch:
    """Ends its `with` block, quietly and from outside, when the client goes away while the block waits for a reply.

    It begins to look after `PATIENCE_SECONDS` only: most calls are answered long before, and looking costs a task.
    """

    def __init__(self, receive: Receive) -> None:
        self.has_left = False
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._caller = cast("asyncio.Task[Any]", asyncio.current_task(loop))
        self._begin = loop.call_later(PATIENCE_SECONDS, self._watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object, /) -> bool:
        self._begin.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # Safe because the watcher runs only while the caller is suspended in the block: its cancellation arrives there.
        if not (self.has_left and isinstance(error, asyncio.CancelledError)):
            return False
        self._caller.uncancel()
        return True

    def _watch(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait_for_the_end())

    async def _wait_for_the_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        self._caller.cancel()


# ---------------------------------------------------------------- what comes in
def _forwarded(raw: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, str], str | None]:
    """The headers for the handler, in their stored form, and the idempotency key.

    Raises:
        RefusedRequestError: 400 or 415.

    """
    headers: dict[str, str] = {}
    idempotency_key: str | None = None
    for raw_name, raw_value in raw:
        if raw_name in KEPT_BACK:
            if raw_name == IDEMPOTENCY_KEY:
                idempotency_key = _idempotency_key(raw_value, idempotency_key)
            continue
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}{REPEATED}{value}" if name in headers else value
    if "content-encoding" in headers:
        _check_coding(headers["content-encoding"].replace(REPEATED, ","))
    return headers, idempotency_key


def _idempotency_key(value: bytes, before: str | None) -> str:
    try:
        key = value.decode()
    except UnicodeDecodeError:
        raise RefusedRequestError(400, "bad idempotency-key header, it is not UTF-8") from None
    if not key:
        raise RefusedRequestError(400, "bad idempotency-key header, it is empty")
    if before is not None and before != key:
        raise RefusedRequestError(
            400, f"there are two different idempotency-key headers, '{before}' and '{key}'; send one of them"
        )
    return key


def _check_coding(coding: str) -> None:
    """Bodies are taken as they are: a compressed one would reach the handler as nonsense."""
    for name in coding.split(","):
        if name.strip().lower() not in ("", "identity"):
            raise RefusedRequestError(
                415, f"the content-encoding '{name.strip()}' is not understood, send the body as it is", ACCEPTED_CODING
            )


def _delay_us(query: bytes, target: Target) -> int | None:
    if not query:
        return None
    parameters = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    unknown = [name for name in parameters if name not in QUERY_PARAMETERS]
    if unknown:
        raise RefusedRequestError(
            400, f"unknown query parameter '{unknown[0]}', this ingress knows {' and '.join(QUERY_PARAMETERS)}"
        )
    delays = parameters.get("delay")
    if not delays:
        return None
    if not target.is_send:
        raise RefusedRequestError(400, "bad delay query parameter, only a send can be delayed: add /send to the path")
    try:
        return parse_delay(delays[-1]) or None
    except ValueError as error:
        raise RefusedRequestError(400, f"bad delay query parameter '{delays[-1]}': {error}") from None


async def _read_body(receive: Receive, announced: str | None, limit_bytes: int) -> bytes | None:
    """The whole body; None if the client left before it was complete.

    Raises:
        RefusedRequestError: 413.

    """
    if announced is not None and announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    parts = bytearray()
    while message["type"] == "http.request":
        parts += message.get("body", b"")
        if len(parts) > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(parts)
        message = await receive()
    return None


def _too_large(limit_bytes: int) -> RefusedRequestError:
    return RefusedRequestError(413, f"the request body is larger than {limit_bytes} bytes")


# ---------------------------------------------------------------- what goes out
async def _respond(answer: Answer, scope: Scope, send: Send) -> None:
    headers = answer.headers
    headers.append((b"content-length", b"%d" % len(answer.body)))
    headers += _cross_origin(scope)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _cross_origin(scope: Scope) -> Headers:
    """Any page may read any answer; without credentials, because the ingress knows none."""
    for name, _ in scope["headers"]:
        if name == b"origin":
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
    return []


def _other_method(method: str, scope: Scope) -> Answer:
    if method != "OPTIONS":
        return error_answer(405, "method not allowed, use POST or GET", headers=[(b"allow", b"POST, GET")])
    asked = dict(scope["headers"]).get(b"access-control-request-headers", b"*")
    return Answer(
        200,
        [
            (b"access-control-allow-methods", b"POST, GET"),
            (b"access-control-allow-headers", asked),
            (b"access-control-max-age", b"86400"),
            (b"vary", b"access-control-request-headers"),
        ],
        b"",
    )


# ---------------------------------------------------------------- what stands under /restate/
def _reserved_paths(runtime: ServedRuntime, read_body: ReadBody) -> Starlette:
    """Health, what is sent to invocations, and 404 for everything else, in the words of the ingress."""

    async def health(_: Request) -> Response:
        if not runtime.accepts_requests:
            return _response(error_answer(503, NOT_SERVING))
        names = [service.name for service in runtime.describe()]
        return Response(msgspec.json.encode({"services": names}), media_type="application/json")

    application = Starlette(
        routes=[
            Route("/restate/health", health, methods=["GET"]),
            *delivery_routes(runtime, read_body, _respond_plainly),
        ],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_headers=["*"], expose_headers=["*"])],
        exception_handlers={HTTPException: _refuse},
    )
    application.router.redirect_slashes = False  # Slashes at the end do not matter.
    return application


async def _respond_plainly(answer: Answer, scope: Scope, send: Send) -> None:
    """The middleware around it tells pages what they may read."""
    answer.headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "not found" if error.status_code == 404 else error.detail
    return _response(error_answer(error.status_code, message))


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers += answer.headers
    return response

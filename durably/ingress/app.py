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
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qs

import msgspec.json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from durably import http_headers
from durably.actors.headers import NONE_NAMED, REPEATED, named_by_connection
from durably.actors.transport import PUBLISH, PUBLISHER
from durably.actors.values.serde import JSON
from durably.bearer_tokens import is_anonymous
from durably.errors import DurablyError, UnknownTargetError
from durably.ingress.answers import (
    EXPIRES,
    NOT_SERVING,
    SAFE_WITH_A_KEY,
    TYPED_ERRORS,
    Answer,
    acceptance_answer,
    error_answer,
    lookup_answer,
    refusal_answer,
    result_answer,
)
from durably.ingress.content_types import check_content_type
from durably.ingress.deliveries import Recipient, delivery_routes
from durably.ingress.event_streams import EventStreams, FollowedRuntime
from durably.ingress.pages import page_routes, wants_page
from durably.ingress.paths import path_segments, scope_below
from durably.ingress.questions import FIRST_SEGMENTS, Which, question_of, target_in
from durably.ingress.targets import BAD_EXPLICIT_PATH, RefusedRequestError, Target, Targets
from durably.runtime.gateway.delays import parse_delay
from durably.runtime.gateway.requests import (
    Acceptance,
    HandlerDescription,
    InvocationRequest,
    Reply,
    ServiceDescription,
    ServiceSchemas,
)

BODY_LIMIT_BYTES: Final = 32 * 1024 * 1024
PATIENCE_SECONDS: Final = 1.0
"""How long a call waits, at most, before the ingress begins to look whether its client is still there."""

METHODS: Final = frozenset({"POST", "GET"})
RESERVED: Final = b"restate"
OPENAPI: Final = b"openapi"
EVENTS: Final = b"events"
"""Where events are read; no handler is called by one segment."""
INGRESS_PATH: Final = "x-restate-ingress-path"
"""The header that tells a handler by which path its invocation came, percent-encoded as it was."""
BAD_AWAKEABLE_PATH: Final = (
    "bad path, expected either /restate/awakeables/:id/resolve or /restate/awakeables/:id/reject"
)
EXPLICIT: Final = frozenset({b"call", b"send", b"scope"})
CONNECTION: Final = b"connection"
IDEMPOTENCY_KEY: Final = http_headers.IDEMPOTENCY_KEY.encode()
TIMEOUT: Final = http_headers.TIMEOUT.encode()
TRIGGERED_BY: Final = http_headers.TRIGGERED_BY.encode()
LIMIT_KEY: Final = b"x-restate-limit-key"
KEPT_BACK: Final = frozenset({
    CONNECTION, b"host", IDEMPOTENCY_KEY, EXPIRES, TYPED_ERRORS, TIMEOUT, TRIGGERED_BY, LIMIT_KEY,
})  # fmt: skip
"""Headers about the connection or for the ingress, and what only a handler may say; a handler sees all others."""

QUERY_PARAMETERS: Final = ("delay", "limit-key")
"""Those of Restate's ingress."""
NO_LIMIT_KEY: Final = (
    "limit-key requires a scope to be set, and there are no scopes here: the limits of a handler stand in its class"
)

ACCEPTED_CODING: Final = ((b"accept-encoding", b"identity"),)

PUBLISHING: Final = ServiceDescription(
    name=PUBLISHER,
    kind="service",
    handlers=[
        HandlerDescription(
            name=PUBLISH,
            kind="service",
            parameters={},
            returns="None",
            private=False,
            documentation="",
            accepts=JSON,
        )
    ],
    private=False,
    documentation="",
)
"""What every runtime publishes by. It is no service of the user's, so no list has it."""

OUR_MISTAKE: Final = f"durably itself failed; the server's log has the traceback. {SAFE_WITH_A_KEY}"


Caller: TypeAlias = "asyncio.Task[Any]"
"""The task of one request."""


class ServedRuntime(Recipient, FollowedRuntime, Protocol):
    """The part of a `Runtime` that an ingress speaks to."""

    @property
    def accepts_requests(self) -> bool: ...
    def describe(self) -> list[ServiceDescription]: ...
    def describe_schemas(self) -> list[ServiceSchemas]: ...
    def request_call(self, request: InvocationRequest, /) -> Awaitable[Reply]: ...
    def request_send(self, request: InvocationRequest, /) -> Awaitable[Acceptance]: ...
    def request_attach(self, which: Which, /) -> Awaitable[Reply]: ...
    def request_output(self, which: Which, /) -> Awaitable[Reply]: ...
    def request_lookup(self, which: Which, /) -> Awaitable[str]: ...


class Ingress:
    """The handlers of one runtime over HTTP."""

    def __init__(
        self,
        runtime: ServedRuntime,
        *,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        pages: bool = True,
    ) -> None:
        """`pages`: the root is a page for people, and `/restate/openapi` describes the handlers."""
        self._runtime = runtime
        self._has_pages = pages
        self._body_limit_bytes = body_limit_bytes
        self._body_limit_digits = len(str(body_limit_bytes))
        self._targets: Targets | None = None
        self._clients = Clients()
        self._events = EventStreams(runtime, runtime.pubsub.nodes, discover=runtime.pubsub.discover)
        routes = delivery_routes(runtime, self._body_of_reserved, _respond_plainly)
        self._reserved = _reserved_paths(runtime, [*routes, *page_routes(runtime)] if pages else routes)

    def _body_of_reserved(self, scope: Scope, receive: Receive) -> Awaitable[bytes | None]:
        announced = dict(scope["headers"]).get(b"content-length")
        _check_announced(None if announced is None else announced.decode("latin-1"), self._body_limit_bytes)
        return self._read_body(receive)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        if scope["type"] != "http":
            await self._reserved(scope, receive, send)
            return
        segments = path_segments(scope)
        if segments and segments[0] == RESERVED and not _is_direct(segments):
            await self._reserved(scope_below(scope, segments), receive, send)
            return
        if len(segments) < 2:  # No call.
            if not segments and self._has_pages and wants_page(scope):
                await self._reserved(scope_below(scope, [b""]), receive, send)
                return
            if segments == [EVENTS]:
                if scope["method"] != "POST":
                    await self._events(scope, receive, send)
                    return
                segments = [PUBLISHER.encode(), PUBLISH.encode()]
        failure: Exception | None = None
        try:
            answer = await self._answer(scope, receive, segments)
        except Exception as error:
            answer, failure = error_answer(500, OUR_MISTAKE), error
        if answer is not None:
            body = answer.body
            headers = answer.headers
            headers.append((b"content-length", b"%d" % len(body)))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        if failure is not None:
            raise failure  # The server logs it.

    async def _answer(self, scope: Scope, receive: Receive, segments: Sequence[bytes]) -> Answer | None:
        """The answer to one request; None if the client has gone."""
        is_keyed = False
        try:
            if scope["method"] not in METHODS:
                return error_answer(405, "method not allowed, use POST or GET", headers=[(b"allow", b"POST, GET")])
            answering: Awaitable[Reply] | Awaitable[Answer]
            first = segments[0] if segments else b""
            if first == RESERVED and segments[1] not in EXPLICIT:
                is_keyed = True  # A question changes nothing, so it can be repeated.
                question = question_of(scope["method"], segments[1:])
                which = question.which
                if which is None:
                    body = await self._read_body(receive)
                    if body is None:
                        return None
                    which = target_in(body)
                answering = self._ask(question.verb, which, scope)
            elif first == OPENAPI and len(segments) == 1:
                return error_answer(404, self._where_openapi_is())
            else:
                request, target = self._request(scope, segments)
                is_keyed = request.idempotency_key is not None
                body = _whole_body(message := await receive(), self._body_limit_bytes)
                if body is None and (body := await _body_in_parts(message, receive, self._body_limit_bytes)) is None:
                    return None
                request.body = body
                content_type = request.headers.get("content-type")
                if target.accepts is not None and target.accepts != content_type:
                    check_content_type(content_type, target.accepts, body, str(target))
                if target.is_send:
                    return acceptance_answer(await self._runtime.request_send(request))
                answering = self._runtime.request_call(request)
            caller = self._clients.expect_answer(receive)
            try:
                answer = await answering
                if isinstance(answer, Answer):
                    return answer
                return result_answer(answer, typed_errors=answer.failure is not None and _wants_types(scope))
            except asyncio.CancelledError:
                if not self._clients.has_left(caller):
                    raise
                caller.uncancel()
                return None
            finally:
                self._clients.forget(caller)
        except RefusedRequestError as refused:
            return error_answer(refused.status, refused.message, headers=list(refused.headers))
        except DurablyError as error:
            return refusal_answer(error, is_keyed=is_keyed, typed_errors=_wants_types(scope))

    def _where_openapi_is(self) -> str:
        instead = "/restate/openapi describes the handlers" if self._has_pages else "this ingress serves no description"
        return f"not found; {instead}"

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The whole body; None if the client left before it was complete."""
        message = await receive()
        body = _whole_body(message, self._body_limit_bytes)
        return await _body_in_parts(message, receive, self._body_limit_bytes) if body is None else body

    async def _ask(self, verb: str, which: Which, scope: Scope) -> Answer:
        """Attach to an invocation that exists, look at its outcome, or look up its id."""
        try:
            match verb:
                case "attach":
                    reply = await self._runtime.request_attach(which)
                case "output":
                    reply = await self._runtime.request_output(which)
                case _:
                    return lookup_answer(await self._runtime.request_lookup(which))
        except UnknownTargetError as error:
            return error_answer(404, f"invocation not found. {error.message}")
        return result_answer(reply, typed_errors=_wants_types(scope))

    def _request(self, scope: Scope, segments: Sequence[bytes]) -> tuple[InvocationRequest, Target]:
        """What is asked, as far as the head of the request says it, and of which handler.

        Raises:
            RefusedRequestError: nothing of the body need be read.

        """
        if self._targets is None:
            self._targets = Targets([*self._runtime.describe(), PUBLISHING])
        is_explicit = bool(segments) and segments[0] == RESERVED
        target = self._targets.find_explicit(segments[1:]) if is_explicit else self._targets.find(segments)
        query: bytes = scope["query_string"]
        headers, idempotency_key, timeout_us = _forwarded(scope["headers"])
        headers[INGRESS_PATH] = "/" + b"/".join(segments).decode("latin-1")
        delay_us = None
        if query:
            delay_us = _delay_us(query, target)
            headers[INGRESS_PATH] += "?" + query.decode("latin-1")
        announced = headers.get("content-length")
        if announced is not None and len(announced) >= self._body_limit_digits:
            _check_announced(announced, self._body_limit_bytes)
        request = InvocationRequest(
            service=target.service,
            key=target.key,
            handler=target.handler,
            body=b"",
            headers=headers,
            idempotency_key=idempotency_key,
            delay_us=delay_us,
            timeout_us=timeout_us,
        )
        return request, target


class Clients:
    """The clients that wait for the reply to a call: one that goes away ends the task of its request, from outside.

    A call that is answered soon costs two operations on a dict. One timer for all of them finds those that have waited
    for long, and only they get a task that looks after their client.
    """

    def __init__(self) -> None:
        self._new: dict[Caller, Receive] = {}
        self._waiting: dict[Caller, Receive] = {}
        """Those that were there already when the timer last ended."""
        self._watchers: dict[Caller, _Watcher] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """That of the timer; None if there is none."""

    def expect_answer(self, receive: Receive) -> Caller:
        """The task that runs waits from now on, until `forget`."""
        loop = asyncio.get_running_loop()
        caller = asyncio.current_task(loop)
        assert caller is not None, "a server handles each request in a task"
        self._new[caller] = receive
        if self._loop is not loop:
            self._begin_timer(loop)
        return caller

    def has_left(self, caller: Caller) -> bool:
        """Whether it was cancelled because its client is gone."""
        watcher = self._watchers.get(caller)
        return watcher is not None and watcher.has_seen_the_end

    def forget(self, caller: Caller) -> None:
        """It waits no longer."""
        if self._new.pop(caller, None) is None and self._waiting.pop(caller, None) is None:
            self._watchers.pop(caller).stop()

    def _begin_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(PATIENCE_SECONDS / 2, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for caller, receive in self._waiting.items():
            self._watchers[caller] = _Watcher(caller, receive, loop)
        self._new, self._waiting = {}, self._new
        if self._waiting:
            self._begin_timer(loop)
        else:
            self._loop = None


class _Watcher:
    """Reads what comes from one client until it goes away, and then cancels the task that works for it."""

    def __init__(self, caller: Caller, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self.has_seen_the_end = False
        self._caller = caller
        self._task = loop.create_task(self._read(receive))

    def stop(self) -> None:
        self._task.cancel()

    async def _read(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        # Safe because `forget` stops this as soon as the caller goes on: the cancellation arrives where it waits.
        self.has_seen_the_end = True
        self._caller.cancel()


# ---------------------------------------------------------------- what comes in
def _is_direct(segments: Sequence[bytes]) -> bool:
    """It goes the direct way, though it stands under `/restate/`: a call, a send, or a question about an invocation."""
    return len(segments) > 1 and (segments[1] in EXPLICIT or segments[1] in FIRST_SEGMENTS)


def _wants_types(scope: Scope) -> bool:
    return any(name == TYPED_ERRORS for name, _ in scope["headers"])


def _forwarded(raw: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, str], str | None, int | None]:
    """The headers for the handler, in their stored form, the idempotency key, and the time limit in microseconds.

    Raises:
        RefusedRequestError: 400 or 415.

    """
    headers: dict[str, str] = {}
    idempotency_key: str | None = None
    timeout_us: int | None = None
    of_the_hop: frozenset[str] = NONE_NAMED
    for raw_name, raw_value in raw:
        if raw_name in KEPT_BACK:
            if raw_name == IDEMPOTENCY_KEY:
                idempotency_key = _idempotency_key(raw_value, idempotency_key)
            elif raw_name == CONNECTION:
                of_the_hop |= named_by_connection(raw_value.decode("latin-1"))
            elif raw_name == LIMIT_KEY and raw_value:
                raise RefusedRequestError(400, NO_LIMIT_KEY)
            elif raw_name == TIMEOUT:
                timeout_us = _timeout_us(raw_value.decode("latin-1"))
            continue
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}{REPEATED}{value}" if name in headers else value
    for name in of_the_hop:
        if not name.startswith("content-"):  # What the body is must not depend on it.
            headers.pop(name, None)
    if "content-encoding" in headers:
        _check_coding(headers["content-encoding"].replace(REPEATED, ","))
    return headers, idempotency_key, timeout_us


def _timeout_us(text: str) -> int:
    try:
        return parse_delay(text)
    except ValueError as error:
        raise RefusedRequestError(400, f"bad {TIMEOUT.decode()} header '{text}': {error}") from None


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
    parameters = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    unknown = [name for name in parameters if name not in QUERY_PARAMETERS]
    if unknown:
        raise RefusedRequestError(
            400, f"unknown query parameter '{unknown[0]}', this ingress knows {' and '.join(QUERY_PARAMETERS)}"
        )
    if any(parameters.get("limit-key", ())):
        raise RefusedRequestError(400, NO_LIMIT_KEY)
    delays = parameters.get("delay")
    if not delays:
        return None
    if len(delays) > 1:
        given = " and ".join(f"'{delay}'" for delay in delays)
        raise RefusedRequestError(400, f"there are {len(delays)} delay query parameters, {given}; send one of them")
    if not target.is_send:
        raise RefusedRequestError(400, "bad delay query parameter, only a send can be delayed: add /send to the path")
    try:
        return parse_delay(delays[-1])
    except ValueError as error:
        raise RefusedRequestError(400, f"bad delay query parameter '{delays[-1]}': {error}") from None


def _whole_body(message: Message, limit_bytes: int) -> bytes | None:
    """The body, if the first message has all of it.

    Raises:
        RefusedRequestError: 413.

    """
    if message["type"] != "http.request" or message.get("more_body", False):
        return None
    body: bytes = message.get("body", b"")
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


async def _body_in_parts(message: Message, receive: Receive, limit_bytes: int) -> bytes | None:
    """The whole body, of which a message is the first part; None if the client left before it was complete.

    Raises:
        RefusedRequestError: 413.

    """
    parts = bytearray()
    while message["type"] == "http.request":
        parts += message.get("body", b"")
        if len(parts) > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(parts)
        message = await receive()
    return None


def _check_announced(announced: str | None, limit_bytes: int) -> None:
    if announced is not None and announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)


def _too_large(limit_bytes: int) -> RefusedRequestError:
    return RefusedRequestError(413, f"the request body is larger than {limit_bytes} bytes")


# ---------------------------------------------------------------- what stands under /restate/
def _reserved_paths(runtime: ServedRuntime, routes: list[Route]) -> Starlette:
    """Health, these routes, and 404 for everything else, in the words of the ingress."""

    async def health(request: Request) -> Response:
        if not runtime.accepts_requests:
            return _response(error_answer(503, NOT_SERVING))
        # Restate's answer, which has no tokens. Who lacks one hears that the server is well, and of no service.
        names = [] if is_anonymous(request.scope) else [service.name for service in runtime.describe()]
        return Response(msgspec.json.encode({"services": names}), media_type="application/json")

    application = Starlette(
        routes=[Route("/restate/health", health, methods=["GET"]), *routes],
        exception_handlers={HTTPException: _refuse},
    )
    application.router.redirect_slashes = False  # Slashes at the end do not matter.
    return application


async def _respond_plainly(answer: Answer, scope: Scope, send: Send) -> None:
    answer.headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed is not None:
        use = " or ".join(sorted(allowed.split(", ")))
        return _response(error_answer(405, f"method not allowed, use {use}", headers=[(b"allow", allowed.encode())]))
    if error.status_code == 404 and (expected := _expected_at(path_segments(request.scope))) is not None:
        return _response(error_answer(400, expected))
    message = "not found" if error.status_code == 404 else error.detail
    return _response(error_answer(error.status_code, message))


def _expected_at(segments: Sequence[bytes]) -> str | None:
    """What is wrong with a path that ends too early, or None."""
    if len(segments) < 2:
        return BAD_EXPLICIT_PATH
    if segments[1] in (b"awakeables", b"a") and len(segments) < 4:
        return BAD_AWAKEABLE_PATH
    return None


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers += answer.headers
    return response

"""`Client`: what a context and a `Runtime` offer, over HTTP.

A request is sent again only where that cannot do anything twice: it has an idempotency key, asks a question, has not
arrived, or was refused without an effect. What a handler has answered is never asked for again.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from random import Random
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec

from durably.actors.caller import Caller
from durably.actors.machines.front import ASK, front_name
from durably.actors.machines.questions import MOST_OBJECTS
from durably.actors.protocol.commands import CompleteAwakeable, FindObjects, Question, ReadEvents
from durably.actors.protocol.operations import CallSite
from durably.actors.retry import RetryPolicy, checked_retry
from durably.actors.sent_values import Sent
from durably.actors.transport import Delay, Invocation, Outgoing
from durably.actors.values.error_envelopes import decode_failure
from durably.actors.values.serde import JSON, SerdeFactory, checked_factory
from durably.client import wire
from durably.client.answers import GATEWAY, Answered, acceptance_of, error_of
from durably.configuration.sections import without_credentials, without_password
from durably.errors import DurablyError, ServerUnreachableError
from durably.http_headers import TYPED_ERRORS
from durably.ids import InvocationStatus

R = TypeVar("R")

RETRY: Final = RetryPolicy(initial=0.1, maximum=5, max_duration=30)
CONNECT_SECONDS: Final = 10.0
NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""The request has not left."""


def _trace_headers() -> dict[str, bytes]:
    """The span of OpenTelemetry in which the program sends a request; a program that has not imported it has none."""
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return {name: value.encode() for name, value in carrier.items()}


class _Status(msgspec.Struct):
    status: InvocationStatus


class _Identified(msgspec.Struct):
    """Of an object, its id."""

    id: str


class Client(Caller):
    """Calls the handlers of a `durably serve`, of a mounted `runtime.asgi()`, or of a Restate server, at `url`.

    Enter it as an asynchronous context manager. References, handles and errors are those of a `Runtime`: a class that
    is only a contract (`abstract=True`) is enough, and a `TerminalError` arrives in its own class with its fields.

    `retry` bounds how long a request is tried that cannot be answered. It is sent again only where that cannot do
    anything twice. Give calls an idempotency key (`.options(idempotency_key=...)`) to have them tried through crashes
    and restarts of the server too. `token` is sent as a bearer token. `serde` is that of `Runtime(serde=...)`.

    `admin_url` is the address of the admin API, which `cancel()` and `status()` of a handle need. `http` is an
    `httpx.AsyncClient` of yours, with its own certificates, proxies, limits and time limits; you close it.
    """

    __slots__ = (
        "_admin_url", "_credentials", "_headers", "_http", "_is_own", "_random", "_retry", "_serde_factory", "_url",
    )  # fmt: skip

    def __init__(
        self,
        url: str,
        *,
        admin_url: str | None = None,
        token: str | None = None,
        retry: RetryPolicy = RETRY,
        serde: SerdeFactory | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._credentials: dict[str, bytes] = {}
        """The `authorization` header of an address that was given with `user:password@`."""
        self._url = self._address(url)
        self._admin_url = None if admin_url is None else self._address(admin_url)
        self._retry = checked_retry(retry, "Client(retry=...)") or RETRY
        self._serde_factory = checked_factory(serde, "Client(serde=...)")
        self._headers = {TYPED_ERRORS: b"typed"}
        if token is not None:
            self._headers["authorization"] = b"Bearer " + token.encode("ascii")
        self._is_own = http is None
        self._http = _new_http() if http is None else http
        self._random = Random()

    def __repr__(self) -> str:
        return f"<client of {self._url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Invocations go on."""
        if self._is_own:
            await self._http.aclose()

    @property
    def _serde(self) -> SerdeFactory | None:
        return self._serde_factory

    # ------------------------------------------------------------------ what references and handles issue

    async def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> R:
        return outgoing.decode((await self._ask(wire.call_of(outgoing))).body)

    async def _issue_send(self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /) -> Invocation[R]:
        now_us = round(datetime.now(UTC).timestamp() * 1_000_000)
        answered = await self._ask(wire.send_of(outgoing, delay, now_us))
        id, previously_accepted = acceptance_of(answered, self._url)
        return Invocation(self, id, outgoing.decode, previously_accepted)

    async def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> R:
        return outgoing.decode((await self._ask(wire.question_of("attach", outgoing))).body)

    async def _issue_output(self, outgoing: Outgoing[R], site: CallSite, /) -> R:
        return outgoing.decode((await self._ask(wire.question_of("output", outgoing))).body)

    async def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> R:
        return decode((await self._ask(wire.question_by_id("attach", id))).body)

    async def _issue_output_of(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> R:
        return decode((await self._ask(wire.question_by_id("output", id))).body)

    async def _issue_status(self, id: str, site: CallSite, /) -> InvocationStatus:
        answered = await self._ask(wire.status_of(id))
        return msgspec.json.decode(answered.body, type=_Status).status

    def _issue_identification(self, call: object, site: CallSite, /) -> Coroutine[object, object, Invocation[Any]]:
        raise TypeError(
            "Over HTTP a call has no id before its answer. Send it instead: `job = await reference.handler.send(...)`, "
            "`job.id`, and `await job` for the result."
        )

    async def _issue_completion(self, command: CompleteAwakeable, site: CallSite, /) -> None:
        if command.failed:
            failure = decode_failure(command.value)
            await self._ask(wire.rejection_of(command.id, failure.message, failure.code))
        else:
            await self._ask(wire.completion_of(command.id, command.value))

    async def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite, /) -> None:
        if sent.failed:
            failure = decode_failure(sent.value)
            await self._ask(wire.signal_rejection_of(id, name, failure.message, failure.code))
        else:
            await self._ask(wire.signal_of(id, name, sent.value))

    async def _issue_reading(self, question: Question, decode: Callable[[bytes], R], site: CallSite, /) -> R:
        if isinstance(question, FindObjects) and not question.counts and question.query.limit > MOST_OBJECTS:
            return await self._ask_in_pages(question, decode, site)
        machine = question.stream if isinstance(question, ReadEvents) else question.query.table.service
        outgoing = Outgoing(
            front_name(machine), None, ASK, msgspec.json.encode(question), decode, wire=True, content_type=JSON
        )
        return await self._issue_call(outgoing, site)

    async def _ask_in_pages(self, asked: FindObjects, decode: Callable[[bytes], R], site: CallSite) -> R:
        """More objects than one answer holds, a page at a time: each page is as things are when it is asked."""
        found: list[msgspec.Raw] = []
        query = asked.query
        while len(found) < asked.query.limit:
            limit = min(MOST_OBJECTS, asked.query.limit - len(found))
            page = FindObjects(msgspec.structs.replace(query, limit=limit))
            some = await self._issue_reading(page, msgspec.json.Decoder(list[msgspec.Raw]).decode, site)
            found += some
            if len(some) < limit:
                break
            query = msgspec.structs.replace(query, after=msgspec.json.decode(some[-1], type=_Identified).id)
        return decode(b"[%b]" % b",".join(map(bytes, found)))

    def _moment_and_bits(self) -> tuple[int, int]:
        return round(datetime.now(UTC).timestamp() * 1_000_000), secrets.randbits(128)

    async def _issue_cancel(self, id: str, site: CallSite, /) -> None:
        await self._ask(wire.cancel_of(id))

    # ------------------------------------------------------------------ asking

    async def _ask(self, asked: wire.Asked) -> Answered:
        """Send until there is an answer that stands.

        Raises:
            DurablyError: what the answer says; `ServerUnreachableError` where there is none.
        """
        base = self._base_of(asked)
        loop = asyncio.get_running_loop()
        began, failures = loop.time(), 0
        while True:
            answered, error = await self._send(base, asked)
            if answered is not None and answered.is_success:
                return answered
            failures += 1
            elapsed_us = round((loop.time() - began) * 1_000_000)
            pause_seconds = self._pause_seconds(failures, answered)
            is_over = self._retry.exhausted(failures, elapsed_us, round(pause_seconds * 1_000_000))
            if is_over or not _may_repeat(asked, answered, error):
                raise error
            await asyncio.sleep(pause_seconds)

    def _address(self, url: str) -> str:
        found, credentials = without_credentials(_checked_url(url))
        if credentials is not None:
            self._credentials[found] = credentials.encode()
        return found

    def _base_of(self, asked: wire.Asked) -> str:
        if not asked.is_for_operators:
            return self._url
        if self._admin_url is None:
            raise TypeError(
                f"{self!r} was not told where the admin API is, which {asked.what} needs: "
                "Client(url, admin_url='http://127.0.0.1:9070')."
            )
        return self._admin_url

    async def _send(self, base: str, asked: wire.Asked) -> tuple[Answered | None, DurablyError]:
        """One attempt: its answer, if there was one, and the error that it is unless it is a success."""
        headers = {**self._headers, **_trace_headers(), **asked.headers}
        if base in self._credentials:
            headers.setdefault("authorization", self._credentials[base])
        try:
            response = await self._http.request(
                asked.method, base + asked.path, content=asked.body,
                headers=[(name.encode("ascii"), value) for name, value in headers.items()],
            )  # fmt: skip
        except httpx.TransportError as error:
            return None, _unreachable(asked, base, error)
        answered = Answered(response.status_code, response.headers, response.content)
        return answered, error_of(answered, base)

    def _pause_seconds(self, failures: int, answered: Answered | None) -> float:
        """As the policy says, at random between half and all of it; not before the moment that the server named."""
        seconds = self._retry.delay_us(failures) / 1_000_000 * self._random.uniform(0.5, 1)
        named = None if answered is None else answered.retry_after_seconds
        return seconds if named is None else max(seconds, named)


def _new_http() -> httpx.AsyncClient:
    # An answer may take as long as its handler, so only connecting has a limit.
    http = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))
    for name in ("accept", "accept-encoding", "user-agent"):  # Handlers see the headers, and the store keeps them.
        del http.headers[name]
    return http


def _may_repeat(asked: wire.Asked, answered: Answered | None, error: DurablyError) -> bool:
    if answered is None:
        return asked.is_repeatable or (isinstance(error, ServerUnreachableError) and error.nothing_accepted)
    if answered.source == "invocation":  # The handler has answered, or it is paused.
        return False
    return answered.nothing_was_accepted or (asked.is_repeatable and answered.status in GATEWAY)


def _unreachable(asked: wire.Asked, base: str, error: httpx.TransportError) -> ServerUnreachableError:
    reason = (str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, NOT_SENT):
        return ServerUnreachableError(
            f"{base} cannot be reached for {asked.what}: {reason}. Nothing was accepted.", nothing_accepted=True
        )
    if asked.is_repeatable:
        return ServerUnreachableError(f"{base} did not answer {asked.what}: {reason}. It can be repeated safely.")
    return ServerUnreachableError(
        f"{base} did not answer {asked.what}: {reason}. It may have been accepted, so repeat it only if it may happen "
        "twice; with an idempotency key the client repeats it by itself."
    )


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
        is_address = parsed.scheme in ("http", "https") and parsed.host and not parsed.query and not parsed.fragment
    except httpx.InvalidURL:
        is_address = False
    if not is_address:
        raise ValueError(
            f"{without_password(str(url))!r} is no address of a server. Write it as 'http://127.0.0.1:8080', with a "
            "path if need be."
        )
    return str(url).rstrip("/")

"""Whatever comes in over HTTP, ingress and admin API answer it, in time, and never with a failure of ours.

Requests are made of what stands in real ones and of noise. The quick law hands them to the applications as a server
would, in parts and with clients that leave. The slow one writes bytes to a `durably serve`: cut off, slow, several in
one packet.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from durably import (
    Context,
    DurablePromise,
    ObjectContext,
    Service,
    SharedWorkflowContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.ingress import Ingress
from durably.ingress.cross_origin import CrossOrigin
from durably.testing import Harness
from tests.levels import level
from tests.processes import ServerProcess, serving

PATIENCE_SECONDS = 60.0


class Cart(VirtualObject):
    tickets: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, ticket: str) -> list[str]:
        self.tickets.append(ticket)
        return self.tickets


class Mail(Service):
    @handler
    async def send(self, ctx: Context, to: str, body: str = "") -> None: ...


class Signup(Workflow):
    clicked: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        return email

    @shared
    async def click(self, ctx: SharedWorkflowContext) -> None:
        await self.clicked.resolve("yes")


WORDS = (
    "Cart", "Mail", "Signup", "mary", "add", "send", "run", "click", "restate", "call", "attach", "output", "lookup",
    "invocation", "invocations", "workflow", "awakeables", "a", "resolve", "reject", "health", "openapi", "signals",
    "inv_1", "inv_1gdJBtdVEcM919dOBhoVBm3fUMlaIHnANr", "sign_1AAAA", "v1", "v4", "services", "handlers", "deployments",
    "dp_1", "state", "query", "version", "cancel", "kill", "purge", "purge-journal", "pause", "resume",
    "restart-as-new",
    "internal", "invocations_batch_operations", "objects", "schedules", "subscriptions", "scope", "..", "", "%2F",
    "%00", "%ff", "%", "%zz", "{service}", "\u2603",
)  # fmt: skip
PATHS = (
    "/Cart/mary/add", "/Cart/mary/add/send", "/Cart/%E2%98%83/add", "/Cart/%00/add", "/Mail/send", "/Mail/send/send",
    "/Signup/a/run", "/Signup/a/click", "/restate/call/Cart/mary/add", "/restate/send/Mail/send", "/restate/lookup",
    "/restate/attach", "/restate/output", "/restate/attach/inv_1", "/restate/workflow/Signup/a/output",
    "/restate/invocation/Cart/mary/add/k/output", "/restate/awakeables/sign_1x/resolve", "/restate/a/sign_1x/reject",
    "/restate/invocations/inv_1/signals/go", "/", "/restate/health", "/restate/openapi", "/v4/query", "/query",
    "/services", "/services/Cart", "/services/Cart/state", "/services/Cart/handlers/add", "/deployments",
    "/invocations/inv_1/cancel", "/invocations/inv_1", "/internal/invocations_batch_operations/kill",
    "/objects/Cart/mary", "/schedules", "/schedules/pause", "/version",
)  # fmt: skip
QUERIES = (
    "delay=1s", "delay=x", "delay=PT1H", "delay=" + "9" * 400, "mode=kill", "from=1", "from=-1", "deployment=keep",
    "limit-key=a", "code=x", "name=a", "%", "&&&", "a" * 3_000,
)  # fmt: skip
HEADERS = (
    ("content-type", "application/json"), ("content-type", "text/plain"), ("content-type", ";;"), ("accept", "*/*"),
    ("accept", "application/json"), ("accept", "text/html"), ("idempotency-key", "k"), ("idempotency-key", ""),
    ("idempotency-key", "\xff"), ("origin", "https://a.example"), ("host", "evil.example"), ("host", "localhost"),
    ("sec-fetch-site", "cross-site"), ("connection", "close, content-type"), ("content-encoding", "gzip"),
    ("x-durably-timeout", "1s"), ("x-durably-timeout", "x"), ("x-durably-errors", "1"), ("traceparent", "00-x"),
    ("access-control-request-method", "POST"), ("cookie", "a=b"), ("\xe9", "\xe9"), ("x" * 2_000, "y" * 2_000),
    ("expect", "100-continue"),
)  # fmt: skip
BODIES = (
    b"", b'"2B"', b"null", b"{}", b"[", b"\xff\xfe", b"\0", b'{"to": "a", "body": "b"}', b'{"query": "SELECT 1"}',
    b'{"query": "SELECT * FROM sys_journal"}', b'{"query": "' + b"(" * 3_000 + b'"}', b'{"query": 7}', b'{"uri": "x"}',
    b'{"object_key": "mary", "new_state": {"tickets": [91, 93]}}', b'{"object_key": "", "new_state": {"": [-1]}}',
    b'{"invocation_ids": ["inv_1"]}', b'{"target": "Cart"}', b'{"target": "workflow", "workflowName": "Signup"}',
    b'{"public": false}', b"[" * 100_000, b'"' + b"x" * 70_000 + b'"', b'{"a": ' * 500, b"1e999", b'"\\ud800"',
)  # fmt: skip
METHODS = ("GET", "POST", "PATCH", "DELETE", "OPTIONS", "HEAD", "PUT", "TRACE", "BREW", "get")

soup = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=7).map(lambda parts: "/" + "/".join(parts))
paths = st.sampled_from(PATHS) | soup
queries = st.lists(st.sampled_from(QUERIES), max_size=2).map("&".join)
headers = st.lists(st.sampled_from(HEADERS) | st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5)
bodies = st.sampled_from(BODIES) | st.binary(max_size=40)
requests = st.tuples(st.sampled_from(METHODS[:4]) | st.sampled_from(METHODS), paths, queries, headers, bodies)


class Connection:
    """One request as a server hands it to an application, with a client that may leave."""

    def __init__(self, request: tuple[str, str, str, list[tuple[str, str]], bytes], parts: int, leaves: bool) -> None:
        method, path, query, headers, body = request
        raw_path = path.encode("utf-8", "surrogatepass")
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": raw_path.decode("utf-8", "replace"), "raw_path": raw_path, "root_path": "",
            "query_string": query.encode(), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
            "headers": [(_header(name).lower(), _header(value)) for name, value in headers],
        }  # fmt: skip
        size = max(1, -(-len(body) // parts))
        pieces = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
        self._incoming: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces
        ]
        if leaves:
            self._incoming = [*self._incoming[:-1], {"type": "http.disconnect"}]
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if self._incoming:
            return self._incoming.pop(0)
        left: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await left  # The client waits for its answer.

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def _header(text: str) -> bytes:
    return text.encode("utf-8", "replace")


async def ask(application: ASGIApp, connection: Connection, *, leaves: bool) -> None:
    """The law for one request."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await application(connection.scope, connection.receive, connection.send)
    if leaves and not connection.sent:
        return
    start, *rest = connection.sent
    assert start["type"] == "http.response.start"
    assert start["status"] < 500 or start["status"] == 501, (connection.scope, rest)
    assert rest[-1].get("more_body", False) is False


@pytest.mark.parametrize("application", ["ingress", "admin"])
def test_every_request_is_answered_and_none_with_a_failure_of_ours(application: str) -> None:
    with asyncio.Runner() as runner:
        app = Harness(Cart, Mail, Signup)
        runner.run(app.__aenter__())
        served: ASGIApp = app.asgi(admin=True) if application == "admin" else CrossOrigin(Ingress(app))

        @settings(
            max_examples=level().examples, deadline=None, derandomize=not level().is_search,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], database=None,
        )  # fmt: skip
        @given(requests, st.integers(1, 4), st.booleans())
        def law(request: Any, parts: int, leaves: bool) -> None:
            runner.run(ask(served, Connection(request, parts, leaves), leaves=leaves))

        law()
        runner.run(stop(app))


async def stop(app: Harness) -> None:
    for name in ("Cart", "Mail", "Signup"):
        await app.kill(name)
    await app.__aexit__(None, None, None)


# ---------------------------------------------------------------- over a socket

ACTORS = """
from durably import *

class Cart(VirtualObject):
    tickets: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, ticket: str) -> list[str]:
        self.tickets = [*self.tickets[-3:], ticket]
        return self.tickets

class Mail(Service):
    @handler
    async def send(self, ctx: Context, to: str, body: str = "") -> None: ...

class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        return email

runtime = Runtime("sqlite:///app.db", [Cart, Mail, Signup])
"""
SOCKET_SECONDS = 5.0


def wire_format(random: Random) -> bytes:
    """A request as bytes, sound or not."""
    method, body = random.choice(METHODS), random.choice(BODIES)
    path = "/" + "/".join(random.choice(WORDS) for _ in range(random.randrange(6)))
    if random.random() < 0.6:
        path = random.choice(PATHS)
    if random.random() < 0.3:
        path += "?" + random.choice(QUERIES)
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost"]
    lines += [f"{name}: {value}".encode() for name, value in random.sample(HEADERS, random.randrange(4))]
    match random.randrange(6):
        case 0:
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        case 1:
            lines.append(b"Content-Length: " + random.choice([b"-1", b"x", b"99999999999", b"1, 2", b"0"]))
        case _:
            lines.append(b"Content-Length: %d" % len(body))
    wire = b"\r\n".join([*lines, b"", body])
    if random.random() < 0.2:  # Noise somewhere.
        place = random.randrange(len(wire))
        wire = wire[:place] + random.randbytes(random.randrange(1, 8)) + wire[place:]
    return wire


def converse(port: int, random: Random) -> Iterator[bytes]:
    """Write one or several requests, in one packet or slowly, to the end or not; what comes back."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=SOCKET_SECONDS)) as connection:
        wire = b"".join(wire_format(random) for _ in range(random.choice((1, 1, 2, 5))))
        if random.random() < 0.3:
            wire = wire[: random.randrange(len(wire))]
        step = random.choice((len(wire), len(wire), 64, 7)) or 1
        with suppress(OSError):
            for start in range(0, min(len(wire), 200 * step), step):
                connection.sendall(wire[start : start + step])
            connection.shutdown(socket.SHUT_WR)
            while got := connection.recv(65_536):
                yield got


@pytest.mark.slow
@pytest.mark.parametrize("door", ["ingress", "admin"])
def test_bytes_of_all_kinds_leave_a_server_as_it_was(door: str, tmp_path: Path) -> None:
    (tmp_path / "raw_app.py").write_text(ACTORS)
    with serving("raw_app:runtime", cwd=tmp_path) as server:
        port = server.port if door == "ingress" else int(server.admin_url.rpartition(":")[2])
        for seed in range(3 * level().examples):
            began = time.monotonic()
            answered = b"".join(converse(port, Random(seed)))
            assert time.monotonic() - began < SOCKET_SECONDS, f"seed {seed} hangs"
            codes = [line.split()[1] for line in answered.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
            assert not [code for code in codes if code >= b"500" and code != b"501"], (seed, answered)
        assert_is_well(server, port)


def assert_is_well(server: ServerProcess, port: int) -> None:
    for path in (b"/restate/health", b"/health"):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=SOCKET_SECONDS)) as connection:
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 ")
    assert server.process.poll() is None

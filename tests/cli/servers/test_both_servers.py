"""What `durably serve` needs of an HTTP server, the same of each: connections, bodies, clients that leave, the end."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec

import orjson
import pytest

from durably.actors.headers import REPEATED
from durably.cli.failures import CommandError
from durably.cli.servers.server import Server, ServerName, server_named
from durably.ingress import Ingress, app
from durably.runtime.gateway.requests import Reply
from tests.ingress.fake import FakeRuntime

LIMIT_BYTES = 100_000
SECONDS = 20

Answer = tuple[int, dict[str, str], bytes]


class Client:
    """One connection, and what comes over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, text: bytes) -> None:
        self._writer.write(text)

    async def answer(self) -> Answer:
        """The next response, as the wire has it."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def ask(self, text: bytes) -> Answer:
        self.say(text)
        return await self.answer()

    async def is_closed(self) -> bool:
        return await self._reader.read() == b""

    def leave(self) -> None:
        self._writer.transport.abort()


class Serving:
    """A server at work, with clients of it."""

    def __init__(self, server: Server, port: int, task: asyncio.Task[None], runtime: FakeRuntime) -> None:
        self.server = server
        self.port = port
        self.task = task
        self.runtime = runtime
        self._clients: list[Client] = []

    async def client(self) -> Client:
        self._clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self._clients[-1]

    async def end(self) -> None:
        for client in self._clients:
            client.leave()
        self.server.stop()
        await self.task


@asynccontextmanager
async def serving(name: ServerName) -> AsyncGenerator[Serving]:
    runtime = FakeRuntime()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    ready = asyncio.Event()
    server = server_named(name)(Ingress(runtime, body_limit_bytes=LIMIT_BYTES), listener, ready.set)
    served = Serving(server, port, asyncio.create_task(server.serve()), runtime)
    try:
        async with asyncio.timeout(SECONDS):
            await ready.wait()
            yield served
    finally:
        await served.end()
        listener.close()


@pytest.fixture(params=list(ServerName))
def name(request: pytest.FixtureRequest) -> ServerName:
    wanted: ServerName = request.param
    if find_spec(wanted) is None:
        pytest.skip(f"{wanted} is not installed")
    return wanted


@pytest.fixture
async def served(name: ServerName) -> AsyncIterator[Serving]:
    async with serving(name) as served:
        yield served


def request(body: bytes = b"1", *headers: str, path: str = "/CartObject/Mary/addTicket") -> bytes:
    lines = (f"POST {path} HTTP/1.1", "host: here", f"content-length: {len(body)}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


def in_pieces(*pieces: bytes) -> bytes:
    head = b"POST /CartObject/Mary/addTicket HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def until(is_so: Callable[[], bool], tell: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0.001)) -> None:
    while not is_so():
        await tell()


async def test_one_connection_carries_many_calls(served: Serving) -> None:
    client = await served.client()
    for number in range(3):
        served.runtime.reply = Reply(
            id=f"inv_{number}", body=b"%d" % number, content_type="application/json", failure=None, expires_at=None
        )
        status, headers, body = await client.ask(request(b"[%d]" % number))
        assert (status, body, headers["x-restate-id"]) == (200, b"%d" % number, f"inv_{number}")
        assert headers["content-type"] == "application/json"
    assert [call.body for call in served.runtime.calls] == [b"[0]", b"[1]", b"[2]"]


async def test_requests_that_are_sent_ahead_are_answered_in_their_order(served: Serving) -> None:
    client = await served.client()
    paths = ["/CartObject/Mary/addTicket", "/Nobody/go", "/CheckoutService/handle"]
    client.say(b"".join(request(path=path) for path in paths))
    assert [(await client.answer())[0] for _ in paths] == [200, 404, 200]


async def test_the_path_and_headers_arrive_as_they_were_sent(served: Serving) -> None:
    client = await served.client()
    path = "/CartObject/a%2Fb%20%C3%BC%3F/addTicket"
    await client.ask(request(b"", "X-Colour: blue", "x-colour: red", "Idempotency-Key: k", path=path))
    (call,) = served.runtime.calls
    assert (call.key, call.headers["x-colour"], call.idempotency_key) == ("a/b ü?", f"blue{REPEATED}red", "k")
    status, _, body = await client.ask(request(b"", "idempotency-key: k", "idempotency-key: l"))
    assert (status, "two different" in orjson.loads(body)["message"]) == (400, True)


async def test_half_a_request_keeps_no_one_else_waiting_and_is_asked_once_it_is_whole(served: Serving) -> None:
    slow, quick = await served.client(), await served.client()
    text = request(b'"all of it"')
    for begin, end in ((0, 5), (5, 40), (40, len(text) - 4)):
        slow.say(text[begin:end])
        assert (await quick.ask(request(b"0")))[0] == 200
    assert (await slow.ask(text[-4:]))[0] == 200
    assert [call.body for call in served.runtime.calls] == [b"0", b"0", b"0", b'"all of it"']


async def test_a_body_in_pieces_is_one_body(served: Serving) -> None:
    client = await served.client()
    client.say(in_pieces(b"[1,", b"2,"))
    await asyncio.sleep(0)
    assert (await client.ask(b"2\r\n3]\r\n0\r\n\r\n"))[0] == 200
    assert [call.body for call in served.runtime.calls] == [b"[1,2,3]"]


UPGRADES = [
    ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
]


@pytest.mark.parametrize("offer", UPGRADES, ids=["websocket", "h2c"])
async def test_a_request_that_offers_an_upgrade_is_answered_as_any_other_and_logged_nowhere(
    served: Serving, offer: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    client = await served.client()
    for number in range(3):
        assert (await client.ask(request(b"[%d]" % number, *offer)))[0] == 200
    client.say(request(b'"in ', "X-Colour: blue", *offer) + request(b"0", *offer) * 2)
    client.say(in_pieces(b"[1,", b"2]", b"").replace(b"host: here", "\r\n".join(("host: here", *offer)).encode()))
    split = request(b'"in pieces"', *offer)
    assert [(await client.answer())[0] for _ in range(4)] == [200] * 4
    for at in range(0, len(split), 7):
        client.say(split[at : at + 7])
        await asyncio.sleep(0)
    assert (await client.answer())[0] == 200
    bodies = [call.body for call in served.runtime.calls]
    assert bodies == [b"[0]", b"[1]", b"[2]", b'"in ', b"0", b"0", b"[1,2]", b'"in pieces"']
    assert served.runtime.calls[3].headers["x-colour"] == "blue"
    assert caplog.records == []


async def test_a_body_beyond_the_limit_is_refused_announced_or_not(served: Serving) -> None:
    announced = await (await served.client()).ask(request(b"x" * (LIMIT_BYTES + 1)))
    counted = await (await served.client()).ask(in_pieces(*[b"x" * 50_000] * 3, b""))
    assert [answer[0] for answer in (announced, counted)] == [413, 413]
    assert served.runtime.calls == []
    assert (await (await served.client()).ask(request(b"x" * LIMIT_BYTES)))[0] == 200


async def test_a_large_answer_arrives_whole(served: Serving) -> None:
    large = b'"' + b"x" * 3_000_000 + b'"'
    served.runtime.reply = Reply(
        id="inv_1", body=large, content_type="application/json", failure=None, expires_at=None
    )  # fmt: skip
    assert (await (await served.client()).ask(request()))[2] == large


async def test_what_is_not_http_is_refused_and_the_server_goes_on(served: Serving) -> None:
    nonsense = await served.client()
    nonsense.say(b"\x16\x03\x01 nonsense\r\n\r\n")
    await nonsense.is_closed()
    assert (await (await served.client()).ask(request()))[0] == 200


async def test_a_call_may_wait_for_long_and_is_answered(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.0)
    served.runtime.gate = asyncio.Event()
    waiting = await served.client()
    waiting.say(request())
    await until(lambda: len(served.runtime.calls) == 1)
    for _ in range(20):
        assert (await (await served.client()).ask(request(path="/Nobody/go")))[0] == 404
    served.runtime.gate.set()
    assert (await waiting.answer())[0] == 200
    served.runtime.gate = None
    assert (await waiting.ask(request()))[0] == 200


async def test_a_client_that_leaves_abandons_its_answer(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.0)
    served.runtime.gate = asyncio.Event()
    client = await served.client()
    client.say(request())
    await until(lambda: len(served.runtime.calls) == 1)
    client.leave()
    await until(lambda: served.runtime.was_cancelled)


async def test_a_client_that_leaves_within_its_body_has_asked_nothing(served: Serving) -> None:
    client, other = await served.client(), await served.client()
    client.say(request(b"0123456789")[:-5])
    assert (await other.ask(request()))[0] == 200
    client.leave()
    assert (await other.ask(request()))[0] == 200
    assert [call.body for call in served.runtime.calls] == [b"1", b"1"]


async def test_a_mistake_of_ours_is_answered_and_logged(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    served.runtime.error = ValueError("a bug")
    client = await served.client()
    status, _, body = await client.ask(request())
    assert (status, orjson.loads(body)["message"]) == (500, app.OUR_MISTAKE)
    await until(lambda: "a bug" in caplog.text)
    assert any(record.levelno >= logging.ERROR for record in caplog.records)
    served.runtime.error = None
    assert (await (await served.client()).ask(request()))[0] == 200


async def test_when_it_stops_it_answers_what_was_begun_and_takes_no_more(served: Serving) -> None:
    served.runtime.gate = asyncio.Event()
    waiting, idle = await served.client(), await served.client()
    served.runtime.gate.set()
    await idle.ask(request())
    served.runtime.gate.clear()
    waiting.say(request())
    await until(lambda: len(served.runtime.calls) == 2)
    served.server.stop()
    assert await idle.is_closed()
    with pytest.raises(ConnectionRefusedError):
        await served.client()
    assert not served.task.done()
    served.runtime.gate.set()
    assert (await waiting.answer())[0] == 200
    await served.task


async def test_half_a_request_does_not_keep_it_from_stopping(name: ServerName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"durably.cli.servers.{name}_server.GOODBYE_SECONDS", 0.05)
    async with serving(name) as served:
        for text in (request(b"0123456789")[:20], request(b"0123456789")[:-5], b""):
            (await served.client()).say(text)
        assert (await (await served.client()).ask(request()))[0] == 200
        served.server.stop()
        await served.task


def test_a_server_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in {"granian", *sys.modules}:
        if module.partition(".")[0] == "granian":
            monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "durably.cli.servers.granian_server", raising=False)
    with pytest.raises(CommandError, match=r"'--server granian' needs the package granian.* 'durably\[granian\]'"):
        server_named(ServerName.GRANIAN)

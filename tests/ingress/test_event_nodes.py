"""Readers hear of the events of all nodes, each once and in the order of its node, whichever node they come back to."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from durably import DefinitionError, MemoryStore
from durably.events import PubSub
from durably.ingress import EventServer, Ingress, event_nodes, event_streams, node_addresses
from durably.ingress.event_nodes import EventNodes
from durably.ingress.node_addresses import Node, NodeAddresses
from durably.storage.memory import Disk
from durably.testing import Harness
from tests.events.test_events import Paid
from tests.ingress.test_event_streams import Reader, until

URLS = ("http://a", "http://b")
ALL = PubSub(sse=True, nodes=URLS)


class Network(httpx.AsyncBaseTransport):
    """Applications by host name. Parts of an answer are handed over one at a time, as over a connection."""

    def __init__(self, applications: Mapping[str, Any]) -> None:
        self._applications = applications

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        application = self._applications.get(request.url.host)
        if application is None:
            raise httpx.ConnectError("nobody listens")
        answer = Answer(application, request)
        try:
            return httpx.Response(await asyncio.shield(answer.status), stream=answer)
        except asyncio.CancelledError:
            await answer.aclose()
            raise


class Answer(httpx.AsyncByteStream):
    """One request to an application."""

    def __init__(self, application: Any, request: httpx.Request) -> None:
        scope = {
            "type": "http", "method": request.method, "path": request.url.path, "raw_path": request.url.path.encode(),
            "root_path": "", "query_string": request.url.query, "headers": request.headers.raw,
        }  # fmt: skip
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._parts: asyncio.Queue[Any] = asyncio.Queue(1)
        self._gone = asyncio.Event()
        self._task = asyncio.create_task(application(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status.set_result(message["status"])
        else:
            await self._parts.put(message)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_open = True
        while is_open:
            message = await self._parts.get()
            is_open = message.get("more_body", False)
            yield message["body"]

    async def aclose(self) -> None:
        self._gone.set()
        await self._task


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Where a test puts its nodes."""
    applications: dict[str, Any] = {}
    client = httpx.AsyncClient(transport=Network(applications))

    def client_of(_: EventNodes) -> httpx.AsyncClient:
        return client

    monkeypatch.setattr(EventNodes, "_client", client_of)
    monkeypatch.setattr(event_nodes, "RETRY_MS", 1)
    monkeypatch.setattr(event_nodes, "FIRST_ANSWER_SECONDS", 0.5)
    return applications


def reader_of(application: Any, query: str = "", last_id: str = "") -> Reader:
    class Asgi:
        def asgi(self) -> Any:
            return application

    app: Any = Asgi()
    return Reader(app, query, last_id)


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_comes_and_goes_anywhere_misses_nothing_and_hears_nothing_twice(
    network: dict[str, Any], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(event_streams, "PIECE_BYTES", 1)
    random = Random(seed)
    heard: list[tuple[str, int]] = []
    async with Harness(pubsub=ALL) as a, Harness(pubsub=ALL) as b:
        network.update(a=Ingress(a), b=Ingress(b), c=EventServer(nodes=[*URLS, "http://a/", "http://other-name"]))
        network["other-name"] = network["b"]
        published: dict[str, list[int]] = {"a": [], "b": []}
        last_id = ""
        for _ in range(20):
            reader = reader_of(network[random.choice("abc")], last_id=last_id)
            await until(lambda reader=reader: bool(reader.body or reader.sent))
            publishing: list[asyncio.Task[None]] = []
            for name, app in (("a", a), ("b", b)):
                new = range(len(published[name]), len(published[name]) + random.randrange(1, 8))
                published[name] += new
                publishing.append(asyncio.create_task(app.publish(*(Paid(name, number) for number in new))))
            for _ in range(random.randrange(100)):
                await asyncio.sleep(0)
            last_id = await reader.leave()
            await asyncio.gather(*publishing)
            heard += [(data["value"]["order"], data["value"]["amount"]) for _, data in reader.events]
        reader = reader_of(network["c"], last_id=last_id)
        await until(lambda: len(heard) + len(reader.events) >= sum(map(len, published.values())))
        await reader.leave()
        heard += [(data["value"]["order"], data["value"]["amount"]) for _, data in reader.events]
    for name, numbers in published.items():
        assert [number for node, number in heard if node == name] == numbers


async def test_a_node_that_is_away_for_a_time_is_heard_of_when_it_is_back(network: dict[str, Any]) -> None:
    disk = Disk()
    async with Harness(pubsub=ALL) as a:
        network["a"] = Ingress(a)
        async with Harness(store=MemoryStore(disk), pubsub=ALL) as b:
            network["b"] = Ingress(b)
            reader = reader_of(network["a"], "event=Paid")
            await until(lambda: reader.last_id)
            await b.publish(Paid("b", 1))
            await reader.until(1)
            del network["b"]
        await a.publish(Paid("a", 2))
        async with Harness(store=MemoryStore(disk), pubsub=ALL) as b:
            await b.publish(Paid("b", 3))
            network["b"] = Ingress(b)
            for _ in range(30_000):  # Real time: a node is asked again after a while.
                if len(reader.events) == 3:
                    break
                await asyncio.sleep(0.001)
            assert reader.amounts == [1, 2, 3]
            await reader.leave()


class Names:
    """What DNS says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked = 0
        monkeypatch.setattr(node_addresses, "addresses_of", self._tell)
        monkeypatch.setattr(node_addresses, "LOOK_UP_SECONDS", 0.001)
        monkeypatch.setattr(event_nodes, "LOOK_UP_SECONDS", 0.001)

    async def _tell(self, host: str, port: int) -> list[str]:
        assert port == 8080
        self.asked += 1
        await asyncio.sleep(0)
        if host not in self.addresses:
            raise OSError("Name or service not known")
        return self.addresses[host]


async def until_real(condition: Any) -> None:
    """Look-ups and further tries take real time."""
    for _ in range(30_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


def followed(app: Harness) -> bool:
    """A reader is there."""
    assert app._supervisor is not None
    return app._supervisor.feeds.wants("default/all")


async def test_nodes_that_come_and_go_behind_a_name_are_followed(
    network: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, disk = Names(monkeypatch), Disk()
    found = PubSub(sse=True, nodes=["http://events:8080"], discover=True)
    async with Harness(pubsub=found) as a, Harness(pubsub=found) as b:
        network["10.0.0.1"], network["10.0.0.2"] = Ingress(a), Ingress(b)
        names.addresses["events"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        reader = reader_of(network["10.0.0.1"])
        await until_real(lambda: reader.last_id.count(":") == 2)
        await a.publish(Paid("a", 1))
        await b.publish(Paid("b", 2))
        await until(lambda: sorted(reader.amounts) == [1, 2])
        del names.addresses["events"]  # It cannot be looked up for a time.
        asked = names.asked
        await until_real(lambda: names.asked > asked + 3)
        await b.publish(Paid("b", 3))
        await until(lambda: sorted(reader.amounts) == [1, 2, 3])
        async with Harness(store=MemoryStore(disk), pubsub=found) as c:
            network["fe80::4"] = Ingress(c)
            names.addresses["events"] = ["10.0.0.1", "10.0.0.2", "fe80::4"]
            await until_real(lambda: followed(c))
            await c.publish(Paid("c", 4))
            await until_real(lambda: sorted(reader.amounts) == [1, 2, 3, 4])
        await reader.leave()


async def test_a_node_that_moves_to_another_address_is_missed_by_no_reader(
    network: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    async with Harness(pubsub=PubSub(sse=True)) as b:
        network["10.0.0.1"] = Ingress(b)
        names.addresses["events"] = ["10.0.0.1"]
        gateway = EventServer(nodes=["http://events:8080"], discover=True)
        reader = reader_of(gateway)
        await until(lambda: reader.last_id)
        await b.publish(Paid("b", 1))
        await until(lambda: reader.amounts == [1])
        network["10.0.0.2"] = Ingress(b)
        names.addresses["events"] = ["10.0.0.1", "10.0.0.2"]  # One store: it is heard of once.
        asked = names.asked
        await until_real(lambda: names.asked > asked + 3)
        await b.publish(Paid("b", 2))
        await until(lambda: reader.amounts == [1, 2])
        names.addresses["events"] = ["10.0.0.2"]
        del network["10.0.0.1"]
        asked = names.asked
        await until_real(lambda: names.asked > asked + 3)
        await b.publish(Paid("b", 3))
        await until_real(lambda: reader.amounts == [1, 2, 3])
        await reader.leave()


async def test_names_are_looked_up_once_for_all_readers(
    network: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    monkeypatch.setattr(node_addresses, "LOOK_UP_SECONDS", 10)
    async with Harness(pubsub=ALL) as a:
        network["10.0.0.1"] = Ingress(a)
        names.addresses["events"] = ["10.0.0.1"]
        gateway = EventServer(nodes=["http://events:8080"], discover=True)
        readers = [reader_of(gateway) for _ in range(5)]
        await until(lambda: all(reader.last_id for reader in readers))
        assert names.asked == 1
        for reader in readers:
            await reader.leave()


async def test_a_node_behind_a_name_is_asked_by_that_name() -> None:
    addresses = NodeAddresses(["https://ann:hush@localhost:8443", "http://localhost/durably"], discovers=True)
    found = await addresses.nodes()
    assert Node("https://ann:hush@127.0.0.1:8443", "localhost:8443") in found
    assert Node("http://127.0.0.1/durably", "localhost") in found
    assert {node.server_name for node in found} == {"localhost"}


async def test_a_password_of_a_node_is_a_header_for_it_and_no_word_in_the_log(network: dict[str, Any]) -> None:
    asked: list[list[tuple[bytes, bytes]]] = []

    async def node(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["headers"])
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    network["a"] = node
    with capture_logs() as logged:
        reader = reader_of(EventServer(nodes=["http://ann:hush@a"]))
        await until(lambda: bool(logged and asked))
        await reader.leave()
    basic = f"Basic {b64encode(b'ann:hush').decode()}".encode()
    assert basic in [value for name, value in asked[0] if name.lower() == b"authorization"]
    assert "http://a" in str(logged)
    assert "hush" not in str(logged)


@pytest.mark.parametrize(
    "nodes",
    [
        ["localhost:8080"], [""], ["ftp://a"], ["http://"], ["http://a:port"], ["http://[a"], ["ann:hush@a"],
        ["http://ann:hush@[::1"],
    ],
)  # fmt: skip
def test_what_is_no_node_is_told_with_a_sentence(nodes: list[str]) -> None:
    with pytest.raises(DefinitionError, match="http://events-1:8080") as refused:
        EventServer(nodes=nodes)
    assert "hush" not in str(refused.value)
    with pytest.raises(DefinitionError, match="takes a runtime"):
        EventServer()
    with pytest.raises(TypeError, match="several URLs"):
        PubSub(nodes="http://a")
    with pytest.raises(TypeError, match="True or False"):
        PubSub(discover="events")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

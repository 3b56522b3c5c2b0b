"""Readers hear of the events of all nodes, each once and in the order of its node, whichever node they come back to."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import Any

import httpx
import pytest

from durably import DefinitionError, MemoryStore
from durably.events import PubSub
from durably.ingress import EventServer, Ingress, event_nodes, event_streams
from durably.ingress.event_nodes import EventNodes
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


@pytest.mark.parametrize("nodes", [["localhost:8080"], [""], ["ftp://a"]])
def test_what_is_no_node_is_told_with_a_sentence(nodes: list[str]) -> None:
    with pytest.raises(DefinitionError, match="http://events-1:8080"):
        EventServer(nodes=nodes)
    with pytest.raises(DefinitionError, match="takes a runtime"):
        EventServer()
    with pytest.raises(TypeError, match="several URLs"):
        PubSub(nodes="http://a")

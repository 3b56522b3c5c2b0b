"""Readers over HTTP get events in order, each once, across lost connections, restarts and their own slowness."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from durably import MemoryStore
from durably.events import PubSub
from durably.ingress import event_readers, event_streams
from durably.runtime.messaging import event_feeds
from durably.storage.memory import Disk
from durably.storage.records import Batch
from durably.storage.wrapping import WrappedStore
from durably.testing import Harness
from tests.events.test_events import Paid, Shipped


class Reader:
    """A browser: it reads frames, and knows the last id. With `holds` it takes nothing until it is let go on."""

    def __init__(self, app: Harness, query: str = "", last_id: str = "", *, holds: bool = False) -> None:
        self.events: list[tuple[str, Any]] = []
        self.last_id = last_id
        self.status = 0
        self.body = b""
        self.sent = 0
        self.has_ended = False
        self.gate = asyncio.Event()
        if not holds:
            self.gate.set()
        self._leaves = asyncio.Event()
        headers = [(b"last-event-id", last_id.encode())] if last_id else []
        scope: dict[str, Any] = {
            "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "root_path": "",
            "query_string": query.encode(), "headers": headers,
        }  # fmt: skip
        self._task = asyncio.create_task(app.asgi()(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.sent += 1
        await self.gate.wait()
        await asyncio.sleep(0)
        self.body += message["body"]
        self.has_ended = not message.get("more_body", False)
        *frames, self.body = self.body.split(b"\n\n") if self.status == 200 else [self.body]
        for frame in frames:
            self._take(dict(line.split(": ", 1) for line in frame.decode().split("\n") if line != ": "))

    def _take(self, fields: dict[str, str]) -> None:
        self.last_id = fields.get("id", self.last_id)
        if "data" in fields:
            self.events.append((fields["event"], msgspec.json.decode(fields["data"])))

    @property
    def amounts(self) -> list[int]:
        return [data["value"]["amount"] for name, data in self.events if name == "Paid"]

    async def until(self, count: int) -> None:
        await until(lambda: len(self.events) >= count)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self.events) == count, self.events

    async def leave(self) -> str:
        self._leaves.set()
        await self._task
        return self.last_id


async def until(condition: Any) -> None:
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


ALL = PubSub(sse=True, retention=timedelta(days=1))


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice_across_a_restart() -> None:
    disk = Disk()
    async with Harness(store=MemoryStore(disk), pubsub=ALL) as app:
        await app.publish(Paid("a", 0))
        reader, quiet = Reader(app), Reader(app, "event=Nothing")
        await until(lambda: reader.last_id and quiet.last_id)
        await app.publish(Paid("a", 1), Paid("a", 2), key="a")
        await reader.until(2)
        seen = await reader.leave()
        quiet_id = await quiet.leave()
        await app.publish(Paid("a", 3))
        first = reader.events[0]
        assert first[0] == "Paid"
        assert (first[1]["value"], first[1]["key"], first[1]["stream"]) == (
            {"order": "a", "amount": 1}, "a", "default/all",
        )  # fmt: skip
    async with Harness(store=MemoryStore(disk), pubsub=ALL) as app:
        again, whole, never_heard = Reader(app, "", seen), Reader(app, "start=beginning"), Reader(app, "", quiet_id)
        await again.until(1)
        await app.publish(Paid("a", 4))
        await again.until(2)
        await whole.until(5)
        await never_heard.until(4)
        assert again.amounts == [3, 4]
        assert whole.amounts == [0, 1, 2, 3, 4]
        assert never_heard.amounts == [1, 2, 3, 4], "one that lost its connection before its first event, too"
    assert again.has_ended, "a runtime that stops lets its readers go"


async def test_readers_choose_events_streams_and_keys_and_publishers_who_gets_them() -> None:
    async with Harness() as app:
        readers = {query: Reader(app, query) for query in ("", "event=Paid", "key=b", "stream=eu&event=Shipped")}
        await until(lambda: all(one.last_id for one in readers.values()))
        await app.publish(Paid("unseen", 1))
        await app.publish(Paid("a", 2), Shipped("a"), key="a", sse=True)
        await app.publish(Shipped("b"), key="b", sse=True)
        await app.publish(Paid("eu", 3), Shipped("eu"), stream="eu", sse=True)
        for query, orders in {
            "": ["a", "a", "b"], "event=Paid": ["a"], "key=b": ["b"], "stream=eu&event=Shipped": ["eu"],
        }.items():  # fmt: skip
            await readers[query].until(len(orders))
            assert [data["value"]["order"] for _, data in readers[query].events] == orders
    async with Harness(pubsub=ALL) as app:
        reader = Reader(app)
        await until(lambda: reader.last_id)
        await app.publish(Paid("a", 1), sse=False)
        await app.publish(Paid("a", 2))
        await reader.until(1)
        assert reader.amounts == [2]


async def test_a_reader_whose_events_are_forgotten_is_told_of_a_gap_first() -> None:
    async with Harness(pubsub=ALL) as app:
        reader = Reader(app)
        await until(lambda: reader.last_id)
        seen = await reader.leave()
        await app.publish(Paid("a", 1))
        await app.advance(hours=12)
        await app.publish(Paid("a", 2))
        await app.advance(hours=15)
        late = Reader(app, "", seen)
        await late.until(2)
        assert [name for name, _ in late.events] == ["gap", "Paid"]
        assert late.amounts == [2]
        again = Reader(app, "", await late.leave())
        await app.publish(Paid("a", 3))
        await again.until(1)
        assert again.amounts == [3]


async def test_a_reader_that_is_slower_than_the_retention_is_told_of_a_gap_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_feeds, "RECENT_EVENTS", 2)
    monkeypatch.setattr(event_streams, "PIECE_BYTES", 1)
    async with Harness(pubsub=ALL) as app:
        slow = Reader(app, holds=True)
        await until(lambda: slow.status == 200)
        await app.publish(*(Paid("a", amount) for amount in range(10)))
        await app.advance(days=2)
        await app.publish(Paid("a", 10))
        slow.gate.set()
        await until(lambda: slow.amounts[-1:] == [10])
        names = [name for name, _ in slow.events]
        assert names.count("gap") == 1
        gap = names.index("gap")
        assert slow.amounts == [*range(gap), *range(10 - (len(names) - gap - 2), 11)], "what it has is in order"
        seen = await slow.leave()
        again = Reader(app, "", seen)
        await app.publish(Paid("a", 11))
        await again.until(1)


async def test_a_reader_that_knows_of_more_than_the_store_is_told_so() -> None:
    disk, restored = Disk(), Disk()
    restored.store_id = disk.store_id
    async with Harness(store=MemoryStore(disk), pubsub=ALL) as app:
        reader = Reader(app)
        await until(lambda: reader.last_id)
        for amount in range(10):
            await app.publish(Paid("a", amount))
        await reader.until(10)
        seen = await reader.leave()
    async with Harness(store=MemoryStore(restored), pubsub=ALL) as app:
        again = Reader(app, "", seen)
        await again.until(1)
        await app.publish(Paid("a", 2))
        await again.until(2)
        assert [name for name, _ in again.events] == ["gap", "Paid"]


def _never(_: event_readers.Told) -> None:
    pass


class _Slow(WrappedStore):
    async def commit(self, batch: Batch, /) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await super().commit(batch)


async def test_a_reader_that_comes_while_an_event_is_being_written_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Harness(store=_Slow(MemoryStore()), pubsub=ALL) as app:
        supervisor = app._supervisor
        assert supervisor is not None
        assert supervisor.engine is not None
        committer, until_durable = supervisor.engine.parts.committer, supervisor.until_durable
        publishing: list[asyncio.Task[None]] = []

        async def until_just_before_the_next_event() -> None:
            await until_durable()
            publishing.append(asyncio.create_task(app.publish(Paid("a", 1))))
            await until(lambda: committer.position > committer.durable)

        monkeypatch.setattr(supervisor, "until_durable", until_just_before_the_next_event)
        reader = Reader(app, "start=beginning")
        await reader.until(1)
        await asyncio.gather(*publishing)


async def test_a_server_that_is_stopping_asks_readers_to_come_back() -> None:
    app = Harness(pubsub=ALL)
    reader = Reader(app)
    await reader.leave()
    assert (reader.status, reader.has_ended) == (200, True), "an EventSource that gets an error comes back no more"


async def test_a_slow_reader_holds_one_portion_and_gets_all_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feeds, "RECENT_EVENTS", 8)
    monkeypatch.setattr(event_feeds, "PORTION", 4)
    monkeypatch.setattr(event_streams, "PIECE_BYTES", 1)
    async with Harness(pubsub=ALL) as app:
        slow, fast = Reader(app, holds=True), Reader(app)
        await until(lambda: fast.last_id and slow.status)
        for amount in range(100):
            await app.publish(Paid("a", amount))
        await fast.until(100)
        assert slow.sent == 1, "nothing more is written before the first piece is taken"
        slow.gate.set()
        await slow.until(100)
        assert slow.amounts == fast.amounts == [*range(100)]


@pytest.mark.parametrize("nothing", ["is published", "it has asked for is published"])
async def test_a_connection_on_which_nothing_happens_has_a_heartbeat_that_moves_the_id(
    monkeypatch: pytest.MonkeyPatch, nothing: str
) -> None:
    async with Harness(pubsub=ALL) as app:
        ingress = app.asgi()
        monkeypatch.setattr(ingress._events, "_heartbeat_seconds", 0.001)
        monkeypatch.setattr(app, "asgi", lambda: ingress)
        reader = Reader(app, "event=Nothing")
        await until(lambda: reader.last_id)
        before = reader.last_id
        if nothing == "is published":
            await app.publish(Paid("a", 1))
        else:
            monkeypatch.setattr(event_readers.Told, "_look", _never)
        for _ in range(3_000):  # Of real time, which alone makes a heartbeat.
            if reader.last_id != before:
                break
            if nothing != "is published":
                await app.publish(Paid("a", 1))
            await asyncio.sleep(0.001)
        assert reader.last_id != before
        await reader.leave()


@pytest.mark.parametrize(
    "query", ["start=yesterday", "color=red", "stream=a%2Fb", "key=a&key=b", "last-event-id=nonsense"]
)
async def test_what_makes_no_sense_is_refused(query: str) -> None:
    async with Harness() as app:
        reader = Reader(app, query)
        await reader.leave()
        assert reader.status == 400

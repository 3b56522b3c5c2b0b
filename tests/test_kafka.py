"""`KafkaSource` against the mock cluster of librdkafka, which speaks the real protocol."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from durably import DefinitionError, ObjectContext, Runtime, VirtualObject, handler, kafka, state
from durably.kafka import KafkaSource
from durably.sources import Feed
from durably.storage.memory import MemoryStore
from tests.kafka_program import TOPIC, Account
from tests.levels import level
from tests.processes import ROOT, environment_with

PATIENCE_SECONDS = 60.0
PARTITIONS = 4


class Cluster:
    """Brokers in this process, which is not killed, and a producer."""

    def __init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 2, "log_level": 0})
        brokers = self._producer.list_topics(timeout=30).brokers
        self.servers = ",".join(f"{one.host}:{one.port}" for one in brokers.values())

    def put(self, key: str | bytes | None, value: str | bytes, **headers: bytes) -> None:
        self._producer.produce(TOPIC, key=key, value=value, headers=[*headers.items()])

    def flush(self) -> None:
        assert self._producer.flush(30) == 0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.put("none", "0")
    cluster.flush()  # The topic is there.
    yield cluster
    del cluster


class Letters(VirtualObject):
    got: list[str] = state(default=[])

    @handler
    async def get(self, ctx: ObjectContext, text: str) -> None:
        headers = ctx.request.headers
        self.got.append(f"{text} {headers.get('kind')} {headers['kafka.offset']} {'raw' in headers}")


async def until(runtime: Runtime, actor: type[VirtualObject], key: str, field: str, count: int) -> list[Any]:
    """Brokers and sockets have a time of their own."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found: list[Any] = (await runtime.state(actor, key)).get(field, [])
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def test_records_of_a_key_come_in_order_and_a_runtime_goes_on_where_the_last_one_was(cluster: Cluster) -> None:
    store = MemoryStore()
    for turn in range(2):
        for number in range(turn * 30, turn * 30 + 30):
            cluster.put(f"k{number % 3}", f"{number}")
        cluster.flush()
        feed = Feed(KafkaSource(cluster.servers, TOPIC, records_at_once=4), Account.book)
        async with Runtime(store, [Account], sources=[feed]) as runtime:
            for key in range(3):
                expected = [*range(key, turn * 30 + 30, 3)]
                assert await until(runtime, Account, f"k{key}", "booked", len(expected)) == expected
            (one,) = await runtime.sources()
            assert sum(one.positions.values()) == turn * 30 + 31
            assert one.failure is None
            assert one.behind == 0


async def test_headers_go_with_a_record_and_a_key_that_is_no_text_stops_the_feed(cluster: Cluster) -> None:
    source = KafkaSource(cluster.servers.split(","), TOPIC, start="now")
    async with Runtime(MemoryStore(), [Letters], sources=[Feed(source, Letters.get)]) as runtime:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len((await runtime.sources())[0].positions) < PARTITIONS:
                await asyncio.sleep(0.01)
        cluster.put("a", '"one"', kind=b"letter", raw=b"\xff")
        cluster.flush()
        found = await until(runtime, Letters, "a", "got", 1)
        assert found[0] in ("one letter 0 False", "one letter 1 False")
        cluster.put(b"\xff", '"two"')
        cluster.flush()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (reason := (await runtime.sources())[0].reason):
                await asyncio.sleep(0.01)
        assert "The key of Letters is Unicode text" in reason


async def poll_on(source: KafkaSource) -> None:
    while True:
        await source.poll()


async def test_a_topic_that_ends_before_what_was_read_is_told(cluster: Cluster) -> None:
    source = KafkaSource(cluster.servers, TOPIC)
    try:
        begins = await source.open({"0": 500, "1": 500, "2": 0})
        assert begins == {"3": 0}
        with pytest.raises(RuntimeError, match="ends before 500, where its next record was to be"):
            await poll_on(source)
    finally:
        await source.close()


async def test_a_partition_that_is_gone_is_told_where_brokers_tell_no_ids(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_TOPIC_REQUEST", None)
    source = KafkaSource(cluster.servers, TOPIC)
    try:
        assert await source.open({"0": 0, "1": 0}) == {"2": 0, "3": 0}
        assert source.identity() is None
    finally:
        await source.close()
    try:
        with pytest.raises(RuntimeError, match="has no partition 7 any more"):
            await source.open({"0": 0, "7": 3})
    finally:
        await source.close()


@pytest.mark.parametrize("begins_anew", [True, False])
async def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(cluster: Cluster, begins_anew: bool) -> None:
    store, new = MemoryStore(), Cluster()
    for number in range(3):
        cluster.put("a", f"{number}")
    for number in range(10, 20):  # The new one has grown beyond what was read of the old one.
        new.put("a", f"{number}")
    cluster.flush()
    new.flush()
    async with Runtime(store, [Account], sources=[Feed(KafkaSource(cluster.servers, TOPIC), Account.book)]) as runtime:
        assert await until(runtime, Account, "a", "booked", 3) == [0, 1, 2]
        read = max((await runtime.sources())[0].positions.values())  # Of the partition of the key.
    feed = Feed(KafkaSource(new.servers, TOPIC), Account.book)
    async with Runtime(store, [Account], sources=[feed]) as runtime:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (reason := (await runtime.sources())[0].reason):
                await asyncio.sleep(0.01)
        assert "made anew" in reason
        assert (await runtime.state(Account, "a"))["booked"] == [0, 1, 2]
        await runtime.resume_source(TOPIC, pass_over=begins_anew)
        expected = [0, 1, 2, *range(10 if begins_anew else 10 + read, 20)]
        assert await until(runtime, Account, "a", "booked", len(expected)) == expected
    feed = Feed(KafkaSource(new.servers, TOPIC), Account.book)
    async with Runtime(store, [Account], sources=[feed]) as runtime:  # Now it is what was read.
        new.put("a", "20")
        new.flush()
        assert await until(runtime, Account, "a", "booked", len(expected) + 1) == [*expected, 20]


async def test_a_topic_that_is_made_anew_while_it_is_read_is_noticed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Cluster()
    new.put("a", "1")
    new.flush()
    monkeypatch.setattr(kafka, "_LOOK_SECONDS", 0.0)
    source, other = KafkaSource(cluster.servers, TOPIC), KafkaSource(new.servers, TOPIC)
    try:
        await source.open({})
        await other.open({})
        assert source.identity() != other.identity()
        await source.poll()
        monkeypatch.setattr(source, "_described", other._described)
        with pytest.raises(RuntimeError, match="was made anew while it was read"):
            await source.poll()
    finally:
        await source.close()
        await other.close()


def test_options_that_would_keep_positions_elsewhere_are_refused() -> None:
    with pytest.raises(DefinitionError, match="KafkaSource sets group_id itself"):
        KafkaSource("localhost:9092", TOPIC, options={"group_id": "mine"})


class Payments:
    """What comes in while processes are killed."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self.count = 0

    def put_some(self) -> None:
        for _ in range(self._chance.randrange(40)):
            self._cluster.put(f"k{self.count % 5}", f"{self.count}")
            self.count += 1
        self._cluster.flush()


@pytest.mark.slow
def test_no_kill_loses_or_doubles_a_record(cluster: Cluster, tmp_path: Path) -> None:
    chance, store = random.Random(7), f"sqlite:///{tmp_path / 'app.db'}"
    payments = Payments(cluster, chance)
    for turn in range(level().kills):
        # Half of them die with records in hand of which nothing is in the log, the others at any moment.
        dies_at = 1 + chance.randrange(5) if turn % 2 else 0
        command = [sys.executable, "-m", "tests.kafka_program", cluster.servers, store, str(dies_at)]
        with subprocess.Popen(command, cwd=ROOT, env=environment_with({}), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            for _ in range(30):
                payments.put_some()
                if process.poll() is not None:
                    break
                time.sleep(0.01 * chance.random())
            process.kill()
    payments.put_some()
    asyncio.run(see_all(cluster, store, payments.count))


async def see_all(cluster: Cluster, store: str, count: int) -> None:
    feed = Feed(KafkaSource(cluster.servers, TOPIC), Account.book)
    async with Runtime(store, [Account], sources=[feed]) as runtime:
        for key in range(5):
            expected = [*range(key, count, 5)]
            assert await until(runtime, Account, f"k{key}", "booked", len(expected)) == expected

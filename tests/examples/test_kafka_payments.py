"""Records of a topic are booked once and in order, over a restart, and what an account does not cover is refused."""

from __future__ import annotations

import asyncio

import pytest

from durably import MemoryStore
from durably.sources import Feed
from durably.testing import Harness, Topic, TopicSource
from examples.kafka_payments import PAID, Account, Statement, main, runtime


async def test_payments_are_booked_and_refused_in_order() -> None:
    topic, store = Topic(partitions=2), MemoryStore()
    for paid in PAID:
        for key, value in paid:
            topic.put(value.encode(), key=key)
        async with Harness(Account, store=store, sources=[Feed(TopicSource(topic), Account.book)]) as app:
            await app.settle()
            await app.crash()
            await app.settle()
    async with Harness(Account, store=store) as app:
        assert await app.object(Account, "ann").statement() == Statement(24, ["p1", "p3", "p6"])
        assert await app.object(Account, "bob").statement() == Statement(6, ["p2", "p5"])


async def test_what_is_no_payment_pauses_the_feed() -> None:
    topic = Topic()
    async with Harness(Account, sources=[Feed(TopicSource(topic), Account.book)]) as app:
        topic.put(b'{"id": "p1"}', key="ann")
        await app.settle()
        (source,) = await app.sources()
        assert source.status == "paused"
        assert "amount" in (source.reason or "")


async def test_it_runs_with_brokers_in_its_own_process(capsys: pytest.CaptureFixture[str]) -> None:
    async with asyncio.timeout(60):
        await main()
    shown = [line for line in capsys.readouterr().out.splitlines() if " in the life " in line]
    assert shown == [
        "ann in the life 1: 4, by p1, p3",
        "bob in the life 1: 5, by p2",
        "ann in the life 2: 24, by p1, p3, p6",
        "bob in the life 2: 6, by p2, p5",
    ]


def test_it_has_a_runtime_to_be_served() -> None:
    assert "payments.db" in repr(runtime)

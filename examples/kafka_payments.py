"""Payments that come as records of a Kafka topic are booked to accounts: each once, and those of an account in order.

    KAFKA_SERVERS=localhost:9092 durably serve examples.kafka_payments:runtime

    echo 'ann:{"id": "p1", "amount": 7}' | kafka-console-producer.sh --bootstrap-server localhost:9092 \\
        --topic payments --property parse.key=true --property key.separator=:
    curl localhost:8080/Account/ann/statement
    curl localhost:9070/sources

It needs `pip install 'durably[kafka]'`. Without brokers, this starts some in its own process and shows what happens
over a restart; it also needs `pip install confluent-kafka`, whose mock cluster speaks the real protocol:

    python -m examples.kafka_payments

A withdrawal that an account does not cover is refused: that invocation fails, and the records behind it go on. A record
that is no payment pauses the feed before it: `/sources` of the admin port says why, and `PATCH /sources/resume` or
`/sources/pass-over` go on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from durably import (
    MemoryStore,
    ObjectContext,
    Runtime,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.kafka import KafkaSource
from durably.sources import Feed

TOPIC = "payments"


@dataclass
class Payment:
    """Paid in, or out if the amount is below zero."""

    id: str
    amount: int


@dataclass
class Statement:
    """What an account has."""

    balance: int
    booked: list[str]
    """The payments, in order."""


class Account(VirtualObject):
    """Books payments, one at a time."""

    balance: int = state(default=0)
    booked: list[str] = state(default=[])

    @handler
    async def book(self, ctx: ObjectContext, payment: Payment) -> None:
        if self.balance + payment.amount < 0:
            raise TerminalError(f"{self.key} has {self.balance}, which does not cover {payment.id}.", code=402)
        self.balance += payment.amount
        self.booked.append(payment.id)

    @shared
    async def statement(self, ctx: SharedContext) -> Statement:
        return Statement(self.balance, self.booked)


def payments(servers: str) -> Feed:
    """Where a topic is read, and who gets its records: the account that is the key of each."""
    return Feed(KafkaSource(servers, TOPIC), Account.book)


runtime = Runtime(
    "sqlite:///payments.db", [Account], sources=[payments(os.environ.get("KAFKA_SERVERS", "localhost:9092"))]
)


# ---------------------------------------------------------------------- without brokers

PAID: Sequence[Sequence[tuple[str, str]]] = (
    (
        ("ann", '{"id": "p1", "amount": 7}'),
        ("bob", '{"id": "p2", "amount": 5}'),
        ("ann", '{"id": "p3", "amount": -3}'),
        ("bob", '{"id": "p4", "amount": -9}'),
    ),
    (("bob", '{"id": "p5", "amount": 1}'), ("ann", '{"id": "p6", "amount": 20}')),
)
"""By life of the program: those of the second one are paid while it is down."""


async def main() -> None:
    """Two lives of a program, beside brokers that go on."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    servers = ",".join(f"{one.host}:{one.port}" for one in producer.list_topics(timeout=30).brokers.values())
    store, count = MemoryStore(), 0
    for life, paid in enumerate(PAID, 1):
        for key, value in paid:
            producer.produce(TOPIC, key=key, value=value)
        producer.flush(30)
        count += len(paid)
        async with Runtime(store, [Account], sources=[payments(servers)]) as running:
            await until_booked(running, count)
            for name in ("ann", "bob"):
                told = await running.object(Account, name).statement()
                print(f"{name} in the life {life}: {told.balance}, by {', '.join(told.booked)}")


async def until_booked(running: Runtime, count: int) -> None:
    """All of so many records have become messages, and these have ended."""
    while True:
        (source,) = await running.sources()
        if sum(source.positions.values()) >= count and not source.in_flight:
            return
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())

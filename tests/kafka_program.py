"""A program that reads a topic, for tests that kill it: `python -m tests.kafka_program SERVERS STORE DIES_AT`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from durably import ObjectContext, Runtime, VirtualObject, handler, state
from durably.kafka import KafkaSource
from durably.sources import Feed, SourceRecord

TOPIC = "payments"


class Account(VirtualObject):
    booked: list[int] = state(default=[])

    @handler
    async def book(self, ctx: ObjectContext, amount: int) -> None:
        self.booked.append(amount)


class Dying(KafkaSource):
    """Kills its process when it has records for the n-th time: nothing of them is in the log then."""

    dies_at = 0

    async def poll(self) -> Sequence[SourceRecord]:
        records = await super().poll()
        if records:
            Dying.dies_at -= 1
            if Dying.dies_at == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return records


async def main(servers: str, store: str, dies_at: str) -> None:
    Dying.dies_at = int(dies_at)
    source = Dying(servers, TOPIC, records_at_once=7)
    async with Runtime(store, [Account], sources=[Feed(source, Account.book)]):
        print("running", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""The process that is killed: `python -m tests.crashes.load FOLDER RUN ROUNDS`.

It runs the runtime on `FOLDER/store.db`, or on the store of the variable `STORE`, and clients that call it with
idempotency keys. A call that was answered is written to `FOLDER/acknowledged` after its await has returned. A later run
repeats the last calls that were answered and goes on from there. After ROUNDS rounds of each client it repeats every
call that was ever answered, and writes what it finds to `FOLDER/found.json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from durably.ids import InvocationStatus
from durably.runtime.runtime import Runtime
from durably.storage.connect import store_from_url
from durably.storage.introspection import InspectableStore
from examples.providers import MailProvider, PaymentProvider
from examples.tickets import Cart, Checkout, Ticket
from tests.crashes.app import Chain, Diary, Lines, Mail, Payments

CLIENTS = 12
SEATS_PER_ROUND = 8
REPEATED = 3
DIARY_ROUNDS = 10


class Mismatch(AssertionError):
    """A call that had been answered was answered in another way."""


def diary_of(client: int, round: int) -> str:
    """In which diary a client writes in a round."""
    return f"{client}.{round // DIARY_ROUNDS}"


def calls_of(runtime: Runtime, client: int, round: int) -> dict[str, Coroutine[Any, Any, Any]]:
    """Not begun; what a client does in a round: two seats that others want too, a checkout, a chain, and an entry."""
    prefix = f"{client}.{round}"

    async def add(key: str, seat: int) -> bool:
        cart = runtime.object(Cart, f"user{client}")
        return await cart.add_ticket.options(idempotency_key=key)(f"r{round}s{seat % SEATS_PER_ROUND}")

    async def check_out(key: str) -> bool:
        return await runtime.object(Cart, f"user{client}").checkout.options(idempotency_key=key)()

    async def chain(key: str) -> str:
        return await runtime.service(Chain).go.options(idempotency_key=key)(prefix)

    async def write(key: str) -> str | int:
        write = runtime.object(Diary, diary_of(client, round)).write.options(idempotency_key=key)
        return await write(prefix) if round % 2 else (await write.send(prefix)).id

    return {
        f"{prefix}.add1": add(f"{prefix}.add1", client),
        f"{prefix}.write": write(f"{prefix}.write"),
        f"{prefix}.add2": add(f"{prefix}.add2", client * 3 + 1),
        f"{prefix}.chain": chain(f"{prefix}.chain"),
        f"{prefix}.checkout": check_out(f"{prefix}.checkout"),
    }


class Client:
    """One client, with what it has been answered so far."""

    def __init__(self, runtime: Runtime, number: int, answered: dict[str, str], acknowledged: Lines) -> None:
        self._runtime = runtime
        self._number = number
        self._answered = answered
        self._acknowledged = acknowledged

    async def run(self, rounds: int) -> None:
        known = [key for key in self._answered if key.startswith(f"{self._number}.")]
        repeated = set(known[-REPEATED:])
        for round in range(rounds):
            for key, call in calls_of(self._runtime, self._number, round).items():
                if key in self._answered and key not in repeated:
                    call.close()
                    continue
                await self._ask(key, call)

    async def repeat_all(self, rounds: int) -> None:
        for round in range(rounds):
            for key, call in calls_of(self._runtime, self._number, round).items():
                await self._ask(key, call)

    async def _ask(self, key: str, call: Coroutine[Any, Any, Any]) -> None:
        answer = json.dumps(await call)
        before = self._answered.setdefault(key, answer)
        if before != answer:
            raise Mismatch(f"{key} had been answered {before}, now it is {answer}")
        self._acknowledged.append(key, answer)


def read_answers(path: Path) -> dict[str, str]:
    """The calls that have been answered, in the order in which they first were; every line is the same for a key."""
    answered: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, answer = line.partition(" ")
        if answered.setdefault(key, answer) != answer:
            raise Mismatch(f"{key} was answered {answered[key]} and {answer}")
    return answered


async def find_everything(runtime: Runtime, store: InspectableStore, rounds: int) -> dict[str, Any]:
    """All that can be looked at when nothing is under way any more."""
    unfinished = [1]
    while unfinished:
        await asyncio.sleep(0.01)
        unfinished = [
            record.number
            for record in await store.invocations(after=0, limit=1_000_000)
            if record.status not in (InvocationStatus.COMPLETED, InvocationStatus.SCHEDULED)
        ]
    seats = [f"r{round}s{seat}" for round in range(rounds) for seat in range(SEATS_PER_ROUND)]
    diaries = sorted({diary_of(client, round) for client in range(CLIENTS) for round in range(rounds)})
    names = [name for diary in diaries for name in (diary, f"copy of {diary}")]
    return {
        "seats": {seat: (await runtime.object(Ticket, seat).peek()).value for seat in seats},
        "diaries": {name: await runtime.object(Diary, name).read() for name in names},
    }


async def main(folder: Path, run: int, rounds: int) -> None:
    lines, acknowledged = Lines(folder / "ledger"), Lines(folder / "acknowledged")
    answered = read_answers(folder / "acknowledged")
    store = store_from_url(os.environ.get("STORE", f"sqlite:///{folder}/store.db"))
    runtime = Runtime(
        store,
        [Ticket, Cart, Checkout, Chain, Diary],
        dependencies={PaymentProvider: Payments(lines, run), MailProvider: Mail(lines, run), Lines: lines, int: run},
        suspend_after=(0, 60)[run % 2],
    )
    async with runtime:
        print("ready", flush=True)
        clients = [Client(runtime, number, answered, acknowledged) for number in range(CLIENTS)]
        await asyncio.gather(*(client.run(rounds) for client in clients))
        await asyncio.gather(*(client.repeat_all(rounds) for client in clients))
        found = await find_everything(runtime, store, rounds)
    (folder / "found.json").write_text(json.dumps(found))
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

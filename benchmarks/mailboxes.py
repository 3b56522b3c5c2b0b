"""The bare limit in process: plain asyncio actors, one task and one queue per key, with and without group commit.

It does what durably cannot do without, and nothing else: no types, no retries, no replay, no recovery, no exits but the
caller's future. What durably takes beyond it is what its promises cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from benchmarks.load import Operation, burn
from benchmarks.subject import BURN_SECONDS, CHAIN_CALLS, KEYS, LANES


class Log(Protocol):
    """Where changes go; `durable()` is done when everything put there before is on disk."""

    def put_state(self, key: str, value: int, /) -> None: ...
    def put_step(self, number: int, index: int, /) -> None: ...
    def drop_steps(self, number: int, /) -> None: ...
    def durable(self) -> asyncio.Future[None] | None:
        """None: it is already."""
        ...


class NoLog:
    """Nothing is kept."""

    def put_state(self, key: str, value: int, /) -> None: ...
    def put_step(self, number: int, index: int, /) -> None: ...
    def drop_steps(self, number: int, /) -> None: ...
    def durable(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One call on its way to one key."""

    argument: int
    reply: asyncio.Future[int]


Behaviour: TypeAlias = Callable[["Mailboxes", str, int], "asyncio.Future[int] | int"]
"""What an actor does with an argument; it may ask another one."""


class Mailboxes:
    """Actors of one kind by key, each working off its queue."""

    def __init__(self, log: Log, behaviour: Behaviour) -> None:
        self.state: dict[str, int] = {}
        self.log = log
        self._behaviour = behaviour
        self._queues: dict[str, asyncio.Queue[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, key: str, argument: int) -> asyncio.Future[int]:
        """Put a message into a mailbox. Answered inside the process at once, durable or not."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = asyncio.Queue()
            self._tasks.add(asyncio.create_task(self._work_off(key, queue)))
        reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        queue.put_nowait(Message(argument, reply))
        return reply

    async def call(self, key: str, argument: int) -> int:
        """Ask from outside: the answer waits until it is durable."""
        answer = await self.ask(key, argument)
        durable = self.log.durable()
        if durable is not None:
            await durable
        return answer

    def change(self, key: str, by: int) -> int:
        value = self.state[key] = self.state.get(key, 0) + by
        self.log.put_state(key, value)
        return value

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work_off(self, key: str, queue: asyncio.Queue[Message]) -> None:
        while True:
            message = await queue.get()
            answer = self._behaviour(self, key, message.argument)
            result = answer if isinstance(answer, int) else 1 + await answer
            if not message.reply.cancelled():
                message.reply.set_result(result)


def add(mailboxes: Mailboxes, key: str, amount: int) -> int:
    return mailboxes.change(key, amount)


def burn_and_count(mailboxes: Mailboxes, key: str, amount: int) -> int:
    burn(BURN_SECONDS)
    return mailboxes.change(key, amount)


def pass_on(mailboxes: Mailboxes, key: str, calls: int) -> asyncio.Future[int] | int:
    mailboxes.change(key, 1)
    if calls == 0:
        return 0
    lane, _, place = key.partition("/")
    return mailboxes.ask(f"{lane}/{int(place) + 1}", calls - 1)


BEHAVIOURS: dict[str, Behaviour] = {"call": add, "burning": burn_and_count, "chain": pass_on, "steps": add}


def operation_on(mailboxes: Mailboxes, workload: str) -> Operation:
    """What the callers of a workload do."""
    keys = [f"counter-{number}" for number in range(KEYS)]
    lanes = [f"{number}/0" for number in range(LANES)]
    operations: dict[str, Operation] = {
        "call": lambda number: mailboxes.call(keys[number % KEYS], 1),
        "burning": lambda number: mailboxes.call(keys[number % KEYS], 1),
        "chain": lambda number: mailboxes.call(lanes[number % LANES], CHAIN_CALLS),
        "steps": ThreeSteps(mailboxes.log).run,
    }
    return operations[workload]


class ThreeSteps:
    """Three side effects, each begun only when what comes before it is durable."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._number = 0

    async def run(self, argument: int) -> int:
        self._number += 1
        number, value = self._number, argument
        for index in range(3):
            self._log.put_step(number, index)
            await self._until_durable()
            value = await asyncio.create_task(self._side_effect(value))
        self._log.drop_steps(number)
        await self._until_durable()
        return value

    async def _until_durable(self) -> None:
        durable = self._log.durable()
        if durable is not None:
            await durable

    async def _side_effect(self, value: int) -> int:
        return value + 1

"""What is killed: the ticket tour, a chain of side effects and a diary, with a ledger outside that says what happened.

The ledger has one line per side effect: its name, whom it was for, and the run of the process in which it happened. A
line is one `write` to a file opened for appending, so a killed process leaves whole lines only.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

from durably import Context, ObjectContext, Service, VirtualObject, handler, state
from examples.providers import Ledger, MailProvider, PaymentProvider, PaymentRefusedError

CHAIN = ("first", "second", "left", "right", "last")
"""The side effects of a chain; `left` and `right` beside each other."""


class Lines:
    """A file of lines that only grows."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class Payments(PaymentProvider):
    """Takes money, fails at times, and writes down each success."""

    def __init__(self, lines: Lines, run: int) -> None:
        super().__init__(Ledger())
        self._lines = lines
        self._run = run
        self._dice = Random(run)

    async def charge(self, key: str, amount: int) -> bool:
        await asyncio.sleep(0)
        if self._dice.random() < 0.05:
            raise PaymentRefusedError("the payment provider is not available, try again")
        self._lines.append("charge", key, self._run)
        await asyncio.sleep(self._dice.random() * 0.005)  # The money has moved, and nobody knows it yet.
        return True


class Mail(MailProvider):
    """Sends mail, from a thread."""

    def __init__(self, lines: Lines, run: int) -> None:
        super().__init__(Ledger())
        self._lines = lines
        self._run = run

    def send(self, to: str, text: str) -> None:
        self._lines.append("mail", to, self._run)


class Chain(Service, name="Chain"):
    """Side effects one after the other and beside each other, with durable waits between them."""

    def __init__(self, lines: Lines, run: int) -> None:
        self._lines = lines
        self._run = run

    @handler
    async def go(self, ctx: Context, name: str) -> str:
        ran = [await ctx.run("first", self.effect, "first", name)]
        await ctx.sleep(0.01)
        ran.append(await ctx.run("second", self.effect, "second", name))
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(ctx.run(one, self.effect, one, name)) for one in ("left", "right")]
        ran += [task.result() for task in beside]
        await asyncio.sleep(0.01)
        ran.append(await ctx.run("last", self.effect, "last", name))
        return " ".join(ran)

    async def effect(self, effect: str, name: str) -> str:
        self._lines.append(effect, name, self._run)
        await asyncio.sleep(0)
        return effect


class Diary(VirtualObject, name="Diary"):
    """Keeps what it is told in the order in which it was told, and tells a copy of it to another one."""

    entries: list[str] = state(default=[])

    @handler
    async def write(self, ctx: ObjectContext, entry: str) -> int:
        self.entries.append(entry)
        if not self.key.startswith("copy of "):
            await ctx.object(Diary, f"copy of {self.key}").write.send(entry)
        return len(self.entries)

    @handler
    async def read(self, ctx: ObjectContext) -> list[str]:
        return self.entries

"""Accounts, and transfers between them that are undone when the payee refuses."""

from __future__ import annotations

import asyncio

from durably import Context, ObjectContext, Service, SharedContext, TerminalError, VirtualObject, handler, shared, state
from durably.testing import Simulation, Snapshots
from tests.trust.planting import App, planted

OPENING = 10
CLOSED: set[str] = set()


async def think() -> None:
    """Takes a moment."""


class Account(VirtualObject, name="TrustAccount"):
    """Somebody's money."""

    balance: int = state(default=OPENING)
    closed: bool = state(default=False)
    entries: list[int] = state(default=[])

    @handler
    async def change(self, ctx: ObjectContext, by: int) -> int:
        if planted("a global knows what is closed") and self.key in CLOSED and by > 0:
            raise TerminalError("refused")
        allowed = self.balance + by >= (-1 if planted("an account may be overdrawn") else 0)
        if not allowed or (self.closed and by > 0 and not planted("a closed account takes money")):
            raise TerminalError("refused")
        self.balance += by
        if planted("an account keeps all entries"):
            self.entries.append(by)
        return self.balance

    @handler
    async def put(self, ctx: ObjectContext, balance: int) -> None:
        self.balance = balance

    @handler
    async def close(self, ctx: ObjectContext) -> int:
        if planted("a global knows what is closed"):
            CLOSED.add(self.key)
        else:
            self.closed = True
        return self.balance

    @handler
    async def pay(self, ctx: ObjectContext, payee: str, amount: int) -> None:
        """From object to object: one transition takes the money and sends it."""
        if self.balance < amount:
            return
        self.balance -= amount
        if planted("accounts wait for each other"):
            await ctx.object(Account, payee).take(amount, self.key)
        elif planted("a payment is sent twice"):
            await ctx.object(Account, payee).take.send(amount, "")
            await ctx.object(Account, payee).take.send(amount, "")
        else:
            await ctx.object(Account, payee).take.send(amount, "")

    @handler
    async def take(self, ctx: ObjectContext, amount: int, ask: str) -> None:
        if ask:
            await ctx.object(Account, ask).change(0)
        self.balance += amount

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.balance


class Transfers(Service, name="TrustTransfers"):
    """Moves money between two accounts in steps."""

    @handler
    async def transfer(self, ctx: Context, payer: str, payee: str, amount: int) -> bool:
        giving, taking = ctx.object(Account, payer), ctx.object(Account, payee)
        if planted("a transfer reads and writes"):
            balance = await giving.look()
            await ctx.run("think", think)
            if balance < amount:
                return False
            await giving.put(balance - amount)
            await taking.change(amount)
            return True
        if planted("a transfer gives before it takes"):
            await taking.change(amount)
            await giving.change(-amount)
            return True
        try:
            await giving.change(-amount)
        except TerminalError:
            return False
        await ctx.run("think", think)
        try:
            await taking.change(amount)
        except TerminalError:
            if not planted("a refused transfer is not undone"):
                await giving.change(amount)
            if planted("a refused transfer is undone twice"):
                await giving.change.send(amount)
            return False
        return True


KEYS = ("ann", "bob", "eve")


def nobody_owes(snapshots: Snapshots) -> bool:
    return all(account.balance >= 0 for account in snapshots.of(Account).values())


async def program(sim: Simulation) -> None:
    """Money goes round, while one account is closed."""
    sim.invariant(nobody_owes)
    sim.bounded(Account, bytes=60)
    answers: list[bool] = []

    async def move(name: str, payer: str, payee: str) -> None:
        for amount in (4, 8, 11):
            try:
                answers.append(await sim.client(name).service(Transfers).transfer(payer, payee, amount))
            except TerminalError:
                answers.append(False)

    async def pay(payer: str, payee: str) -> None:
        await sim.client(f"{payer} pays").object(Account, payer).pay(payee, 2)

    closed: list[int] = []

    async def close() -> None:
        closed.append(await sim.client("closing").object(Account, "eve").close())

    await asyncio.gather(
        move("one", "ann", "bob"), move("two", "bob", "ann"), move("three", "ann", "eve"), close(),
        pay("ann", "bob"), pay("bob", "ann"),
    )  # fmt: skip
    await sim.settle()
    balances = {key: sim.snapshots[Account, key].balance for key in KEYS}
    assert sum(balances.values()) == OPENING * len(KEYS), balances
    assert balances["eve"] <= closed[0], "a closed account took money"
    for _ in range(10):
        await sim.object(Account, "ann").change(1)
    await sim.settle()


APP = App(
    name="bank",
    actors=(Account, Transfers),
    program=program,
    bugs={
        "an account may be overdrawn": "boundary",
        "a closed account takes money": "logic",
        "an account keeps all entries": "growth",
        "accounts wait for each other": "deadlock",
        "a payment is sent twice": "logic",
        "a global knows what is closed": "global",
        "a transfer reads and writes": "race",
        "a transfer gives before it takes": "partial failure",
        "a refused transfer is not undone": "partial failure",
        "a refused transfer is undone twice": "logic",
    },
)

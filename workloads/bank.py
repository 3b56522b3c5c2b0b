"""The workload `bank`: money moves between accounts in five ways, is neither made nor lost, and nothing is paid twice.

After every commit no account is overdrawn, each balance is what the account's own entries come to, and there is not
more money than there was in the beginning; in the end there is exactly as much.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import msgspec

from durably.actors.actor import Service, VirtualObject
from durably.actors.context import Context, ObjectContext, SharedContext
from durably.actors.decorators import handler, shared
from durably.actors.retry import RetryPolicy
from durably.actors.state import state
from durably.errors import TerminalError
from durably.testing import Workload
from durably.testing.simulation.clients import SimulatedClient
from durably.testing.simulation.simulation import Simulation
from durably.testing.stores.snapshots import Snapshots
from workloads.acts import World
from workloads.program_parts import (
    UNKNOWN,
    all_of,
    looked,
    randomness,
    restart_at_times,
    until_all_ended,
    wander,
)

OPENING = 50
CLIENTS = ("ann", "bob", "eve")
KEYS = 5


class Order(msgspec.Struct, frozen=True):
    """A payment. `number` is unique within the run; `trouble` is what goes wrong with it."""

    number: int
    way: str
    payer: str
    payee: str
    amount: int
    trouble: int = 0


class NotEnoughError(TerminalError):
    """The account does not have that much."""


class Account(VirtualObject, name="SoakAccount"):
    """Somebody's money, and the payments that it came and went with."""

    balance: int = state(default=OPENING)
    entries: list[tuple[int, int]] = state(default=[])
    """The number of the payment, and what it changed."""

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def pay(self, ctx: ObjectContext, order: Order) -> int:
        """Pay: one transition takes the money and sends it."""
        self.world.stumble(order.number, order.trouble % 3)
        self._book(order.number, -order.amount)
        await ctx.object(Account, order.payee).receive.send(order.number, order.amount)
        return self.balance

    @handler(atomic=True)
    async def pay_if_allowed(self, ctx: ObjectContext, order: Order) -> int:
        """Pay, and think better of it at times: then nothing of it has happened."""
        self._book(order.number, -order.amount)
        await ctx.object(Account, order.payee).receive.send(order.number, order.amount)
        await ctx.run(f"ask about {order.number}", self.world.effect, order.number, order.trouble % 3)
        if order.trouble > 6:
            raise TerminalError(f"payment {order.number} is not allowed")
        return self.balance

    @handler
    async def withdraw(self, ctx: ObjectContext, number: int, amount: int) -> int:
        """Take money out."""
        self._book(number, -amount)
        return self.balance

    @handler
    async def receive(self, ctx: ObjectContext, number: int, amount: int) -> None:
        """Take money in."""
        self._book(number, amount)

    @shared
    async def look(self, ctx: SharedContext) -> int:
        """How many payments there were."""
        return len(self.entries)

    def _book(self, number: int, amount: int) -> None:
        if self.balance + amount < 0:
            raise NotEnoughError(f"payment {number} is too much")
        self.balance += amount
        self.entries.append((number, amount))


class Teller(Service, name="SoakTeller"):
    """Moves money between accounts in several steps."""

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def transfer(self, ctx: Context, order: Order) -> str:
        """Withdraw, have it checked, and pay in; if the check says no, the money goes back."""
        payer = ctx.object(Account, order.payer)
        await payer.withdraw(order.number, order.amount)
        try:
            if order.trouble > 6:
                await ctx.run(f"check {order.number}", self.world.refusal, order.number)
            else:
                await ctx.run(f"check {order.number}", self.world.effect, order.number, order.trouble % 3)
        except TerminalError as refusal:
            await payer.receive(-order.number, order.amount)
            return str(refusal)
        await ctx.object(Account, order.payee).receive(order.number, order.amount)
        return "done"

    @handler
    async def split(self, ctx: Context, order: Order) -> int:
        """Send all parts at once, one coin each; some may fail."""
        parts = [
            msgspec.structs.replace(order, number=order.number * 100 + part, amount=1) for part in range(order.amount)
        ]
        results = await asyncio.gather(*(self._part(ctx, part) for part in parts))
        return sum(results)

    async def _part(self, ctx: Context, part: Order) -> int:
        key = f"part {part.number}"
        try:
            await ctx.object(Account, part.payer).pay.options(idempotency_key=key)(part)
        except NotEnoughError:
            return 0
        return 1


def make_order(random: Random, number: int) -> Order:
    payer, payee = random.sample(range(KEYS), 2)
    return Order(
        number=number,
        way=random.choice(("pay", "pay", "pay_later", "pay_if_allowed", "transfer", "split")),
        payer=str(payer),
        payee=str(payee),
        amount=random.choice((1, 2, 5, 30)),
        trouble=random.randrange(10),
    )


async def carry_out(client: SimulatedClient, order: Order) -> str:
    """How it ended, as far as the client can tell."""
    account = client.object(Account, order.payer)
    try:
        match order.way:
            case "pay":
                await account.pay(order)
            case "pay_later":
                await account.pay.after(seconds=order.trouble).send(order)
                return "unknown"
            case "pay_if_allowed":
                await account.pay_if_allowed(order)
            case "transfer":
                return await client.service(Teller).transfer(order)
            case _:
                small = msgspec.structs.replace(order, amount=min(order.amount, 3))
                return str(await client.service(Teller).split(small))
    except TerminalError as error:
        return str(error)
    return "done"


def nothing_overdrawn(snapshots: Snapshots) -> bool:
    """Each balance is what its entries come to, and never below zero."""
    return all(
        account.balance == OPENING + sum(amount for _, amount in account.entries) >= 0
        for account in snapshots.of(Account).values()
    )


def no_money_made(snapshots: Snapshots) -> bool:
    """There is not more money than in the beginning; what is missing is on its way."""
    return sum(account.balance - OPENING for account in snapshots.of(Account).values()) <= 0


def none_counts_twice(snapshots: Snapshots) -> bool:
    """No account has a payment twice."""
    return all(
        max(Counter(number for number, _ in account.entries).values(), default=0) <= 1
        for account in snapshots.of(Account).values()
    )


async def program(sim: Simulation) -> None:
    """Three clients, of whom one does not insist, give orders one after the other."""
    random = randomness(sim)
    for condition in (nothing_overdrawn, no_money_made, none_counts_twice):
        sim.invariant(condition)
    orders = [make_order(random, number) for number in range(1, random.choice((4, 10, 20)))]
    ends: dict[int, str] = {}

    async def customer(name: str, orders: list[Order]) -> None:
        client = sim.client(name, insists=name != "eve")
        for order in orders:
            await wander(sim, random)
            try:
                ends[order.number] = await carry_out(client, order)
            except UNKNOWN:
                ends[order.number] = "unknown"

    async def auditor() -> None:
        """What was seen cannot be taken back."""
        seen: Counter[str] = Counter()
        for _ in range(12):
            await wander(sim, random)
            key = str(random.randrange(KEYS))
            account = sim.client("auditor", insists=False).object(Account, key)
            count = await looked(sim, account.look)
            assert count >= seen[key], f"account {key} had {seen[key]} payments, and now has {count}"
            seen[key] = count

    await all_of(
        *(customer(name, orders[place :: len(CLIENTS)]) for place, name in enumerate(CLIENTS)),
        auditor(),
        restart_at_times(sim, random),
    )
    await until_all_ended(sim)
    check_books(sim, orders, ends)


def check_books(sim: Simulation, orders: list[Order], ends: dict[int, str]) -> None:
    """Every payment stands in both books, or in none; what clients were told is so."""
    accounts = sim.snapshots.of(Account)
    total = sum(account.balance - OPENING for account in accounts.values())
    assert total == 0, f"there are {total:+} coins"
    booked = {key: dict(account.entries) for key, account in accounts.items()}
    for order in orders:
        taken = booked.get(order.payer, {}).get(order.number)
        given = booked.get(order.payee, {}).get(order.number)
        back = booked.get(order.payer, {}).get(-order.number)
        assert -(taken or 0) == (given or 0) + (back or 0), f"{order}: {taken}, {given}, {back}"
        end = ends[order.number]
        if order.way == "split":
            parts = [number for number in booked.get(order.payer, {}) if number // 100 == order.number]
            assert end == "unknown" or end == str(len(parts)), f"{order} ended with {end}, not {len(parts)}"
        elif end == "done":
            assert given == order.amount, f"{order} was done, and was not booked"
        elif end != "unknown":
            assert given is None, f"{order} failed ({end}), and was booked"


BANK = Workload(
    program=program, actors=(Account, Teller), dependencies=lambda: {World: World()}, retry=RetryPolicy(initial=0.5)
)

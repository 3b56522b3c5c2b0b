"""The workload `counters`: many keys, long mailboxes, and every way in which somebody outside can ask.

Each request has a number, and each counter keeps the numbers that reached it, so the end says of every request whether
it counted: exactly once if it was accepted or has an idempotency key, at most once if its sender heard nothing.
"""

from __future__ import annotations

from collections import Counter as Multiset
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from durably.actors.actor import VirtualObject
from durably.actors.context import ObjectContext, SharedContext
from durably.actors.decorators import handler, shared
from durably.actors.state import state
from durably.actors.transport import Invocation
from durably.errors import DeadlineExceededError, UnknownTargetError
from durably.ids import InvocationStatus
from durably.testing import Workload
from durably.testing.simulation.clients import SimulatedClient
from durably.testing.simulation.simulation import Simulation
from workloads.program_parts import (
    UNKNOWN,
    all_of,
    looked,
    randomness,
    restart_at_times,
    until_all_ended,
    wander,
)


class Tally(VirtualObject, name="SoakTally"):
    """Keeps the numbers that reached it."""

    numbers: list[int] = state(default=[])
    ticks: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, number: int) -> int:
        """Keep a number; the answer is how many there are."""
        self.numbers.append(number)
        return len(self.numbers)

    @handler
    async def add_slowly(self, ctx: ObjectContext, number: int, seconds: float) -> int:
        """The same, with a wait before and after."""
        await ctx.sleep(seconds)
        self.numbers.append(number)
        await ctx.sleep(seconds)
        return len(self.numbers)

    @handler
    async def note(self, ctx: ObjectContext, name: str) -> int:
        """Count by name, in state that no field declares."""
        count = (ctx.get(name, int) or 0) + 1
        ctx.set(name, count)
        return count

    @handler
    async def forget_notes(self, ctx: ObjectContext) -> int:
        """Clear what was counted by name; the answer is how much that was."""
        stored = ctx.keys()
        names = [name for name in stored if name.startswith("note")]
        total = sum(ctx.get(name, int) or 0 for name in names)
        for name in names:
            ctx.clear(name)
        return total

    @handler
    async def tick(self, ctx: ObjectContext, left: int) -> None:
        """Count down by messages to itself, each a while later."""
        self.ticks += 1
        if left:
            await self.tick.after(seconds=left % 3).send(left - 1)

    @shared
    async def count(self, ctx: SharedContext) -> int:
        """How many numbers there are."""
        return len(self.numbers)


@dataclass
class Books:
    """What the clients know, by counter."""

    certain: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Accepted: they count."""
    possible: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """Nobody was told: they count or not."""
    late: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """With a deadline that may have passed before they began."""
    in_order: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    """(counter, number, number): the first was accepted before the second was asked for."""
    ticks: Multiset[str] = field(default_factory=Multiset[str])
    notes: Multiset[str] = field(default_factory=Multiset[str])
    forgotten: Multiset[str] = field(default_factory=Multiset[str])


class Customer:
    """One client and what it does."""

    def __init__(self, sim: Simulation, random: Random, books: Books, name: str, *, insists: bool) -> None:
        self.sim = sim
        self.random = random
        self.books = books
        self.client: SimulatedClient = sim.client(name, insists=insists)
        self.last: dict[str, int] = {}
        """By counter, the last number of this client that is sure to be in the mailbox or past it."""

    async def request(self, number: int, key: str) -> None:
        """Ask in a random way."""
        random, tally, books = self.random, self.client.object(Tally, key), self.books
        await wander(self.sim, random)
        try:
            match random.choice(
                ("call", "send", "burst", "later", "shared_key", "slow", "deadline", "hurry", "tick", "note")
            ):
                case "call":
                    answer = await self.client.call("SoakTally", "add", key=key, argument=number, returns=int)
                    self._counts(key, number)
                    assert answer >= 1
                case "send":
                    sent = await tally.add.send(number)
                    self._counts(key, number)
                    await self._follow(sent)
                case "burst":
                    for part in range(random.randint(2, 8)):
                        await tally.add.send(number + part)
                        self._counts(key, number + part)
                case "later":
                    await self._later(key, number)
                case "shared_key":
                    await self._with_a_shared_key(key, number)
                case "slow":
                    await tally.add_slowly(number, random.choice((0.0, 0.5, 20.0)))
                    self._counts(key, number)
                case "deadline":
                    await self._with_a_deadline(key, number)
                case "hurry":
                    await self._in_a_hurry(key, number)
                case "tick":
                    times = random.randint(0, 5)
                    books.ticks[key] += times + 1
                    await tally.tick.options(idempotency_key=f"tick {number}").send(times)
                case _:
                    await self._take_notes(key, number)
        except UNKNOWN:
            books.possible.setdefault(key, set()).update(range(number, number + 10))
            self.last.pop(key, None)

    def _counts(self, key: str, number: int) -> None:
        self.books.certain.setdefault(key, []).append(number)
        if key in self.last:
            self.books.in_order.append((key, self.last[key], number))
        self.last[key] = number

    async def _follow(self, sent: Invocation[int]) -> None:
        """Ask by the handle; once completed, it stays so."""
        before = await sent.status()
        assert await sent.result() >= 1
        after = await sent.status()
        assert after is InvocationStatus.COMPLETED, f"{sent} has a result, is {after}, and was {before}"

    async def _later(self, key: str, number: int) -> None:
        tally, delay = self.client.object(Tally, key), self.random.choice((0, 1, 90))
        if self.random.random() < 0.5:
            sent = await tally.add.after(delay).send(number)
        else:
            now = datetime.fromtimestamp(self.sim.clock.now() / 1_000_000, UTC)
            sent = await tally.add.at(now + timedelta(seconds=delay)).send(number)
        self.books.certain.setdefault(key, []).append(number)
        if self.random.random() < 0.5:
            assert await sent.result() >= 1

    async def _with_a_shared_key(self, key: str, number: int) -> None:
        """Several clients ask with the same key: one is carried out, and all hear the same."""
        shared_key = f"shared {number}"
        self.books.certain.setdefault(key, []).append(number)
        asked = [
            self.sim.client(f"twin {number} {twin}").object(Tally, key).add.options(idempotency_key=shared_key)
            for twin in range(3)
        ]
        answers: list[int] = []

        async def ask(twin: int) -> None:
            await wander(self.sim, self.random)
            if twin == 1:
                answers.append(await (await asked[twin].send(number)).result())
            else:
                answers.append(await asked[twin](number))

        await all_of(*(ask(twin) for twin in range(3)))
        answers.append(await asked[0].attach())
        assert len(set(answers)) == 1, f"{shared_key} was answered with {answers}"
        try:
            await asked[0].options(idempotency_key=f"unknown {number}").attach()
        except UnknownTargetError:
            return
        raise AssertionError("Somebody could attach to what was never asked for.")

    async def _with_a_deadline(self, key: str, number: int) -> None:
        seconds = self.random.choice((0.001, 1, 5))
        add = self.client.object(Tally, key).add_slowly.options(timeout=seconds, idempotency_key=f"late {number}")
        try:
            await add(number, 2.0)
        except DeadlineExceededError:
            self.books.late.setdefault(key, set()).add(number)
        else:
            self.books.certain.setdefault(key, []).append(number)

    async def _in_a_hurry(self, key: str, number: int) -> None:
        """Many messages with deadlines; those that are still in the mailbox then never begin."""
        add = self.client.object(Tally, key).add_slowly.options(timeout=self.random.choice((0.01, 1, 2)))
        late = self.books.late.setdefault(key, set())
        for part in range(self.random.randint(2, 6)):
            late.add(number + part)
            await add.options(idempotency_key=f"hurry {number + part}").send(number + part, 0.2)

    async def _take_notes(self, key: str, number: int) -> None:
        """Notes have keys of their own, so that they count exactly, whoever insists."""
        tally = self.sim.client(f"notes {number}").object(Tally, key)
        for part in range(self.random.randint(1, 3)):
            await tally.note(f"note {part}")
            self.books.notes[key] += 1
        if self.random.random() < 0.5:
            forgotten = await tally.forget_notes()
            self.books.forgotten[key] += forgotten


async def program(sim: Simulation) -> None:
    """Some clients ask in turn, others beside them; one does not insist."""
    random = randomness(sim)
    books = Books()
    keys = [f"counter {number}" for number in range(random.choice((1, 3, 12)))]
    seen: Multiset[str] = Multiset()

    async def customer(name: str, requests: int, first: int) -> None:
        one = Customer(sim, random, books, name, insists=name != "eve")
        for place in range(requests):
            await one.request(first + place * 10, random.choice(keys))

    async def looker() -> None:
        for _ in range(12):
            await wander(sim, random)
            key = random.choice(keys)
            tally = sim.client("looker", insists=False).object(Tally, key)
            count = await looked(sim, tally.count)
            assert count >= seen[key], f"{key} had {seen[key]} numbers, and now has {count}"
            seen[key] = count

    requests = random.choice((2, 5, 9))
    await all_of(
        *(customer(name, requests, place * 10_000) for place, name in enumerate(("ann", "bob", "eve"), start=1)),
        looker(),
        restart_at_times(sim, random),
    )
    await until_all_ended(sim)
    await check_tallies(sim, keys, books)


async def check_tallies(sim: Simulation, keys: list[str], books: Books) -> None:
    """Compare what the counters keep with what the clients know."""
    for key in keys:
        tally = sim.snapshots[Tally, key]
        kept = Multiset(tally.numbers)
        twice = [number for number, count in kept.items() if count > 1]
        assert not twice, f"{key} has {twice} more than once"
        certain = set(books.certain.get(key, ()))
        possible = books.possible.get(key, set()) | books.late.get(key, set())
        assert certain <= kept.keys(), f"{key} lost {sorted(certain - kept.keys())}"
        assert kept.keys() <= certain | possible, f"{key} has {sorted(kept.keys() - certain - possible)} of nobody"
        assert tally.ticks == books.ticks[key] or books.possible.get(key), f"{key} ticked {tally.ticks} times"
        noted = await sim.client("the end").object(Tally, key).forget_notes()
        assert noted + books.forgotten[key] == books.notes[key], f"{key} has {noted} notes"
        places = {number: place for place, number in enumerate(tally.numbers)}
        for where, first, second in books.in_order:
            if where == key:
                assert places[first] < places[second], f"{second} overtook {first} in {key}"


COUNTERS = Workload(program=program, actors=(Tally,), mailbox_messages=3)

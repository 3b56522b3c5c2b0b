"""The workload `approvals`: what is sent to invocations that wait arrives once, in order, and the first word counts.

Awakeables are completed by several at once, from handlers, atomic ones too, and from outside, with forged ids among
them; whoever waits hears one value, and everybody the same. Signals are sent to invocations before, while and after
they wait, with waits that are given up in between; each is taken once, in the order in which it was sent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

from durably import (
    Awakeable,
    Context,
    Invocation,
    InvocationStatusError,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    select,
    shared,
    state,
)
from durably.ids import awakeable_id, parse_awakeable_id
from durably.testing import Simulation, Workload
from workloads.program_parts import UNKNOWN, all_of, randomness, restart_at_times, until_all_ended, wander

REFUSED = "refused"
LOST_SECONDS = 1_000.0
"""What came before the wait for it and has not been taken after so long never will be."""
MOST_WAITS = 400
"""What has not come in the last of so many waits never will."""


class Permit(VirtualObject, name="SoakPermit"):
    """Asks for one word after the other."""

    asked: Awakeable[str] | None = state(default=None)
    heard: list[str] = state(default=[])

    @handler
    async def ask(self, ctx: ObjectContext, patience: float) -> str:
        """Wait for the word, looking up from time to time; every wait for it ends alike."""
        asked = self.asked = ctx.awakeable(str)
        while True:
            try:
                async with asyncio.timeout(patience):
                    word = await asked
                    break
            except TimeoutError:
                continue
            except TerminalError as error:
                word = error.message
                break
        again = (await asyncio.gather(asked, return_exceptions=True))[0]
        assert word == (again.message if isinstance(again, TerminalError) else again)
        self.asked = None
        self.heard.append(word)
        return word

    @shared
    async def pending(self, ctx: SharedContext) -> str:
        return "" if self.asked is None else self.asked.id

    @shared
    async def answer(self, ctx: SharedContext, word: str) -> None:
        """From its own state; nobody may be waiting."""
        if self.asked is not None:
            await (self.asked.reject(REFUSED) if word == REFUSED else self.asked.resolve(word))


class Official(VirtualObject, name="SoakOfficial"):
    """Gives the word, or only says so."""

    @handler(atomic=True)
    async def decide(self, ctx: ObjectContext, id: str, word: str, seconds: float, *, holds: bool) -> None:
        await ctx.resolve_awakeable(id, word)
        await ctx.sleep(seconds)
        if not holds:
            raise TerminalError("it does not hold")

    @handler(atomic=True)
    async def tell(self, ctx: ObjectContext, id: str, numbers: list[int], seconds: float, *, holds: bool) -> None:
        """The last number is told in the last step."""
        told = ctx.invocation(id, list[int])
        for number in numbers[:-1]:
            await told.signal("number", number)
        await ctx.sleep(seconds)
        if not holds:
            raise TerminalError("it does not hold")
        await told.signal("number", numbers[-1])


class Listener(VirtualObject, name="SoakListener"):
    """Takes signals, with waits that end in vain between them."""

    taken: list[int] = state(default=[])

    @handler
    async def take(self, ctx: ObjectContext, count: int, way: str, seconds: float) -> list[int]:
        taken: list[int] = []
        if way == "late":
            await ctx.sleep(seconds)
        waits = 0
        while len(taken) < count and waits < MOST_WAITS:
            waits += 1
            match way:
                case "in vain":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(seconds):
                            taken.append(await ctx.signal("number", int))
                case "side by side":
                    taken += await asyncio.gather(*(ctx.signal("number", int) for _ in range(count)))
                case "raced":
                    name, number = await select(number=ctx.signal("number", int), never=ctx.signal("never", int))
                    assert name == "number"
                    taken.append(number)
                case "cut short":  # By what comes together with the number, which nobody has seen yet.
                    cut = ctx.signal("cut", int)
                    waiting = asyncio.ensure_future(ctx.signal("number", int))
                    await cut
                    waiting.cancel()
                    try:
                        async with asyncio.timeout(LOST_SECONDS):
                            taken.append(await ctx.signal("number", int))
                    except TimeoutError:
                        break
                case _:
                    taken.append(await ctx.signal("number", int))
        self.taken += taken
        return taken


class Sender(Service, name="SoakSender"):
    """Sends numbers."""

    @handler
    async def send(self, ctx: Context, id: str, numbers: list[int], seconds: float) -> int:
        """How many of them were taken in."""
        for sent, number in enumerate(numbers):
            try:
                await ctx.invocation(id, list[int]).signal("number", number)
            except InvocationStatusError:
                return sent
            if seconds:
                await ctx.sleep(seconds)
        return len(numbers)

    @handler
    async def send_and_go(self, ctx: Context, id: str, number: int) -> None:
        """In the last step, without hearing whether it was taken in."""
        leaving = asyncio.ensure_future(_left_behind(ctx.invocation(id, list[int]), number))
        await asyncio.sleep(0)
        assert not leaving.done()

    @handler
    async def start_and_send(self, ctx: Context, key: str, numbers: list[int], way: str, seconds: float) -> list[int]:
        """All in one step: the invocation is accepted with its signals."""
        started = await ctx.object(Listener, key).take.send(len(numbers), way, seconds)
        for number in numbers:
            if way == "cut short":
                await asyncio.gather(started.signal("cut", number), started.signal("number", number))
            else:
                await started.signal("number", number)
        return await started.result()


async def _left_behind(told: Invocation[list[int]], number: int) -> None:
    await told.signal("number", number)


async def program(sim: Simulation) -> None:
    """Some ask and are answered by many; others listen and are told."""
    random = randomness(sim)
    await all_of(
        *(_asks(sim, Random(random.random()), f"permit {number}") for number in range(random.randint(1, 3))),
        *(_listens(sim, Random(random.random()), f"listener {number}") for number in range(random.randint(1, 3))),
        *(_petitions(sim, Random(random.random()), f"petition {number}") for number in range(random.randint(0, 2))),
        restart_at_times(sim, random),
    )
    await until_all_ended(sim)
    left = [row.signals for row in sim.disk.rows.values() if row.signals]
    assert not left, f"signals of what has ended are left: {left}"


async def _asks(sim: Simulation, random: Random, key: str) -> None:
    """One question after the other; the answers of others than the first are ignored."""
    client = sim.client(f"asker of {key}")
    expected: list[str] = []
    for number in range(random.randint(1, 3)):
        permit = client.object(Permit, key)
        asking = await permit.ask.send(random.choice((0.5, 30.0)))
        while not (id := await permit.pending()):
            await sim.advance(1)
        words = [f"{number}.{word}" for word in range(random.randint(1, 4))] + [REFUSED] * random.randint(0, 1)
        await all_of(*(_answers(sim, Random(random.random()), key, id, word) for word in words))
        word = await asking.result()
        assert word in words, f"{key} heard {word!r}, and was told one of {words}"
        expected.append(word)
    heard = sim.snapshots[Permit, key].heard
    assert heard == expected, f"{key} heard {heard}, and said {expected}"


async def _answers(sim: Simulation, random: Random, key: str, id: str, word: str) -> None:
    """One of those who know the id; what nobody is to hear is sent by those who only guess."""
    client = sim.client(f"teller of {word}")
    await wander(sim, random)
    match random.choice(("outside", "forged", "own state", "atomic", "nothing holds", "reject")):
        case "forged":
            parsed = parse_awakeable_id(id)
            assert parsed is not None
            await client.resolve_awakeable(awakeable_id(parsed.invocation_id, b"x" * 16, parsed.command), "forged")
            await client.resolve_awakeable(id, word)
        case "own state":
            await client.object(Permit, key).answer(word)
            await client.resolve_awakeable(id, word)
        case "atomic":
            await client.object(Official, word).decide(id, word, random.choice((0.0, 5.0)), holds=True)
        case "nothing holds":
            try:
                await client.object(Official, word).decide(id, "not to be heard", 1.0, holds=False)
            except TerminalError:
                await client.resolve_awakeable(id, word)
        case "reject" if word == REFUSED:
            await client.reject_awakeable(id, word)
        case _:
            await client.resolve_awakeable(id, word)


async def _listens(sim: Simulation, random: Random, key: str) -> None:
    """Numbers in order, told by a handler, which sends each once; then some from outside, which may be lost."""
    client = sim.client(f"asker of {key}")
    for turn in range(random.randint(1, 3)):
        numbers = [turn * 100 + number for number in range(random.randint(1, 5))]
        way = random.choice(("plain", "late", "in vain", "side by side", "raced"))
        seconds = random.choice((0.5, 3.0))
        if random.random() < 0.3:
            for one_way in (way, "cut short"):
                taken = await client.service(Sender).start_and_send(key, numbers, one_way, seconds)
                assert taken == numbers, f"{key} took {taken} of {numbers} ({one_way})"
            continue
        take = client.object(Listener, key).take
        sent_later = random.choice((0.0, 2.0))
        started = await (take.after(sent_later) if sent_later else take).send(len(numbers), way, seconds)
        await wander(sim, random)
        telling = client.service(Sender).send(started.id, [*numbers, -1], random.choice((0.0, 0.2, 4.0)))
        guessing = _sends_from_outside(sim, Random(random.random()), key, started.id)
        _, told = await asyncio.gather(guessing, telling)
        taken = await started.result()
        from_outside = [number for number in taken if number < -1]
        from_handler = [number for number in taken if number >= -1]
        assert len(taken) == len(numbers), f"{key} took {taken}, and was to take {len(numbers)} ({way})"
        assert from_handler == [*numbers, -1][: len(from_handler)], f"{key} took {taken} of {numbers} ({way})"
        first_of_each = [*dict.fromkeys(from_outside)]  # The network may bring a signal twice.
        assert first_of_each == sorted(first_of_each, reverse=True), f"{key} took {taken} ({way})"
        assert told >= len(from_handler)


async def _petitions(sim: Simulation, random: Random, key: str) -> None:
    """An atomic handler tells all that it has to tell, or nothing; then one tells without hearing of it."""
    client = sim.client(f"asker of {key}")
    numbers = [*range(random.randint(1, 3))]
    way = random.choice(("plain", "late", "in vain"))
    started = await client.object(Listener, key).take.send(len(numbers) + 1, way, 0.5)
    for holds in random.sample((False, True), 2) if random.random() < 0.5 else (True,):
        told = numbers if holds else [-number for number in (*numbers, 1)]
        try:
            await client.object(Official, key).tell(started.id, told, random.choice((0.0, 2.0)), holds=holds)
        except TerminalError:
            assert not holds, "what holds failed"
        else:
            assert holds, "what does not hold went well"
    await client.service(Sender).send_and_go(started.id, 100)
    taken = await started.result()
    assert taken == [*numbers, 100], f"{key} took {taken}, and was told {[*numbers, 100]}"
    await client.service(Sender).send_and_go(started.id, 200)  # Nobody listens any more.


async def _sends_from_outside(sim: Simulation, random: Random, key: str, id: str) -> None:
    """Numbers below -1, downwards; none is sent again, but each may arrive twice."""
    client = sim.client(f"teller of {key}", insists=False)
    for number in range(-2, -2 - random.randint(0, 2), -1):
        await wander(sim, random)
        try:
            await client.invocation(id, list[int]).signal("number", number)
        except (*UNKNOWN, InvocationStatusError):
            return


APPROVALS = Workload(program=program, actors=(Permit, Official, Listener, Sender), retry=RetryPolicy(initial=0.5))

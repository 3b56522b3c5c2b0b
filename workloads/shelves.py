"""The workload `shelves`: objects with collections and a field that is loaded lazily (rule V7), against plain ones.

A request is a list of moves, which the handler makes one after the other, with waits in between. What it heard is
compared with what a plain dict, list and value say; so is what is stored in the end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from durably import (
    DurableDict,
    DurableList,
    Lazy,
    ObjectContext,
    RetryPolicy,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Simulation, Workload
from workloads.program_parts import UNKNOWN, all_of, looked, randomness, restart_at_times, until_all_ended, wander

Move: TypeAlias = tuple[str, int, int]
"""What is done, with two numbers, whatever they mean there."""
KEYS = 8
NOTHING = -1
"""Stands for what is not there."""

LIST_MOVES = (
    "append", "append", "append", "appendleft", "pop", "popleft", "popleft", "pop two", "get", "set", "range", "length",
    "fill", "walk list", "given up",
)  # fmt: skip
DICT_MOVES = (
    "put", "put", "put", "look", "look", "has", "drop", "take", "count", "page", "page back", "walk dict",
    "look before put", "names",
)  # fmt: skip
OTHER_MOVES = ("note", "noted", "forget", "clear list", "clear dict", "clear all", "wait", "wait", "act", "begin anew")
FAILS = "fail"


class Shelf(VirtualObject, name="SoakShelf"):
    """Makes moves."""

    moves: int = state(default=0)
    books: DurableList[int] = state()
    prices: DurableDict[str, int] = state()
    pages: DurableDict[int, str] = state()
    note: Lazy[list[int]] = state()

    @handler
    async def make(self, ctx: ObjectContext, moves: list[Move], heard: list[Any]) -> list[Any]:
        """Make moves, and tell what was heard on the way."""
        return await self._make(ctx, moves, heard)

    @handler(atomic=True)
    async def make_all_or_none(self, ctx: ObjectContext, moves: list[Move], heard: list[Any]) -> list[Any]:
        """The same; what fails leaves nothing."""
        return await self._make(ctx, moves, heard)

    async def _make(self, ctx: ObjectContext, moves: list[Move], heard: list[Any]) -> list[Any]:
        heard = [*heard]
        for place, (kind, first, second) in enumerate(moves):
            match kind:
                case "wait":
                    await ctx.sleep(first / 4)
                case "act":
                    await ctx.run("act", effect)
                case "begin anew":
                    if ctx.handler.name == "make":
                        ctx.continue_as_new(Shelf.make, moves[place + 1 :], heard)
                case "fail":
                    raise TerminalError("as it was to be")
                case "clear all":
                    ctx.clear_all()
                case _:
                    heard.append(await self._one(kind, first, second))
        self.moves += 1
        return heard

    async def _one(self, kind: str, first: int, second: int) -> Any:
        if kind in LIST_MOVES:
            return await self._of_list(kind, first, second)
        if kind in DICT_MOVES:
            return await self._of_dict(kind, first, second)
        match kind:
            case "note":
                self.note.set([first, second])
            case "noted":
                return await self.note.get(NOTHING)
            case "forget":
                self.note.clear()
            case "clear list":
                self.books.clear()
            case _:
                self.prices.clear()
        return None

    async def _of_list(self, kind: str, first: int, second: int) -> Any:
        books = self.books
        match kind:
            case "append":
                books.append(second)
            case "appendleft":
                books.appendleft(second)
            case "pop":
                return await books.pop(NOTHING)
            case "popleft":
                return await books.popleft(NOTHING)
            case "pop two":
                return await asyncio.gather(books.popleft(NOTHING), books.popleft(NOTHING))
            case "given up":
                pops = [*[books.popleft(NOTHING) for _ in range(1 + first // 2)], books.pop(NOTHING)]
                popping = [asyncio.ensure_future(one) for one in pops]
                if first % 2:
                    books.append(second)
                    books.appendleft(second)
                for one in popping:  # From Python 3.12 on, a gather of what is done has taken all of it at once.
                    one.cancel()
                await asyncio.gather(*popping, return_exceptions=True)
            case "get":
                return await books.get(first % len(books)) if len(books) else NOTHING
            case "set":
                if len(books):
                    books[first % len(books)] = second
            case "range":
                return await books.range(first, first + second % 4)
            case "walk list":
                return [book async for book in books]
            case "fill":
                for number in range(first):
                    books.append(number)
            case _:
                return len(books)
        return None

    async def _of_dict(self, kind: str, first: int, second: int) -> Any:
        prices, key = self.prices, key_of(first)
        match kind:
            case "put":
                prices[key] = second
                self.pages[first - 3] = f"page {second}"
            case "look":
                return await prices.get(key, NOTHING)
            case "has":
                return await prices.contains(key)
            case "drop":
                prices.delete(key)
                del self.pages[first - 3]
            case "take":
                return await prices.pop(key, NOTHING)
            case "count":
                return await prices.count()
            case "page":
                return await prices.page(key, limit=1 + second % 3)
            case "page back":
                return await prices.page(key, limit=1 + second % 3, reverse=True)
            case "walk dict":
                return [entry async for entry in prices.items()]
            case "look before put":
                looking = prices.get(key, NOTHING)
                prices[key] = second
                return [await looking, await prices.get(key, NOTHING)]
            case _:
                return [number async for number, _ in self.pages.items()]
        return None

    @shared
    async def look(self, ctx: SharedContext) -> tuple[list[int], int]:
        """Books, and the number of prices."""
        return await self.books.range(0, 1_000), await self.prices.count()

    @shared
    async def price(self, ctx: SharedContext, key: str) -> tuple[int, list[tuple[str, int]], list[int] | None]:
        """One price, some more, and the note."""
        return await self.prices.get(key, NOTHING), await self.prices.page(key, limit=2), await self.note.get()


class Belt(VirtualObject, name="SoakBelt"):
    """A queue of numbers in a row, and what was taken from it."""

    put: int = state(default=0)
    taken: int = state(default=0)
    waiting: DurableList[int] = state()
    done: DurableDict[int, int] = state()

    @handler
    async def bring(self, ctx: ObjectContext, count: int, seconds: float) -> None:
        """Append the next numbers, each in a step of its own if there is a wait."""
        for _ in range(count):
            self.waiting.append(self.put)
            self.put += 1
            if seconds:
                await ctx.sleep(seconds)

    @handler
    async def work_off(self, ctx: ObjectContext, count: int, seconds: float) -> list[int]:
        """Take the first numbers, and do something for each."""
        taken: list[int] = []
        while len(taken) < count and len(self.waiting):
            number = await self.waiting.popleft()
            await ctx.run(f"work on {number}", effect)
            self.done[number] = ctx.now().second
            self.taken += 1
            taken.append(number)
            if seconds:
                await ctx.sleep(seconds)
        return taken

    @handler
    async def work_together(self, ctx: ObjectContext, workers: int, seconds: float) -> list[int]:
        """So many take from the queue beside each other, until the time is over."""
        taken: list[int] = []

        async def work() -> None:
            while len(self.waiting):
                number = await self.waiting.popleft()
                self.done[number] = ctx.now().second
                self.taken += 1
                taken.append(number)
                await ctx.run(f"work on {number}", effect)

        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*[work() for _ in range(workers)])
        return taken

    @shared
    async def look(self, ctx: SharedContext) -> tuple[int, list[int], int]:
        """How many were done, what waits, and how many were done then: what one read tells is of one moment."""
        before = await self.done.count()
        waiting = await self.waiting.range(0, 1_000)
        return before, waiting, await self.done.count()


async def effect() -> None:
    await asyncio.sleep(0.001)


def key_of(number: int) -> str:
    """Keys whose order is not that of the numbers."""
    return f"{'zaäÄ☃'[number % 5]}{number}"


@dataclass
class PlainShelf:
    """What a shelf is, in plain collections."""

    books: list[int] = field(default_factory=list[int])
    prices: dict[str, int] = field(default_factory=dict[str, int])
    pages: dict[int, str] = field(default_factory=dict[int, str])
    note: Any = NOTHING

    def make(self, moves: list[Move]) -> list[Any] | None:
        """What is heard; None: it fails."""
        heard: list[Any] = []
        for kind, first, second in moves:
            if kind == FAILS:
                return None
            if kind == "clear all":
                self.books, self.prices, self.pages, self.note = [], {}, {}, NOTHING
            elif kind not in ("wait", "act", "begin anew"):
                heard.append(self._one(kind, first, second))
        return heard

    def _one(self, kind: str, first: int, second: int) -> Any:
        books, prices, key = self.books, self.prices, key_of(first)
        match kind:
            case "append":
                books.append(second)
            case "appendleft":
                books.insert(0, second)
            case "pop":
                return books.pop() if books else NOTHING
            case "popleft":
                return books.pop(0) if books else NOTHING
            case "pop two":
                return [books.pop(0) if books else NOTHING for _ in range(2)]
            case "given up":
                if first % 2:
                    books[:] = [second, *books, second]
            case "get":
                return books[first % len(books)] if books else NOTHING
            case "set":
                if books:
                    books[first % len(books)] = second
            case "range":
                return books[first : first + second % 4]
            case "walk list":
                return [*books]
            case "fill":
                books.extend(range(first))
            case "length":
                return len(books)
            case "put":
                prices[key] = second
                self.pages[first - 3] = f"page {second}"
            case "look":
                return prices.get(key, NOTHING)
            case "has":
                return key in prices
            case "drop":
                prices.pop(key, None)
                self.pages.pop(first - 3, None)
            case "take":
                return prices.pop(key, NOTHING)
            case "count":
                return len(prices)
            case "page":
                return [[one, prices[one]] for one in sorted(prices) if one > key][: 1 + second % 3]
            case "page back":
                return [[one, prices[one]] for one in sorted(prices, reverse=True) if one < key][: 1 + second % 3]
            case "walk dict":
                return [[one, prices[one]] for one in sorted(prices)]
            case "look before put":
                before = prices.get(key, NOTHING)
                prices[key] = second
                return [before, second]
            case "names":
                return sorted(self.pages)
            case "note":
                self.note = [first, second]
            case "noted":
                return self.note
            case "forget":
                self.note = NOTHING
            case "clear list":
                books.clear()
            case _:
                prices.clear()
        return None

    def copy(self) -> PlainShelf:
        return PlainShelf([*self.books], dict(self.prices), dict(self.pages), self.note)


def make_moves(random: Random) -> list[Move]:
    kinds = random.choices((LIST_MOVES, DICT_MOVES, OTHER_MOVES), weights=(4, 4, 2), k=random.choice((1, 3, 12)))
    moves = [(random.choice(some), random.randrange(KEYS), random.randrange(100)) for some in kinds]
    return [*moves, (FAILS, 0, 0)] if random.random() < 0.15 else moves


def check_shelf(sim: Simulation, key: str, plain: PlainShelf) -> None:
    """What is stored is what the plain collections say."""
    stored = [sim.snapshots.entries(Shelf, key, name) for name in ("books", "prices", "pages", "note")]
    note = None if plain.note == NOTHING else plain.note
    wanted = [plain.books, dict(sorted(plain.prices.items())), dict(sorted(plain.pages.items())), note]
    assert stored == wanted, f"the shelf {key} has {stored}, not {wanted}"


async def program(sim: Simulation) -> None:
    """Some make moves, each on a shelf of their own; others bring and take at one belt; some look."""
    random = randomness(sim)

    async def owner(key: str) -> None:
        client, plain = sim.client(key), PlainShelf()
        for _ in range(random.randint(1, 5)):
            await wander(sim, random)
            if random.random() < 0.15:
                try:
                    await client.delete(Shelf, key)
                except UNKNOWN:
                    return  # It happens, or not, and nobody knows when.
                plain = PlainShelf()
            moves, atomic = make_moves(random), random.random() < 0.3
            before = plain.copy()
            shelf = client.object(Shelf, key)
            try:
                heard = await (shelf.make_all_or_none(moves, []) if atomic else shelf.make(moves, []))
            except TerminalError:
                heard = None
            wanted = plain.make(moves)
            if heard is None and atomic:
                plain = before
            assert heard == wanted, f"{moves} was answered with {heard}, not {wanted}"
            check_shelf(sim, key, plain)

    async def worker(name: str) -> None:
        for _ in range(random.randint(1, 4)):
            await wander(sim, random)
            await all_of(use_belt(name), *[glance(f"beside {name}") for _ in range(random.randrange(3))])

    async def use_belt(name: str) -> None:
        belt = sim.client(name).object(Belt, "belt")
        count, seconds = random.randint(1, 6), random.choice((0.0, 0.0, 0.2, 20.0))
        if random.random() < 0.5:
            await belt.bring(count, seconds)
            return
        together = random.random() < 0.5
        taken = await (belt.work_together(count, seconds / 20) if together else belt.work_off(count, seconds))
        assert taken == [*range(taken[0], taken[0] + len(taken))] if taken else True

    async def glance(name: str) -> tuple[int, list[int], int]:
        belt = sim.client(name, insists=False).object(Belt, "belt")
        before, waiting, after = await looked(sim, belt.look)
        assert waiting == [*range(waiting[0], waiting[-1] + 1)] if waiting else True, f"torn: {waiting}"
        assert before <= after, f"{before} were done, then {after}"
        return before, waiting, after

    async def onlooker() -> None:
        seen = first = 0
        for _ in range(10):
            await wander(sim, random)
            before, waiting, after = await glance("onlooker")
            assert seen <= before, f"{seen} were done, then {before}"
            assert not waiting or (first <= waiting[0] and before <= waiting[0] + 1), (
                f"{waiting} after {first}, {before}"
            )
            seen, first = after, waiting[0] if waiting else first
            shelf = sim.client("onlooker", insists=False).object(Shelf, random.choice("ab"))
            await looked(sim, shelf.look)
            await looked(sim, lambda shelf=shelf: shelf.price(key_of(random.randrange(KEYS))))  # type: ignore[misc]

    await all_of(
        owner("a"), owner("b"), worker("c"), worker("d"), worker("e"), onlooker(), restart_at_times(sim, random)
    )
    await until_all_ended(sim)
    belt = sim.snapshots[Belt, "belt"]
    waiting = sim.snapshots.entries(Belt, "belt", "waiting")
    done = sim.snapshots.entries(Belt, "belt", "done")
    assert [*done] == [*range(belt.taken)], f"{belt.taken} were taken, and these were worked on: {[*done]}"
    assert waiting == [*range(belt.taken, belt.put)], (
        f"these wait: {waiting}, and {belt.taken} of {belt.put} were taken"
    )


SHELVES = Workload(program=program, actors=(Shelf, Belt), retry=RetryPolicy(initial=0.5))

"""The workload `onions`: middleware of the runtime, of a class and of a handler, with dependencies of an activation.

The runtime's middleware doubles what is paid in; the class's keeps a book of what begins and ends, by an action, two
calls and a wait around the handler; the handler's refuses some. Clients, ticks and other handlers ask, some are
cancelled. In the end each invocation stands in the book as it went, and what was torn down was used by nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from durably import (
    ActivationKey,
    CallNext,
    Context,
    InvocationStatusError,
    Keyed,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    factory,
    handler,
    shared,
    state,
)
from durably.middleware import Measurement, Metrics
from durably.testing import Simulation, Workload
from workloads.program_parts import all_of, randomness, restart_at_times, until_all_ended, wander

KEYS = "abc"
UNLUCKY = 4
"""What is a multiple of this when it reaches the handler is refused."""


class Bell:
    """The world outside: it hears who rings."""

    def __init__(self) -> None:
        self.rung: list[str] = []


class Line:
    """To the bell, for one activation."""

    def __init__(self, bell: Bell, key: str) -> None:
        self.bell = bell
        self.key = key
        self.is_open = True

    def ring(self, id: str) -> None:
        assert self.is_open, f"the line of {self.key} was used after it was torn down"
        self.bell.rung.append(id)


class Wires(dict[str, Line]):
    """The lines that are open in one process, by key."""

    def __init__(self) -> None:
        super().__init__()


class Exchange:
    """Of one process: it opens and closes lines."""

    def __init__(self, bell: Bell, wires: Wires) -> None:
        self.bell = bell
        self.lines = wires


def make_exchange(bell: Bell, wires: Wires) -> Iterator[Exchange]:
    exchange = Exchange(bell, wires)
    yield exchange
    assert not exchange.lines, "what activations have is torn down after what the runtime has"


async def open_line(exchange: Exchange, key: ActivationKey) -> AsyncIterator[Line]:
    await asyncio.sleep(0.001)
    assert key not in exchange.lines, f"a second line for {key} was opened in the same process"
    line = exchange.lines[key] = Line(exchange.bell, key)
    yield line
    line.is_open = False
    assert exchange.lines.pop(key) is line


def heard(measurement: Measurement) -> None:
    """Of what ends; it is told outside of the handlers, and not on replay."""
    assert measurement.outcome in ("result", "failure", "cancelled")


async def doubles(ctx: Context, call_next: CallNext) -> Any:
    """Of the runtime: it sees calls of all classes."""
    if ctx.handler.metadata.get("doubles") == "yes":
        return await call_next(amount=2 * call_next.arguments["amount"])
    return await call_next()


class Bookkeeping:
    """Of the class; it is made with what it needs, in each process."""

    def __init__(self, bell: Bell, books: Keyed[Book]) -> None:
        self.bell = bell
        self.books = books

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        if ctx.handler.kind == "shared":
            return await call_next()
        id, book = ctx.request.id, self.books["book"]
        await ctx.run("ring", self.bell.rung.append, id)
        await book.enter(id, "begins")
        try:
            result = await call_next()
        except TerminalError as error:
            await book.enter(id, f"fails with {error.code}")
            raise
        except asyncio.CancelledError:
            await book.enter(id, "is cancelled")
            raise
        await ctx.sleep(0.5)
        await book.enter(id, f"gives {result}")
        return result


async def refuses(ctx: Context, call_next: CallNext) -> Any:
    """Of one handler: it is the innermost, so it sees what has been doubled."""
    if call_next.arguments["amount"] % UNLUCKY == 0:
        raise TerminalError("unlucky", code=418)
    return await call_next()


class Book(VirtualObject, name="SoakBook"):
    """What the middleware says."""

    lines: list[list[str]] = state(default_factory=list[list[str]])

    @handler
    async def enter(self, ctx: ObjectContext, id: str, what: str) -> None:
        self.lines.append([id, what])


class Jar(VirtualObject, name="SoakJar", middleware=[Bookkeeping]):
    """Money, and a line that lives as long as the jar is in memory."""

    def __init__(self, line: Line) -> None:
        self.line = line

    total: int = state(default=0)
    paid: list[str] = state(default_factory=list[str])

    @handler(middleware=[refuses], metadata={"doubles": "yes"})
    async def pay(self, ctx: ObjectContext, amount: int, seconds: float) -> int:
        await ctx.run("ring", self.line.ring, ctx.request.id)
        await ctx.sleep(seconds)
        self.total += amount
        self.paid.append(ctx.request.id)
        return amount

    @handler(atomic=True, metadata={"doubles": "yes"})
    async def tip(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        self.paid.append(ctx.request.id)
        return amount

    @shared
    async def look(self, ctx: SharedContext) -> int:
        assert self.line.is_open, f"the line of {self.line.key} was used after it was torn down"
        return self.total


class Purse(Service, name="SoakPurse"):
    """Pays into jars, which it was given."""

    def __init__(self, jars: Keyed[Jar]) -> None:
        self.jars = jars

    @handler
    async def spread(self, ctx: Context, amount: int, keys: list[str]) -> int:
        given = 0
        for key in keys:
            with suppress(TerminalError):
                given += await self.jars[key].pay(amount, 0.0)
        return given


async def program(sim: Simulation) -> None:
    """Several pay into the same jars, look and cancel; the book and the jars agree in the end."""
    random = randomness(sim)

    async def pay(number: int) -> None:
        client, key, amount = sim.client(f"payer {number}"), random.choice(KEYS), random.randint(1, 9)
        seconds = random.choice((0.0, 1.0, 30.0))
        await wander(sim, random)
        jar = client.object(Jar, key)
        match random.choice(("pay", "pay", "tip", "spread", "cancel")):
            case "pay":
                try:
                    gave = await jar.pay(amount, seconds)
                except TerminalError as error:
                    gave = -error.code
                assert gave == (-418 if 2 * amount % UNLUCKY == 0 else 2 * amount)
            case "tip":
                assert await jar.tip(amount) == 2 * amount
            case "spread":
                given = await client.service(Purse).spread(amount, [*KEYS])
                assert given == (0 if 2 * amount % UNLUCKY == 0 else 2 * amount * len(KEYS))
            case _:
                sent = await jar.pay.send(amount, seconds)
                await wander(sim, random)
                with suppress(InvocationStatusError):
                    await sent.cancel()
                with suppress(TerminalError):
                    await sent.result()

    async def look(number: int) -> None:
        jar, seen = sim.client(f"looker {number}").object(Jar, random.choice(KEYS)), 0
        for _ in range(3):
            await wander(sim, random)
            total = await jar.look()
            assert seen <= total
            seen = total

    await all_of(
        *map(pay, range(random.choice((2, 5, 9)))), *map(look, range(random.randint(0, 2))),
        restart_at_times(sim, random),
    )  # fmt: skip
    await until_all_ended(sim)
    check_book(sim)


def check_book(sim: Simulation) -> None:
    """Each invocation begins once and ends once, and paid exactly if the book says so."""
    lines = sim.snapshots[Book, "book"].lines
    begun = [id for id, what in lines if what == "begins"]
    ended = {id: what for id, what in lines if what != "begins"}
    assert len(begun) == len(set(begun)), "an invocation begins twice in the book"
    assert len(lines) == len(begun) + len(ended), "an invocation ends twice in the book"
    jars = [sim.snapshots[Jar, key] for key in KEYS]
    paid = [id for jar in jars for id in jar.paid]
    gives = [id for id, what in ended.items() if what.startswith("gives ")]
    assert len(paid) == len(set(paid)), "an invocation paid twice"
    assert {*gives} <= {*paid}, "an invocation gave without having paid"
    assert {*paid} <= {*begun}, "an invocation paid past the middleware"
    refused = [id for id, what in ended.items() if what == "fails with 418"]
    assert not {*refused} & {*paid}, "an invocation was refused and has paid"
    amounts = sum(int(what.removeprefix("gives ")) for what in ended.values() if what.startswith("gives "))
    assert amounts <= sum(jar.total for jar in jars)


ONIONS = Workload(
    program=program,
    actors=(Jar, Book, Purse),
    dependencies=lambda: {
        Bell: Bell(),
        Wires: factory(Wires),
        Exchange: factory(make_exchange),
        Line: factory(open_line, scope="activation"),
    },
    middleware=(Metrics(heard), doubles),
    retry=RetryPolicy(initial=0.5),
)

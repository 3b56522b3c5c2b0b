"""What grows: sleepers, invocations in flight or finished, a mailbox, cold objects, a journal, state, a queue, models.

A case has one life of a process, or two on the same store: what the second one finds is what the first has left.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.cold_objects import MIB, Cold, visit
from benchmarks.inside import until_idle
from benchmarks.scale import orders, orders_with_buyer
from benchmarks.scale.meter import Meter
from durably import (
    Context,
    DurableDict,
    DurableList,
    Limits,
    ObjectContext,
    Runtime,
    Service,
    SqliteStore,
    VirtualObject,
    handler,
    state,
)
from durably.actors.actor import Actor
from durably.cli.migrate import migrate_store
from durably.cli.projects import Program

Life: TypeAlias = Callable[[Meter, Path, int], Awaitable[None]]

GROUP: Final = 1_000
"""So many requests at the same time."""
A_DAY_SECONDS: Final = 86_400
PORTION: Final = 500
WORKERS: Final = 1_000
ENTRY_BYTES: Final = 1_000
CHANGES: Final = 50
COLD_MIB: Final = 8
NO_LIMIT: Final = 10_000_000


class World:
    """What is outside: it counts, and holds back what it is told to."""

    def __init__(self) -> None:
        self.effects = 0
        self.expected = 0
        self.all_begun = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def effect(self) -> None:
        self.effects += 1
        if self.effects == self.expected:
            self.all_begun.set()
        await self.goes_on.wait()


WORLD: Final = World()


class Sleeper(Service, name="ScaleSleeper"):
    """Sleeps for a day."""

    @handler
    async def sleep(self, ctx: Context) -> None:
        await ctx.sleep(A_DAY_SECONDS)


class Worker(Service, name="ScaleWorker"):
    """Has a side effect in the middle, and another one with many steps."""

    @handler
    async def work(self, ctx: Context, number: int) -> int:
        await ctx.run("effect", WORLD.effect)
        return number

    @handler
    async def answer(self, ctx: Context, number: int) -> int:
        return number

    @handler
    async def walk(self, ctx: Context, steps: int) -> int:
        for _ in range(steps):
            await ctx.run("step", WORLD.effect)
        return await ctx.signal("on", int)


class Box(VirtualObject, name="ScaleBox"):
    """Counts its messages, behind one that waits."""

    total: int = state(default=0)

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        await ctx.run("wait", WORLD.effect)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.total += 1
        return self.total


class Document(VirtualObject, name="ScaleDocument"):
    """Entries of a kilobyte, in a field or each by itself."""

    field: dict[str, str] = state(default={})
    entries: DurableDict[str, str] = state()

    @handler
    async def fill_field(self, ctx: ObjectContext, first: int, count: int) -> None:
        self.field.update((f"{number:06}", "x" * ENTRY_BYTES) for number in range(first, first + count))

    @handler
    async def fill_entries(self, ctx: ObjectContext, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.entries[f"{number:06}"] = "x" * ENTRY_BYTES

    @handler
    async def change_field(self, ctx: ObjectContext, number: int) -> None:
        self.field[f"{number:06}"] = f"{number}" * 10

    @handler
    async def change_entry(self, ctx: ObjectContext, number: int) -> None:
        self.entries[f"{number:06}"] = f"{number}" * 10


class Fan(VirtualObject, name="ScaleFan"):
    """A queue of jobs, each of which is sent to a worker."""

    jobs: DurableList[int] = state()

    @handler
    async def put(self, ctx: ObjectContext, first: int, count: int) -> None:
        for job in range(first, first + count):
            self.jobs.append(job)

    @handler
    async def fan_out(self, ctx: ObjectContext) -> None:
        jobs = await asyncio.gather(*(self.jobs.popleft() for _ in range(min(PORTION, len(self.jobs)))))
        for job in jobs:
            await ctx.object(Box, str(job % WORKERS)).add.send()
        if len(self.jobs):
            ctx.continue_as_new(Fan.fan_out)


ACTORS: Final[tuple[type[Actor], ...]] = (Sleeper, Worker, Box, Document, Fan, Cold)
LIMITS: Final = Limits(mailbox_messages=NO_LIMIT, waiting_messages=NO_LIMIT)


def runtime_in(folder: Path, limits: Limits = LIMITS) -> Runtime:
    return Runtime(SqliteStore(folder / "scale.db"), ACTORS, limits=limits)


async def in_groups(numbers: Iterable[int], ask: Callable[[int], Awaitable[object]]) -> None:
    """Ask for each, some at the same time."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            await ask(number)

    await asyncio.gather(*(caller() for _ in range(GROUP)))


# ---------------------------------------------------------------- the cases


async def fall_asleep(meter: Meter, folder: Path, size: int) -> None:
    async with runtime_in(folder) as runtime:
        await in_groups(range(GROUP), lambda _: runtime.service(Sleeper).sleep.send())
        with meter.phase("sleepers: sent, and asleep", "linear", size):
            await in_groups(range(size), lambda _: runtime.service(Sleeper).sleep.send())
            await until_idle(runtime)


async def start(meter: Meter, folder: Path, size: int) -> None:
    with meter.phase("start, until a call is answered", "flat"):
        async with runtime_in(folder) as runtime:
            await runtime.service(Worker).answer(1)


async def begin_work(meter: Meter, folder: Path, size: int) -> None:
    WORLD.expected = size
    async with runtime_in(folder) as runtime:
        with meter.phase("in flight: begun, each within a side effect", "linear", size, holds_all=True):
            await in_groups(range(size), lambda number: runtime.service(Worker).work.send(number))
            await WORLD.all_begun.wait()
        meter.crash()


async def recover(meter: Meter, folder: Path, size: int) -> None:
    WORLD.expected = size
    WORLD.goes_on.set()
    runtime = runtime_in(folder)
    with meter.phase("after a kill: all of them ended", "linear", size):
        with meter.phase("after a kill: start, until a call is answered", "flat", holds_all=True):
            await runtime.__aenter__()
            await runtime.service(Worker).answer(1)
        await WORLD.all_begun.wait()
        await until_idle(runtime)
    await runtime.__aexit__(None, None, None)


async def end_keyed(meter: Meter, folder: Path, size: int) -> None:
    async with runtime_in(folder) as runtime:
        answer = runtime.service(Worker).answer
        await in_groups(range(GROUP), lambda number: answer.options(idempotency_key=f"first {number}")(number))
        with meter.phase("finished, with an idempotency key: calls", "linear", size):
            await in_groups(range(size), lambda number: answer.options(idempotency_key=f"{number}")(number))


async def start_and_repeat(meter: Meter, folder: Path, size: int) -> None:
    await start(meter, folder, size)
    async with runtime_in(folder) as runtime:
        answer = runtime.service(Worker).answer
        with meter.phase(f"{GROUP:,} of these calls again", "flat"):
            await in_groups(
                range(0, size, max(1, size // GROUP)),
                lambda number: answer.options(idempotency_key=f"{number}")(number),
            )


async def fill_mailbox(meter: Meter, folder: Path, size: int) -> None:
    async with runtime_in(folder) as runtime:
        box = runtime.object(Box, "one")
        await box.wait.send()
        with meter.phase("a mailbox: messages sent", "linear", size):
            await in_groups(range(size), lambda _: box.add.send())
        with meter.phase("a mailbox: worked off", "linear", size):
            WORLD.goes_on.set()
            assert await box.add() == size + 1


async def visit_cold(meter: Meter, folder: Path, size: int) -> None:
    limits = Limits(active_objects=size, active_bytes=COLD_MIB * MIB)
    async with runtime_in(folder, limits) as runtime:
        await visit(runtime, [f"first {number:08}" for number in range(10 * GROUP)], writes=True)
        keys = [f"object-{number:07}" for number in range(size)]
        with meter.phase(f"objects of 2 KB under {COLD_MIB} MiB: written", "linear", size):
            await visit(runtime, keys, writes=True)
        with meter.phase(f"objects of 2 KB under {COLD_MIB} MiB: read", "linear", size):
            await visit(runtime, keys, writes=False)


async def walk(meter: Meter, folder: Path, size: int) -> None:
    WORLD.expected = size
    WORLD.goes_on.set()
    async with runtime_in(folder) as runtime:
        with meter.phase("a journal: steps", "linear", size, holds_all=True):
            sent = await runtime.service(Worker).walk.send(size)
            await WORLD.all_begun.wait()
            await until_idle(runtime)
    (folder / "id").write_text(sent.id)


async def walk_on(meter: Meter, folder: Path, size: int) -> None:
    async with runtime_in(folder) as runtime:
        walking = runtime.invocation((folder / "id").read_text(), int)
        with meter.phase("a journal: replayed", "linear", size, holds_all=True):
            await walking.signal("on", 7)
            assert await walking.result() == 7


async def change_document(meter: Meter, folder: Path, size: int) -> None:
    async with runtime_in(folder) as runtime:
        document = runtime.object(Document, "one")
        for first in range(0, size, PORTION):
            await document.fill_entries(first, min(PORTION, size - first))
        with meter.phase(f"state in entries of 1 KB: {CHANGES} changes", "flat"):
            for number in range(CHANGES):
                await document.change_entry(number)
        other = runtime.object(Document, "other")
        for first in range(0, size, PORTION):
            await other.fill_field(first, min(PORTION, size - first))
        with meter.phase(f"the same in a field: {CHANGES} changes", "linear", size, holds_all=True):
            for number in range(CHANGES):
                await other.change_field(number)


async def fan_out(meter: Meter, folder: Path, size: int) -> None:
    async with runtime_in(folder) as runtime:
        fan = runtime.object(Fan, "one")
        with meter.phase("a queue: entries put", "linear", size):
            for first in range(0, size, PORTION):
                await fan.put(first, min(PORTION, size - first))
        with meter.phase("a queue: taken, and a message sent for each", "linear", size):
            await fan.fan_out()
            await until_idle(runtime)


async def make_orders(meter: Meter, folder: Path, size: int) -> None:
    async with Runtime(SqliteStore(folder / "scale.db"), [orders.Orders]) as runtime:
        machine = runtime.machine(orders.Orders)

        async def make(number: int) -> None:
            order, _ = await machine.create(number)
            if number % 2:
                await machine.pay(order)

        await in_groups(range(size, size + GROUP), make)
        with meter.phase("models: objects made, every other one changed", "linear", size, holds_all=True):
            await in_groups(range(size), make)


async def find_orders(meter: Meter, folder: Path, size: int) -> None:
    async with Runtime(SqliteStore(folder / "scale.db"), [orders.Orders]) as runtime:
        machine = runtime.machine(orders.Orders)
        asked = range(0, size, max(1, size // GROUP))
        with meter.phase("models: 1,000 queries by state and indexed field", "flat"):
            for number in asked:
                state = orders.Paid if number % 2 else orders.Created
                assert len(await machine.find_all(state, amount=number)) == 1
        ids: list[str] = []
        with meter.phase("models: 1,000 pages of ten, in the order of a field", "flat"):
            for number in asked:
                page = await machine.find_all(
                    orders.Order, partial(_is_from, number), order_by=lambda order: order.amount, limit=10
                )
                ids.append(page[0].id)
        with meter.phase("models: the same pages, each asked for behind an object", "flat"):
            for id in ids:
                assert await machine.find_all(orders.Order, order_by=lambda order: order.amount, limit=10, after=id)


def _is_from(number: int, order: orders.Order) -> bool:
    return order.amount >= number


async def migrate_orders(meter: Meter, folder: Path, size: int) -> None:
    path = folder / "scale.db"
    before = path.stat().st_size
    store = f"sqlite:///{path}"
    program = Program(
        target="orders", runtime=Runtime(store, [orders_with_buyer.Orders]), main=None, store=store
    )  # fmt: skip
    with meter.phase("models: migrate that adds a field", "linear", size), redirect_stdout(sys.stderr):
        await asyncio.to_thread(migrate_store, program, allow_loss=False)
    assert path.stat().st_size - before < MIB, "rows were written that say the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something that grows, and its full size."""

    name: str
    full: int
    lives: tuple[Life, ...]


CASES: Final = (
    Case(name="sleepers", full=1_000_000, lives=(fall_asleep, start)),
    Case(name="recovery", full=100_000, lives=(begin_work, recover)),
    Case(name="finished", full=200_000, lives=(end_keyed, start_and_repeat)),
    Case(name="mailbox", full=100_000, lives=(fill_mailbox,)),
    Case(name="cold", full=100_000, lives=(visit_cold,)),
    Case(name="journal", full=10_000, lives=(walk, walk_on)),
    Case(name="state", full=10_000, lives=(change_document,)),
    Case(name="queue", full=100_000, lives=(fan_out,)),
    Case(name="models", full=100_000, lives=(make_orders, find_orders, migrate_orders)),
)
"""In kilobytes, where it is state."""


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)

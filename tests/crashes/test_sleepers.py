"""Invocations that wait long cost rows, not memory: thousands of sleepers, asserted by counting, never by the clock."""

# pyright: reportPrivateUsage=false
# What is counted is the machine's own.

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from durably import Context, ObjectContext, Service, VirtualObject, handler, state
from durably.ids import Address
from durably.runtime.engine.engine import Engine
from durably.runtime.runtime import Runtime
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.records import EVER, StoredInvocation, StoredObject, TimerPlace, TimerRecord
from durably.storage.sqlite import SqliteStore
from durably.testing.harness.harness import Harness
from durably.testing.stores.wrapped import WrappedStore
from tests.levels import level

GROUP = 1_000
BYTES_PER_SLEEPER = 64
"""Less than any entry of a dictionary takes."""
PORTIONS = 5
A_DAY_SECONDS = 86_400


class Sleeper(Service, name="Sleeper"):
    """Sleeps for a day."""

    @handler
    async def sleep(self, ctx: Context, number: int) -> int:
        await ctx.sleep(A_DAY_SECONDS)
        return number


class Dozer(VirtualObject, name="Dozer"):
    """Sleeps for a day in each message."""

    naps: int = state(default=0)

    @handler
    async def sleep(self, ctx: ObjectContext) -> int:
        await asyncio.sleep(A_DAY_SECONDS)
        self.naps += 1
        return self.naps


class CountingStore(WrappedStore):
    """Counts what is read."""

    def __init__(self, inner: InspectableStore) -> None:
        super().__init__(inner)
        self.read = 0

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        self.read += len(addresses)
        return await self.inner.load(addresses, pending_limit=pending_limit)

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        self.read += len(numbers)
        return await self.inner.fetch(numbers)

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        found = await self.inner.recoverable(after, limit)
        self.read += len(found)
        return found

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        timers = await self.inner.timers(until, limit, after=after, asked_after=asked_after)
        self.read += len(timers)
        return timers


def engine_of(runtime: Runtime) -> Engine:
    assert runtime._supervisor is not None
    engine = runtime._supervisor.engine
    assert engine is not None
    return engine


def in_memory(engine: Engine) -> dict[str, int]:
    """What an engine holds, but for the few timers that may be there however far away they are."""
    return {
        "activations": len(engine.parts.activations.by_address),
        "invocations": len(engine.parts.registry.live),
        "keys": len(engine.parts.registry.keyed),
        "waiters": len(engine.parts.waiters),
        "timers": max(len(engine.parts.timers._heap) - engine.settings.timers_in_memory, 0),
    }


NOTHING = {"activations": 0, "invocations": 0, "keys": 0, "waiters": 0, "timers": 0}


async def send_to_sleep(runtime: Runtime, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, GROUP):
        group = range(start, min(start + GROUP, numbers.stop))
        await asyncio.gather(*(runtime.service(Sleeper).sleep.send(number) for number in group))
        await engine_of(runtime).parts.idleness.until_idle()
    await asyncio.sleep(0)  # The callback of the loop that runs now holds the last group, if nothing was waited for.


async def test_sleepers_hold_no_memory_and_starting_does_not_read_them(tmp_path: Path) -> None:
    sleepers = level().sleepers
    store = CountingStore(SqliteStore(tmp_path / "sleepers.db"))
    async with Runtime(store, [Sleeper, Dozer], suspend_after=0) as runtime:
        portion = (sleepers - 2 * GROUP) // PORTIONS
        held: list[int] = []
        tracemalloc.start()
        try:
            await send_to_sleep(runtime, range(2 * GROUP))
            for number in range(PORTIONS + 1):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
                if number < PORTIONS:
                    start = 2 * GROUP + number * portion
                    await send_to_sleep(runtime, range(start, start + portion))
        finally:
            tracemalloc.stop()
        assert in_memory(engine_of(runtime)) == NOTHING
        # What a warning reads of source files, on a slow machine, is held from then on, and once.
        assert median(after - before for before, after in pairwise(held)) < BYTES_PER_SLEEPER * portion

    store.read = 0
    async with Runtime(store, [Sleeper, Dozer], suspend_after=0) as runtime:
        await engine_of(runtime).parts.idleness.until_idle()
        assert in_memory(engine_of(runtime)) == NOTHING
        assert store.read <= 1  # When the first of them is due; not the others.
        unfinished = await store.invocations(after=0, limit=2 * sleepers)
        assert len(unfinished) == 2 * GROUP + PORTIONS * portion


class Worker(Service, name="Worker"):
    """Has a side effect, which waits for the world."""

    def __init__(self, goes_on: asyncio.Event) -> None:
        self.goes_on = goes_on

    @handler
    async def work(self, ctx: Context, number: int) -> int:
        await ctx.run("effect", self.goes_on.wait)
        return number


@pytest.mark.parametrize("finished", [10, 200])
async def test_recovery_reads_what_is_in_flight_once_and_nothing_of_what_has_finished(finished: int) -> None:
    store, goes_on, in_flight = CountingStore(MemoryStore()), asyncio.Event(), 100
    async with Harness(Worker, dependencies={asyncio.Event: goes_on}, store=store) as app:
        goes_on.set()
        work = app.service(Worker).work
        for number in range(finished):
            assert await work.options(idempotency_key=f"{number}")(number) == number
        goes_on.clear()
        begun = [await work.send(number) for number in range(in_flight)]
        while len(app.actions()) < finished + in_flight:
            await asyncio.sleep(0)
        store.read = 0
        await app.crash()
        assert await work.options(idempotency_key="0")(0) == 0  # Its outcome is looked up, and not loaded.
        goes_on.set()
        assert [await one.result() for one in begun] == [*range(in_flight)]
        assert store.read <= 2 * in_flight + 1  # Found, and loaded.


async def test_every_sleeper_wakes_once_after_a_crash() -> None:
    app = Harness(Sleeper, Dozer, suspend_after=0, store=CountingStore(MemoryStore()))
    app._settings = replace(app._settings, timer_window_us=60_000_000, passivate_after_us=0, active_objects=10)
    async with app:
        dozers = [app.object(Dozer, str(number)) for number in range(200)]
        for dozer in dozers:
            await dozer.sleep.send()
            await dozer.sleep.send()
        asleep = [await app.service(Sleeper).sleep.send(number) for number in range(300)]
        await app.settle()
        await app.crash()
        await app.settle()
        assert in_memory(engine_of(app)) == NOTHING
        await app.advance(hours=23)
        await app.crash()
        await app.advance(hours=2)
        assert [await sleeper.result() for sleeper in asleep] == [*range(300)]
        assert [(await app.state(Dozer, str(number)))["naps"] for number in range(200)] == [1] * 200
        await app.advance(days=1)
        assert [(await app.state(Dozer, str(number)))["naps"] for number in range(200)] == [2] * 200

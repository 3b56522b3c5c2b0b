"""Invocations that wait long cost rows, not memory: thousands of sleepers, asserted by counting, never by the clock."""

# pyright: reportPrivateUsage=false
# What is counted is the machine's own.

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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


async def test_sleepers_hold_no_memory_and_starting_does_not_read_them(tmp_path: Path) -> None:
    sleepers = level().sleepers
    store = CountingStore(SqliteStore(tmp_path / "sleepers.db"))
    async with Runtime(store, [Sleeper, Dozer], suspend_after=0) as runtime:
        tracemalloc.start()
        try:
            await send_to_sleep(runtime, range(2 * GROUP))
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await send_to_sleep(runtime, range(2 * GROUP, sleepers))
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert in_memory(engine_of(runtime)) == NOTHING
        assert after - before < BYTES_PER_SLEEPER * (sleepers - 2 * GROUP)

    store.read = 0
    async with Runtime(store, [Sleeper, Dozer], suspend_after=0) as runtime:
        await engine_of(runtime).parts.idleness.until_idle()
        assert in_memory(engine_of(runtime)) == NOTHING
        assert store.read <= 1  # When the first of them is due; not the others.
        unfinished = await store.invocations(after=0, limit=2 * sleepers)
        assert len(unfinished) == sleepers


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

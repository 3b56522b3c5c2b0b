"""An invocation that is woken by what it has given up waits again, and the store says so.

Found by the workload `trees`: the timer of a cancelled sleep was read ahead before that was durable, rang,
and woke the row of an invocation that was in the store only. It went back to waiting in memory, and stayed `running` on
the disk, where recovery looks for what can run.
"""

from __future__ import annotations

import asyncio

from durably import Context, InvocationStatus, Service, handler
from durably.storage.memory import MemoryStore
from durably.storage.records import TimerKind, TimerRecord
from durably.testing import Harness
from tests.semantics.support import PuppetStore, engine_of, turns

CANCELLED_SLEEP = 1


class Sleeper(Service, name="RegressionSleeper"):
    """Sleeps twice at once, gives the longer one up, and sleeps on."""

    @handler
    async def sleep(self, ctx: Context) -> None:
        short, long = asyncio.create_task(asyncio.sleep(1)), asyncio.create_task(asyncio.sleep(100))
        await short
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        await ctx.sleep(10_000)


async def test_who_is_woken_by_a_cancelled_sleep_is_suspended_again() -> None:
    store = MemoryStore()
    async with Harness(Sleeper, store=store, suspend_after=0) as app:
        await app.service(Sleeper).sleep.send()
        await app.advance(2)
        (row,) = store.disk.rows.values()
        assert row.record.status is InvocationStatus.SUSPENDED
        assert len(row.steps) == 2
        timer = TimerRecord(row.record.number, TimerKind.SLEEP, CANCELLED_SLEEP, 0, row.record.address)
        engine_of(app).parts.timers.on_due(timer)
        engine_of(app).parts.ready.schedule()
        assert not engine_of(app).parts.idleness.is_waiting()  # It is on its way from the store.
        await app.settle()
        assert row.record.status is InvocationStatus.SUSPENDED
        await app.advance(20_000)
        assert not store.disk.unfinished


async def test_who_is_woken_while_it_is_read_by_what_it_has_given_up_is_suspended_again() -> None:
    """The workload `circles`: a late answer came to one that had been read as suspended, and was not in memory yet."""
    store = PuppetStore()
    async with Harness(Sleeper, store=store, suspend_after=0) as app:
        await app.service(Sleeper).sleep.send()
        await app.advance(2)
        (row,) = store.memory.disk.rows.values()
        timer = TimerRecord(row.record.number, TimerKind.SLEEP, CANCELLED_SLEEP, 0, row.record.address)
        store.loads.hold()
        engine_of(app).parts.activations.activation(row.record.address)
        await turns()
        assert store.loads.waiting == 1
        engine_of(app).parts.timers.on_due(timer)
        engine_of(app).parts.ready.schedule()
        await turns()
        assert [record.status for record in store.unfinished()] == [InvocationStatus.RUNNING]
        store.loads.release()
        await app.settle()
        assert row.record.status is InvocationStatus.SUSPENDED
        await app.advance(20_000)
        assert not store.memory.disk.unfinished

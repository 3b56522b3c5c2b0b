"""Rule L5: what is too large to load is paused and named, loses nothing, and the others go on."""

from __future__ import annotations

import asyncio

import pytest

from durably import (
    Context,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    Service,
    VirtualObject,
    handler,
    state,
)
from durably.errors import LoadLimitError
from durably.storage.memory import Disk, MemoryStore
from durably.testing import Harness
from tests.semantics.support import begin, keep_one_incarnation

LIMIT_BYTES = 2_000


def page() -> str:
    return "x" * 1_000


class Collector(Service):
    """Has a journal of three kilobytes when it wakes."""

    @handler
    async def collect(self, ctx: Context) -> int:
        pages = [await ctx.run(f"page {number}", page) for number in range(3)]
        await asyncio.gather(ctx.sleep(60), ctx.sleep(62))
        return sum(map(len, pages))

    @handler
    async def count(self, ctx: Context) -> int:
        return len(await ctx.run("page", page))


class Album(VirtualObject):
    pictures: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, picture: str) -> int:
        self.pictures.append(picture)
        return len(self.pictures)


def little(disk: Disk) -> MemoryStore:
    return MemoryStore(disk, load_limit_bytes=LIMIT_BYTES)


async def test_a_journal_that_is_too_large_to_load_pauses_its_invocation_and_no_other() -> None:
    disk = Disk()
    async with Harness(Collector, store=little(disk), suspend_after=0) as app:
        call = begin(app.service(Collector).collect())
        await app.advance(63)
        with pytest.raises(PausedInvocationError, match=r"Collector/.*/collect \(inv_.* hold 0\.0 MiB") as paused:
            await call
        assert isinstance(paused.value.__cause__, LoadLimitError)
        assert await app.service(Collector).count() == 1_000
        keep_one_incarnation(app)
        (row,) = disk.rows.values()
        assert row.record.status is InvocationStatus.PAUSED
        with pytest.raises(PausedInvocationError, match="load_limit_mib"):
            await app.invocation(row.record.id, int).result()
    async with Harness(Collector, store=MemoryStore(disk)) as app:
        await app.resume(row.record.id)
        await app.settle()
        assert not disk.rows


async def test_who_could_not_be_loaded_is_still_answered() -> None:
    """Its answer is recorded for the time when it can be loaded (rule C2)."""
    disk = Disk()
    async with Harness(Collector, store=MemoryStore(disk), suspend_after=0) as app:
        await app.service(Collector).collect.send()
        await app.advance(1)
    (row,) = disk.rows.values()
    async with Harness(Collector, store=little(disk)) as app:
        waiting = begin(app.invocation(row.record.id, int).result())
        await app.advance(61)
        with pytest.raises(PausedInvocationError):
            await waiting
        assert (len(row.completions), len(row.timers)) == (1, 1)  # The steps keep the other three.
        await app.advance(2)
        assert (len(row.completions), len(row.timers)) == (2, 0)
        assert row.record.status is InvocationStatus.PAUSED


async def test_nothing_of_an_object_goes_on_whose_state_is_too_large_and_nothing_of_it_is_lost() -> None:
    disk = Disk()
    async with Harness(Album, store=MemoryStore(disk)) as app:
        for number in range(3):
            await app.object(Album, "large").add(f"{number} {page()}")
    async with Harness(Album, store=little(disk)) as app:
        with pytest.raises(PausedInvocationError, match=r"The state of Album/large holds") as paused:
            await app.object(Album, "large").add("one more")
        assert await app.object(Album, "small").add("one") == 1
        keep_one_incarnation(app)
    assert paused.value.id
    async with Harness(Album, store=MemoryStore(disk)) as app:
        await app.resume(paused.value.id)
        await app.settle()
        assert await app.object(Album, "large").add("the last") == 5

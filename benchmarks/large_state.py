"""What large state costs: `python -m benchmarks.large_state [entries]`, on a SQLite file in /var/tmp.

Two curves: a queue that is filled and worked off, entry by entry and in portions, whose cost for each entry must not
depend on how many there are; and a small change in a state of 10 MB, kept as a field and as a `DurableDict`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from durably import (
    DurableDict,
    DurableList,
    ObjectContext,
    Runtime,
    SharedContext,
    SqliteStore,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage.records import Batch, EntryAnswer, EntryQuery
from durably.storage.wrapping import WrappedStore

ENTRIES = 100_000
PARTS = 5
"""Each curve has so many points."""
PORTION = 500
"""How many entries one invocation puts or takes, where it takes several."""
CALLERS = 64
DOCUMENT_BYTES = 10_000_000
VALUE_BYTES = 1_000
CHANGES = 20


class CountingStore(WrappedStore):
    """Counts the rows of entries that are read and written."""

    rows_read = 0
    rows_written = 0

    async def commit(self, batch: Batch, /) -> None:
        self.rows_written += len(batch.entries)
        await super().commit(batch)

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        answers = await super().entries(queries)
        self.rows_read += sum(len(answer.entries) for answer in answers)
        return answers


class BenchmarkQueue(VirtualObject):
    """A queue."""

    jobs: DurableList[int] = state()

    @handler
    async def put(self, ctx: ObjectContext, first: int, count: int) -> None:
        for job in range(first, first + count):
            self.jobs.append(job)

    @handler
    async def take(self, ctx: ObjectContext, count: int) -> int:
        jobs = await asyncio.gather(*(self.jobs.popleft() for _ in range(min(count, len(self.jobs)))))
        return len(jobs)


class BenchmarkDocument(VirtualObject):
    """The same values as a field and as entries."""

    field: dict[str, str] = state(default={})
    entries: DurableDict[str, str] = state()

    @handler
    async def fill_field(self, ctx: ObjectContext) -> None:
        self.field = {f"{number:06}": "x" * VALUE_BYTES for number in range(DOCUMENT_BYTES // VALUE_BYTES)}

    @handler
    async def fill_entries(self, ctx: ObjectContext) -> None:
        for number in range(DOCUMENT_BYTES // VALUE_BYTES):
            self.entries[f"{number:06}"] = "x" * VALUE_BYTES

    @handler
    async def change_field(self, ctx: ObjectContext, number: int) -> None:
        self.field[f"{number:06}"] = f"{number}" * 10

    @handler
    async def change_entry(self, ctx: ObjectContext, number: int) -> None:
        self.entries[f"{number:06}"] = f"{number}" * 10

    @handler
    async def read_entry(self, ctx: ObjectContext, number: int) -> str | None:
        return await self.entries.get(f"{number:06}")

    @shared
    async def look_at_entry(self, ctx: SharedContext, number: int) -> str | None:
        return await self.entries.get(f"{number:06}")


async def timed(count: int, callers: int, call: Callable[[int], Awaitable[object]]) -> float:
    """Seconds for `count` calls of so many callers."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return perf_counter() - began


def put_portion(put: Callable[[int, int], Awaitable[None]], first: int, portion: int, number: int) -> Awaitable[None]:
    return put(first + number * portion, portion)


async def measure_queue(store: CountingStore, entries: int, portion: int) -> None:
    async with Runtime(store, [BenchmarkQueue]) as runtime:
        queue = runtime.object(BenchmarkQueue, f"by {portion}")
        part = entries // PARTS
        calls = part // portion
        for verb in ("put", "take"):
            for number in range(PARTS):
                rows = store.rows_read, store.rows_written
                put = partial(put_portion, queue.put, number * part, portion)
                seconds = await timed(calls, CALLERS, put if verb == "put" else lambda _: queue.take(portion))
                read, written = store.rows_read - rows[0], store.rows_written - rows[1]
                print(
                    f"{verb:>5} {calls * portion:>7} by {portion:>4}, part {number + 1}: "
                    f"{seconds / (calls * portion) * 1e6:>8.1f} us an entry, rows read {read:>7}, written {written:>7}"
                )


async def measure_document(store: CountingStore) -> None:
    async with Runtime(store, [BenchmarkDocument]) as runtime:
        await runtime.object(BenchmarkDocument, "field").fill_field()
        await runtime.object(BenchmarkDocument, "entries").fill_entries()
    for name in ("field", "entries"):  # Cold.
        async with Runtime(store, [BenchmarkDocument]) as runtime:
            document = runtime.object(BenchmarkDocument, name)
            changes = document.change_field if name == "field" else document.change_entry
            cold = await timed(1, 1, changes)
            seconds = await timed(CHANGES, 1, changes)
            print(
                f"a change of 10 MB kept as {name:>7}: {seconds / CHANGES * 1e3:>7.2f} ms, the first {cold * 1e3:.2f}"
            )
            if name == "entries":
                for what, read in (("exclusive", document.read_entry), ("shared", document.look_at_entry)):
                    seconds = await timed(CHANGES, 1, read)
                    print(f"a read of one entry in a handler that is {what}: {seconds / CHANGES * 1e3:.2f} ms")


async def main(entries: int) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for portion in (1, PORTION):
            await measure_queue(CountingStore(SqliteStore(Path(folder) / f"{portion}.db")), entries, portion)
        await measure_document(CountingStore(SqliteStore(Path(folder) / "document.db")))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ENTRIES))

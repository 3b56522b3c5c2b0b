"""What the doctor says of an imagined disk, and the same disk as a SQLite file."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from durably.doctor import Finding, find_stuck
from durably.storage.memory import Disk, MemoryStore
from durably.storage.records import AliasRecord, Batch, EntryRecord, ObjectExpiryRecord, StateRecord
from durably.storage.sqlite import SqliteStore
from tests.storage.samples import OWNER

T = TypeVar("T")


class Look(MemoryStore):
    """Reads a disk that another one owns."""

    def _opened(self) -> Disk:
        return self.disk


def stuck_on(disk: Disk) -> list[Finding]:
    """What is found in waits and values. A store in memory answers at once, so no loop is needed."""

    async def all_of_it() -> list[Finding]:
        return [finding async for finding in find_stuck(Look(disk))]

    return at_once(all_of_it())


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("it waits for something")


def all_of(disk: Disk) -> Batch:
    """One batch that leaves an empty store as this disk is."""
    rows = list(disk.rows.values())
    return Batch(
        last_position=disk.last_position,
        accepted=[row.record for row in rows],
        steps=[one for row in rows for one in row.steps.values()],
        completions=[one for row in rows for one in row.completions.values()],
        timers=[one for row in rows for one in row.timers.values()],
        attachments=[one for row in rows for one in row.attachments.values()],
        signals=[one for row in rows for one in row.signals.values()],
        aliases=[AliasRecord(id, number) for id, number in disk.aliases.items()],
        state=[
            StateRecord(address, field, value)
            for address, fields in disk.state.items()
            for field, value in fields.items()
        ],
        promises=[one for promises in disk.promises.values() for one in promises.values()],
        orders=list(disk.orders.values()),
        kept=[row.kept for row in rows if row.kept is not None],
        object_expiries=[ObjectExpiryRecord(address, moment) for address, moment in disk.object_expiries.items()],
        places=list(disk.places.values()),
        entries=[
            EntryRecord(address, field, key, value)
            for address, fields in disk.entries.items()
            for field, stored in fields.items()
            for key, value in stored.values.items()
        ],
    )


async def write(disk: Disk, path: Path) -> None:
    """Make a SQLite file of a disk."""
    store = SqliteStore(path)
    await store.open(OWNER)
    await store.commit(all_of(disk))
    await store.close()

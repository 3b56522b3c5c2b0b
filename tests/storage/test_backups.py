"""What README says of a backup: SQLite's own, taken beside the runtime, holds everything that was acknowledged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, RIVAL, field


async def write(store: SqliteStore, first: int, last: int) -> None:
    for position in range(first, last + 1):
        await store.commit(Batch(last_position=position, state=[field("a", str(position).encode())]))


async def test_a_backup_holds_everything_and_can_be_put_in_the_place_of_the_store(
    tmp_path: Path, new_store: NewStore
) -> None:
    path, copy = tmp_path / "app.db", tmp_path / "copy.db"
    store = new_store(path)
    await store.open(OWNER)
    await write(store, 1, 30)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    await write(store, 31, 40)
    await store.close()

    for beside in ("app.db-wal", "app.db-shm"):
        (tmp_path / beside).unlink(missing_ok=True)
    copy.replace(path)
    restored = new_store(path)
    assert (await restored.open(RIVAL)).last_position == 30
    assert await restored.state(MARY) == {"a": b"30"}
    await write(restored, 31, 31)

"""Reading beside the owner of a store, and after it: nothing is taken over, nothing in the database changes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import StoreInUseError, StoreUnavailableError
from durably.storage.connections import Mode, connect
from durably.storage.migrations import refuse_older
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from durably.storage.statements import parse_migration
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, field, invocation

COMMIT_AND_DIE = """
import asyncio, os, signal, sys
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from tests.storage.samples import OWNER, field

async def commit():
    store = SqliteStore(sys.argv[1])
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(commit())
"""


async def test_a_reader_sees_each_commit_of_the_owner_beside_it(tmp_path: Path, new_store: NewStore) -> None:
    owner, reader = new_store(tmp_path / "app.db"), new_store(tmp_path / "app.db")
    await owner.open(OWNER)
    await owner.commit(Batch(last_position=1, accepted=[invocation(1)]))
    await reader.open_read_only()
    assert [record.number for record in await reader.invocations(after=0, limit=10)] == [1]
    await owner.commit(Batch(last_position=2, accepted=[invocation(2)], state=[field("a", b"1")]))
    (stored,) = await reader.load([MARY], pending_limit=0)
    assert [journal.record.number for journal in stored.started] == [1, 2]
    assert stored.state == {"a": b"1"}
    await reader.close()
    await owner.commit(Batch(last_position=3))


async def test_a_reader_cannot_write_and_takes_nothing_over(tmp_path: Path, new_store: NewStore) -> None:
    path = tmp_path / "app.db"
    owner, reader = new_store(path), new_store(path)
    opened = await owner.open(OWNER)
    lock = (tmp_path / "app.db.lock").read_bytes()
    await reader.open_read_only()
    with pytest.raises(StoreUnavailableError, match="open for reads only"):
        await reader.commit(Batch(last_position=1))
    assert (tmp_path / "app.db.lock").read_bytes() == lock
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select epoch, host from owner").fetchone() == (opened.epoch, OWNER.host)
    with pytest.raises(StoreInUseError, match="is in use by process 11"):
        await reader.open(OWNER)


async def test_what_a_killed_owner_left_is_read_and_the_database_stays_as_it_is(
    tmp_path: Path, new_store: NewStore
) -> None:
    path, log = tmp_path / "app.db", tmp_path / "app.db-wal"
    subprocess.run([sys.executable, "-c", COMMIT_AND_DIE, str(path)], cwd=Path(__file__).parents[2], check=False)  # noqa: ASYNC221
    before = path.read_bytes(), log.read_bytes()
    assert before[1]
    for _ in range(2):
        reader = new_store(path)
        await reader.open_read_only()
        assert await reader.state(MARY) == {"a": b"1"}
        await reader.close()
        assert (path.read_bytes(), log.read_bytes()) == before
    owner = new_store(path)
    assert (await owner.open(OWNER)).epoch == 2
    assert await owner.state(MARY) == {"a": b"1"}


async def test_a_connection_that_is_read_only_cannot_be_made_to_write(tmp_path: Path) -> None:
    path, log = tmp_path / "app.db", tmp_path / "app.db-wal"
    subprocess.run([sys.executable, "-c", COMMIT_AND_DIE, str(path)], cwd=Path(__file__).parents[2], check=False)  # noqa: ASYNC221
    before = path.read_bytes(), log.read_bytes()
    connection = await connect(path, Mode.READ_ONLY)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await connection.run(sqlite3.Connection.execute, "delete from state")
    await connection.close()
    assert (path.read_bytes(), log.read_bytes()) == before


async def test_a_reader_leaves_no_files_that_were_not_there_before(tmp_path: Path, new_store: NewStore) -> None:
    owner = new_store(tmp_path / "app.db")
    await owner.open(OWNER)
    await owner.commit(Batch(last_position=1, state=[field("a", b"1")]))
    await owner.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert "app.db-wal" not in before
    reader = new_store(tmp_path / "app.db")
    await reader.open_read_only()
    assert await reader.state(MARY) == {"a": b"1"}
    await reader.close()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


async def test_a_reader_leaves_the_log_to_an_owner_who_came_meanwhile(tmp_path: Path, new_store: NewStore) -> None:
    owner, reader = new_store(tmp_path / "app.db"), new_store(tmp_path / "app.db")
    await owner.open(OWNER)
    await owner.close()
    await reader.open_read_only()
    await owner.open(OWNER)
    await reader.close()
    await owner.commit(Batch(last_position=1, state=[field("a", b"1")]))
    assert await owner.state(MARY) == {"a": b"1"}


async def test_a_reader_may_become_the_owner(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    with pytest.raises(StoreInUseError, match="open here already"):
        await store.open_read_only()
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    await store.close()
    await store.open_read_only()
    await store.open_read_only()
    assert await store.state(MARY) == {"a": b"1"}
    await store.open(OWNER)
    await store.commit(Batch(last_position=2))
    await store.close()
    with pytest.raises(StoreUnavailableError, match="is not open"):
        await store.state(MARY)


async def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="is not there"):
        await SqliteStore(tmp_path / "app.db").open_read_only()
    assert list(tmp_path.iterdir()) == []


async def test_what_is_not_ours_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table users (name)")
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="another program"):
        await SqliteStore(path).open_read_only()
    assert path.read_bytes() == before
    path.write_bytes(b"")
    with pytest.raises(StoreUnavailableError, match="is empty: no runtime has opened it yet"):
        await SqliteStore(path).open_read_only()
    assert path.read_bytes() == b""
    path.write_text("these are my notes, and they are long enough to have a header" * 20)
    with pytest.raises(StoreUnavailableError, match="not a SQLite database"):
        await SqliteStore(path).open_read_only()


def test_an_older_layout_is_not_migrated_by_a_reader() -> None:
    newer = [parse_migration(f"000{number}_x.sql", "select 1;") for number in (1, 2)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("pragma user_version = 1")
        with pytest.raises(StoreUnavailableError, match=r"older version of durably \(layout 1; this one reads 2\)"):
            refuse_older(connection, "sqlite app.db", newer)
        connection.execute("pragma user_version = 2")
        refuse_older(connection, "sqlite app.db", newer)


@pytest.mark.parametrize("name", ["a b.db", "a?b#c%20.db", "é.db"])
async def test_a_path_may_hold_what_has_a_meaning_in_urls(tmp_path: Path, new_store: NewStore, name: str) -> None:
    owner, reader = new_store(tmp_path / name), new_store(tmp_path / name)
    await owner.open(OWNER)
    await owner.commit(Batch(last_position=1, state=[field("a", b"1")]))
    await reader.open_read_only()
    assert await reader.state(MARY) == {"a": b"1"}

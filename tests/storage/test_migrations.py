"""Only our own databases are touched, never backwards, and a migration happens whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import StoreUnavailableError
from durably.storage.migrations import migrate, refuse_foreign
from durably.storage.sqlite import SqliteStore
from durably.storage.statements import MIGRATIONS, parse_migration
from tests.storage.conftest import NewStore
from tests.storage.samples import OWNER


async def make_database(path: Path) -> None:
    store = SqliteStore(path)
    await store.open(OWNER)
    await store.close()


async def test_a_newer_layout_is_refused(tmp_path: Path, new_store: NewStore) -> None:
    path = tmp_path / "app.db"
    await make_database(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 999")
    with pytest.raises(StoreUnavailableError, match=r"newer version of durably \(layout 999; this one knows \d+\)"):
        await new_store(path).open(OWNER)


async def test_the_database_of_another_program_is_refused_and_left_as_it_is(
    tmp_path: Path, new_store: NewStore
) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table users (name)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="another program"):
        await new_store(path).open(OWNER)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, new_store: NewStore) -> None:
    path = tmp_path / "app.db"
    path.write_text("these are my notes, and they are long enough to have a header" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="not a SQLite database"):
        await new_store(path).open(OWNER)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_ours(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.touch()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, "test")
        refuse_foreign(connection, "test")


def test_a_later_migration_runs_once_on_what_is_there(tmp_path: Path) -> None:
    later = (*MIGRATIONS, parse_migration(f"{len(MIGRATIONS) + 1:04}_more.sql", "create table more (a);"))
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
        migrate(connection, "test")
        migrate(connection, "test", later)
        migrate(connection, "test", later)
        connection.execute("select a from more")
        with pytest.raises(StoreUnavailableError, match="newer version"):
            migrate(connection, "test")


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = parse_migration(f"{len(MIGRATIONS) + 1:04}_broken.sql", "create table more (a);\ncreate table more (a);")
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
        migrate(connection, "test")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection, "test", (*MIGRATIONS, broken))
        migrate(
            connection,
            "test",
            (*MIGRATIONS, parse_migration(f"{len(MIGRATIONS) + 1:04}_more.sql", "create table more (a);")),
        )

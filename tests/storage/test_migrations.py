"""Only our own databases are touched, never backwards, and a migration happens whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import StoreUnavailableError
from durably.storage.migrations import UNRELEASED_APPLICATION_ID, migrate, refuse_foreign
from durably.storage.sqlite import SqliteStore
from durably.storage.statements import MIGRATIONS, parse_migration
from tests.storage.conftest import NewStore
from tests.storage.layout_program import RESULTS, finish, restore
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


async def test_a_layout_from_before_the_first_release_is_refused_and_left_as_it_is(
    tmp_path: Path, new_store: NewStore
) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma application_id = {UNRELEASED_APPLICATION_ID}")
        connection.execute("pragma user_version = 1")
        connection.execute("create table owner (epoch)")
        connection.commit()
    before = path.read_bytes()
    for opening in (new_store(path).open(OWNER), new_store(path).open_read_only()):
        with pytest.raises(StoreUnavailableError, match="before the first release"):
            await opening
    assert path.read_bytes() == before


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
    later = (*MIGRATIONS, parse_migration(f"{MIGRATIONS[-1].version + 1:04}_more.sql", "create table more (a);"))
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
        migrate(connection, "test")
        migrate(connection, "test", later)
        migrate(connection, "test", later)
        connection.execute("select a from more")
        with pytest.raises(StoreUnavailableError, match="newer version"):
            migrate(connection, "test")


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = parse_migration(
        f"{MIGRATIONS[-1].version + 1:04}_broken.sql", "create table more (a);\ncreate table more (a);"
    )
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
        migrate(connection, "test")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection, "test", (*MIGRATIONS, broken))
        migrate(
            connection,
            "test",
            (*MIGRATIONS, parse_migration(f"{MIGRATIONS[-1].version + 1:04}_more.sql", "create table more (a);")),
        )


@pytest.mark.parametrize("version", [migration.version for migration in MIGRATIONS])
async def test_a_store_of_each_layout_opens_with_open_journals_and_all_of_it_ends(tmp_path: Path, version: int) -> None:
    """How a golden file is made is told in `layout_program`."""
    path = tmp_path / "app.db"
    restore(version, path)
    statuses, results = await finish(path)
    assert statuses == [
        "backing-off",
        *["completed"] * 3,
        "paused",
        "pending",
        "scheduled",
        *["suspended"] * 6,
    ]
    assert results == RESULTS


async def test_the_golden_file_of_this_layout_is_of_this_layout(tmp_path: Path) -> None:
    """Until a layout is released it may change; then its golden file has to be written anew."""
    golden, made = tmp_path / "golden.db", tmp_path / "made.db"
    restore(MIGRATIONS[-1].version, golden)
    await make_database(made)
    assert layout_of(golden) == layout_of(made)


def layout_of(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select sql from sqlite_schema where sql is not null order by name").fetchall()

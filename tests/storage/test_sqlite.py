"""What `SqliteStore` promises beyond the contract: crashes, full disks, damaged and busy files, cancelled callers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.ids import Address
from durably.storage.connections import Connection, ReadLimitError, apply_settings
from durably.storage.records import (
    AliasRecord,
    AttachmentRecord,
    Batch,
    CallerRecord,
    CompletionRecord,
    SignalRecord,
    StepRecord,
    TimerKind,
    TimerRecord,
)
from durably.storage.sqlite import SqliteStore
from durably.storage.sqlite_errors import describe_error
from durably.storage.statements import SQL
from durably.storage.store import DiskFullError
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, RIVAL, field, invocation

TABLES = ("invocations", "aliases", "steps", "completions", "timers", "attachments", "signals")

ENDLESS = "with recursive numbers (n) as (select 1 union all select n + 1 from numbers) select count(*) from numbers"

COMMIT_FOREVER = """
import asyncio, sys
from durably.ids import Address
from durably.storage.records import Batch, Owner, StateRecord
from durably.storage.sqlite import SqliteStore
from durably.storage.sqlite_errors import describe_error
from tests.storage.samples import invocation

async def commit_forever():
    store = SqliteStore(sys.argv[1])
    opened = await store.open(Owner(host="h", process_id=1, since=1))
    position = opened.last_position
    while True:
        first, position = position + 1, position + 50
        state = [StateRecord(Address("Ticket", str(key)), "position", str(position).encode()) for key in range(50)]
        accepted = [invocation(number) for number in range(first, position + 1)]
        await store.commit(Batch(last_position=position, accepted=accepted, state=state))
        print(position, flush=True)

asyncio.run(commit_forever())
"""


def writer_of(store: SqliteStore) -> Connection:
    writer = store._writer  # pyright: ignore[reportPrivateUsage]
    assert writer is not None
    return writer.connection


@pytest.mark.parametrize("acknowledged", [1, 4, 9])
async def test_a_killed_process_leaves_whole_batches_and_all_it_was_told_of(
    tmp_path: Path, acknowledged: int, new_store: NewStore
) -> None:
    path = tmp_path / "app.db"
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", COMMIT_FOREVER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(acknowledged)]
        child.kill()
        told += [int(line) for line in child.stdout.read().split()]
    store = new_store(path)
    opened = await store.open(OWNER)
    assert opened.last_position >= told[-1]
    assert opened.last_position % 50 == 0
    objects = await store.load([Address("Ticket", str(key)) for key in range(50)], pending_limit=1)
    assert {stored.state["position"] for stored in objects} == {str(opened.last_position).encode()}
    numbers = [record.number for record in await store.invocations(after=0, limit=1_000_000)]
    assert numbers == list(range(1, opened.last_position + 1))


async def test_what_is_open_again_is_durable(tmp_path: Path, new_store: NewStore) -> None:
    """Rule X3: after `open` the log is empty, so everything readable has been copied into the database and synced."""
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    await store.open(OWNER)
    assert (tmp_path / "app.db-wal").stat().st_size == 0
    assert await store.state(MARY) == {"a": b"1"}


async def test_a_full_disk_is_told_and_the_store_goes_on_once_there_is_space(
    tmp_path: Path, new_store: NewStore
) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await writer_of(store).execute("pragma max_page_count = 60")
    with pytest.raises(StoreUnavailableError, match="The disk is full"):
        await store.commit(Batch(last_position=1, state=[field("a", b"x" * 1_000_000)]))
    with pytest.raises(DiskFullError, match=r"A commit failed before.* The disk is full.* Open the store again"):
        await store.commit(Batch(last_position=2))
    # These may come before the caller of the commit has heard of it, so the reason may be heard here first.
    with pytest.raises(DiskFullError, match=r"The disk is full.* Open the store again"):
        await store.load([MARY], pending_limit=1)
    with pytest.raises(DiskFullError, match=r"The disk is full.* Open the store again"):
        await store.verify()
    assert (await store.open(OWNER)).last_position == 0
    await store.commit(Batch(last_position=1, state=[field("a", b"x" * 1_000_000)]))


async def test_a_disk_that_is_full_at_the_start_is_told(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_space(connection: sqlite3.Connection) -> None:
        apply_settings(connection)
        connection.execute("pragma max_page_count = 1")

    with monkeypatch.context() as patch:
        patch.setattr("durably.storage.sqlite.apply_settings", without_space)
        with pytest.raises(StoreUnavailableError, match=r"The disk is full\. Free some space"):
            await new_store(tmp_path / "app.db").open(OWNER)
    await new_store(tmp_path / "app.db").open(RIVAL)


def test_a_disk_without_room_for_the_index_of_the_log_is_a_full_one() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    assert "The disk is full. Free some space" in describe_error(error, "test")


async def test_a_store_that_failed_keeps_its_lock_until_it_is_closed(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    os.rename(tmp_path / "app.db", tmp_path / "moved.db")
    (tmp_path / "app.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreUnavailableError):
        await store.open(OWNER)
    with pytest.raises(StoreInUseError):
        await new_store(tmp_path / "app.db").open(RIVAL)


async def test_a_damaged_database_is_told(tmp_path: Path, new_store: NewStore) -> None:
    path = tmp_path / "app.db"
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, accepted=[invocation(number) for number in range(200)]))
    await store.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x5a" * (len(content) - 4096))
    with pytest.raises(StoreUnavailableError, match=r"damaged.*restore a backup"):
        await store.open(OWNER)


async def test_a_read_only_database_is_told(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await writer_of(store).execute(SQL["read_only"])
    with pytest.raises(StoreUnavailableError, match=r"read-only\. Check the permissions"):
        await store.commit(Batch(last_position=1))


async def test_a_path_that_is_a_folder_is_told(tmp_path: Path, new_store: NewStore) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        await new_store(tmp_path).open(OWNER)


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_store_needs_a_path(path: str) -> None:
    with pytest.raises(DefinitionError, match="MemoryStore"):
        SqliteStore(path)


async def test_busy_is_no_failure(tmp_path: Path, new_store: NewStore) -> None:
    """Rule X3: while another program writes, the same batch is tried again."""
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await writer_of(store).execute("pragma busy_timeout = 0")
    with closing(sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("begin immediate")
        tried: list[bool] = []
        count_tries(writer_of(store), tried, on_third=lambda: other.execute("rollback"))
        await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    assert len(tried) >= 3
    assert await store.state(MARY) == {"a": b"1"}


def count_tries(connection: Connection, tried: list[bool], on_third: Callable[[], object]) -> None:
    """Note every statement that the connection runs, and do something at the third."""

    def note(statement: str) -> None:
        if statement.startswith("insert into batch"):
            tried.append(True)
            if len(tried) == 3:
                on_third()

    connection._conn.set_trace_callback(note)  # pyright: ignore[reportPrivateUsage]


async def test_a_cancelled_caller_does_not_cut_a_commit_short(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    accepted = [invocation(number) for number in range(1, 2000)]
    commit = asyncio.ensure_future(store.commit(Batch(last_position=2000, accepted=accepted)))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await store.commit(Batch(last_position=2001))
    assert len(await store.invocations(after=0, limit=5000)) == 1999


async def test_a_failure_that_nobody_waited_for_is_a_failure(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, accepted=[invocation(1)]))
    commit = asyncio.ensure_future(store.commit(Batch(last_position=2, accepted=[invocation(1)])))
    await asyncio.sleep(0)
    commit.cancel()
    await asyncio.gather(commit, return_exceptions=True)
    await writer_of(store).drained()
    with pytest.raises(StoreUnavailableError, match=r"A commit failed before.* Open the store again"):
        await store.commit(Batch(last_position=3))


async def test_a_read_that_takes_too_long_is_stopped_and_the_next_one_is_not(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably.storage.connections.INTERRUPT_AGAIN_SECONDS", 0.001)
    store = new_store(tmp_path / "app.db", readers=1, read_limit_seconds=0.0)
    await store.open(OWNER)
    readers = store._readers  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ReadLimitError, match="took longer than 0 seconds"):
        await readers.run(lambda connection, _: connection.execute(ENDLESS).fetchall())
    readers._limit_seconds = 60.0  # pyright: ignore[reportPrivateUsage]
    assert await store.invocations(after=0, limit=10) == []


async def test_a_cancelled_read_gives_its_connection_back(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db", readers=1)
    await store.open(OWNER)
    for _ in range(3):
        read = asyncio.ensure_future(store.invocations(after=0, limit=10))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
    assert await store.invocations(after=0, limit=10) == []


async def test_reads_that_wait_for_a_connection_end_when_the_store_is_closed(
    tmp_path: Path, new_store: NewStore
) -> None:
    store = new_store(tmp_path / "app.db", readers=1)
    await store.open(OWNER)
    reads = [asyncio.ensure_future(store.load([MARY], pending_limit=1)) for _ in range(10)]
    await asyncio.sleep(0)
    await store.close()
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(end, (list, StoreUnavailableError)) for end in ends)
    assert any(isinstance(end, StoreUnavailableError) for end in ends)


async def test_a_second_open_of_the_same_object_by_another_owner_changes_nothing(
    tmp_path: Path, new_store: NewStore
) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    with pytest.raises(StoreInUseError):
        await store.open(RIVAL)
    await store.commit(Batch(last_position=1))


async def test_a_commit_is_one_statement(tmp_path: Path, new_store: NewStore) -> None:
    """Rule X5."""
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    statements: list[str] = []
    writer_of(store)._conn.set_trace_callback(statements.append)  # pyright: ignore[reportPrivateUsage]
    accepted = [invocation(number) for number in range(1, 100)]
    await store.commit(Batch(last_position=99, accepted=accepted, state=[field("a", b"1")]))
    outermost = [line for line in statements if line.startswith(("begin", "insert into batch", "commit"))]
    assert len(set(outermost)) == 1


async def test_nothing_stays_of_what_was_removed(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    caller = CallerRecord(MARY, 7, 8)
    await store.commit(
        Batch(
            last_position=2,
            accepted=[invocation(1), invocation(2)],
            steps=[StepRecord(number, 0, b"1") for number in (1, 2)],
            completions=[CompletionRecord(number, 0, 2, False, b"1") for number in (1, 2)],
            timers=[TimerRecord(number, TimerKind.SLEEP, 0, 5, MARY) for number in (1, 2)],
            attachments=[AttachmentRecord(number, caller) for number in (1, 2)],
            aliases=[AliasRecord(f"alias_{number}", number) for number in (1, 2)],
            signals=[SignalRecord(number, 2, "approved", False, b"1") for number in (1, 2)],
        )
    )
    await store.commit(Batch(last_position=3, removed=[1], ended=[2]))
    left = {table: await count_rows(store, table) for table in TABLES}
    assert left == {**dict.fromkeys(TABLES, 0), "invocations": 1, "aliases": 1}


async def count_rows(store: SqliteStore, table: str) -> int:
    (row,) = await writer_of(store).execute_fetchall(f"select count(*) from {table}")
    count: int = row[0]
    return count

"""The write-ahead log stays bounded while commits and reads go on, also beside a reader that will not end."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from durably import ObjectContext, OverloadedError, Runtime, VirtualObject, handler, state
from durably.ids import Address
from durably.storage.checkpoints import FRAME_BYTES, CheckpointAnswer, LogGauge
from durably.storage.records import Batch
from durably.storage.sqlite import MIB, SqliteStore
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, field

LETTERS = ["ab"[number % 2] * 100_000 for number in range(100)]
"""Each differs from the one before: SQLite writes only the pages of a value that change."""


def log_bytes(store: SqliteStore) -> int:
    return store.path.with_name(store.path.name + "-wal").stat().st_size


async def write(store: SqliteStore, first: int, last: int, *, size: int = 30_000) -> None:
    for position in range(first, last):
        address = Address("Ticket", str(position % 50))
        await store.commit(Batch(last_position=position, state=[field("a", b"x" * size, address)]))


async def test_the_log_is_reused_when_it_is_full(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db", checkpoint_mib=1, wal_limit_mib=3)
    await store.open(OWNER)
    await write(store, 1, 500)
    assert log_bytes(store) < 4 * MIB


async def test_a_foreign_reader_slows_commits_down_but_does_not_stop_them(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db", checkpoint_mib=1, wal_limit_mib=2)
    await store.open(OWNER)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from state").fetchall()
        with capture_logs() as logs:
            await write(store, 1, 40, size=60_000)
        assert [entry["log_level"] for entry in logs] == ["warning"]
        assert "over its limit" in logs[0]["event"]
        reader.execute("commit")
    await write(store, 40, 300)
    assert log_bytes(store) < 4 * MIB
    assert await store.state(MARY) == {}


async def test_where_checkpoints_are_external_nothing_waits_for_the_program_that_makes_them(
    tmp_path: Path, new_store: NewStore
) -> None:
    """It reads in one transaction for all its life, before the store is opened and after it was closed."""
    path = tmp_path / "app.db"
    await write_once(new_store(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for position in (2, 50):
            other.execute("begin")
            other.execute("select count(*) from state").fetchall()
            store = new_store(path, checkpoint_mib=1, wal_limit_mib=1, checkpoints="external")
            await store.open(OWNER)
            with capture_logs() as logs:
                await write(store, position, position + 40, size=60_000)
            assert (logs, store.congestion()) == ([], None)
            assert log_bytes(store) > 2 * MIB
            other.execute("commit")
            other.execute("pragma wal_checkpoint(restart)").fetchall()
            await write(store, position + 40, position + 42, size=60_000)
            await store.close()
    restored = new_store(path)
    assert (await restored.open(OWNER)).last_position == 91


async def write_once(store: SqliteStore) -> None:
    await store.open(OWNER)
    await write(store, 1, 2)
    await store.close()


async def test_a_foreign_reader_stops_admission_until_it_ends(tmp_path: Path, new_store: NewStore) -> None:
    class Inbox(VirtualObject):
        letter: str = state(default="")

        @handler
        async def receive(self, ctx: ObjectContext, letter: str) -> None:
            self.letter = letter

    async def fill(inbox: Inbox) -> None:
        for letter in LETTERS:
            await inbox.receive(letter)

    store = new_store(tmp_path / "app.db", checkpoint_mib=1, wal_limit_mib=2)
    async with Runtime(store, [Inbox]) as runtime:
        inbox = runtime.object(Inbox, "mary")
        with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
            reader.execute("begin")
            reader.execute("select count(*) from state").fetchall()
            with pytest.raises(OverloadedError, match="another program reads") as refused:
                await fill(inbox)
            assert refused.value.retry_after == 1
            await asyncio.sleep(0.5)  # Until the checkpoint of the last commit has ended.
            reader.execute("commit")
        # Nobody commits now, and it is noticed all the same.
        async with asyncio.timeout(60):
            while store.congestion() is not None:
                await asyncio.sleep(0.05)
        await fill(inbox)


def test_the_gauge_asks_for_a_checkpoint_when_the_file_grows_over_the_threshold() -> None:
    gauge = LogGauge(1000 * FRAME_BYTES)
    gauge.note_commit(10)
    assert not gauge.is_due(999 * FRAME_BYTES)
    assert gauge.is_due(1001 * FRAME_BYTES)


def test_the_gauge_learns_how_much_of_the_log_a_commit_takes() -> None:
    gauge = LogGauge(1000 * FRAME_BYTES)
    for _ in range(100):
        gauge.note_commit(0)
    gauge.note_checkpoint(CheckpointAnswer(0, 2000, 2000), 2000 * FRAME_BYTES)
    for _ in range(49):
        gauge.note_commit(0)
    assert not gauge.is_due(2000 * FRAME_BYTES)
    gauge.note_commit(0)
    assert gauge.is_due(2000 * FRAME_BYTES)


def test_the_gauge_asks_again_a_little_later_when_a_reader_was_in_the_way() -> None:
    gauge = LogGauge(1000 * FRAME_BYTES)
    for _ in range(100):
        gauge.note_commit(0)
    gauge.note_checkpoint(CheckpointAnswer(1, 1000, 500), 1000 * FRAME_BYTES)
    assert not gauge.is_due(1000 * FRAME_BYTES)
    for _ in range(25):
        gauge.note_commit(0)
    assert gauge.is_due(1000 * FRAME_BYTES)

"""Opening waits while another program has the database locked, and says so when that takes long."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from durably.storage import connections, lock_waiting
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, field


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for SQLite's own patience here."""
    monkeypatch.setattr(connections.connect, "__kwdefaults__", {"timeout_seconds": 0.0})
    monkeypatch.setattr(lock_waiting, "PAUSE_SECONDS", 0.001)


async def opening_beside(
    store: SqliteStore, let_go: Callable[[], object], monkeypatch: pytest.MonkeyPatch, *, read_only: bool = False
) -> int:
    """Open a store that is locked, let the lock go after some tries, and tell how often it was tried."""
    tries = 0
    pause = lock_waiting.LockWaiting.pause

    async def counted(self: lock_waiting.LockWaiting, reason: str) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            let_go()
        await pause(self, reason)

    monkeypatch.setattr(lock_waiting.LockWaiting, "pause", counted)
    await (store.open_read_only() if read_only else store.open(OWNER))
    return tries


async def test_one_who_only_reads_waits_too(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    await store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.executescript("pragma locking_mode = exclusive; begin exclusive")
        assert await opening_beside(store, other.close, monkeypatch, read_only=True) == 3
    assert await store.state(MARY) == {"a": b"1"}


@pytest.mark.parametrize(
    "begin", ["begin immediate", "begin exclusive", "pragma locking_mode = exclusive; begin exclusive"]
)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "ours"])
async def test_a_database_that_another_program_writes_to_is_waited_for(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch, begin: str, is_new: bool
) -> None:
    store = new_store(tmp_path / "app.db")
    if not is_new:
        await store.open(OWNER)
        await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
        await store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.executescript(begin)
        if is_new:
            other.execute("pragma user_version = 0")

        def let_go() -> None:
            other.execute("rollback")
            other.close()

        assert await opening_beside(store, let_go, monkeypatch) == 3
    assert await store.state(MARY) == ({} if is_new else {"a": b"1"})
    await store.commit(Batch(last_position=2))


async def test_a_program_that_reads_in_a_transaction_is_waited_for_and_told_of(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_waiting, "TELL_AFTER_SECONDS", 0.0)
    first, store = new_store(tmp_path / "app.db"), new_store(tmp_path / "app.db")
    await first.open(OWNER)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from owner").fetchall()
        await first.commit(Batch(last_position=1, state=[field("a", b"1")]))
        await first.close()
        with capture_logs() as logs:
            assert await opening_beside(store, lambda: reader.execute("commit"), monkeypatch) == 3
    assert await store.state(MARY) == {"a": b"1"}
    (entry,) = logs
    assert entry["log_level"] == "warning"
    assert "waits" in entry["event"]
    assert entry["reason"] == "another program reads it in one long transaction"


async def test_it_says_so_again_when_it_goes_on_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now = 0.0

    def call_later(seconds: float, call: Callable[[None], object], result: None) -> asyncio.Handle:
        return loop.call_soon(call, result)

    clock = SimpleNamespace(time=lambda: now, create_future=loop.create_future, call_later=call_later)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    waiting = lock_waiting.LockWaiting("test")
    with capture_logs() as logs:
        for moment in (0.5, 1.5, 20.0, 32.0, 40.0):
            now = moment
            await waiting.pause("locked")
    assert [entry["waited_seconds"] for entry in logs] == [1.5, 32.0]


async def test_an_opening_that_waits_can_be_given_up(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path / "app.db")
    paused = asyncio.Event()

    async def pause(self: lock_waiting.LockWaiting, reason: str) -> None:
        paused.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(lock_waiting.LockWaiting, "pause", pause)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        opening = asyncio.ensure_future(store.open(OWNER))
        await paused.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        other.execute("rollback")
    monkeypatch.undo()
    await new_store(tmp_path / "app.db").open(OWNER)

"""Who comes second is told who holds the store, across real processes, and a deleted lock file costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durably.errors import StoreInUseError, StoreUnavailableError
from durably.storage.ownership import OwnerLock
from durably.storage.records import Batch
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, RIVAL, field

HOLD = """
import asyncio, os, sys
from durably.storage.records import Owner
from durably.storage.sqlite import SqliteStore

async def hold():
    store = SqliteStore(sys.argv[1])
    await store.open(Owner(host="other.example", process_id=os.getpid(), since=1_700_000_000_000_000))
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await store.close()

asyncio.run(hold())
"""


async def test_the_sentence_names_the_process_that_holds_the_store(tmp_path: Path, new_store: NewStore) -> None:
    path = tmp_path / "app.db"
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        store = new_store(path)
        with pytest.raises(StoreInUseError) as raised:
            await store.open(OWNER)
        assert f"process {holder.pid} on other.example since 2023-11-14T22:13:20+00:00" in str(raised.value)
        holder.stdin.close()
        assert holder.wait() == 0
    opened = await store.open(OWNER)
    assert opened.epoch == 2


async def test_a_killed_holder_holds_nothing(tmp_path: Path, new_store: NewStore) -> None:
    path = tmp_path / "app.db"
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    store = new_store(path)
    assert (await store.open(OWNER)).epoch == 2


async def test_a_deleted_lock_file_does_not_let_two_owners_write(tmp_path: Path, new_store: NewStore) -> None:
    """Rule X4: the epoch gives the safety."""
    older, newer = new_store(tmp_path / "app.db"), new_store(tmp_path / "app.db")
    await older.open(OWNER)
    (tmp_path / "app.db.lock").unlink()
    await newer.open(RIVAL)
    with pytest.raises(StoreInUseError, match=r"taken over by process 22 on second\.example"):
        await older.commit(Batch(last_position=1, state=[field("a", b"1")]))
    with pytest.raises(StoreInUseError, match=r"in use by process 22 on second\.example"):
        await older.open(OWNER)
    await older.close()
    await newer.commit(Batch(last_position=1))
    assert await newer.state(MARY) == {}


def test_a_lock_on_a_deleted_file_is_given_up_for_the_one_at_the_path(tmp_path: Path) -> None:
    path = tmp_path / "app.db.lock"
    lock = OwnerLock(path, "test")
    lock.acquire(OWNER)
    path.unlink()
    lock.acquire(OWNER)
    other = OwnerLock(path, "test")
    with pytest.raises(StoreInUseError):
        other.acquire(RIVAL)
    lock.release()
    other.acquire(RIVAL)
    other.release()


def test_a_holder_that_wrote_nothing_yet_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "app.db.lock"
    lock, other = OwnerLock(path, "test"), OwnerLock(path, "test")
    lock.acquire(OWNER)
    os.truncate(path, 0)
    with pytest.raises(StoreInUseError, match="another process"):
        other.acquire(RIVAL)
    lock.release()


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="folder must exist"):
        OwnerLock(tmp_path / "missing" / "app.db.lock", "test").acquire(OWNER)

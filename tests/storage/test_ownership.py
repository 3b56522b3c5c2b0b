"""Who comes second is told who holds the store, across real processes, and a deleted lock file costs nothing."""

from __future__ import annotations

import errno
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


FORK_AND_DIE = """
import asyncio, os, signal, sys
from durably.storage.sqlite import SqliteStore
from tests.storage.samples import OWNER

async def hold():
    await SqliteStore(sys.argv[1]).open(OWNER)
    child = os.fork()
    if child == 0:
        sys.stdin.read()  # It outlives its parent, until the test lets it go.
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(hold())
"""


@pytest.mark.slow
async def test_a_forked_child_that_outlives_its_killed_parent_does_not_hold_the_store(
    tmp_path: Path, new_store: NewStore
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", FORK_AND_DIE, str(tmp_path / "app.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert holder.wait() == -signal.SIGKILL
        os.kill(child, 0)
        opened = await new_store(tmp_path / "app.db").open(RIVAL)
        os.kill(child, 0)
        assert opened.epoch == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is inherited where there is no fork")
def test_a_forked_child_neither_holds_the_lock_nor_lets_it_go(tmp_path: Path) -> None:
    path = tmp_path / "app.db.lock"
    lock, other = OwnerLock(path, "test"), OwnerLock(path, "test")
    lock.acquire(OWNER)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(1 if lock.is_held else 0)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(StoreInUseError, match="process 11"):
        other.acquire(RIVAL)
    lock.release()


def test_a_lock_is_held_where_there_is_no_room_for_the_name_of_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db.lock"
    lock, other = OwnerLock(path, "test"), OwnerLock(path, "test")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        lock.acquire(OWNER)
    with pytest.raises(StoreInUseError, match="another process"):
        other.acquire(RIVAL)
    lock.release()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(StoreUnavailableError, match="The disk is full"):
            other.acquire(RIVAL)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="folder must exist"):
        OwnerLock(tmp_path / "missing" / "app.db.lock", "test").acquire(OWNER)

"""A runtime on a file: it goes on with the same store after a failure, or it stops for good and says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from durably import (
    ObjectContext,
    Runtime,
    SharedContext,
    StoreInUseError,
    StoreLostError,
    StoreUnavailableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from tests.processes import PATIENCE_SECONDS, ROOT, environment_with


class Counter(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        return self.total

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.total


def delete_everything(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def insist(ask: Callable[[], Awaitable[int]]) -> int:
    """Ask until the store has been opened again."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                return await ask()
            await asyncio.sleep(0.01)


def replace_folder(folder: Path) -> None:
    folder.rename(folder.with_name("renamed"))
    folder.mkdir()


HARMS: dict[str, Callable[[Path], object]] = {
    "deleted": delete_everything,
    "renamed": lambda folder: (folder / "app.db").rename(folder / "other.db"),
    "folder renamed": lambda folder: folder.rename(folder.with_name("renamed")),
    "folder replaced": replace_folder,
}


@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
async def test_a_store_that_is_gone_is_not_replaced_by_an_empty_one(
    tmp_path: Path, harm: Callable[[Path], object], first: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    async with Runtime(f"sqlite:///{folder}/app.db", [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        assert await counter.add(5) == 5
        harm(folder)
        with pytest.raises(StoreUnavailableError, match="deleted, renamed or moved"):
            await (counter.look() if first == "read" else counter.add(1))
        async with asyncio.timeout(60):
            while True:
                with pytest.raises(StoreUnavailableError) as refused:
                    await counter.look()
                if isinstance(refused.value, StoreLostError):
                    break
                await asyncio.sleep(0.01)
        assert "It is not created anew" in str(refused.value)
        with pytest.raises(StoreLostError):
            await runtime.state(Counter, "a")
        assert not (folder / "app.db").exists()


async def test_an_idle_runtime_notices_by_itself_that_its_store_is_gone(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path}/app.db", [Counter]) as runtime:
        assert await runtime.object(Counter, "a").add(5) == 5
        delete_everything(tmp_path)
        async with asyncio.timeout(60):
            while runtime.accepts_requests:
                await asyncio.sleep(0.02)


async def test_a_deleted_lock_file_is_made_anew_where_nobody_came_in_between(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path}/app.db", [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        assert await counter.add(5) == 5
        (tmp_path / "app.db.lock").unlink()
        assert await insist(counter.look) == 5
        assert await counter.add(1) == 6
        with pytest.raises(StoreInUseError):
            async with Runtime(f"sqlite:///{tmp_path}/app.db", [Counter]):
                pass


async def test_a_second_runtime_behind_a_link_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "app.db")
    async with Runtime(f"sqlite:///{tmp_path}/app.db", [Counter]) as runtime:
        assert await runtime.object(Counter, "a").add(5) == 5
        with pytest.raises(StoreInUseError):
            async with Runtime(f"sqlite:///{tmp_path}/link.db", [Counter]):
                pass
        assert await runtime.object(Counter, "a").add(1) == 6
    async with Runtime(f"sqlite:///{tmp_path}/link.db", [Counter]) as runtime:
        assert await runtime.object(Counter, "a").look() == 6


async def test_a_relative_store_is_found_again_after_a_failure_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async with Runtime("sqlite:///app.db", [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        assert await counter.add(5) == 5
        monkeypatch.chdir(tmp_path / "elsewhere")
        (tmp_path / "app.db.lock").unlink()  # It has to open its store again.
        assert await insist(counter.look) == 5
    assert list((tmp_path / "elsewhere").iterdir()) == []


SERVE_LINES = """
import asyncio, sys
from durably import Runtime
from tests.semantics.test_store_identity import Counter

async def main():
    loop = asyncio.get_running_loop()
    async with Runtime(f"sqlite:///{sys.argv[1]}", [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        print(await counter.add(1), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                answer = await (counter.look() if line == "look\\n" else runtime.state(Counter, "a"))
            except Exception as error:
                answer = type(error).__name__
            print(answer, flush=True)

asyncio.run(main())
"""


def stop_between_reads(process: subprocess.Popen[str], store: Path) -> None:
    """Stop a process at a moment at which it reads nothing: an opening waits for readers, also for stopped ones."""
    while True:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        with contextlib.closing(sqlite3.connect(store, timeout=0)) as connection:
            (is_blocked, _, _) = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        if not is_blocked:
            return
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("question", ["look", "state"])
async def test_an_owner_that_was_stopped_superseded_and_resumed_answers_no_old_read(
    tmp_path: Path, question: str
) -> None:
    path = tmp_path / "app.db"
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", SERVE_LINES, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment_with({}), bufsize=1,
    ) as older:  # fmt: skip
        assert older.stdin is not None
        assert older.stdout is not None
        try:
            assert older.stdout.readline() == "1\n"
            stop_between_reads(older, path)
            (tmp_path / "app.db.lock").unlink()
            async with Runtime(f"sqlite:///{path}", [Counter]) as newer:
                assert await newer.object(Counter, "a").add(10) == 11
                older.stdin.write(f"{question}\n" * 2)
                os.kill(older.pid, signal.SIGCONT)
                for _ in range(2):
                    assert older.stdout.readline() in ("StoreInUseError\n", "StoreUnavailableError\n")
                assert await newer.object(Counter, "a").add(1) == 12
        finally:
            os.kill(older.pid, signal.SIGCONT)
            older.stdin.close()
            older.wait(PATIENCE_SECONDS)

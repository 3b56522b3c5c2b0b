"""What the machine can do to a running store, each with the outcome that docs/operations.md promises."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from durably import (
    ObjectContext,
    Runtime,
    SharedContext,
    SqliteStore,
    StoreUnavailableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.storage import connections, lock_waiting
from durably.storage.connections import apply_settings
from durably.storage.encoding import EncodedBatch
from durably.storage.sqlite import Writer
from tests.processes import PATIENCE_SECONDS, ROOT, environment_with

NOBODY = 65_534


async def insist(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until the store has been opened again."""
    while True:
        with contextlib.suppress(StoreUnavailableError):
            await ask()
            return
        await asyncio.sleep(0.01)


class Counter(VirtualObject):
    total: int = state(default=0)
    letter: str = state(default="")

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        return self.total

    @handler
    async def write(self, ctx: ObjectContext, letter: str) -> None:
        self.letter = letter

    @shared
    async def look(self, ctx: SharedContext) -> int:
        return self.total

    @handler
    async def nap(self, ctx: ObjectContext, seconds: float) -> int:
        await ctx.sleep(seconds)
        self.total += 1
        return self.total


async def test_on_a_full_disk_nothing_is_acknowledged_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room_pages = [60]

    def with_little_room(connection: sqlite3.Connection) -> None:
        apply_settings(connection)
        connection.execute(f"pragma max_page_count = {room_pages[0]}")

    monkeypatch.setattr("durably.storage.sqlite.apply_settings", with_little_room)
    async with Runtime(f"sqlite:///{tmp_path}/app.db", [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        assert await counter.add(1) == 1
        writing = asyncio.ensure_future(counter.write.options(idempotency_key="once")("x" * 1_000_000))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "The disk is full. Free some space" not in caplog.text:
                await asyncio.sleep(0.01)
        assert not writing.done() or isinstance(writing.exception(), StoreUnavailableError)
        room_pages[0] = 10_000  # Somebody has deleted something.
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([writing])
            await insist(lambda: counter.write.options(idempotency_key="once")("x" * 1_000_000))
        assert await counter.add(1) == 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of somebody for whom permissions count. The test becomes that one: root may do everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("Other systems keep permissions otherwise.")
    made = Path(tempfile.mkdtemp(prefix="durably-", dir="/tmp"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(made, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield made
    finally:
        if is_root:
            os.seteuid(0)
        made.chmod(0o700)
        shutil.rmtree(made)


async def test_in_a_read_only_folder_no_store_is_begun(folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(StoreUnavailableError, match="folder must exist, be writable"):
        async with Runtime(f"sqlite:///{folder}/app.db", [Counter]):
            pass
    assert list(folder.iterdir()) == []


async def test_a_folder_that_becomes_read_only_stops_the_next_start_and_not_what_runs(folder: Path) -> None:
    url = f"sqlite:///{folder}/app.db"
    async with Runtime(url, [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        assert await counter.add(1) == 1
        folder.chmod(0o500)
        assert await counter.add(1) == 2
        folder.chmod(0o700)
    folder.chmod(0o500)
    with pytest.raises(StoreUnavailableError, match=r"must be readable and writable|Check the permissions"):
        async with Runtime(url, [Counter]):
            pass
    folder.chmod(0o700)
    async with Runtime(url, [Counter]) as runtime:
        assert await runtime.object(Counter, "a").look() == 2


async def test_a_file_that_is_read_only_is_told_at_the_start(folder: Path) -> None:
    url = f"sqlite:///{folder}/app.db"
    async with Runtime(url, [Counter]) as runtime:
        assert await runtime.object(Counter, "a").add(1) == 1
    (folder / "app.db").chmod(0o400)
    with pytest.raises(StoreUnavailableError, match=r"read-only|permissions|readable and writable"):
        async with Runtime(url, [Counter]):
            pass


async def test_on_a_slow_disk_callers_wait_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, commit = Event(), Writer.commit

    def commit_slowly(self: Writer, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        assert slow.wait(PATIENCE_SECONDS)
        commit(self, connection, batch)

    async with Runtime(f"sqlite:///{tmp_path}/app.db", [Counter]) as runtime:
        monkeypatch.setattr(Writer, "commit", commit_slowly)
        calls = [asyncio.ensure_future(runtime.object(Counter, f"{n % 3}").add(1)) for n in range(30)]
        for _ in range(200):  # The host's own code has its turns.
            await asyncio.sleep(0)
        assert not any(call.done() for call in calls)
        slow.set()
        assert sorted(await asyncio.gather(*calls)) == sorted(list(range(1, 11)) * 3)


async def test_an_exclusive_lock_of_another_program_holds_answers_back_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections.connect, "__kwdefaults__", {"timeout_seconds": 0.01})
    path = tmp_path / "app.db"
    async with Runtime(f"sqlite:///{path}", [Counter]) as runtime:
        counter = runtime.object(Counter, "a")
        assert await counter.add(1) == 1
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("begin exclusive")
            adding = asyncio.ensure_future(counter.add(1))
            for _ in range(200):
                await asyncio.sleep(0)
            assert not adding.done()
            other.execute("rollback")
            assert await adding == 2


STOPPED_IN_A_READ = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin")
connection.execute("select count(*) from state").fetchall()
print("reads", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
connection.execute("commit")
"""


@pytest.mark.slow
async def test_one_who_was_stopped_in_the_middle_of_a_read_holds_up_the_next_start_which_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_waiting, "TELL_AFTER_SECONDS", 0.0)
    path = tmp_path / "app.db"
    async with Runtime(f"sqlite:///{path}", [Counter]) as runtime:
        assert await runtime.object(Counter, "a").add(1) == 1
        with subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", STOPPED_IN_A_READ, str(path)], stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reads\n"
            await asyncio.to_thread(os.waitid, os.P_PID, reader.pid, os.WSTOPPED | os.WNOWAIT)
            assert await runtime.object(Counter, "a").add(1) == 2  # Commits need not wait for readers.
            await runtime.__aexit__(None, None, None)
            told = asyncio.Event()
            pause = lock_waiting.LockWaiting.pause

            async def telling(self: lock_waiting.LockWaiting, reason: str) -> None:
                if reason == "another program reads it in one long transaction":
                    told.set()
                await pause(self, reason)

            monkeypatch.setattr(lock_waiting.LockWaiting, "pause", telling)
            with capture_logs() as logs:
                successor = Runtime(f"sqlite:///{path}", [Counter])
                starting = asyncio.ensure_future(successor.__aenter__())
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await told.wait()
                assert not starting.done()
                os.kill(reader.pid, signal.SIGCONT)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await starting
            assert "the store cannot be opened yet" in logs[0]["event"]
            assert await successor.object(Counter, "a").look() == 2
            await successor.__aexit__(None, None, None)


NAPS = """
import asyncio, sys
from durably import Runtime
from tests.semantics.test_machine_faults import Counter

async def main():
    async with Runtime(f"sqlite:///{sys.argv[1]}", [Counter]) as runtime:
        naps = [asyncio.ensure_future(runtime.object(Counter, f"{n}").nap(0.2 + n / 100)) for n in range(5)]
        await runtime.object(Counter, "ready").add(1)
        print("naps", flush=True)
        print(await asyncio.gather(*naps), flush=True)
        print(await runtime.object(Counter, "ready").add(1), flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_process_that_stands_still_goes_on_where_it_was(tmp_path: Path) -> None:
    """A minute or a second: the timers that came due meanwhile ring at once, and nobody else became the owner."""
    path = tmp_path / "app.db"
    with subprocess.Popen(
        [sys.executable, "-c", NAPS, str(path)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment_with({}),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "naps\n"
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            refused = subprocess.run(
                [sys.executable, "-c", NAPS, str(path)],
                capture_output=True, text=True, cwd=ROOT, env=environment_with({}), timeout=PATIENCE_SECONDS,
                check=False,
            )  # fmt: skip
            assert "StoreInUseError" in refused.stderr
            assert str(process.pid) in refused.stderr
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "[1, 1, 1, 1, 1]\n"
        assert process.stdout.readline() == "2\n"
        assert process.wait(PATIENCE_SECONDS) == 0


async def test_reads_for_operators_wait_for_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is being read holds no commit up, however slowly it is taken."""
    store: Any = SqliteStore(tmp_path / "app.db")
    async with Runtime(store, [Counter]) as runtime:
        await runtime.object(Counter, "a").nap.send(60)
        async for listed in runtime.invocations():
            assert await runtime.object(Counter, "b").add(1) == 1
            await runtime.kill(listed.id)

"""The real `sqlite3_rsync` beside a runtime that writes: its copy is a store, as of one moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from shutil import which

import pytest

from durably import ObjectContext, Runtime, VirtualObject, handler, state
from durably.doctor import Report, examine
from durably.inspection import TimerWait
from durably.storage.sqlite import SqliteStore
from tests.processes import PATIENCE_SECONDS

PROGRAM = which("sqlite3_rsync")
"""It comes with SQLite 3.47 and later. On the `PATH` it is found here."""
KEYS = 20

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="there is no sqlite3_rsync here")]


class Counter(VirtualObject):
    count: int = state(default=0)
    noise: str = state(default="")

    @handler
    async def add(self, ctx: ObjectContext, noise: str) -> int:
        self.count += 1
        self.noise = noise
        return self.count

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        await ctx.sleep(hours=1)


async def count_up(app: Runtime) -> None:
    """All counters together, so that a moment at which they differ by more than one has never been."""
    noise = "x" * 4_000
    await asyncio.gather(*(app.object(Counter, str(key)).add(noise) for key in range(KEYS)))


async def copied(*arguments: str | Path) -> None:
    assert PROGRAM is not None
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert (process.returncode, said) == (0, b"")


async def examined(path: Path) -> Report:
    store = SqliteStore(path)
    await store.open_read_only()
    try:
        return await examine(store)
    finally:
        await store.close()


def stand_in_for_ssh(folder: Path) -> Path:
    """It is called with `-e none user@host` and a command, which it runs here."""
    script = folder / "ssh"
    script.write_text('#!/bin/sh\nshift 3\nexec sh -c "$*"\n', "utf-8")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("is_remote", [False, True])
async def test_a_copy_of_sqlite3_rsync_is_a_sound_store_as_of_one_moment(tmp_path: Path, is_remote: bool) -> None:
    path, copy = tmp_path / "app.db", tmp_path / "copy.db"
    where: list[str | Path] = [copy]
    if is_remote:
        assert PROGRAM is not None
        where = [f"backup@vault:{copy}", "--ssh", stand_in_for_ssh(tmp_path), "--exe", PROGRAM]
    rounds, is_over, before = 0, asyncio.Event(), 0
    async with Runtime(SqliteStore(path), [Counter], drain=0) as app:

        async def write() -> None:
            nonlocal rounds
            while not is_over.is_set():
                await count_up(app)
                rounds += 1

        sleeper = await app.object(Counter, "sleeper").wait.send()
        writing = asyncio.ensure_future(write())
        try:
            for wanted in (1, 5, 10):  # The second and third time it brings the copy up to date.
                while rounds < wanted:
                    await asyncio.sleep(0.01)
                before = rounds
                await copied(path, *where)
                assert (await examined(copy)).problems == ()
        finally:
            is_over.set()
            await writing
    async with Runtime(SqliteStore(copy), [Counter], drain=0) as app:
        counts = [(await app.state(Counter, str(key)))["count"] for key in range(KEYS)]
        assert before <= min(counts) <= max(counts) <= rounds
        assert max(counts) - min(counts) <= 1
        assert isinstance((await app.why(sleeper.id)).waits[0], TimerWait)
        await count_up(app)

"""The real Litestream beside a runtime that writes: its replica holds what was acknowledged before it was stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from shutil import which

import pytest

from durably import ObjectContext, Runtime, SqliteStore, VirtualObject, handler, state
from tests.processes import PATIENCE_SECONDS

LITESTREAM = which("litestream", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(LITESTREAM is None, reason="there is no Litestream here")]


class Counter(VirtualObject):
    count: int = state(default=0)
    noise: str = state(default="")

    @handler
    async def add(self, ctx: ObjectContext, noise: str) -> int:
        self.count += 1
        self.noise = noise
        return self.count


def runtime(path: Path) -> Runtime:
    return Runtime(SqliteStore(path, checkpoints="external"), [Counter], drain=0)


async def count_up(app: Runtime, calls: int) -> None:
    """So much is written that Litestream makes a checkpoint now and then."""
    for number in range(0, calls, 20):
        noise = f"{number}{'x' * 4_000}"
        await asyncio.gather(*(app.object(Counter, str(key)).add(noise) for key in range(20)))


async def until_replicated(replica: Path) -> None:
    """Litestream has begun: what comes after that, it uploads when it is stopped. It looks once a second."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(replica.rglob("*.ltx")):
            await asyncio.sleep(0.05)


def total(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        ((sum_of_all,),) = connection.execute("select sum(value) from state where field = 'count'").fetchall()
    return int(sum_of_all)


async def ended(*arguments: str | Path) -> None:
    assert LITESTREAM is not None
    process = await asyncio.create_subprocess_exec(LITESTREAM, *arguments)
    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0


async def test_a_replica_of_litestream_holds_what_was_acknowledged(tmp_path: Path) -> None:
    path, replica = tmp_path / "app.db", f"file://{tmp_path}/replica"
    async with runtime(path) as app:
        await count_up(app, 20)
    assert LITESTREAM is not None
    litestream = await asyncio.create_subprocess_exec(LITESTREAM, "replicate", path, replica)
    try:
        for _ in range(2):  # It is opened beside Litestream, too.
            async with runtime(path) as app:
                await count_up(app, 2_000)
                await until_replicated(tmp_path / "replica")
    finally:
        litestream.send_signal(signal.SIGTERM)  # It uploads what is left, and ends.
        await asyncio.wait_for(litestream.wait(), PATIENCE_SECONDS)
    await ended("restore", "-o", tmp_path / "restored.db", replica)
    assert total(tmp_path / "restored.db") == 20 + 2 * 2_000
    async with runtime(tmp_path / "restored.db") as app:
        await count_up(app, 20)

"""The bare limit of a large body: msgspec decodes it at once, and aiosqlite inserts it and removes it again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiosqlite
import msgspec

from benchmarks.actors import Line
from benchmarks.measurement import Counts
from benchmarks.subject import InProcess, Running, large_body

SCRIPT: Final = """
    pragma journal_mode = wal;
    pragma synchronous = full;
    create table argument (number integer primary key, value);
"""


@asynccontextmanager
async def _open(folder: Path, workload: str) -> AsyncGenerator[Running]:
    body = large_body(int(workload.removeprefix("size-")))
    decode = msgspec.json.Decoder(list[Line]).decode
    async with aiosqlite.connect(folder / "insert.db", isolation_level=None) as connection:
        await connection.executescript(SCRIPT)
        commits = 0

        async def take(number: int) -> None:
            nonlocal commits
            decode(body)
            await connection.execute("insert into argument values (?, ?)", (number, body))
            await connection.execute("delete from argument where number = ?", (number,))
            commits += 2

        yield Running(operation=take, counts=lambda: Counts(commits=commits), prepared=1)


subject = InProcess(open=_open, prepared=1)

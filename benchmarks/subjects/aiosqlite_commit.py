"""The bare limit of one caller: one durable commit of one row through aiosqlite, one hop to its thread."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiosqlite

from benchmarks.measurement import Counts
from benchmarks.subject import KEYS, InProcess, Running

SCRIPT: Final = """
    pragma journal_mode = wal;
    pragma synchronous = full;
    create table state (key text primary key, value) without rowid;
"""
UPSERT: Final = "insert into state values (?, ?) on conflict do update set value = excluded.value"


@asynccontextmanager
async def _open(folder: Path, workload: str) -> AsyncGenerator[Running]:
    assert workload in ("call", "call-beside-field"), "it does nothing else"
    async with aiosqlite.connect(folder / "commit.db", isolation_level=None) as connection:
        await connection.executescript(SCRIPT)
        commits = 0

        async def commit(number: int) -> None:
            nonlocal commits
            await connection.execute(UPSERT, (f"counter-{number % KEYS}", number))
            commits += 1

        yield Running(operation=commit, counts=lambda: Counts(commits=commits))


subject = InProcess(open=_open, prepared=100)

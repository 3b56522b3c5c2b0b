"""The bare limit with a disk: asyncio actors whose changes reach SQLite in groups, one statement for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiosqlite
import orjson

from benchmarks.mailboxes import BEHAVIOURS, Mailboxes, operation_on
from benchmarks.measurement import Counts
from benchmarks.subject import InProcess, Running

SCRIPT: Final = """
    pragma journal_mode = wal;
    pragma synchronous = full;
    create table state (key text primary key, value) without rowid;
    create table steps (number integer, idx integer, primary key (number, idx)) without rowid;
    create temp view batch as select null as state, null as steps, null as dropped;
    create temp trigger batch_is_applied instead of insert on batch
    begin
        insert or replace into state select value ->> 0, value ->> 1 from json_each(new.state);
        insert into steps select value ->> 0, value ->> 1 from json_each(new.steps);
        delete from steps where number in (select value from json_each(new.dropped));
    end;
"""
COMMIT: Final = "insert into batch values (cast(? as text), cast(? as text), cast(? as text))"


class GroupCommit:
    """One batch is written while the next one fills."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.commits = 0
        self._connection = connection
        self._state: dict[str, int] = {}
        self._steps: list[tuple[int, int]] = []
        self._dropped: list[int] = []
        self._durable: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    def put_state(self, key: str, value: int, /) -> None:
        self._state[key] = value

    def put_step(self, number: int, index: int, /) -> None:
        self._steps.append((number, index))

    def drop_steps(self, number: int, /) -> None:
        self._dropped.append(number)

    def durable(self) -> asyncio.Future[None]:
        if self._durable is None:
            self._durable = asyncio.get_running_loop().create_future()
            if self._writer is None:
                self._writer = asyncio.create_task(self._write())
        return self._durable

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        await asyncio.sleep(0)  # Let everybody who is ready put something in.
        while (durable := self._durable) is not None:
            parameters = (orjson.dumps(self._state_rows()), orjson.dumps(self._steps), orjson.dumps(self._dropped))
            self._state, self._steps, self._dropped, self._durable = {}, [], [], None
            await self._connection.execute(COMMIT, parameters)
            self.commits += 1
            if not durable.done():  # Whoever waited may have given up when the measurement ended.
                durable.set_result(None)
            await asyncio.sleep(0)
        self._writer = None

    def _state_rows(self) -> list[tuple[str, int]]:
        return list(self._state.items())


@asynccontextmanager
async def _open(folder: Path, workload: str) -> AsyncGenerator[Running]:
    async with aiosqlite.connect(folder / "mailbox.db", isolation_level=None) as connection:
        await connection.executescript(SCRIPT)
        log = GroupCommit(connection)
        mailboxes = Mailboxes(log, BEHAVIOURS[workload])
        try:
            yield Running(operation=operation_on(mailboxes, workload), counts=lambda: Counts(commits=log.commits))
        finally:
            await mailboxes.close()
            await log.close()


subject = InProcess(open=_open)

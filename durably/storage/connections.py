"""Connections to one SQLite database. Each request to one is a single hop to its thread, however many steps it has.

An error of SQLite becomes a sentence here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path, PurePath, PureWindowsPath
from threading import Thread
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar
from urllib.parse import quote

import aiosqlite

from durably.errors import StoreUnavailableError
from durably.storage.sqlite_errors import describe_error
from durably.storage.statements import SQL

P = ParamSpec("P")
T = TypeVar("T")
Parameters: TypeAlias = Sequence[object] | Mapping[str, object]

BUSY_TIMEOUT_SECONDS = 1.0
INTERRUPT_AGAIN_SECONDS = 0.25

SETTINGS = (
    "synchronous",
    "full_fsync",
    "checkpoint_full_fsync",
    "no_automatic_checkpoint",
    "temporary_tables_in_memory",
    "write_ahead_log",
)
READER_VIEWS = (
    "sized_invocations", "encoded_invocations", "encoded_steps", "encoded_completions", "encoded_signals",
    "encoded_journals",
)  # fmt: skip
ANSWER_LIMIT_BYTES = 4 << 20
"""Of an answer in one piece, because the event loop decodes it. What is longer is read in smaller parts."""
VALUE_LIMIT_BYTES = 1 << 30
"""Of everything else: as much as SQLite allows."""


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs whole functions on its thread."""

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, …)` on the connection's thread, to its end even if the caller is cancelled."""
        result: T = await self._execute(function, self._conn, *args, **kwargs)  # type: ignore[no-untyped-call]
        return result

    async def drained(self) -> None:
        """Return when everything asked of this connection before has ended."""
        await self.run(_nothing)

    def make_daemon(self) -> None:
        """Let the process end even if this connection was not closed."""
        thread: Thread = self._thread
        thread.daemon = True

    def join(self) -> None:
        """Wait for the end of the thread, which has been told to end, so that it does not outlive the event loop."""
        thread: Thread = self._thread
        thread.join()

    def interrupt_now(self) -> None:
        """Stop the statement that runs, if one does. May be called from any thread."""
        if self._connection is not None:
            self._connection.interrupt()


def _nothing(connection: sqlite3.Connection) -> None:
    del connection


class Mode(StrEnum):
    """What a connection may do, in SQLite's words."""

    CREATE = "rwc"
    EXISTING = "rw"
    """Read and write, but never create the file."""
    READ_ONLY = "ro"
    """Neither create the database nor, when the connection closes, copy the write-ahead log into it."""


def database_uri(path: PurePath, mode: Mode) -> str:
    """The URI that tells SQLite which file to open; it takes each character of the path literally."""
    raw = str(path).encode("utf-8", "surrogatepass") if isinstance(path, PureWindowsPath) else os.fsencode(path)
    literal = quote(raw.replace(b"\\", b"/") if isinstance(path, PureWindowsPath) else raw, safe="/:")
    return f"file://{'' if literal.startswith('/') else '/'}{literal}?mode={mode}"


async def connect(
    path: Path, mode: Mode = Mode.EXISTING, *, timeout_seconds: float = BUSY_TIMEOUT_SECONDS
) -> Connection:
    """A connection without transactions of its own making: what is not in a transaction commits by itself."""

    def connector() -> sqlite3.Connection:
        return sqlite3.connect(
            database_uri(path, mode), timeout=timeout_seconds, isolation_level=None, check_same_thread=False, uri=True
        )

    return await opened(connector)


async def opened(connector: Callable[[], sqlite3.Connection]) -> Connection:
    """What `connector` connects to, on a thread of its own."""
    connection = Connection(connector, iter_chunk_size=1)
    # A program that forgets to close its store must still be able to end. Safe because a commit that the end of the
    # process cuts off is all there or not at all.
    connection.make_daemon()
    opening = asyncio.ensure_future(_opened(connection))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The cancelled caller does not have the connection, so it is closed here.
        with contextlib.suppress(sqlite3.Error):
            await opening
            await connection.close()
        raise
    except BaseException:
        connection.join()
        raise
    return connection


async def _opened(connection: Connection) -> None:
    await connection


def apply_settings(connection: sqlite3.Connection) -> None:
    for name in SETTINGS:
        connection.execute(SQL[name]).fetchall()


def prepare_reader(connection: sqlite3.Connection) -> None:
    apply_settings(connection)
    make_views(connection)


def make_views(connection: sqlite3.Connection) -> None:
    """What the statements of `reads.sql` read, on a connection that can do nothing else from now on."""
    for name in READER_VIEWS:
        connection.execute(SQL[name])
    connection.execute(SQL["read_only"])


def answer(connection: sqlite3.Connection, statement: str, parameters: Parameters, limit_bytes: int) -> str:
    """The answer of a statement that has exactly one row of one column.

    It is read to its end at once, which ends the read transaction: a process that is stopped afterwards keeps no lock.

    Raises:
        sqlite3.DataError: it is too large for one piece.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit_bytes)
    try:
        rows: list[tuple[str]] = connection.execute(statement, parameters).fetchall()
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_LIMIT_BYTES)
    return rows[0][0]


class ReadLimitError(StoreUnavailableError):
    """A read took too long. That is a limit of ours and says nothing about the store: ask for less (rule X6)."""


class TimeLimit:
    """Interrupts a read when it has not progressed for a time, and again until cancelled: it may have begun late."""

    __slots__ = ("_interrupt", "_limit_seconds", "_seen", "_timer", "expired", "progress")

    def __init__(self, interrupt: Callable[[], None], limit_seconds: float) -> None:
        self._interrupt = interrupt
        self._limit_seconds = limit_seconds
        self._timer = asyncio.get_running_loop().call_later(limit_seconds, self.look)
        self._seen = 0
        self.progress = 0
        self.expired = False

    def progressed(self) -> None:
        """Another piece has been read. Called on the connection's thread."""
        self.progress += 1

    def look(self) -> None:
        """The time has passed: stop the connection, unless it has progressed meanwhile."""
        if self.progress != self._seen:
            self._seen = self.progress
            self._look_again_after(self._limit_seconds)
            return
        self.expired = True
        self._interrupt()
        self._look_again_after(INTERRUPT_AGAIN_SECONDS)

    def _look_again_after(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.look)

    def cancel(self) -> None:
        self._timer.cancel()


class Readers:
    """Connections for reads, each running one statement at a time and none longer than the limit (rules L2 and X6)."""

    def __init__(self, store: str, *, count: int, limit_seconds: float) -> None:
        self._store = store
        self._count = count
        self._limit_seconds = limit_seconds
        self._all: list[Connection] = []
        self._free: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        self._recycling: set[asyncio.Task[None]] = set()

    async def open(
        self, path: Path, mode: Mode = Mode.EXISTING, prepare: Callable[[sqlite3.Connection], None] = prepare_reader
    ) -> None:
        self._free = asyncio.LifoQueue()
        for _ in range(self._count):
            connection = await connect(path, mode)
            self._all.append(connection)
            await connection.run(prepare)
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Stop what runs and close all connections; who waits for one gets an error."""
        connections, self._all = self._all, []
        self._free.put_nowait(None)
        for connection in connections:
            connection.interrupt_now()
            await connection.close()

    async def read(self, name: str, parameters: Parameters, *, limit_bytes: int | None = None) -> str:
        """The answer of the named statement, in one piece of at most `limit_bytes`.

        Raises:
            ReadLimitError: it took too long.
            StoreUnavailableError: SQLite failed, or the answer is too large for one piece.
        """
        limit = ANSWER_LIMIT_BYTES if limit_bytes is None else min(limit_bytes, ANSWER_LIMIT_BYTES)
        return await self.run(lambda connection, _: answer(connection, SQL[name], parameters, limit))

    async def run(self, function: Callable[[sqlite3.Connection, Callable[[], None]], T]) -> T:
        """Run `function(connection, progressed)` on a connection; it is stopped when it no longer calls `progressed`.

        Raises:
            ReadLimitError: it took too long.
            StoreUnavailableError: SQLite failed.
        """
        free = self._free
        connection = await self._take(free)
        limit = TimeLimit(connection.interrupt_now, self._limit_seconds)
        try:
            found = await connection.run(function, limit.progressed)
        except asyncio.CancelledError:
            connection.interrupt_now()
            self._recycle(connection, free)
            raise
        except Exception as error:
            free.put_nowait(connection)
            if not isinstance(error, sqlite3.Error):
                raise
            if limit.expired:
                raise ReadLimitError(self._slow_sentence()) from error
            raise StoreUnavailableError(describe_error(error, self._store)) from error
        finally:
            limit.cancel()
        free.put_nowait(connection)
        return found

    async def take_all(self) -> list[Connection]:
        """Take every connection, waiting for what runs, so that no reader of ours holds the log. Give them back."""
        free = self._free
        return [await self._take(free) for _ in self._all]

    def give_back(self, connections: list[Connection]) -> None:
        for connection in connections:
            if connection in self._all:
                self._free.put_nowait(connection)

    async def _take(self, free: asyncio.LifoQueue[Connection | None]) -> Connection:
        connection = await free.get()
        if connection is None or connection not in self._all:
            free.put_nowait(None)
            raise StoreUnavailableError(f"The store {self._store} was closed while a read waited for its turn.")
        return connection

    def _recycle(self, connection: Connection, free: asyncio.LifoQueue[Connection | None]) -> None:
        """Give a connection back when what it still runs has ended."""

        async def wait() -> None:
            await connection.drained()
            free.put_nowait(connection)

        task = asyncio.get_running_loop().create_task(wait())
        self._recycling.add(task)
        task.add_done_callback(self._recycling.discard)

    def _slow_sentence(self) -> str:
        return (
            f"Reading the store {self._store} took longer than {self._limit_seconds:g} seconds and was stopped, "
            "because a long reader keeps the write-ahead log from being reused. Ask for less at a time."
        )

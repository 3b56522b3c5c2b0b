"""Connections to one SQLite database: everything asked of one is a single hop to its thread, whatever it consists of.

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
READER_VIEWS = ("encoded_invocations", "encoded_journals")


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
    """How SQLite is told which file to open: the path is taken literally, whatever characters it has."""
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

    connection = Connection(connector, iter_chunk_size=1)
    # A program that forgets to close its store must still be able to end. Safe because a commit that the end of the
    # process cuts off is all there or not at all.
    connection.make_daemon()
    opening = asyncio.ensure_future(_opened(connection))
    try:
        await asyncio.shield(opening)
    except asyncio.CancelledError:
        # Whoever gave up does not know of the connection, so it is closed here.
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


def answer(connection: sqlite3.Connection, statement: str, parameters: Parameters) -> str:
    """The answer of a statement that has exactly one row of one column."""
    row: tuple[str] = connection.execute(statement, parameters).fetchone()
    return row[0]


def pieces(connection: sqlite3.Connection, statement: str, parameters: Parameters) -> list[tuple[str, str]]:
    """The answer of a statement that says of each row what it is: `(kind, content)`."""
    return connection.execute(statement, parameters).fetchall()


class TimeLimit:
    """Interrupts what a connection runs after a time, and again until cancelled: it may have begun late."""

    __slots__ = ("_connection", "_timer", "expired")

    def __init__(self, connection: Connection, limit_seconds: float) -> None:
        self._connection = connection
        self._timer = asyncio.get_running_loop().call_later(limit_seconds, self._expire)
        self.expired = False

    def _expire(self) -> None:
        self.expired = True
        self._connection.interrupt_now()
        self._timer = asyncio.get_running_loop().call_later(INTERRUPT_AGAIN_SECONDS, self._expire)

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

    async def read(
        self, name: str, parameters: Parameters, fetch: Callable[[sqlite3.Connection, str, Parameters], T]
    ) -> T:
        """Run the named statement and return what `fetch` makes of it.

        Raises:
            StoreUnavailableError: SQLite failed, or the statement ran into the time limit.
        """
        free = self._free
        connection = await self._take(free)
        limit = TimeLimit(connection, self._limit_seconds)
        try:
            found = await connection.run(fetch, SQL[name], parameters)
        except asyncio.CancelledError:
            connection.interrupt_now()
            self._recycle(connection, free)
            raise
        except sqlite3.Error as error:
            free.put_nowait(connection)
            raise StoreUnavailableError(self._describe(error, limit)) from error
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

    def _describe(self, error: sqlite3.Error, limit: TimeLimit) -> str:
        if limit.expired:
            return (
                f"Reading the store {self._store} took longer than {self._limit_seconds:g} seconds and was stopped, "
                "because a long reader keeps the write-ahead log from being reused. Ask for less at a time."
            )
        return describe_error(error, self._store)

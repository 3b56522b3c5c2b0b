"""`Sessions`: threads with a connection each, that take what is asked of them from one queue.

What is asked for runs to its end even if the caller is cancelled, as a commit must. A connection that is lost is
replaced at the next question; a question that may be asked twice is asked again at once, unless the server was silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeAlias, TypeVar

import psycopg

from durably.storage.postgres.connection import NoAnswerError, PgConnection

T = TypeVar("T")

Job: TypeAlias = Callable[["Session"], None]


class Session:
    """The connection of one thread."""

    def __init__(self, connect: Callable[[], PgConnection]) -> None:
        self._connect = connect
        self._connection: PgConnection | None = None
        self._lock = Lock()
        self._is_abandoned = False

    def call(self, function: Callable[[PgConnection], T], *, may_repeat: bool) -> T:
        """Run a function on the connection, on this thread."""
        was_open = self._connection is not None and not self._connection.closed
        connection = self._opened()
        try:
            return function(connection)
        except NoAnswerError:
            raise  # The next one would have as long to wait.
        except (psycopg.OperationalError, psycopg.InterfaceError):
            if not (may_repeat and was_open and connection.closed):
                raise
        return function(self._opened())

    def _opened(self) -> PgConnection:
        if self._is_abandoned:
            raise psycopg.OperationalError("the connection was closed")
        if self._connection is None or self._connection.closed:
            connection = self._connect()
            with self._lock:
                self._connection = connection
        assert self._connection is not None
        return self._connection

    def abandon(self) -> None:
        """Let a statement fail that waits for the server. May be called from any thread."""
        self._is_abandoned = True
        with self._lock:
            if self._connection is None or self._connection.closed:
                return
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate,
            ):
                duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(psycopg.Error):
                    self._connection.close()


class Sessions:
    """Some connections, each used for one thing at a time."""

    def __init__(self, connect: Callable[[], PgConnection], *, count: int = 1) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._sessions = [Session(connect) for _ in range(count)]
        self._ended = [self._loop.create_future() for _ in self._sessions]
        self._is_closed = False
        for session, ended in zip(self._sessions, self._ended, strict=True):
            # A program that forgets to close its store must still be able to end.
            Thread(target=self._work, args=(session, ended), name="durably-postgres", daemon=True).start()

    async def run(self, function: Callable[[PgConnection], T], *, may_repeat: bool = False) -> T:
        """Run `function(connection)` on one of the threads."""
        if self._is_closed:
            raise psycopg.OperationalError("the connection was closed")
        asked: asyncio.Future[T] = self._loop.create_future()

        def job(session: Session) -> None:
            try:
                answer = session.call(function, may_repeat=may_repeat)
            except BaseException as error:
                self._deliver(_fail, asked, error)
            else:
                self._deliver(_answer, asked, answer)

        self._jobs.put(job)
        return await asked

    def tell(self, function: Callable[[PgConnection], None], *, ended: Callable[[], None] | None = None) -> None:
        """Have a function run that tells its outcome itself. May be called from any thread.

        `ended` is called behind it on its thread, even if there was no connection to run it on.
        """

        def job(session: Session) -> None:
            try:
                with contextlib.suppress(psycopg.Error):
                    session.call(function, may_repeat=True)
            finally:
                if ended is not None:
                    ended()

        self._jobs.put(job)

    async def close(self, *, at_once: bool = False) -> None:
        """Close all connections; with `at_once` also those that wait for the server."""
        if not self._is_closed:
            self._is_closed = True
            for session in self._sessions:
                if at_once:
                    session.abandon()
                self._jobs.put(None)
        for ended in self._ended:
            await asyncio.shield(ended)

    def _work(self, session: Session, ended: asyncio.Future[None]) -> None:
        while (job := self._jobs.get()) is not None:
            job(session)
        session.close()
        self._deliver(_answer, ended, None)

    def _deliver(self, settle: Callable[[asyncio.Future[T], Any], None], future: asyncio.Future[T], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: the program ends.
            self._loop.call_soon_threadsafe(settle, future, what)


def _answer(future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)

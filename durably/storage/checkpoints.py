"""Keeps the write-ahead log bounded without making a commit wait: checkpoints on a connection of their own (rule X6).

A full log is begun anew in the same file, because overwriting it is twice as fast as growing it again. The file then no
longer tells how full the log is: a gauge estimates that from what was written, with the last checkpoint as measure.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import NamedTuple

import structlog

from durably.errors import StoreUnavailableError
from durably.storage.connections import Connection, Readers, apply_settings, connect
from durably.storage.files import StoreFiles
from durably.storage.sqlite_errors import describe_error
from durably.storage.statements import SQL

logger = structlog.get_logger("durably.storage")

FRAME_BYTES = 4096 + 24
COMMIT_WEIGHT_BYTES = 4096
"""What a commit writes besides its records, roughly; the gauge corrects itself."""
BLOCKED_TIMEOUT_SECONDS = 0.1
"""How long a checkpoint may hold up the writer while it waits for readers of other programs."""

LOOK_AGAIN_SECONDS = 1.0
"""How often a log that is over its limit is checked while there are no commits."""


class CheckpointAnswer(NamedTuple):
    """What SQLite says of a checkpoint."""

    blocked: int
    frames: int
    frames_copied: int


class LogGauge:
    """Tells when the log is worth a checkpoint. Pure: it is told the size of the file and what was written."""

    __slots__ = ("_due_at", "_file_bytes", "_threshold_bytes", "_written")

    def __init__(self, threshold_bytes: int) -> None:
        self._threshold_bytes = threshold_bytes
        self._file_bytes = threshold_bytes
        self._written = 0
        self._due_at: float = float("inf")

    def note_commit(self, batch_bytes: int) -> None:
        self._written += batch_bytes + COMMIT_WEIGHT_BYTES

    def is_due(self, file_bytes: int) -> bool:
        """A file that has grown since the last checkpoint is a log that is fuller than it was then."""
        return file_bytes > self._file_bytes or self._written >= self._due_at

    def note_checkpoint(self, answer: CheckpointAnswer, file_bytes: int) -> None:
        self._file_bytes = max(file_bytes, self._threshold_bytes)
        log_bytes = answer.frames * FRAME_BYTES
        if answer.blocked:
            # The log goes on where it was: look again when it has grown by a quarter.
            self._due_at = self._written * 1.25
            return
        if log_bytes:
            self._due_at = self._written * self._threshold_bytes / log_bytes
        self._written = 0


class Checkpointer:
    """Runs checkpoints beside the writer, one at a time; where the log is over its limit it says so, and slows down."""

    def __init__(
        self, files: StoreFiles, store: str, *, threshold_bytes: int, limit_bytes: int, are_external: bool = False
    ) -> None:
        """`are_external`: another program makes them, and is never waited for."""
        self._files = files
        self._are_external = are_external
        self._store = store
        self._limit_bytes = limit_bytes
        self._gauge = LogGauge(threshold_bytes)
        self._threshold_bytes = threshold_bytes
        self._connection: Connection | None = None
        self._readers: Readers | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_over_limit = False
        self._log_bytes = 0
        self._look_again_timer: asyncio.TimerHandle | None = None

    async def open(self, readers: Readers) -> None:
        self._readers = readers
        self._gauge = LogGauge(self._threshold_bytes)
        self._is_over_limit = False
        self._connection = await connect(self._files.resolve(), timeout_seconds=BLOCKED_TIMEOUT_SECONDS)
        await self._connection.run(apply_settings)

    async def close(self) -> None:
        running, connection = self._running, self._connection
        self._connection = None
        if self._look_again_timer is not None:
            self._look_again_timer.cancel()
        if running is not None:
            await asyncio.wait([running])
        if connection is not None:
            await connection.close()

    def note_commit(self, batch_bytes: int) -> None:
        """Called after each commit; starts a checkpoint when one is due."""
        if self._are_external:
            return
        self._gauge.note_commit(batch_bytes)
        if self._running is None and self._connection is not None and self._gauge.is_due(self._files.log_bytes):
            self._start(self._connection)

    def congestion(self) -> str | None:
        """Rule X6: over the limit nothing is admitted."""
        if not self._is_over_limit:
            return None
        return (
            f"The write-ahead log of the store {self._store} holds {self._log_bytes >> 20} MiB, and its limit is "
            f"{self._limit_bytes >> 20}, because another program reads the database in one long transaction. Nothing "
            "is accepted until that ends."
        )

    async def make_room(self) -> None:
        """Wait, before a commit, while the log is over its limit. Returns without waiting otherwise."""
        if self._running is not None:
            if self._is_over_limit or self._file_bytes() > self._limit_bytes:
                await asyncio.wait([self._running])
        elif self._is_over_limit and self._connection is not None:
            await asyncio.wait([self._start(self._connection)])

    def _start(self, connection: Connection) -> asyncio.Task[None]:
        self._running = asyncio.get_running_loop().create_task(self._checkpoint(connection))
        self._running.add_done_callback(self._ended)
        return self._running

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled() and task.exception() is not None:
            # A commit that cannot be written will say so; a checkpoint that failed is tried again.
            logger.warning("checkpoint failed", store=self._store, reason=str(task.exception()))

    async def _checkpoint(self, connection: Connection) -> None:
        try:
            answer = await connection.run(checkpoint, self._files, self._shall_shrink())
            if answer.blocked and answer.frames * FRAME_BYTES > self._limit_bytes and self._readers is not None:
                answer = await self._checkpoint_without_readers(connection, self._readers)
        except sqlite3.Error as error:
            raise StoreUnavailableError(describe_error(error, self._store)) from error
        self._gauge.note_checkpoint(answer, self._file_bytes())
        self._judge(answer)

    async def _checkpoint_without_readers(self, connection: Connection, readers: Readers) -> CheckpointAnswer:
        taken = await readers.take_all()
        try:
            return await connection.run(checkpoint, self._files, self._shall_shrink())
        finally:
            readers.give_back(taken)

    def _judge(self, answer: CheckpointAnswer) -> None:
        was_over_limit = self._is_over_limit
        self._log_bytes = answer.frames * FRAME_BYTES
        self._is_over_limit = bool(answer.blocked) and self._log_bytes > self._limit_bytes
        if self._is_over_limit and not was_over_limit:
            logger.warning(
                "the write-ahead log is over its limit, so requests are refused and commits slowed down: another "
                "program reads the database in one long transaction; end it",
                store=self._store,
                log_mib=self._log_bytes >> 20,
                limit_mib=self._limit_bytes >> 20,
            )
        if self._look_again_timer is not None:
            self._look_again_timer.cancel()
        if self._is_over_limit and self._connection is not None:  # No commit may come to check it.
            loop = asyncio.get_running_loop()
            self._look_again_timer = loop.call_later(LOOK_AGAIN_SECONDS, self._look_again)

    def _look_again(self) -> None:
        if self._running is None and self._connection is not None:
            self._start(self._connection)

    def _shall_shrink(self) -> bool:
        return self._file_bytes() > 2 * self._threshold_bytes

    def _file_bytes(self) -> int:
        try:
            return os.stat(self._files.log_path).st_size
        except FileNotFoundError:
            return 0


def checkpoint(connection: sqlite3.Connection, files: StoreFiles, shrink: bool) -> CheckpointAnswer:
    """Copy most of the log beside the writer, then the rest while it waits, which is then short."""
    files.check()  # Nothing is copied into what somebody else has put there.
    with files.checkpoint():
        run(connection, "checkpoint_beside_writer")
        return run(connection, "checkpoint_and_shrink" if shrink else "checkpoint_and_reuse")


def run(connection: sqlite3.Connection, name: str) -> CheckpointAnswer:
    return CheckpointAnswer(*connection.execute(SQL[name]).fetchone())

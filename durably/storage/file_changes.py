"""`FileChanges`: whether somebody else has cut off or overwritten the open database, or cut off its write-ahead log.

The files stay the same files then, so comparing numbers does not tell; SQLite does not tell either, because it has the
pages in memory. Sizes tell: the database never shrinks, and the log only by a checkpoint. And the time of the last
change tells: only a checkpoint writes to the database. What changed beside one is looked into, without the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from durably.errors import StoreLostError, StoreUnavailableError


class StoredIdentity(NamedTuple):
    """What a database says by itself, without its log: whose it is, and how far it has come."""

    store_id: str
    epoch: int
    last_position: int


class FileChanges:
    """Watches the files of one owner. Its methods may be called in any thread."""

    def __init__(self, store: str, database: Path, log: str, read: Callable[[], StoredIdentity | None]) -> None:
        """`read` looks into the database, without the log; None: there is nothing of ours."""
        self._store = store
        self._database = database
        self._log = log
        self._read = read
        self._known: StoredIdentity | None = None
        """What the last checkpoint left in the database."""
        self._lock = Lock()
        self._checkpoints = 0
        """How many have begun or ended; the files change meanwhile."""
        self._is_checkpointing = False
        self.is_overwritten = False
        """What lies in the database is not this store."""
        self.committed = 0
        """The position of the last commit."""
        self.log_bytes = 0
        """What the log held at least, since the last checkpoint."""
        self._database_bytes = 0
        self._changed_at = 0
        with self.checkpoint():
            pass

    @contextmanager
    def checkpoint(self) -> Generator[None]:
        """While one runs, both files change."""
        with self._lock:
            self._checkpoints += 1
            self._is_checkpointing = True
            self.log_bytes = 0
        try:
            yield
        finally:
            with self._lock:
                self._known = self._read() or self._known
                found = os.stat(self._database)
                self._checkpoints += 1
                self._is_checkpointing = False
                self.log_bytes = 0
                self._database_bytes, self._changed_at = found.st_size, found.st_mtime_ns

    def check_log(self) -> os.stat_result:
        """What `stat` says of the log; raise if it holds less than was written.

        Raises:
            OSError: it cannot be looked at.
            StoreUnavailableError: it was cut off.
        """
        known, committed, before = self.log_bytes, self.committed, self._checkpoints
        found = os.stat(self._log)
        size_bytes = found.st_size
        with self._lock:
            if before != self._checkpoints or self._is_checkpointing:
                return found
            if size_bytes >= known:
                self.log_bytes = max(self.log_bytes, size_bytes)
                return found
            if self._is_copied(committed):  # Another program has made a checkpoint.
                self.log_bytes = size_bytes
                return found
        raise StoreUnavailableError(
            f"The store {self._store} has lost what its write-ahead log held: {self._log} was cut off while it was "
            f"open ({size_bytes} bytes, and {known} were written). Nothing more is acknowledged until the store has "
            "been opened again."
        )

    def check_database(self, found: os.stat_result) -> None:
        """Raise if somebody else has written to the database; `found` is what `stat` said of it.

        Raises:
            StoreUnavailableError: it was cut off.
            StoreLostError: it holds another store, or an older copy of this one.
        """
        if found.st_mtime_ns == self._changed_at and found.st_size == self._database_bytes:
            return
        with self._lock:
            if self._is_checkpointing:
                return
            found = os.stat(self._database)
            if found.st_size < self._database_bytes:
                raise StoreUnavailableError(
                    f"The store {self._store} has lost what its database held: {self._database} was cut off while it "
                    f"was open ({found.st_size} bytes, and it had {self._database_bytes}). Nothing more is "
                    "acknowledged until the store has been opened again."
                )
            self._look_into()
            self._database_bytes, self._changed_at = found.st_size, found.st_mtime_ns

    def _is_copied(self, committed: int) -> bool:
        """The database itself has all that was committed, or another owner has it (rule X4)."""
        found, known = self._read(), self._known
        if found is None or known is None or found.store_id != known.store_id:
            return False
        return found.epoch > known.epoch or found.last_position >= committed

    def _look_into(self) -> None:
        found, known = self._read(), self._known
        is_this_store = (
            known is not None
            and found is not None
            and (
                found.store_id == known.store_id
                # A later epoch is another owner's, and the next commit says so (rule X4).
                and (found.epoch, found.last_position) >= (known.epoch, known.last_position)
            )
        )
        if is_this_store:
            return
        self.is_overwritten = True
        raise StoreLostError(
            f"The store {self._store} is lost: {self._database} was overwritten while it was open, by another store, "
            "an older copy, or something else. Nothing more is committed. Put the right file back, delete the `-wal` "
            "and `-shm` files that are left of this one, and start the runtime again."
        )

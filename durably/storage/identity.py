"""`KnownStore`: what an owner knows of its store, and must find again when it opens the store anew after a failure.

After a failure the files at the path may be others: deleted and created anew, an older copy, or the same store with
another owner in between. Going on with any of those would lose what was acknowledged, so the owner stops for good
instead (rules X3 and X9).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from durably.errors import StoreInUseError, StoreLostError
from durably.storage.connections import Mode, database_uri
from durably.storage.file_changes import StoredIdentity
from durably.storage.files import FileIdentity
from durably.storage.ownership import taken_over_sentence
from durably.storage.records import Owner
from durably.storage.statements import SQL


class OwnerRow(NamedTuple):
    """The row that says whose store this is, and which."""

    store_id: str
    epoch: int
    last_position: int
    host: str
    process_id: int
    since: int

    @property
    def owner(self) -> Owner:
        return Owner(host=self.host, process_id=self.process_id, since=self.since)


class KnownStore:
    """A store that was open and was not closed."""

    __slots__ = ("_epochs", "_file", "_id", "_owner", "_position")

    def __init__(self, file: FileIdentity, owner: Owner, row: OwnerRow) -> None:
        self._file = file
        self._id = row.store_id
        self._owner = owner
        self._epochs = {row.epoch}
        self._position = row.last_position

    def note_commit(self, position: int) -> None:
        """Everything up to here was acknowledged."""
        self._position = max(self._position, position)

    def note_take_over(self, epoch: int) -> None:
        """This owner is about to take the epoch; whether that becomes durable may never be known."""
        self._epochs.add(epoch)

    def refuse_other_file(self, found: FileIdentity | None, store: str, path: Path) -> None:
        """Raise unless this is the file that was open; another one is not opened beside the log of that one.

        Raises:
            StoreLostError: it is gone, or another file.
        """
        if found is None:
            raise StoreLostError(
                f"The store {store} is lost: {path} was deleted, renamed or moved while it was open. It is not created "
                "anew, because everything that was acknowledged would be missing. Put the file back, with its `-wal` "
                "file if there is one, and start the runtime again."
            )
        if found != self._file:
            raise StoreLostError(
                f"The store {store} is lost: {path} was replaced by another file while it was open. Nothing is written "
                "to that one. Put the right file back, or delete the `-wal` and `-shm` files that are left of it, and "
                "start the runtime again."
            )

    def refuse_other(self, found: OwnerRow, store: str) -> None:
        """Raise unless this is the same store, as its owner left it.

        Raises:
            StoreInUseError: somebody else has owned it in between.
            StoreLostError: it is another store, or an older copy of this one.
        """
        if found.store_id != self._id:
            raise StoreLostError(
                f"The store {store} is not the one that was open before the failure: another store lies at its path "
                "now. Nothing is written to it. Put the right file back and start the runtime again."
            )
        if found.epoch not in self._epochs or found.owner != self._owner:
            raise StoreInUseError(taken_over_sentence(store, found.owner))
        if found.last_position < self._position:
            raise StoreLostError(
                f"The store {store} is older than it was before the failure: it ends at position "
                f"{found.last_position}, and {self._position} was acknowledged. An older copy lies at its path, or its "
                "`-wal` file was deleted. Nothing is written to it. Put the right files back and start the runtime "
                "again."
            )


def stored_identity(database: Path) -> StoredIdentity | None:
    """What the database says by itself, without its log; None if it is not ours.

    SQLite may open and close the file here, beside itself: it keeps the locks that its other connections hold.
    """
    try:
        with closing(sqlite3.connect(f"{database_uri(database, Mode.READ_ONLY)}&immutable=1", uri=True)) as connection:
            return StoredIdentity(*connection.execute(SQL["stored_identity"]).fetchone())
    except (sqlite3.Error, TypeError):
        return None


def foreign_sentence(store: str, path: Path) -> str:
    """What to tell an owner who finds something else at the path of its store."""
    return (
        f"The store {store} is lost: {path} is not a store of durably any more. It was replaced or overwritten while "
        "it was open, and is left as it is. Put the right file back and start the runtime again."
    )

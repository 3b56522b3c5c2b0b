"""`back_up`: a copy of a store that is in use, made by SQLite's own backup, as of one moment.

The copy is made beside its place, compared with the store row by row, and made durable before it gets its name: what
has the name is whole. It is a store like the other, to be put in its place while nothing runs on it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from durably.errors import StoreUnavailableError
from durably.storage.connections import Mode, database_uri
from durably.storage.damage import text_with_damage_marked
from durably.storage.durable_files import sync
from durably.storage.sqlite_errors import describe_error, is_full
from durably.storage.statements import SQL
from durably.storage.transfer.snapshot import (
    Contents,
    Progress,
    Snapshot,
    Stage,
    refuse_leftovers,
    refuse_taken,
    snapshot,
    unfinished_file,
)

PORTION_PAGES: Final = 256
"""What is copied between two words about how far it has come: a megabyte, usually."""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What the copy holds."""

    contents: Contents
    bytes: int


def back_up(path: Path, store: str, target: Path, *, progressed: Progress) -> BackedUp:
    """Copy the store at `path` to a new file.

    Raises:
        StoreUnavailableError: it cannot be read, or the copy cannot be written, or is not what the store holds.
    """
    target = Path(os.path.abspath(target))
    refuse_taken(target, "The backup")
    refuse_leftovers(target)
    with snapshot(path, store) as source:
        try:
            with unfinished_file(target) as (descriptor, unfinished):
                os.close(descriptor)
                contents = _copied(source, unfinished, target, progressed)
                shutil.copymode(path, unfinished)
                size_bytes = unfinished.stat().st_size
                sync(unfinished)
                refuse_taken(target, "The backup")
                os.rename(unfinished, target)
                sync(target.parent)
        except OSError as error:
            raise StoreUnavailableError(_no_room(target, error.strerror or str(error))) from error
    return BackedUp(contents, size_bytes)


def _no_room(target: Path, reason: str) -> str:
    return (
        f"The backup {target} cannot be written: {reason}. There must be room for a second file of the size of the "
        "store. Nothing of the backup is left."
    )


def _copied(source: Snapshot, unfinished: Path, target: Path, progressed: Progress) -> Contents:
    def copied(status: int, remaining: int, total: int) -> None:
        progressed(Stage.COPYING, total - remaining, total)

    try:
        with closing(sqlite3.connect(database_uri(unfinished, Mode.EXISTING), isolation_level=None, uri=True)) as copy:
            copy.text_factory = text_with_damage_marked
            source.connection.backup(copy, pages=PORTION_PAGES, progress=copied)
            if copy.execute(SQL["check_all"]).fetchall() != [("ok",)]:
                raise StoreUnavailableError(
                    f"The store {source.store} is damaged, and so would its backup be. See durably doctor for where."
                )
            found = Snapshot(copy, source.store).contents(Stage.VERIFYING, progressed)
    except sqlite3.Error as error:
        if is_full(error):
            raise StoreUnavailableError(_no_room(target, "the disk is full")) from error
        raise StoreUnavailableError(describe_error(error, f"{source.store} or its backup {target}")) from error
    if found.sha256 != source.contents(Stage.VERIFYING, progressed).sha256:
        raise StoreUnavailableError(
            f"The backup of {source.store} was thrown away: it does not hold what the store holds. Has the disk failed?"
        )
    return found

"""What SQLite reports, as sentences: what happened, the likely cause, what to do."""

from __future__ import annotations

import sqlite3
from typing import Final

PRIMARY_CODE_MASK = 0xFF
EPOCH_MOVED_CODE: Final = sqlite3.SQLITE_CONSTRAINT_TRIGGER
"""The code of the only `raise` in a trigger of ours (rule X4)."""

DISK_FULL: Final = "The disk is full. Free some space; a runtime that runs goes on by itself once it can write."

SENTENCES: Final = {
    sqlite3.SQLITE_FULL: DISK_FULL,
    sqlite3.SQLITE_READONLY: "It is read-only. Check the permissions of the file, of its folder and of the disk.",
    sqlite3.SQLITE_PERM: "The operating system forbids it. Check the permissions of the file and of its folder.",
    sqlite3.SQLITE_CANTOPEN: "It cannot be opened. The folder must exist, and both must be readable and writable.",
    sqlite3.SQLITE_NOTADB: "The file is not a SQLite database. Check the path; nothing in it was changed.",
    sqlite3.SQLITE_CORRUPT: (
        "The database is damaged, which a failing disk or another program may have done. Keep a copy of it, then "
        "restore a backup or try `sqlite3 <file> .recover`."
    ),
    sqlite3.SQLITE_IOERR: "The disk failed. Check its health and the logs of the operating system.",
    sqlite3.SQLITE_BUSY: "Another program keeps it locked. End the other programs that have the database open.",
    sqlite3.SQLITE_LOCKED: "Another program keeps it locked. End the other programs that have the database open.",
    sqlite3.SQLITE_NOMEM: "There is not enough memory.",
    sqlite3.SQLITE_TOOBIG: "A value is larger than SQLite allows (a gigabyte, usually). Keep large values elsewhere.",
    sqlite3.SQLITE_INTERRUPT: "It was stopped before it had finished, because the store is being closed.",
    sqlite3.SQLITE_CONSTRAINT: (
        "The records contradict what is stored. This is a mistake of the program that made them; please report it."
    ),
    sqlite3.SQLITE_ERROR: "The database does not look as expected. Has another program changed its tables?",
}
EXTENDED_SENTENCES: Final = {
    # The index of the log is a small file beside the database; a full disk is what keeps it from growing.
    sqlite3.SQLITE_IOERR_SHMSIZE: DISK_FULL,
    # Also for a quota and a limit on the size of files: SQLite knows of ENOSPC alone.
    sqlite3.SQLITE_IOERR_WRITE: (
        "It cannot be written. Check whether a quota or a limit on the size of files (`ulimit -f`) is reached, then "
        "the health of the disk and the logs of the operating system."
    ),
}
UNKNOWN = "This is unexpected; please report it."


def primary_code(error: sqlite3.Error) -> int | None:
    """SQLite's result code without its extension, or None for errors that Python's module made itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & PRIMARY_CODE_MASK


def is_busy(error: sqlite3.Error) -> bool:
    """Somebody else has the lock right now: no failure, the same thing is tried again (rule X3)."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_too_big(error: BaseException | None) -> bool:
    """An answer did not fit into one value: ask for less at a time."""
    return isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_TOOBIG


def is_damaged_text(error: BaseException | None) -> bool:
    """A text in the answer is not UTF-8. Python's module says so by its message alone."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")


def is_full(error: sqlite3.Error) -> bool:
    """The disk is full, as the store's own sentence says."""
    extended = EXTENDED_SENTENCES.get(getattr(error, "sqlite_errorcode", 0))
    return primary_code(error) == sqlite3.SQLITE_FULL or extended == DISK_FULL


def is_not_a_database(error: sqlite3.Error) -> bool:
    return primary_code(error) == sqlite3.SQLITE_NOTADB


def is_epoch_moved(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == EPOCH_MOVED_CODE


def describe_error(error: sqlite3.Error, store: str) -> str:
    code = primary_code(error)
    found = None if code is None else EXTENDED_SENTENCES.get(error.sqlite_errorcode, SENTENCES.get(code))
    sentence = UNKNOWN if found is None else found
    return f"The store {store} failed: {error}. {sentence}"

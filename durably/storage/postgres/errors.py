"""What PostgreSQL says, as sentences for people. None of them holds a password."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import errors

from durably.storage.postgres.connection import LocalCommitError, NoAnswerError
from durably.storage.postgres.names import UnresolvedError

EPOCH_MOVED: Final = "DUR01"
"""The SQLSTATE that `commit_batch` raises where somebody else owns the store (rule X4)."""
_TRY_AGAIN: Final = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)
_TOO_MUCH: Final = (errors.ProgramLimitExceeded, errors.OutOfMemory, errors.QueryCanceled)
_NO_ENTRY: Final = ("28P01", "28000")

_ADVICE: Final = {
    "3D000": "Create it (`createdb`), or correct the URL.",
    "42501": "The role needs the right to create a schema in this database, or to own the one that is there.",
    "42P01": "Its tables are not seen: they were dropped, or the role may not use their schema any more.",
    "53100": "The disk of the server is full. Free some space there.",
    "53300": "No connection is free. Raise `max_connections` of the server or the limit of the role, or close others.",
    "25006": "The server answers reads only. Connect to the one that takes writes.",
    "57P03": "The server starts or stops. Wait, or look into its log.",
}

_SAID: Final = (
    ('database "', "3D000"),
    ("too many clients", "53300"),
    ("too many connections for", "53300"),
    ("remaining connection slots", "53300"),
    ("read-only", "25006"),
    ("the database system is", "57P03"),
)
"""A refused connection comes without an SQLSTATE."""


def is_epoch_moved(error: BaseException) -> bool:
    return isinstance(error, psycopg.Error) and error.sqlstate == EPOCH_MOVED


def is_to_repeat(error: BaseException) -> bool:
    """Nothing of the batch was done, and the same again may succeed: busy is no failure (rule X3)."""
    return isinstance(error, _TRY_AGAIN)


def is_full(error: BaseException | None) -> bool:
    return isinstance(error, errors.DiskFull)


def is_too_much(error: BaseException | None) -> bool:
    """The answer was too large, or took too long: less at a time helps (rule L5)."""
    return isinstance(error, _TOO_MUCH)


def describe_error(error: BaseException, store: str) -> str:
    """An error of a connection as a sentence, with what to do."""
    if not isinstance(error, psycopg.Error):
        return f"The store {store} failed: {error!r}."
    if isinstance(error, NoAnswerError):
        return (
            f"The store {store} does not answer: {error}. The connection was given up. Check whether the server or the "
            "network stands still; where statements take that long, raise `answer_limit_seconds`."
        )
    if isinstance(error, UnresolvedError):
        return f"The store {store} cannot be found: {error}. Check the URL, and the DNS of this machine."
    if isinstance(error, LocalCommitError):
        return (
            f"The store {store} has not replicated a commit: its wait for `synchronous_standby_names` was cancelled, "
            "so it is durable on the server alone. Nothing that follows from it is answered before it is replicated. "
            "Bring the replica back, or take it out of `synchronous_standby_names`."
        )
    reason = " ".join((error.diag.message_primary or str(error)).split()).rstrip(".") or type(error).__name__
    if error.sqlstate in _NO_ENTRY or "authentication failed" in reason or "no password supplied" in reason:
        return f"The store {store} cannot be entered: {reason}. Check the user and the password of the URL."
    state = error.sqlstate or next((state for words, state in _SAID if words in reason), "")
    advice = _ADVICE.get(state)
    if advice is None:
        is_away = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        advice = "Check that the server runs and can be reached." if is_away else "Look into the log of the server."
    return f"The store {store} did not answer as it should: {reason}. {advice}"

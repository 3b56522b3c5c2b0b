"""`BoundedFunctions`: functions of SQLite that take a time which grows with the sizes of two arguments multiplied.

SQLite looks at no clock while one of them computes: `trim(x, y)` of two texts of 1 MiB takes more than an hour, and no
interrupt ends it. So each call is looked at first, and then left to SQLite itself, on a connection without a database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

from durably.storage.statements import SQL

Value: TypeAlias = str | bytes | int | float | None

WORK_LIMIT: Final = 1 << 27
"""The sizes of two arguments multiplied, in bytes or characters: about a quarter of a second at worst."""

_FUNCTIONS: Final = (
    ("like", 2), ("like", 3), ("glob", 2), ("instr", 2), ("replace", 3), ("trim", 2), ("ltrim", 2), ("rtrim", 2),
)  # fmt: skip


class BoundedFunctions:
    """Of one connection, on its thread."""

    def __init__(self, *, has_no_time_left: Callable[[], bool]) -> None:
        self._has_no_time_left = has_no_time_left
        self._plain = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._plain.execute(SQL["letters_as_they_are"])
        self.refusal: str | None = None
        """Why a call was refused, once one was."""

    def install(self, connection: sqlite3.Connection, value_limit_bytes: int) -> None:
        """In place of those that it has. A setting about LIKE would undo it."""
        self._plain.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, value_limit_bytes)
        for name, count in _FUNCTIONS:
            sql = f"select {name}({', '.join('?' * count)})"
            connection.create_function(name, count, partial(self._call, name, sql), deterministic=True)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._plain.close()

    def _call(self, name: str, sql: str, *arguments: Value) -> Any:
        if self._has_no_time_left():
            raise TimeoutError  # SQLite says that a function has failed; the clock says why.
        first, second = (len(one) if isinstance(one, str | bytes) else 1 for one in arguments[:2])
        if first * second > WORK_LIMIT:
            self.refusal = f"The query compares texts of {first} and {second} characters in {name}(). Ask for less."
            raise ValueError(self.refusal)
        try:
            return self._plain.execute(sql, arguments).fetchone()[0]
        except sqlite3.DataError as error:
            self.refusal = f"The query makes a value that is too large in {name}(). Ask for less of it."
            raise ValueError(self.refusal) from error

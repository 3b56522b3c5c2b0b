"""`RowSource`: where readers of the store get rows, by the name of a statement, on the thread of a connection.

The readers (`pieces`, `entry_reading`, `event_reading`) are the same for each database; its statements, and what makes
several of them one snapshot, are its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

from durably.storage.damage import text_with_damage_marked
from durably.storage.statements import SQL

T = TypeVar("T")

Parameters: TypeAlias = Sequence[object] | Mapping[str, object]
Row: TypeAlias = tuple[Any, ...]


class RowSource(Protocol):
    """One connection, as those see it who read from it."""

    def rows(self, statement: str, parameters: Parameters, /) -> Iterator[Row]:
        """The rows of a named statement: a snapshot of its own outside `snapshot`. Each one is progress."""
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """Let several statements read one snapshot (rule L2)."""
        ...


class SqliteRows:
    """The rows of a SQLite connection. It calls `progressed` for each row: a read that gets on is not stopped."""

    __slots__ = ("_connection", "_progressed")

    def __init__(self, connection: sqlite3.Connection, progressed: Callable[[], None]) -> None:
        self._connection = connection
        self._progressed = progressed

    def rows(self, statement: str, parameters: Parameters, /) -> Iterator[Row]:
        for row in self._connection.execute(SQL[statement], parameters):
            self._progressed()
            yield row

    @contextmanager
    def snapshot(self) -> Generator[None]:
        self._connection.execute(SQL["begin_reading"])
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute(SQL["give_up"])


def read_rows(connection: sqlite3.Connection, progressed: Callable[[], None], read: Callable[[RowSource], T]) -> T:
    """Read on a SQLite connection, with a mark in the place of what is no text."""
    connection.text_factory = text_with_damage_marked
    try:
        return read(SqliteRows(connection, progressed))
    finally:
        connection.text_factory = str

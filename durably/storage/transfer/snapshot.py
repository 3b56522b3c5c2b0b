"""`Snapshot`: everything that a store in a file holds at one moment, row by row, beside the runtime that uses it.

The rows are those of the tables of the layout, as they are stored, so a codec's values stay wrapped. Tables for queries
on models are not among them: a runtime makes them anew. A row is one line of JSON, and the digest of a store is that
of its lines, in an order that the keys give: two stores with one digest hold the same.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import mkstemp
from typing import Any, Final, Protocol, cast

import orjson

from durably.errors import StoreUnavailableError
from durably.storage.connections import Mode, database_uri
from durably.storage.damage import NO_UNICODE, text_with_damage_marked
from durably.storage.files import LOG_SUFFIX, StoreFiles
from durably.storage.migrations import is_ours, layout_version, migrate, refuse_foreign
from durably.storage.sqlite_errors import describe_error
from durably.storage.statements import MIGRATIONS, SQL

BLOB: Final = "base64"
"""The only key of the object that stands for bytes."""
PORTION_ROWS: Final = 256
"""After so many rows it is told how far it has come."""
UNFINISHED_SUFFIX: Final = ".unfinished"
SQLITE_SUFFIXES: Final = ("-journal", "-wal", "-shm")
"""What SQLite puts beside a file that it writes."""
BUSY_SECONDS: Final = 10.0

Row = Sequence[Any]


class Stage(StrEnum):
    """What is being done."""

    COPYING = "copying"
    READING = "reading"
    WRITING = "writing"
    VERIFYING = "verifying"


class Progress(Protocol):
    """Hears how far it has come, in rows or pages."""

    def __call__(self, stage: Stage, done: int, total: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a layout."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def read(self) -> str:
        """The statement that answers all rows, in order. The names in it are those of a layout, never given ones."""
        return f"select {_names(self.columns)} from {_quoted(self.name)} order by {_names(self.key or self.columns)}"

    @property
    def write(self) -> str:
        """The statement that puts a row."""
        marks = ", ".join("?" for _ in self.columns)
        return f"insert or replace into {_quoted(self.name)} ({_names(self.columns)}) values ({marks})"


@dataclass(slots=True)
class Contents:
    """What a store holds, in numbers: fills up while lines are added."""

    rows: dict[str, int] = field(default_factory=dict[str, int])
    _hash: Any = field(default_factory=hashlib.sha256, repr=False, compare=False)

    def add(self, table: str, line: bytes) -> None:
        self.rows[table] = self.rows.get(table, 0) + 1
        self._hash.update(line)

    @property
    def sha256(self) -> str:
        digest: str = self._hash.hexdigest()
        return digest

    @property
    def total(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


def tables_of_layout(version: int) -> list[Table]:
    """The tables that stores of this layout have, by name."""
    migrations = [one for one in MIGRATIONS if one.version <= version]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, "of the layout", migrations)
        names = [name for (name,) in connection.execute(SQL["tables_of"])]
        return [_table(name, connection.execute(SQL["list_columns"], (name,)).fetchall()) for name in names]


def _table(name: str, columns: Sequence[tuple[str, str, int]]) -> Table:
    in_key = sorted((place, column) for column, _, place in columns if place)
    return Table(name, tuple(column for column, _, _ in columns), tuple(column for _, column in in_key))


class Snapshot:
    """A connection in a transaction that reads, or that has just written."""

    def __init__(self, connection: sqlite3.Connection, store: str) -> None:
        self.connection = connection
        self.store = store
        self.layout = layout_version(connection)
        self.tables = tables_of_layout(self.layout)
        self.id: str = connection.execute(SQL["stored_identity"]).fetchone()[0]

    def count(self) -> int:
        """The rows of all tables."""
        counts = (self.connection.execute(f"select count(*) from {_quoted(one.name)}") for one in self.tables)
        return sum(count for rows in counts for (count,) in rows)

    def lines(self, stage: Stage, progressed: Progress) -> Iterator[tuple[str, bytes]]:
        """Each row with the name of its table.

        Raises:
            StoreUnavailableError: a row is damaged.
        """
        total, done = self.count(), 0
        for table in self.tables:
            for row in self.connection.execute(table.read):
                yield table.name, self._line(table, row)
                done += 1
                if done % PORTION_ROWS == 0:
                    progressed(stage, done, total)
        progressed(stage, total, total)

    def _line(self, table: Table, row: Row) -> bytes:
        if any(isinstance(value, float) or (isinstance(value, str) and NO_UNICODE in value) for value in row):
            where = "/".join(str(value) for name, value in zip(table.columns, row, strict=True) if name in table.key)
            raise StoreUnavailableError(
                f"A row of the store {self.store} is damaged: {where} in {table.name}. See durably doctor for what can "
                "be done; durably backup copies the file as it is."
            )
        return line_of(table.name, row)

    def contents(self, stage: Stage, progressed: Progress) -> Contents:
        """What is in it, read from its first row to its last."""
        found = Contents()
        for table, line in self.lines(stage, progressed):
            found.add(table, line)
        return found


def line_of(table: str, row: Row) -> bytes:
    """A row as a line of JSON."""
    return orjson.dumps([table, *(_told(value) for value in row)]) + b"\n"


def row_of(values: Sequence[object]) -> list[object]:
    """What `line_of` was given, from its values.

    Raises:
        ValueError: it is no such line.
    """
    return [_stored(value) for value in values]


def _told(value: object) -> object:
    return {BLOB: base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _stored(value: object) -> object:
    if isinstance(value, dict):
        return base64.b64decode(cast("dict[str, str]", value)[BLOB], validate=True)
    return value


@contextmanager
def snapshot(path: Path, store: str) -> Generator[Snapshot]:
    """The store at `path` as it is now, for as long as the block lasts. The store stays as it is.

    While it lasts, the write-ahead log of a store in use is not copied into the database, and grows.

    Raises:
        StoreUnavailableError: it is not there, is not ours, is of a newer version, or cannot be read.
    """
    files = StoreFiles(path, store)
    if files.find() is None:
        raise StoreUnavailableError(f"The store {store} is not there. Check the path.")
    had_log = files.has_log()
    try:
        with closing(_connected(files.resolve(), Mode.READ_ONLY)) as connection:
            connection.execute(SQL["begin_reading"])
            refuse_foreign(connection, store)
            if layout_version(connection) == 0:
                raise StoreUnavailableError(
                    f"The store {store} is empty: no runtime has opened it yet. Check the path."
                )
            yield Snapshot(connection, store)
    except sqlite3.Error as error:
        raise StoreUnavailableError(describe_error(error, store)) from error
    finally:
        if not had_log:
            _remove_empty_log(files)


def _connected(path: Path, mode: Mode) -> sqlite3.Connection:
    connection = sqlite3.connect(database_uri(path, mode), timeout=BUSY_SECONDS, isolation_level=None, uri=True)
    connection.text_factory = text_with_damage_marked
    return connection


def _remove_empty_log(files: StoreFiles) -> None:
    """Let SQLite delete the empty log that it has made for the reader, unless somebody else uses it by now."""
    with suppress(OSError, sqlite3.Error):
        if os.stat(files.log_path).st_size == 0:
            with closing(_connected(files.resolve(), Mode.EXISTING)) as connection:
                is_ours(connection)


@contextmanager
def unfinished_file(target: Path) -> Generator[tuple[int, Path]]:
    """A new file beside the target, open to be written, which goes if it is still there at the end.

    Its name is its own: of two that write one target, each would take the other's file for its own, and give it the
    name of the target half done.
    """
    descriptor, name = mkstemp(prefix=f"{target.name}.", suffix=UNFINISHED_SUFFIX, dir=target.parent)
    try:
        yield descriptor, Path(name)
    finally:
        for suffix in ("", *SQLITE_SUFFIXES):
            with suppress(OSError):
                os.unlink(name + suffix)


def refuse_taken(path: Path, what: str) -> None:
    """Raise where nothing new can be put: it is taken, or its folder is not there.

    Raises:
        StoreUnavailableError: with a sentence that says what.
    """
    if not path.parent.is_dir():
        raise StoreUnavailableError(
            f"{what} {path} cannot be written: there is no folder {path.parent}. Make it first."
        )
    if os.path.lexists(path):
        raise StoreUnavailableError(f"{what} {path} is there already, and is left as it is. Choose another name.")


def refuse_leftovers(path: Path) -> None:
    """Raise where files of another database lie beside a path, which SQLite would read with the one there.

    Raises:
        StoreUnavailableError: with a sentence that says which.
    """
    for suffix in (LOG_SUFFIX, "-shm", "-journal"):
        beside = Path(f"{path}{suffix}")
        if os.path.lexists(beside):
            raise StoreUnavailableError(
                f"{beside} is left of another database, and SQLite would take it for a part of {path}. Look whether "
                "you need it, and move it away."
            )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(_quoted(column) for column in columns)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

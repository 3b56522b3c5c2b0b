"""`move`: a store in a SQLite file as a store in PostgreSQL, with everything that is under way in it.

No runtime may run on the file meanwhile: its lock is held. Rows go over in portions, each in a transaction that also
says how far the move has come, so that a move which was cut off goes on where it was. In the end all rows are read
back, and counted and hashed on both sides. Only then can a runtime open the new store. The file stays as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg

from durably.errors import StoreUnavailableError
from durably.storage.connections import Mode, database_uri
from durably.storage.encoding import text_of
from durably.storage.files import StoreFiles
from durably.storage.migrations import refuse_foreign, refuse_older
from durably.storage.ownership import OwnerLock
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.errors import describe_error
from durably.storage.postgres.server import Place, connector, make_tables, place_of, refuse_unsafe
from durably.storage.postgres.statements import LAYOUT_VERSION, MOVING_VERSION, STATEMENTS
from durably.storage.records import Owner
from durably.storage.sqlite_errors import describe_error as describe_sqlite_error
from durably.storage.statements import SQL

PORTION_ROWS: Final = 5_000
PORTION_BYTES: Final = 32 << 20
"""Of the rows that go over together; a row is never divided."""
HASH_BYTES: Final = 16
TABLES: Final = (
    "aliases", "attachments", "completions", "entries", "events", "invocations", "kept_journals", "object_expiries",
    "orders", "places", "promises", "signals", "state", "steps", "timers",
)  # fmt: skip
"""What has rows of its own in both layouts. Large arguments are a table in the file alone, and counts follow."""

Progressed = Callable[[str, int], object]
"""Hears of a table, and how many of its rows have been read or written."""


class Moved(NamedTuple):
    """What a move has found to be the same on both sides."""

    rows: dict[str, int]
    """By table."""
    digest: str
    """Of all rows; it does not depend on their order."""


def move(path: Path, url: str, *, owner: Owner, progressed: Progressed) -> Moved:
    """
    Raises:
        StoreInUseError: a runtime runs on the file.
        StoreUnavailableError: one of the stores cannot be had, the new one holds another store, or they differ.
    """
    store, place = f"sqlite {path}", place_of(url)
    files = StoreFiles(path, store)
    if files.find() is None:
        raise StoreUnavailableError(f"The store {store} is not there. Check the path.")
    lock = OwnerLock(files.lock, store)
    lock.acquire(owner)
    try:
        with closing(_reading(files.resolve())) as source, closing(connector(place)()) as target:
            refuse_foreign(source, store)
            refuse_older(source, store)
            source.execute(SQL["begin_reading"])
            return Move(source, target, place, progressed).run()
    except sqlite3.Error as error:
        raise StoreUnavailableError(describe_sqlite_error(error, store)) from error
    except psycopg.Error as error:
        raise StoreUnavailableError(describe_error(error, place.name)) from error
    finally:
        lock.release()


def _reading(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database_uri(path, Mode.READ_ONLY), isolation_level=None, uri=True)
    connection.execute(SQL["read_only"])
    return connection


class Move:
    """One move, between two connections."""

    def __init__(self, source: sqlite3.Connection, target: PgConnection, place: Place, progressed: Progressed) -> None:
        self._source = source
        self._target = target
        self._place = place
        self._progressed = progressed
        self._store_id, self._epoch, self._position = source.execute(SQL["stored_identity"]).fetchone()
        self._identity = f"{self._store_id} {self._epoch} {self._position}"

    def run(self) -> Moved:
        self._prepare()
        done = self._done()
        digests = [self._write(table, done.get(table, 0)) for table in TABLES]
        read_back = [self._read_back(table) for table in TABLES]
        if read_back != digests:
            different = [table for table, one, other in zip(TABLES, digests, read_back, strict=True) if one != other]
            raise StoreUnavailableError(
                f"The rows that were read back from {self._place.name} are not those of the file: "
                f"{', '.join(different)}. Drop the schema and move again."
            )
        with self._target.transaction():
            self._target.execute(STATEMENTS["moved_owner"], (self._store_id, self._epoch, self._position))
            self._target.execute(STATEMENTS["forget_move"])
            self._target.execute(STATEMENTS["end_move"], (LAYOUT_VERSION,))
        total = sum(digest for _, digest in digests) % (1 << 8 * HASH_BYTES)
        rows = {table: count for table, (count, _) in zip(TABLES, digests, strict=True)}
        return Moved(rows, f"{total:0{2 * HASH_BYTES}x}")

    def _prepare(self) -> None:
        """Make the tables, or find those of a move that was cut off."""
        target, place = self._target, self._place
        refuse_unsafe(target, place)
        with target.transaction():
            target.execute(STATEMENTS["one_at_a_time"], {"schema": place.schema})
            found = target.execute(STATEMENTS["find_layout"], {"schema": place.schema}).fetchone()
            assert found is not None
            is_ours, is_used = found
            if not is_used:
                make_tables(target, place, MOVING_VERSION)
            elif not is_ours or target.execute(STATEMENTS["layout_version"]).fetchone() != (MOVING_VERSION,):
                raise StoreUnavailableError(
                    f"Nothing can be moved to {place.name}: something is there already. Name another schema behind the "
                    "URL, as in `?schema=tickets`."
                )

    def _done(self) -> dict[str, int]:
        rows = self._target.execute(STATEMENTS["moved"]).fetchall()
        if any(source != self._identity for _, source, _ in rows):
            raise StoreUnavailableError(
                f"A move to {self._place.name} was cut off, and the file has changed since, or is another one. Drop "
                "the schema and move again."
            )
        return {name: count for name, _, count in rows}

    def _write(self, table: str, done: int) -> tuple[int, int]:
        """Write what is missing of a table; how many rows it has in the file, and their hash."""
        columns = [*self._columns(table)]
        copy = self._statement("write_rows", table, columns)
        rows = _Hashed(self._rows(table, columns))
        for _ in islice(rows, done):
            pass
        while portion := _portion(rows):
            with self._target.transaction():
                with self._target.cursor() as cursor, cursor.copy(copy) as copying:
                    for row in portion:
                        copying.write_row(row)
                self._target.execute(STATEMENTS["note_moved"], (table, self._identity, rows.count))
            self._progressed(table, rows.count)
        return rows.count, rows.digest

    def _read_back(self, table: str) -> tuple[int, int]:
        columns = self._columns(table)
        read = self._statement("read_rows", [*columns], table)
        with self._target.cursor() as cursor, cursor.copy(read) as copying:  # Which comes row by row.
            copying.set_types([*columns.values()])
            rows = _Hashed(copying.rows())
            for _ in rows:
                if rows.count % PORTION_ROWS == 0:
                    self._progressed(table, rows.count)
        return rows.count, rows.digest

    def _columns(self, table: str) -> dict[str, str]:
        """The columns of a table, in order, with their types."""
        return dict(self._target.execute(STATEMENTS["columns_of"], (self._place.schema, table)).fetchall())

    def _statement(self, name: str, *parameters: object) -> bytes:
        row = self._target.execute(STATEMENTS[name], parameters).fetchone()
        assert row is not None
        return str(row[0]).encode()

    def _rows(self, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
        """The rows of a table of the file, in the columns and the form of the new one."""
        with _no_text_that_is_none(table):
            if table == "state":
                for field, value in self._source.execute(SQL["marker"]):
                    yield ("", "durably", field, _text(value))
            cursor = self._source.execute(SQL[f"read_{table}"])
            names = [one[0] for one in cursor.description]
            places = [names.index(column) for column in columns]
            arguments = columns.index("argument") if table == "invocations" else None
            for stored in cursor:
                row = [_text(stored[place]) for place in places]
                if arguments is not None and row[arguments] is None:
                    found = self._source.execute(SQL["large_argument"], (row[columns.index("number")],)).fetchone()
                    row[arguments] = None if found is None else _text(found[0])
                yield tuple(row)


def _portion(rows: Iterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows that go over next; none at the end."""
    portion: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in islice(rows, PORTION_ROWS):
        portion.append(row)
        size_bytes += sum(len(value) for value in row if isinstance(value, str))
        if size_bytes >= PORTION_BYTES:
            break
    return portion


class _Hashed:
    """Rows, counted and hashed while they pass. The hash of all is a sum, so their order makes no difference."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.count = 0
        self.digest = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        row = next(self._rows)
        self.count += 1
        hashed = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
        self.digest = (self.digest + int.from_bytes(hashed)) % (1 << 8 * HASH_BYTES)
        return row


def _text(stored: Any) -> Any:
    """A value as PostgreSQL keeps it: large payloads are bytes in the file."""
    return text_of(stored) if isinstance(stored, bytes) else stored


@contextmanager
def _no_text_that_is_none(table: str) -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        raise StoreUnavailableError(
            f"The table {table} of the file holds text that is damaged. Run `durably doctor`, which names it."
        ) from error

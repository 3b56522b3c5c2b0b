"""`export_store` and `import_store`: a whole store as lines of JSON, and a new store made of them.

The first line says what it is, then comes a line for each row, and the last one counts them and has their digest. What
is cut off or was changed is refused, and an export is read back before it counts as made. Values stay as they are
stored, so those of a codec stay wrapped. An export of an older layout becomes a store of this one.
"""

from __future__ import annotations

import errno
import gzip
import os
import sqlite3
import stat
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

import msgspec
import orjson

from durably.errors import StoreUnavailableError
from durably.storage.connections import Mode, database_uri
from durably.storage.damage import text_with_damage_marked
from durably.storage.durable_files import sync
from durably.storage.files import StoreFiles
from durably.storage.migrations import migrate
from durably.storage.ownership import OwnerLock
from durably.storage.records import Owner
from durably.storage.sqlite_errors import describe_error, is_full
from durably.storage.statements import MIGRATIONS, SQL
from durably.storage.transfer.snapshot import (
    PORTION_ROWS,
    UNFINISHED_SUFFIX,
    Contents,
    Progress,
    Snapshot,
    Stage,
    Table,
    refuse_leftovers,
    refuse_taken,
    row_of,
    snapshot,
    unfinished_file,
)

FORMAT: Final = "durably store"
FORMAT_VERSION: Final = 1
COMPRESSED_SUFFIX: Final = ".gz"

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FREE_SPACE: Final = "Free some space, or choose another place. Nothing of it is left."
_CHANGED: Final = "It was changed or damaged since it was written: take another copy."


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    format: str
    format_version: int
    written_by: str
    """The version of durably, for people."""
    layout: int
    store_id: str
    rows: int
    """How many lines follow, but for the last."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last line."""

    rows: dict[str, int]
    sha256: str


# ---------------------------------------------------------------- out


def export_store(path: Path, store: str, target: Path, *, written_by: str, progressed: Progress) -> Contents:
    """Write all that the store at `path` holds to a new file, gzipped if its name ends with `.gz`.

    Raises:
        StoreUnavailableError: the store cannot be read, or the file cannot be written.
    """
    refuse_taken(target, "The export")
    is_compressed = target.suffix == COMPRESSED_SUFFIX
    with (
        snapshot(path, store) as source,
        _told_of(target, "cannot be written"),
        unfinished_file(target) as (descriptor, unfinished),
    ):
        with os.fdopen(descriptor, "wb") as raw, _plain(raw, "wb", is_compressed=is_compressed) as file:
            contents = _write(source, file, written_by, progressed)
        if _read_back(unfinished, progressed, is_compressed=is_compressed) != contents.sha256:
            raise StoreUnavailableError(f"The export {target} was thrown away: it does not hold what was written.")
        sync(unfinished)
        refuse_taken(target, "The export")
        os.rename(unfinished, target)
        sync(target.parent)
    return contents


def _write(source: Snapshot, file: IO[bytes], written_by: str, progressed: Progress) -> Contents:
    beginning = Beginning(
        format=FORMAT, format_version=FORMAT_VERSION, written_by=written_by, layout=source.layout, store_id=source.id,
        rows=source.count(),
    )  # fmt: skip
    file.write(msgspec.json.encode(beginning) + b"\n")
    contents = Contents()
    for table, line in source.lines(Stage.READING, progressed):
        contents.add(table, line)
        file.write(line)
    file.write(msgspec.json.encode(End(rows=contents.rows, sha256=contents.sha256)) + b"\n")
    file.flush()
    return contents


def _read_back(path: Path, progressed: Progress, *, is_compressed: bool) -> str:
    with _opened(path, is_compressed=is_compressed) as file:
        reading = Reading(file, path)
        for _ in reading.rows(Stage.VERIFYING, progressed):
            pass
        return reading.contents.sha256


# ---------------------------------------------------------------- in


class Reading:
    """An export, line by line."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.contents = Contents()
        self._lines = self._read()
        self.beginning = self._beginning(next(self._lines, b""))

    def _read(self) -> Iterator[bytes]:
        try:
            yield from self._file
        except (OSError, EOFError, zlib.error) as error:
            raise StoreUnavailableError(f"{self._path} cannot be read to its end: {error}. {_CHANGED}") from error

    def _beginning(self, line: bytes) -> Beginning:
        try:
            found = msgspec.json.decode(line, type=Beginning)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StoreUnavailableError(f"{self._path} is no export of a store: durably export writes one.") from error
        if found.format != FORMAT:
            raise StoreUnavailableError(f"{self._path} is no export of a store: durably export writes one.")
        newest = MIGRATIONS[-1].version
        if found.format_version > FORMAT_VERSION or found.layout > newest:
            raise StoreUnavailableError(
                f"{self._path} was written by a newer version of durably ({found.written_by}; layout {found.layout}, "
                f"this one knows {newest}). Import it with that version."
            )
        return found

    def rows(self, stage: Stage, progressed: Progress) -> Iterator[tuple[str, list[object]]]:
        """Each row, with the name of its table; all of them are there, and as they were, when the last one has come.

        Raises:
            StoreUnavailableError: it is cut off, or was changed.
        """
        done, total = 0, self.beginning.rows
        for line in self._lines:
            if not line.endswith(b"\n"):
                break
            try:
                values: Any = orjson.loads(line)
                if isinstance(values, Mapping):
                    self._check(msgspec.json.decode(line, type=End))
                    progressed(stage, total, total)
                    return
                table, *row = values
                found = row_of(row)
                if not isinstance(table, str):
                    raise TypeError("the name of a table is a text")
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise StoreUnavailableError(f"Line {done + 2} of {self._path} is no row. {_CHANGED}") from error
            self.contents.add(table, line)
            yield table, found
            done += 1
            if done % PORTION_ROWS == 0:
                progressed(stage, done, total)
        raise StoreUnavailableError(
            f"{self._path} ends after {done:,} of {total:,} rows: it was cut off. Take another copy, or export again."
        )

    def _check(self, end: End) -> None:
        if end.rows != self.contents.rows or end.sha256 != self.contents.sha256:
            raise StoreUnavailableError(f"{self._path} does not hold what its last line says. {_CHANGED}")
        if next(self._lines, None) is not None:
            raise StoreUnavailableError(f"{self._path} goes on behind its last line. {_CHANGED}")


def import_store(source: Path, path: Path, store: str, *, owner: Owner, progressed: Progress) -> Contents:
    """Make a new store at `path` of an export.

    Raises:
        StoreInUseError: a runtime waits for a store there.
        StoreUnavailableError: there is a store, or the export is none, or not whole; nothing is left at `path` then.
    """
    files = StoreFiles(path, store)
    target = files.resolve()
    with _opened(source, is_compressed=source.suffix == COMPRESSED_SUFFIX) as file:
        reading = Reading(file, source)
        refuse_taken(target, "The store")
        refuse_leftovers(target)
        lock = OwnerLock(files.lock, store)
        lock.acquire(owner)
        try:
            return _put(reading, target, store, progressed)
        finally:
            lock.release()


def _put(reading: Reading, target: Path, store: str, progressed: Progress) -> Contents:
    unfinished = target.with_name(target.name + UNFINISHED_SUFFIX)
    with _told_of(target, "cannot be written"):
        try:
            unfinished.unlink(missing_ok=True)
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            contents = _filled(unfinished, reading, store, progressed)
            sync(unfinished)
            refuse_taken(target, "The store")
            os.rename(unfinished, target)
            sync(target.parent)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
    return contents


def _filled(path: Path, reading: Reading, store: str, progressed: Progress) -> Contents:
    migrations = [one for one in MIGRATIONS if one.version <= reading.beginning.layout]
    try:
        with closing(sqlite3.connect(database_uri(path, Mode.EXISTING), isolation_level=None, uri=True)) as fresh:
            fresh.text_factory = text_with_damage_marked
            for name in ("no_journal", "not_synchronous"):
                fresh.execute(SQL[name]).fetchall()
            migrate(fresh, store, migrations)
            fresh.execute(SQL["begin"])
            _insert(fresh, reading, store, progressed)
            fresh.execute(SQL["end"])
            written = Snapshot(fresh, store).contents(Stage.VERIFYING, progressed)
            if written.rows != reading.contents.rows or written.sha256 != reading.contents.sha256:
                raise StoreUnavailableError(
                    f"The store {store} was not made: what was written is not what was read. Has the disk failed?"
                )
            migrate(fresh, store)
            return written
    except sqlite3.Error as error:
        if is_full(error):
            raise StoreUnavailableError(f"The store {store} was not made: the disk is full. {_FREE_SPACE}") from error
        raise StoreUnavailableError(describe_error(error, store)) from error


def _insert(fresh: sqlite3.Connection, reading: Reading, store: str, progressed: Progress) -> None:
    tables: dict[str, Table] = {one.name: one for one in Snapshot(fresh, store).tables}
    for name, row in reading.rows(Stage.WRITING, progressed):
        table = tables.get(name)
        if table is None or len(row) != len(table.columns):
            raise StoreUnavailableError(f"The store {store} was not made: a row of {name} does not fit. {_CHANGED}")
        try:
            fresh.execute(table.write, row)
        except (
            sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError, OverflowError,
        ) as error:  # fmt: skip
            raise StoreUnavailableError(
                f"The store {store} was not made: a row of {name} does not fit ({error}). {_CHANGED}"
            ) from error


@contextmanager
def _opened(path: Path, *, is_compressed: bool) -> Generator[IO[bytes]]:
    with _told_of(path, "cannot be read"):
        descriptor = os.open(path, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with os.fdopen(descriptor, "rb") as raw, _plain(raw, "rb", is_compressed=is_compressed) as file:
        yield file


@contextmanager
def _plain(raw: IO[bytes], mode: Literal["rb", "wb"], *, is_compressed: bool) -> Generator[IO[bytes]]:
    """The file as it is without compression."""
    if not is_compressed:
        yield raw
        return
    with gzip.open(raw, mode) as file:
        yield cast("IO[bytes]", file)


@contextmanager
def _told_of(path: Path, what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        advice = f" {_FREE_SPACE}" if error.errno in _FULL else ""
        raise StoreUnavailableError(f"{path} {what}: {error.strerror or error}.{advice}") from error

"""`recode`: all values of a store written anew, by another codec or by none (`durably encrypt`, `durably decrypt`).

They go into a fresh file beside the store, which is read back and compared before it takes the place of the old one in
one rename. So there is one or the other at any moment, however the process ends, and nothing of the old values is in
the new file: it never held them. The store is locked meanwhile, against runtimes and against any other program. What
the old file occupied on the disk is freed, not overwritten; copies of it stay what they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from durably.errors import CodecError, StoreInUseError, StoreUnavailableError, UndecodableError
from durably.storage.codec_marker import AcceptPlain, CodecMarker, has_plain_values, is_encoded
from durably.storage.connections import Mode, database_uri
from durably.storage.damage import DamagedError, bytes_if_sound, text_with_damage_marked
from durably.storage.decoding import decode_headers
from durably.storage.durable_files import sync
from durably.storage.encoding import LARGE_BYTES, text_of
from durably.storage.files import StoreFiles
from durably.storage.migrations import migrate, refuse_foreign, refuse_older
from durably.storage.ownership import OwnerLock
from durably.storage.payload_coding import Codec, PayloadCoding
from durably.storage.records import Owner
from durably.storage.sqlite_errors import describe_error, is_busy
from durably.storage.statements import SQL

FRESH_SUFFIX: Final = ".recoding"
"""What the name of the file ends with that is being written. One that is left over is deleted by the next `recode`."""
PORTION_ROWS: Final = 256
"""After so many rows it is said how far it has come."""
TOLD_UNREADABLE: Final = 3
HEADERS: Final = ("invocations", "headers")
TEXT_PAYLOADS: Final = (("invocations", "argument"),)
"""Payloads in columns of text. All of type ANY or BLOB are payloads too."""


class Stage(StrEnum):
    """How far it has come."""

    WRITING = "writing"
    VERIFYING = "verifying"
    REPLACING = "replacing"


class Progress(Protocol):
    """Hears how far it has come, in rows."""

    def __call__(self, stage: Stage, done: int, total: int, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Recoded:
    """What has been written anew."""

    values: int
    bytes: int
    """What they hold, decoded."""


class Coding(Protocol):
    """How the values of a store are wrapped."""

    def wrap(self, data: bytes, /) -> bytes: ...
    def unwrap(self, data: bytes, /) -> bytes: ...
    def wrap_headers(self, headers: Mapping[str, str], /) -> dict[str, str]: ...
    def unwrap_headers(self, headers: Mapping[str, str], /) -> dict[str, str]: ...


class PlainCoding:
    """Values as they are."""

    def wrap(self, data: bytes, /) -> bytes:
        return data

    unwrap = wrap

    def wrap_headers(self, headers: Mapping[str, str], /) -> dict[str, str]:
        return dict(headers)

    unwrap_headers = wrap_headers


def recode(path: Path, *, owner: Owner, old: Codec | None, new: Codec | None, progressed: Progress) -> Recoded:
    """Write all values of the store at `path` anew, by `new` instead of `old`; None: in plain.

    Raises:
        StoreInUseError: a runtime, or another program, has it open.
        StoreUnavailableError: it is not there, is not ours, cannot be written, or `old` does not read all of it.
    """
    store = f"sqlite {path}"
    files = StoreFiles(path, store)
    if files.find() is None:
        raise StoreUnavailableError(f"The store {store} is not there. Check the path.")
    lock = OwnerLock(files.lock, store)
    lock.acquire(owner)
    try:
        return Recoding(files.resolve(), store, old, new, progressed).run()
    except CodecError as error:
        raise StoreUnavailableError(f"The store {store} stays as it is. {error.message}") from error
    except sqlite3.Error as error:
        if is_busy(error):
            raise StoreInUseError(
                f"The store {store} is in use by another program. End the program that has the database open."
            ) from error
        raise StoreUnavailableError(describe_error(error, store)) from error
    except OSError as error:
        raise StoreUnavailableError(
            f"The store {store} cannot be written anew, and stays as it is: {error.strerror or error}. There must be "
            "room for a second file beside it."
        ) from error
    finally:
        lock.release()


class Recoding:
    """One run, on a store whose lock is held."""

    def __init__(self, path: Path, store: str, old: Codec | None, new: Codec | None, progressed: Progress) -> None:
        self._path = path
        self._fresh_path = path.with_name(path.name + FRESH_SUFFIX)
        self._store = store
        self._old = old.codec if isinstance(old, AcceptPlain) else old
        self._new = new.codec if isinstance(new, AcceptPlain) else new
        self._progressed = progressed
        self._unreadable: list[str] = []
        self._recoded = Recoded(0, 0)

    def run(self) -> Recoded:
        with ExitStack() as stack:
            source = stack.enter_context(closing(self._open_source()))
            stack.callback(self._remove_fresh)
            self._remove_fresh()
            old = self._old_coding(source)
            new = PlainCoding() if self._new is None else PayloadCoding(self._new)
            digest = self._write(source, old, new)
            if self._verified(new) != digest:
                raise StoreUnavailableError(
                    f"The store {self._store} stays as it is: what was written anew is not what was read. The codec "
                    "does not decode what it encodes, or the disk has failed."
                )
            self._make_durable()
            self._progressed(Stage.REPLACING, 0, 1)
            if os.name == "nt":  # An open file cannot be replaced there.
                source.close()
            os.replace(self._fresh_path, self._path)
            sync(self._path.parent)
        self._progressed(Stage.REPLACING, 1, 1)
        return self._recoded

    # ------------------------------------------------------------------ the old file

    def _open_source(self) -> sqlite3.Connection:
        """The store, with its log in the database, while no other process writes to it."""
        source = sqlite3.connect(database_uri(self._path, Mode.EXISTING), timeout=1.0, isolation_level=None, uri=True)
        try:
            source.text_factory = text_with_damage_marked
            refuse_foreign(source, self._store)
            refuse_older(source, self._store)
            for name in ("synchronous", "lock_for_oneself", "rollback_journal"):
                source.execute(SQL[name]).fetchall()
            source.execute(SQL["begin"])
        except BaseException:
            source.close()
            raise
        return source

    def _old_coding(self, source: sqlite3.Connection) -> Coding:
        """How the values are wrapped that are there; refuses a codec that does not fit them."""
        rows = source.execute(SQL["marker"]).fetchall()
        marker = {field: _payload_or_nothing(value) for field, value in rows}
        if not is_encoded(marker):
            return PlainCoding()
        if self._old is None:
            raise StoreUnavailableError(
                f"The store {self._store} was written with a codec. Name the one that reads it, with its keys."
            )
        known = CodecMarker(self._store, AcceptPlain(self._old) if has_plain_values(marker) else self._old)
        known.refuse_unless_readable(marker, is_new=False)
        return known.coding(marker, is_new=False)

    # ------------------------------------------------------------------ the new file

    def _write(self, source: sqlite3.Connection, old: Coding, new: Coding) -> bytes:
        os.close(os.open(self._fresh_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(self._connect_fresh()) as fresh:
            for name in ("no_journal", "not_synchronous"):
                fresh.execute(SQL[name]).fetchall()
            migrate(fresh, self._store)
            fresh.execute(SQL["begin"])
            digest = self._copy(source, fresh, old, new)
            if self._new is not None:
                marker = CodecMarker(self._store, self._new)
                for record in marker.missing({}, is_new=True):
                    assert record.value is not None
                    value = _stored("ANY", record.value)
                    fresh.execute(SQL["put_state"], (value, *record.address, record.field))
            fresh.execute(SQL["end"])
        return digest

    def _connect_fresh(self) -> sqlite3.Connection:
        connection = sqlite3.connect(database_uri(self._fresh_path, Mode.EXISTING), isolation_level=None, uri=True)
        connection.text_factory = text_with_damage_marked
        return connection

    def _copy(self, source: sqlite3.Connection, fresh: sqlite3.Connection, old: Coding, new: Coding) -> bytes:
        tables, total = [Table(fresh, name) for name in TABLES], _count(source)
        digest, done, values, size_bytes = hashlib.sha256(), 0, 0, 0
        for table in tables:
            for row in table.rows(source):
                done += 1
                found = self._read(table, row, old)
                if found is None:
                    continue
                values += found
                size_bytes += table.digest(row, digest.update)
                table.write(fresh, row, new)
                if done % PORTION_ROWS == 0:
                    self._progressed(Stage.WRITING, done, total)
            if self._unreadable:
                raise self._unreadable_error()
        self._progressed(Stage.WRITING, total, total)
        self._recoded = Recoded(values, size_bytes)
        return digest.digest()

    def _read(self, table: Table, row: list[Any], coding: Coding) -> int | None:
        """Decode the payloads of a row in place; how many there were, or None where one cannot be read."""
        try:
            return table.read(row, coding)
        except (UndecodableError, DamagedError) as error:
            self._unreadable.append(f"{table.place(row)}: {error}")
            if len(self._unreadable) >= TOLD_UNREADABLE:
                raise self._unreadable_error() from error
            return None

    def _unreadable_error(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"The store {self._store} stays as it is, because values in it cannot be read. "
            f"{' '.join(self._unreadable)} Give the codec all of its keys, or restore these records from a backup."
        )

    # ------------------------------------------------------------------ before one takes the place of the other

    def _verified(self, coding: Coding) -> bytes:
        """The digest of what the new file says, read back from the disk."""
        digest, done = hashlib.sha256(), 0
        with closing(self._connect_fresh()) as fresh:
            checked = fresh.execute(SQL["check_all"]).fetchall()
            if checked != [("ok",)]:
                raise StoreUnavailableError(f"The store {self._store} stays as it is: the copy is damaged, {checked}.")
            tables, total = [Table(fresh, name) for name in TABLES], _count(fresh)
            for table in tables:
                for row in table.rows(fresh):
                    try:
                        table.read(row, coding)
                    except (UndecodableError, DamagedError) as error:
                        raise StoreUnavailableError(
                            f"The store {self._store} stays as it is: the codec cannot read what it has just written, "
                            f"{table.place(row)}: {error}"
                        ) from error
                    table.digest(row, digest.update)
                    done += 1
                    if done % PORTION_ROWS == 0:
                        self._progressed(Stage.VERIFYING, done, total)
            self._progressed(Stage.VERIFYING, total, total)
        return digest.digest()

    def _make_durable(self) -> None:
        """The new file has the owner and the permissions of the old one, and is on the disk."""
        old = os.stat(self._path)
        with suppress(OSError, AttributeError):  # Only root may give a file away.
            os.chown(self._fresh_path, old.st_uid, old.st_gid)
        shutil.copymode(self._path, self._fresh_path)
        sync(self._fresh_path)

    def _remove_fresh(self) -> None:
        self._fresh_path.unlink(missing_ok=True)


TABLES: Final = {
    "aliases": ("read_aliases", "write_aliases"),
    "arguments": ("read_arguments", "write_arguments"),
    "attachments": ("read_attachments", "write_attachments"),
    "completions": ("read_completions", "write_completions"),
    "entries": ("read_entries", "write_entries"),
    "entry_counts": ("read_entry_counts", "write_entry_counts"),
    "events": ("read_events", "write_events"),
    "invocations": ("read_invocations", "write_invocations"),
    "kept_journals": ("read_kept_journals", "write_kept_journals"),
    "object_expiries": ("read_object_expiries", "write_object_expiries"),
    "orders": ("read_orders", "write_orders"),
    "owner": ("read_owner", "write_owner"),
    "places": ("read_places", "write_places"),
    "promises": ("read_promises", "write_promises"),
    "signals": ("read_signals", "write_signals"),
    "state": ("read_state", "write_state"),
    "steps": ("read_steps", "write_steps"),
    "timers": ("read_timers", "write_timers"),
}
"""All tables of the layout, with the statements that read and write their rows."""


class Table:
    """One table of the layout: its columns, and which of them hold payloads."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        columns = connection.execute(SQL["list_columns"], (name,)).fetchall()
        self._name = name
        self._kinds = [kind for _, kind, _ in columns]
        self._payloads = [
            place
            for place, (column, kind, _) in enumerate(columns)
            if kind in ("ANY", "BLOB") or (name, column) in TEXT_PAYLOADS
        ]
        self._headers = [place for place, (column, _, _) in enumerate(columns) if (name, column) == HEADERS]
        in_key = [(in_key, place) for place, (_, _, in_key) in enumerate(columns) if in_key]
        self._key = [place for _, place in sorted(in_key)]

    def rows(self, connection: sqlite3.Connection) -> Iterator[list[Any]]:
        for row in connection.execute(SQL[TABLES[self._name][0]]):
            yield list(row)

    def place(self, row: list[Any]) -> str:
        """Which row it is, for people."""
        return f"{self._name} {'/'.join(str(row[place]) for place in self._key)}"

    def read(self, row: list[Any], coding: Coding) -> int:
        """Put decoded bytes in the place of the payloads, and decoded headers; how many values those are."""
        values = 0
        for place in self._payloads:
            if row[place] is not None:
                row[place] = coding.unwrap(_payload(row[place]))
                values += 1
        for place in self._headers:
            row[place] = coding.unwrap_headers(_headers(row[place]))
            values += len(row[place])
        return values

    def write(self, connection: sqlite3.Connection, row: list[Any], coding: Coding) -> None:
        """Insert a row that was read, its payloads encoded."""
        stored = list(row)
        for place in self._payloads:
            if stored[place] is not None:
                stored[place] = _stored(self._kinds[place], coding.wrap(stored[place]))
        for place in self._headers:
            stored[place] = orjson.dumps(coding.wrap_headers(stored[place])).decode()
        connection.execute(SQL[TABLES[self._name][1]], stored)

    def digest(self, row: list[Any], update: Callable[[bytes], object]) -> int:
        """Hash a row that was read; returns what its payloads hold."""
        size_bytes = 0
        for value in (self._name, *row):
            data = value if isinstance(value, bytes) else repr(value).encode(errors="surrogatepass")
            update(b"%d:" % len(data) + data)
        for place in self._payloads:
            size_bytes += len(row[place] or b"")
        return size_bytes


def _count(connection: sqlite3.Connection) -> int:
    ((count,),) = connection.execute(SQL["count_rows"])
    return int(count)


def _payload(stored: object) -> bytes:
    if isinstance(stored, bytes):
        return stored
    if not isinstance(stored, str):
        raise DamagedError("It is a number.")
    return bytes_if_sound(stored)


def _payload_or_nothing(stored: object) -> bytes:
    try:
        return _payload(stored)
    except DamagedError:
        return b""


def _headers(stored: str) -> dict[str, str]:
    try:
        bytes_if_sound(stored)
        return decode_headers(stored)
    except ValueError as error:
        raise DamagedError(f"The headers are damaged: {error}.") from error


def _stored(kind: str, data: bytes) -> str | bytes:
    """A payload as its column keeps it; a text column, however long it is."""
    if kind == "BLOB" or (kind == "ANY" and len(data) > LARGE_BYTES):
        return data
    return text_of(data)

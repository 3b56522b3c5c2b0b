"""Whatever one cell of a store holds, those who look at the store answer with a sentence or a finding."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import pytest

from durably import Runtime
from durably.doctor import Report, examine
from durably.errors import DurablyError
from durably.inspection import why
from durably.runtime.inspection.journals import JournalReader
from durably.runtime.inspection.listing import described
from durably.storage.memory import MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.testing.replaying import check_store, export_journals
from tests.doctor.mixed import ACTORS, LIMITS, write_mixed
from tests.levels import level

SEED: Final = 7
HUGE: Final = (1 << 63) - 1
NO_UTF8: Final = "cast(x'6b80ff' as text)"
WORDS: Final = {"": "''", "unknown": "'zzz'", "NUL": "'é' || char(0)", "no UTF-8": NO_UTF8, "half": "'{'"}
VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "INTEGER": {"negative": "-1", "late": "1000000000000", "huge": str(HUGE), "NULL": "null"},
    "TEXT": {**WORDS, "NULL": "null"},
    "ANY": {**WORDS, "a blob": "x'ff'", "a number": "5", "a real": "9e999", "base64": "'base64:A'", "NULL": "null"},
    "BLOB": {"an empty blob": "x''", "a blob": "x'ff'"},
}
"""What a cell may come to hold, by the type of its column."""


@dataclass(frozen=True)
class Damage:
    """One cell, and what it holds now."""

    table: str
    row: int
    column: str
    what: str
    value: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of row {self.row} is {self.what or 'empty'}"

    def do(self, path: Path) -> bool:
        """False: SQLite refuses it, or the cell holds that already."""
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            columns = connection.execute("select name from pragma_table_info(?) where pk order by pk", (self.table,))
            names = [name for (name,) in columns]
            places = " and ".join(f"{name} = ?" for name in names)
            found = connection.execute(
                f"select {', '.join(names)} from {self.table} order by {', '.join(names)} limit 1 offset ?", (self.row,)
            ).fetchone()
            try:
                changed = connection.execute(
                    f"update {self.table} set {self.column} = {self.value} "
                    f"where {places} and {self.column} is not ({self.value})",
                    found,
                )
            except sqlite3.IntegrityError:
                return False
            return bool(changed.rowcount)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixed") / "app.db"
    asyncio.run(write_mixed(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        some = "from invocations where status = 'suspended' limit 1"
        connection.execute(f"insert into aliases (id, number) select 'inv_1alias', number {some}")
        connection.execute(
            "insert into orders (position, id, kind, caller_service, caller_key, caller_number, caller_command) "
            f"select 1, id, 'cancel', service, key, number, 0 {some}"
        )
        connection.execute(
            "insert into events (position, stream, key, name, id, at, value) "
            "values (1, 'Orders', 'order_1', 'create', 'tsn_1', 1700000000000000, '{}')"
        )
        connection.execute("pragma wal_checkpoint(truncate)")
    return path


def damages_of(path: Path) -> list[Damage]:
    """Every one, in the order of the tables."""
    with closing(sqlite3.connect(path)) as connection:
        return list(_damages(connection))


def _damages(connection: sqlite3.Connection) -> Iterator[Damage]:
    tables = connection.execute("select name from sqlite_master where type = 'table' order by name").fetchall()
    for (table,) in tables:
        (rows,) = connection.execute(f"select count(*) from {table}").fetchone()
        assert rows, f"{table} has no row that could be damaged"
        for name, kind in connection.execute("select name, type from pragma_table_info(?)", (table,)):
            for what, value in VALUES[kind].items():
                for row in range(rows):
                    yield Damage(table, row, name, what, value)


# ------------------------------------------------------------ everyone who looks


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore]:
    store = SqliteStore(path)
    await store.open_read_only()
    try:
        yield store
    finally:
        await store.close()


async def answered(asking: Awaitable[object]) -> None:
    """It answers, or refuses with a sentence."""
    with suppress(DurablyError):
        str(await asking)


async def look(path: Path, folder: Path) -> Report:
    """Ask everything that can be asked of a store."""
    runtime = Runtime(MemoryStore(), ACTORS, limits=LIMITS)
    async with opened(path) as store:
        report = await examine(store)
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = _as_far_as_it_is_text
            ids = [id for (id,) in connection.execute("select id from invocations union select id from aliases")]
        for id in ids:
            await answered(why(store, id))
        await answered(check_store(store, runtime.actors))
        await answered(export_journals(store, folder))
        await answered(export_journals(store, folder, ended=True))
        await answered(_inspect(store, runtime))
    return report


def _as_far_as_it_is_text(stored: bytes) -> str:
    return stored.decode(errors="replace")


async def _inspect(store: SqliteStore, runtime: Runtime) -> None:
    reader = JournalReader(runtime.actors, None)
    for record in await store.invocations(after=0, limit=1_000):
        assert repr(described(record))
        fetched = await (store.fetch if record.outcome is None else store.fetch_ended)([record.number])
        await answered(reader.journal(record, fetched.get(record.number)))


# ------------------------------------------------------------ the laws


USERS_OWN: Final = {"argument", "value"}
"""Bytes of which only a class knows what they are: `durably check` reads them with it."""
NAMES: Final = {"id", "sender_id", "service", "key", "handler", "field", "name", "scope_service", "scope_key",
    "scope_handler", "idempotency_key", "host"}  # fmt: skip
AS_GOOD: Final = {"attempts", "keep_outcome_us", "epoch", "process_id", "since"}


def may_be_so(damage: Damage) -> bool:
    """A sound store could hold this, as far as a look at the store alone can tell."""
    column, what = damage.column, damage.what
    match damage.table, column:
        case "invocations", "failure":  # It is for people only.
            return True
        case "invocations", "mailbox_position":  # Only its class knows whether its handler is exclusive.
            return what == "NULL"
        case "invocations", "keep_outcome_us" | "expires_at" | "sender_id" | "due" | "deadline" if what == "NULL":
            return True
        case ("orders", "caller_number" | "caller_command") | ("owner", "last_position"):  # Those that ended.
            return what in ("late", "huge")
        case _ if column in USERS_OWN:
            return what in ("", "unknown", "half", "NUL", "a blob", "an empty blob")
        case _ if column in NAMES:  # The name of somebody or something else.
            may_be_empty = column in ("scope_key", "idempotency_key", "host") or damage.table in ("places", "state")
            return what in ("unknown", "half") or (what == "" and may_be_empty)
        case _ if column in AS_GOOD:
            return what in ("late", "huge") or damage.table == "owner"
        case _:  # Another time.
            return what == "late" and column in ("accepted_at", "asked_at", "due", "deadline", "expires_at")


def test_whatever_a_cell_holds_is_answered_with_sentences_and_found(sound: Path, tmp_path: Path) -> None:
    chosen = damages_of(sound)
    Random(SEED).shuffle(chosen)
    damaged, tried = tmp_path / "damaged.db", 0
    for damage in chosen:
        shutil.copy(sound, damaged)
        if not damage.do(damaged):
            continue
        try:
            report = asyncio.run(look(damaged, tmp_path))
            assert report.problems or may_be_so(damage)
        except Exception as error:
            error.add_note(str(damage))
            raise
        tried += 1
        if tried >= level().examples // 5:
            break

"""Looking for damage in a SQLite file: whole rows of named statements, each one snapshot, however long it takes.

Nothing is written. Beside an owner, each statement is a read transaction of its own; while one lasts, the write-ahead
log is not copied, and grows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from durably.ids import is_storable
from durably.storage.damage import text_with_damage_marked
from durably.storage.statements import MIGRATIONS, SQL

ROW_CHECKS: Final = (
    "orphan_rows", "rows_of_the_ended", "journal_gaps", "missing_arguments", "unknown_words", "two_holders",
    "shared_places", "missing_outcomes", "kept_for_ever", "late_positions", "early_positions", "wrong_counts",
    "damaged_names", "damaged_entries", "impossible_times", "wrong_targets", "wrong_callers", "wrong_kept",
)  # fmt: skip
"""Statements that find what no commit leaves behind; a sound store has no row of any."""
LOOKS: Final = (
    "owner_rows",
    "layout_of",
    "tables_of",
    "check_table",
    "services_with_state",
    "fields_with_entries",
    "unnamed_entries",
    "streams",
    "count_to_examine",
    "id_of",
)
_INSTRUCTIONS_PER_SIGN: Final = 100_000
"""After so many steps of SQLite's machine, a read counts as getting on."""

Row = tuple[Any, ...]


def rows_of(
    connection: sqlite3.Connection,
    progressed: Callable[[], None],
    name: str,
    parameters: Sequence[object] | Mapping[str, object],
) -> list[Row]:
    """All rows of a statement, in one snapshot."""

    def sign() -> int:
        progressed()
        return 0

    connection.set_progress_handler(sign, _INSTRUCTIONS_PER_SIGN)
    connection.create_function("is_name", -1, is_name, deterministic=True)
    connection.text_factory = text_with_damage_marked
    try:
        return connection.execute(SQL[name], parameters).fetchall()
    finally:
        connection.text_factory = str
        connection.set_progress_handler(None, 0)


def is_name(*names: bytes | None) -> bool:
    """Whether these, which are there, are bytes of names: Unicode text without NUL, and some."""
    return all(name is None or _is_text(name) for name in names)


def _is_text(name: bytes) -> bool:
    try:
        return bool(name) and is_storable(name.decode())
    except UnicodeDecodeError:
        return False


def expected_layout() -> list[Row]:
    """What `layout_of` answers for a store of this version."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for migration in MIGRATIONS:
            for statement in migration.statements:
                connection.execute(statement)
        return connection.execute(SQL["layout_of"]).fetchall()
    finally:
        connection.close()

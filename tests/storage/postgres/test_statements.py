"""Statements for PostgreSQL: named, described, used, and those that readers share with SQLite are there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

pytest.importorskip("psycopg")

import durably.storage
from durably.storage.postgres.statements import FILES, STATEMENTS
from durably.storage.statements import Statement, parse_statements

FOLDER = Path(durably.storage.__file__).parent
CODE = "".join(path.read_text("utf-8") for path in [*FOLDER.glob("*.py"), *FOLDER.glob("postgres/*.py")])
READERS = ("pieces.py", "entry_reading.py", "event_reading.py", "encoding.py")


def all_statements() -> list[Statement]:
    folder = files("durably.storage.postgres").joinpath("sql")
    return [statement for name in FILES for statement in parse_statements(folder.joinpath(name).read_text("utf-8"))]


@pytest.mark.parametrize("statement", all_statements(), ids=lambda statement: statement.name)
def test_every_statement_is_described_and_used(statement: Statement) -> None:
    assert statement.description.endswith(".")
    assert f'"{statement.name}"' in CODE


def test_readers_and_batches_find_each_statement_that_they_name() -> None:
    from durably.storage.statements import SQL

    shared = "".join((FOLDER / name).read_text("utf-8") for name in READERS)
    assert {name for name in SQL if f'"{name}"' in shared} <= STATEMENTS.keys()

"""Every statement is named, described, used, and valid; migrations are numbered upwards."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

import durably.storage
from durably.storage.connections import READER_VIEWS, SETTINGS
from durably.storage.examination import is_name
from durably.storage.sqlite import WRITER_DEFINITIONS
from durably.storage.statements import FILES, MIGRATIONS, SQL, Statement, parse_statements, split_statements

FOLDER = Path(durably.storage.__file__).parent
DEFINITIONS = (*READER_VIEWS, *WRITER_DEFINITIONS)


def all_statements() -> list[Statement]:
    folder = files("durably.storage").joinpath("sql")
    return [statement for name in FILES for statement in parse_statements(folder.joinpath(name).read_text("utf-8"))]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for migration in MIGRATIONS:
            for statement in migration.statements:
                connection.execute(statement)
        for name in DEFINITIONS:
            connection.execute(SQL[name])
        connection.create_function("is_name", -1, is_name, deterministic=True)
        yield connection


@pytest.mark.parametrize("name", sorted(SQL))
def test_every_statement_prepares(name: str, connection: sqlite3.Connection) -> None:
    if name in DEFINITIONS:  # Each of them has been made by the fixture.
        return
    if SQL[name].startswith("pragma"):
        connection.execute(SQL[name]).fetchall()
        return
    names = set(re.findall(r":([a-z_]+)", SQL[name]))
    values = dict.fromkeys(names) if names else [None] * SQL[name].count("?")
    connection.execute("explain " + SQL[name], values).fetchall()


@pytest.mark.parametrize("name", sorted(SQL))
def test_every_statement_is_used(name: str) -> None:
    code = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    assert name in (*SETTINGS, *DEFINITIONS) or code.count(f'"{name}"') > 0


@pytest.mark.parametrize("statement", all_statements(), ids=lambda statement: statement.name)
def test_every_statement_says_what_it_is_for(statement: Statement) -> None:
    assert statement.description.endswith(".")
    assert statement.sql.endswith(";")
    assert not statement.sql.startswith("--")


def test_there_is_no_sql_outside_the_files() -> None:
    pattern = re.compile(
        r"\b(select .* from|insert into|delete from|update \w+ set|create table|pragma \w+)\b", re.IGNORECASE
    )
    found = [path.name for path in FOLDER.glob("*.py") if pattern.search(path.read_text("utf-8"))]
    assert sorted(found) == ["table_queries.py", "tables.py"]  # Which name the fields of users' classes.


def test_migrations_are_numbered_from_one_upwards() -> None:
    versions = [migration.version for migration in MIGRATIONS]
    assert versions[0] == 1
    assert versions == sorted(set(versions))


def test_a_script_is_split_where_statements_end() -> None:
    script = (
        "-- first;\ncreate table a (b text default ';');\ncreate trigger c after insert on a begin\nselect 1;\nend;\n"
    )
    assert [statement.splitlines()[-1] for statement in split_statements(script)] == [
        "create table a (b text default ';');",
        "end;",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "load", "find", "find_keyed", "fetch", "recoverable", "timers", "expired", "paused", "invocations_in_hand",
        "records_of_object", "waiting_of_object", "record_of_number", "state_of_object", "steps_of_number",
        "completions_of_number", "attachments_of_number", "signals_of_number",
    ],
)  # fmt: skip
def test_no_read_of_the_runtime_walks_over_a_table(name: str, connection: sqlite3.Connection) -> None:
    """Start-up and loads must not grow with the number of sleepers or finished invocations."""
    values = dict.fromkeys(re.findall(r":([a-z_]+)", SQL[name]))
    plan = [row[3] for row in connection.execute("explain query plan " + SQL[name], values)]
    tables = (
        "invocations",
        "steps",
        "completions",
        "timers",
        "attachments",
        "signals",
        "aliases",
        "state",
        "head",
        "holder",
        "earlier",
    )
    walks = [line for line in plan if line.startswith("SCAN") and line.split()[1] in tables]
    assert walks == []

"""The named SQL statements and the migrations, read once from the `.sql` files beside this module.

A statement begins with a line `-- name: <name>`, then come comments that say what it is for. No SQL stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from sqlite3 import complete_statement

FILES = ("owner.sql", "commit.sql", "reads.sql", "recode.sql", "examination.sql")
NAME_PREFIX = "-- name:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a file."""

    name: str
    description: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered change of the layout of a database, with its statements in order."""

    version: int
    name: str
    statements: tuple[str, ...]


def parse_statements(text: str) -> Iterator[Statement]:
    """The statements of a file, in order."""
    for part in ("\n" + text).split("\n" + NAME_PREFIX)[1:]:
        name, _, rest = part.partition("\n")
        lines = rest.splitlines()
        comments = next((place for place, line in enumerate(lines) if not line.startswith("--")), len(lines))
        description = " ".join(line.removeprefix("--").strip() for line in lines[:comments])
        yield Statement(name=name.strip(), description=description, sql="\n".join(lines[comments:]).strip())


def parse_migration(file_name: str, text: str) -> Migration:
    """`0001_records.sql` and its content as a migration."""
    number, _, name = file_name.removesuffix(".sql").partition("_")
    return Migration(version=int(number), name=name, statements=tuple(split_statements(text)))


def split_statements(text: str) -> Iterator[str]:
    """The statements of a script one by one, as SQLite itself tells where each ends."""
    collected = ""
    for line in text.splitlines(keepends=True):
        collected += line
        if line.rstrip().endswith(";") and complete_statement(collected):
            yield collected.strip()
            collected = ""
    assert not collected.strip(), "a migration ends with a semicolon"


def load_statements() -> dict[str, str]:
    """All statements of all files, by name."""
    folder = files("durably.storage").joinpath("sql")
    found: dict[str, str] = {}
    for file_name in FILES:
        for statement in parse_statements(folder.joinpath(file_name).read_text(encoding="utf-8")):
            assert statement.name not in found, f"two statements are called {statement.name}"
            found[statement.name] = statement.sql
    return found


def load_migrations() -> tuple[Migration, ...]:
    """All migrations, by version."""
    folder = files("durably.storage").joinpath("sql", "migrations")
    scripts = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    migrations = [parse_migration(script.name, script.read_text(encoding="utf-8")) for script in scripts]
    return tuple(sorted(migrations, key=lambda migration: migration.version))


SQL = load_statements()
MIGRATIONS = load_migrations()

"""Makes a file ours and brings it to the layout of this version: all of it or nothing, and never backwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from durably.errors import StoreUnavailableError
from durably.storage.statements import MIGRATIONS, SQL, Migration

APPLICATION_ID = 0x6475726C
"""Stands in the header of every database of ours ("durl")."""
UNRELEASED_APPLICATION_ID = 0x64757262
"""Stood there before the first release ("durb"), when layouts changed without a migration."""


def refuse_foreign(connection: sqlite3.Connection, store: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Raise for a database that is not ours or was written by a newer version, before anything in it is changed.

    Raises:
        StoreUnavailableError: with a sentence that says which.
    """
    application, version = _number(connection, "application"), _number(connection, "version")
    if application == UNRELEASED_APPLICATION_ID:
        raise StoreUnavailableError(
            f"The store {store} was written before the first release of durably, in a layout that no version reads any "
            "more. It is left as it is. Finish what it holds with the version that wrote it, and give this one a new "
            "path."
        )
    if application != APPLICATION_ID:
        if application or version or _number(connection, "count_tables"):
            raise StoreUnavailableError(
                f"The store {store} is a database of another program, so it is left as it is. Choose another path."
            )
        return
    newest = migrations[-1].version
    if version > newest:
        raise StoreUnavailableError(
            f"The store {store} was written by a newer version of durably (layout {version}; this one knows {newest}). "
            "There is no way back: run the newer version, or restore a backup that was made before it."
        )


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether some version of durably has made this database."""
    return _number(connection, "application") == APPLICATION_ID


def refuse_older(connection: sqlite3.Connection, store: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Raise for a database that would have to be migrated first, for those who only read.

    Raises:
        StoreUnavailableError: with a sentence that says what to do.
    """
    version, newest = _number(connection, "version"), migrations[-1].version
    if version < newest:
        raise StoreUnavailableError(
            f"The store {store} was written by an older version of durably (layout {version}; this one reads "
            f"{newest}), and reading does not change it. Read it with that version, or let a runtime of this one "
            "open it first."
            if version
            else f"The store {store} is empty: no runtime has opened it yet. Check the path."
        )


def migrate(connection: sqlite3.Connection, store: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest layout, in one transaction."""
    connection.execute(SQL["begin"])
    try:
        refuse_foreign(connection, store, migrations)
        version = _number(connection, "version")
        for migration in migrations:
            if migration.version > version:
                _apply(connection, migration)
        connection.execute(SQL["end"])
    except BaseException:
        if connection.in_transaction:
            connection.execute(SQL["give_up"])
        raise


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in migration.statements:
        connection.execute(statement)
    # These two take no parameters; both values are numbers of our own.
    connection.execute(f"{SQL['application'].removesuffix(';')} = {APPLICATION_ID};")
    connection.execute(f"{SQL['version'].removesuffix(';')} = {migration.version};")


def layout_version(connection: sqlite3.Connection) -> int:
    """The layout that the database has; 0 where no runtime has opened it yet."""
    return _number(connection, "version")


def _number(connection: sqlite3.Connection, statement: str) -> int:
    row: tuple[int] = connection.execute(SQL[statement]).fetchone()
    return row[0]

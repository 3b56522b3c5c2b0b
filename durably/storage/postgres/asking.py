"""Questions in SQL from people: each on a connection of its own, in a transaction that can only read.

The runtime has checked the query and written it anew: it names our views and harmless functions alone. Here it gets a
time, an amount of rows and a size, and the server is told once more what it may do: one statement, no writing, and,
where the URL names a `query_role`, no more than that role may see.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors

from durably.errors import StoreUnavailableError
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.rows import give_up
from durably.storage.postgres.statements import STATEMENTS
from durably.storage.querying import (
    ANSWER_LIMIT_BYTES,
    ROWS_LIMIT,
    VALUE_LIMIT_BYTES,
    Kind,
    QuestionRefusedError,
    ServerAnswer,
)

T = TypeVar("T")

ROWS_AT_A_TIME: Final = 500
TEMPORARY_FILES_LIMIT: Final = "1GB"
"""Of one question, on the server; only a superuser may set it."""
_MOST_US: Final = 1 << 62
_KINDS: Final[dict[int, tuple[Kind, str]]] = {
    16: ("boolean", "{0}"),
    17: ("binary", "{0}"),
    20: ("integer", "{0}"),
    21: ("integer", "{0}"),
    23: ("integer", "{0}"),
    700: ("real", "{0}::float8"),
    701: ("real", "{0}"),
    1700: ("real", "{0}::text"),
    1114: ("moment", "extract(epoch from {0} at time zone 'UTC')::float8"),
    1184: ("moment", "extract(epoch from {0})::float8"),
    1186: ("duration", "extract(epoch from {0})::float8"),
}
"""By the number of a type of PostgreSQL: what its values are, and how they are read. All others are read as text."""
_REFUSED: Final = (
    errors.DataError, errors.ProgrammingError, errors.NotSupportedError, errors.ProgramLimitExceeded,
    errors.ReadOnlySqlTransaction, errors.CardinalityViolation,
)  # fmt: skip


def answer(connection: PgConnection, sql: str, role: str | None, limit_seconds: float, store: str) -> ServerAnswer:
    """Ask, on the thread of the connection.

    Raises:
        QuestionRefusedError: the server does not take the query, or it would take too much.
        StoreUnavailableError: the role of the URL cannot be taken.
        psycopg.Error: the server failed.
    """
    try:
        _restrict(connection, role, limit_seconds, store)
        return _answer(connection, sql)
    except errors.QueryCanceled as error:
        raise QuestionRefusedError(
            f"The query took longer than {limit_seconds:g} seconds and was stopped. Ask for less."
        ) from error
    except (errors.OutOfMemory, errors.ConfigurationLimitExceeded) as error:
        raise QuestionRefusedError(f"The query takes too much of the server ({_said(error)}). Ask for less.") from error
    except errors.InsufficientPrivilege as error:
        raise QuestionRefusedError(
            f"The query may not do that ({_said(error)}). It can read the documented tables and nothing else."
        ) from error
    except _REFUSED as error:
        raise QuestionRefusedError(f"PostgreSQL does not take the query: {_said(error)}.") from error
    finally:
        give_up(connection)


def _restrict(connection: PgConnection, role: str | None, limit_seconds: float, store: str) -> None:
    connection.execute(STATEMENTS["begin_question"])
    settings = {"limit": str(round(limit_seconds * 1000)), "files": TEMPORARY_FILES_LIMIT}
    connection.execute(STATEMENTS["restrict_question"], settings)
    if role is not None:
        try:
            connection.execute(STATEMENTS["take_query_role"], (role,))
        except psycopg.DatabaseError as error:
            raise StoreUnavailableError(
                f"The store {store} cannot be asked in SQL: the role of `query_role` cannot be taken ({_said(error)}). "
                "Create it, and grant it to the role of the store."
            ) from error


def _answer(connection: PgConnection, sql: str) -> ServerAnswer:
    names, types = _described(connection, sql)
    columns = [f"c{place}" for place in range(len(names))]
    kinds: list[Kind] = []
    read: list[str] = []
    sizes: list[str] = []
    for column, type in zip(columns, types, strict=True):
        kind, expression = _KINDS.get(type, ("text", "{0}::text"))
        told = expression.format(column)
        kinds.append(kind)
        if kind in ("text", "binary") or type == 1700:
            sizes.append(f"octet_length({told})")
            told = f"case when octet_length({told}) <= {VALUE_LIMIT_BYTES} then {told} end"
        read.append(told)
    # What is too large is not sent: the client would have to hold it before it could look.
    too_large = f"coalesce(greatest({', '.join(sizes)}) > {VALUE_LIMIT_BYTES}, false)" if sizes else "false"
    told = ", ".join([*read, too_large])
    limited = f"select {told} from (\n{sql}\n) as answer ({', '.join(columns)}) limit {ROWS_LIMIT + 1}"
    rows: list[tuple[Any, ...]] = []
    size_bytes = 0
    # A cursor of the server, so that no more comes than is looked at. It takes one statement, which must be a query.
    with connection.cursor(name="answer") as cursor:
        cursor.execute(limited.encode())
        while portion := cursor.fetchmany(ROWS_AT_A_TIME):
            for *values, is_too_large in portion:
                if is_too_large:
                    raise QuestionRefusedError(
                        f"The query makes a value of more than {VALUE_LIMIT_BYTES} bytes. Ask for less of it."
                    )
                rows.append(tuple(map(_value, values, kinds, types)))
                size_bytes += 8 * len(values) + sum(len(one) for one in values if isinstance(one, str | bytes))
            if len(rows) > ROWS_LIMIT:
                raise QuestionRefusedError(f"The answer has more than {ROWS_LIMIT} rows. Write LIMIT, or ask for less.")
            if size_bytes > ANSWER_LIMIT_BYTES:
                raise QuestionRefusedError(
                    f"The answer holds more than {ANSWER_LIMIT_BYTES >> 20} MiB. Ask for fewer columns or rows."
                )
    return ServerAnswer(tuple(names), tuple(kinds), rows)


def _described(connection: PgConnection, sql: str) -> tuple[list[str], list[int]]:
    """Names and types of the columns, of a query that the server plans and does not carry out."""
    with connection.cursor(name="columns") as cursor:
        cursor.execute(f"select * from (\n{sql}\n) as answer limit 0".encode())
        described = cursor.description or []
    return [one.name for one in described], [one.type_code for one in described]


def _value(value: Any, kind: Kind, type: int) -> object:
    if value is None:
        return None
    if kind in ("moment", "duration"):
        return round(value * 1_000_000) if abs(value) * 1_000_000 < _MOST_US else None
    if type == 1700:  # A sum of whole numbers is one; others are as exact as JSON has them.
        return int(value) if "." not in value and len(value) < 20 and value[-1].isdecimal() else float(value)
    return value


def _said(error: psycopg.Error) -> str:
    said = " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")
    hint = error.diag.message_hint
    return f"{said} ({hint.rstrip('.')})" if hint else said

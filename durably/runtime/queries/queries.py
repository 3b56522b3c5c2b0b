"""`Queries`: a question in SQL about what a runtime keeps and does.

It is asked when all that has happened by then is durable, and sees what is stored; only what memory knows better (what
runs at this moment) is copied beside it. The answer leaves when the store is known to be still ours (rules X1 and X9).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, TypeAlias

import sqlglot
from sqlglot import exp

from durably.errors import OverloadedError, StoreUnavailableError
from durably.runtime.queries.dialect import BadQueryError, translate
from durably.runtime.queries.functions import AGGREGATES, Payloads, moment_text, span_text
from durably.runtime.queries.journals import JournalRows
from durably.runtime.queries.server_dialect import translate_for_server
from durably.runtime.queries.tables import ALL_TABLES, SCHEMA_COLUMNS, SCHEMA_TABLES, TABLES, ColumnType
from durably.storage.introspection import InspectableStore
from durably.storage.querying import (
    Answered,
    Question,
    ServerAnswer,
    SqlServer,
    Trust,
    ask,
    connection_to_query,
    sql_server_of,
)
from durably.storage.sqlite_errors import describe_error
from durably.storage.statements import parse_statements

LIMIT_SECONDS: Final = 10.0
AT_ONCE: Final = 4
"""Questions at a time: each has a connection and a thread."""
RETRY_AFTER_SECONDS: Final = 1.0

_DATA_TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.TEXT: "LargeUtf8", ColumnType.UNSIGNED: "UInt32", ColumnType.LONG: "UInt64",
    ColumnType.INTEGER: "Int64", ColumnType.REAL: "Float64", ColumnType.BOOLEAN: "Boolean",
    ColumnType.MOMENT: 'Timestamp(ms, "+00:00")', ColumnType.DURATION: "Duration(ms)",
    ColumnType.BINARY: "LargeBinary", ColumnType.NUMBERS: "List(UInt32)", ColumnType.TEXTS: "List(LargeUtf8)",
}  # fmt: skip


def _statements() -> Mapping[str, str]:
    text = files("durably.runtime.queries").joinpath("views.sql").read_text(encoding="utf-8")
    return {one.name: one.sql.rstrip(";") for one in parse_statements(text)}


STATEMENTS: Final = _statements()
CONSTANTS: Final[Mapping[str, str]] = {"partition_key": "0"}
"""There is one partition. Restate's tools join tables by it."""
HIDDEN: Final = frozenset({"known_invocations"})
Rows: TypeAlias = tuple[Sequence[str], Sequence[Sequence[object]]]
"""Columns and rows of a temporary table."""
_TEMPORARY: Final = re.compile(r"\btemp\.(\w+)")


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """What a query was answered with: each column with its type, and the rows."""

    columns: tuple[tuple[str, ColumnType | None], ...]
    """By name; None where the values have to say what they are."""
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class KnownService:
    """What a query is told of a class that runs here."""

    name: str
    kind: str
    """`service`, `virtual_object`, `workflow`"""
    is_public: bool
    journal_retentions_us: Mapping[str, int | None]
    """By handler; None: neither the handler nor the runtime sets one."""


@dataclass(frozen=True, slots=True)
class KnownDeployment:
    """What a query is told of the program."""

    id: str
    endpoint: str
    created_at_us: int
    server: str
    """The program that runs attempts, with its version."""


class Queries:
    """Of one runtime."""

    def __init__(
        self,
        *,
        until_durable: Callable[[], Awaitable[None]],
        store: InspectableStore,
        unwrap: Callable[[bytes], bytes],
        now_us: Callable[[], int],
    ) -> None:
        self._until_durable = until_durable
        self._store = store
        self._payloads = Payloads(unwrap)
        self._now_us = now_us
        self._asked = 0

    async def ask(
        self,
        text: str,
        *,
        services: Sequence[KnownService],
        deployment: KnownDeployment,
        in_flight: Callable[[], Sequence[tuple[int, bool]]],
    ) -> QueryAnswer:
        """`in_flight`: numbers of invocations that have their turn in memory, and whether their code runs.

        Raises:
            BadQueryError, QuestionRefusedError: it is no query, or would take too much.
            OverloadedError: too many are asked at once.
            StoreUnavailableError: the store failed, so there is no answer.
        """
        if self._asked >= AT_ONCE:
            raise OverloadedError(f"{AT_ONCE} queries are being answered. Ask again.", retry_after=RETRY_AFTER_SECONDS)
        self._asked += 1
        try:
            await self._until_durable()
            live, now = in_flight(), moment_text(self._now_us())
            server = sql_server_of(self._store)
            if server is not None:
                told = await self._ask_server(server, text, services, deployment, now)
                await self._until_durable()
                return told
            types: dict[str, ColumnType] = {}

            def question(connection: sqlite3.Connection) -> Question:
                return self._question(connection, text, types, services, deployment, live, now)

            try:
                answered = await ask(await connection_to_query(self._store), question, LIMIT_SECONDS)
            except sqlite3.Error as error:
                raise StoreUnavailableError(describe_error(error, self._store.describe())) from error
            await self._until_durable()
        finally:
            self._asked -= 1
        return _typed(answered, types)

    async def _ask_server(
        self,
        server: SqlServer,
        text: str,
        services: Sequence[KnownService],
        deployment: KnownDeployment,
        now: str | None,
    ) -> QueryAnswer:
        rows: Mapping[str, Rows] = {
            "sys_service": (
                ("name", "revision", "public", "ty", "deployment_id"),
                [(one.name, 1, one.is_public, one.kind, deployment.id) for one in services],
            ),
            "sys_deployment": (
                ("id", "ty", "endpoint", "created_at"),
                [(deployment.id, "http", deployment.endpoint, moment_text(deployment.created_at_us))],
            ),
            **{name.removesuffix("_rows"): rows for name, rows in _SCHEMA_ROWS.items()},
        }
        sql = translate_for_server(text, schema=server.schema, now=now, rows=rows, reads_payloads=server.reads_payloads)
        return _told(await server.ask(sql, LIMIT_SECONDS))

    def _question(
        self,
        connection: sqlite3.Connection,
        text: str,
        types: dict[str, ColumnType],
        services: Sequence[KnownService],
        deployment: KnownDeployment,
        live: Sequence[tuple[int, bool]],
        now: str | None,
    ) -> Question:
        translated = translate(text)
        types |= translated.types
        trust = Trust()
        journals = JournalRows(connection, self._payloads, trust, STATEMENTS)
        told = (deployment.id, deployment.endpoint, moment_text(deployment.created_at_us), deployment.server)
        tables: Mapping[str, Rows] = {
            "known_services": (("name", "ty", "public"), [(s.name, s.kind, s.is_public) for s in services]),
            "known_handlers": (
                ("service", "name", "journal_retention_us"),
                [(s.name, handler, us) for s in services for handler, us in s.journal_retentions_us.items()],
            ),
            "this_deployment": (("id", "endpoint", "created_at", "server"), [told]),
            "live": (("number", "in_flight"), live),
            **{name: rows for name, rows in _SCHEMA_ROWS.items() if name.removesuffix("_rows") in translated.tables},
        }
        views = _needed(translated.tables)
        return Question(
            translated.sql,
            preparations=[
                *_with_rows(tables),
                *((f"create temp view {name} as {sql}", ()) for name, sql in views.items()),
            ],
            views=views.keys() - HIDDEN,
            hidden_views=HIDDEN,
            tables=tables.keys(),
            functions={**self._payloads.functions(), **journals.functions(), "now": (0, lambda: now)},
            aggregates=AGGREGATES,
            trust=trust,
            values=translated.values,
        )


def _with_rows(tables: Mapping[str, Rows]) -> Iterator[tuple[str, Sequence[Sequence[object]]]]:
    """What makes these tables and fills them."""
    for name, (columns, rows) in tables.items():
        yield f"create temp table {name} ({', '.join(columns)})", ()
        if rows:
            yield f"insert into {name} values ({', '.join('?' for _ in columns)})", rows
    yield "create unique index temp.live_by_number on live (number)", ()


def _told(answer: ServerAnswer) -> QueryAnswer:
    """An answer of a server, with moments and durations as text."""
    readers = [_TEXTS_OF.get(kind, _itself) for kind in answer.kinds]
    rows = [tuple(read(value) for read, value in zip(readers, row, strict=True)) for row in answer.rows]
    columns = zip(answer.columns, map(ColumnType, answer.kinds), strict=True)
    return QueryAnswer(tuple(columns), rows)


def _itself(value: Any) -> Any:
    return value


_TEXTS_OF: Final[Mapping[str, Callable[[Any], Any]]] = {"moment": moment_text, "duration": span_text}


def _typed(answered: Answered, types: Mapping[str, ColumnType]) -> QueryAnswer:
    return QueryAnswer(tuple((name, types.get(name)) for name in answered.columns), answered.rows)


def _views() -> Mapping[str, str]:
    """Each table as a view with all of its columns, those that nothing is known of as NULL."""
    views = {name: STATEMENTS[name] for name in HIDDEN}
    for name in TABLES:
        sql = STATEMENTS[name]
        known = _columns_of(sql)
        columns = ", ".join(
            f"`{column}`" if column in known else f"{CONSTANTS.get(column, 'null')} as `{column}`"
            for column in TABLES[name]
        )
        views[name] = f"select {columns} from ({sql})"
    for name in (SCHEMA_COLUMNS, SCHEMA_TABLES):
        views[name] = f"select {', '.join(ALL_TABLES[name])} from temp.{name}_rows"
    return views


def _columns_of(sql: str) -> frozenset[str]:
    """The names of the columns of one of our statements."""
    query = sqlglot.parse_one(sql, dialect="sqlite")
    assert isinstance(query, exp.Select)
    return frozenset(one.alias_or_name for one in query.expressions)


def _needed(tables: Collection[str]) -> Mapping[str, str]:
    """The views of these tables and those that they read, in the order in which they are made."""
    names = set(tables)
    for name in reversed(list(VIEWS)):
        if name in names:
            names.update(_TEMPORARY.findall(VIEWS[name]))
    return {name: sql for name, sql in VIEWS.items() if name in names}


VIEWS: Final = _views()
_SCHEMA_ROWS: Final[Mapping[str, Rows]] = {
    f"{SCHEMA_COLUMNS}_rows": (
        tuple(ALL_TABLES[SCHEMA_COLUMNS]),
        [
            ("durably", "public", table, column, place, "YES", _DATA_TYPES[type])
            for table, columns in TABLES.items()
            for place, (column, type) in enumerate(columns.items())
        ],
    ),
    f"{SCHEMA_TABLES}_rows": (
        tuple(ALL_TABLES[SCHEMA_TABLES]),
        [("durably", "public", table, "VIEW") for table in TABLES],
    ),
}

__all__ = ["BadQueryError", "KnownDeployment", "KnownService", "Queries", "QueryAnswer"]

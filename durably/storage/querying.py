"""Questions in SQL from people, each on a connection of its own that can do nothing but read what it is meant to.

A question gets a time, an amount of memory, a size of each value and an amount of rows. An authorizer permits nothing
but reading: tables of the store only where a view of ours reads them, functions only those that are named. A file can
neither be attached nor read, and nothing can be written.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

from durably.storage.bounded_functions import BoundedFunctions
from durably.storage.connections import Connection, TimeLimit
from durably.storage.sqlite_errors import is_too_big
from durably.storage.statements import SQL
from durably.storage.store import Store

Function: TypeAlias = Callable[..., Any]

VALUE_LIMIT_BYTES: Final = 1 << 20
"""Of each value that a question makes or reads, unless it may hold very many of them (`Question.values`)."""
ROWS_LIMIT: Final = 100_000
ANSWER_LIMIT_BYTES: Final = 64 << 20
"""Of all values of an answer together."""
MEMORY_LIMIT_BYTES: Final = 256 << 20
"""By which the process may grow during a question."""
LOOK_EVERY_INSTRUCTIONS: Final = 500
"""Of SQLite's machine, each of which makes one value at most."""

_PROC_STATM: Final = "/proc/self/statm"
_PAGE_BYTES: Final = 4096 if sys.platform == "win32" else os.sysconf("SC_PAGE_SIZE")
_LIMITS: Final = (
    (sqlite3.SQLITE_LIMIT_COLUMN, 200),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 200),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
    (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 50),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)
_READS: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
FUNCTIONS: Final = frozenset({
    "abs", "avg", "ceil", "ceiling", "coalesce", "concat", "concat_ws", "count", "cume_dist", "date",
    "datetime", "dense_rank", "exp", "first_value", "floor", "glob", "group_concat", "hex", "ifnull", "iif", "instr",
    "json", "json_array", "json_array_length", "json_extract", "json_group_array", "json_group_object", "json_object",
    "json_quote", "json_type", "json_valid", "julianday", "lag", "last_value", "lead", "length", "like", "likelihood",
    "likely", "ln", "log", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif", "octet_length",
    "percent_rank", "pow", "power", "rank", "replace", "round", "row_number", "rtrim", "sign", "sqrt", "strftime",
    "string_agg", "substr", "substring", "sum", "time", "total", "trim", "trunc", "typeof", "unicode",
    "unixepoch", "unlikely", "upper", "->", "->>",
})  # fmt: skip
"""Functions of SQLite that only compute, and that make nothing large of something small."""
STORED_TABLES: Final = frozenset({
    "arguments", "completions", "invocations", "promises", "state", "steps", "timers",
})  # fmt: skip
TABLE_FUNCTIONS: Final = frozenset({"json_each"})


class QuestionRefusedError(ValueError):
    """A question cannot be asked, or would take too much; the sentence is for who wrote it."""


class Trust:
    """While it is entered, our own code reads on the connection, and not the query."""

    def __init__(self) -> None:
        self.is_given = False

    def __enter__(self) -> None:
        self.is_given = True

    def __exit__(self, *_: object) -> None:
        self.is_given = False


@dataclass(frozen=True, slots=True)
class Question:
    """A query, and what has to be there before it is asked. Names are in lower case."""

    sql: str
    preparations: Sequence[tuple[str, Sequence[Sequence[object]]]] = ()
    """Statements that make temporary tables and views. One with rows is carried out for each of them."""
    views: Collection[str] = ()
    """Views that the query may read, and nothing else."""
    hidden_views: Collection[str] = ()
    """Views that only other views may read."""
    tables: Collection[str] = ()
    """Temporary tables that only views may read, as they read those of the store."""
    functions: Mapping[str, tuple[int, Function]] = field(default_factory=dict[str, tuple[int, Function]])
    aggregates: Mapping[str, tuple[int, Callable[[], Any]]] = field(
        default_factory=dict[str, tuple[int, Callable[[], Any]]]
    )
    trust: Trust = field(default_factory=Trust)
    """Entered by those of the functions that read the store themselves."""
    values: int = 1
    """How many the query may hold at a time in a row. SQLite looks at no memory before the row is complete, so they
    share what a query may take.
    """

    @property
    def value_limit_bytes(self) -> int:
        return min(VALUE_LIMIT_BYTES, MEMORY_LIMIT_BYTES // max(1, self.values))


@dataclass(frozen=True, slots=True)
class Answered:
    """Names of columns, and rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@runtime_checkable
class QueriedStore(Protocol):
    """A store that people can ask in SQL."""

    def query_connection(self) -> Awaitable[Connection]:
        """A connection of its own to what is durable, which is closed afterwards."""
        ...


Kind: TypeAlias = Literal["text", "boolean", "integer", "real", "moment", "duration", "binary"]


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What a server has answered. Moments are microseconds since 1970, durations microseconds."""

    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class SqlServer:
    """A server that keeps a store and answers queries from its views."""

    schema: str
    """Of the views."""
    ask: Callable[[str, float], Awaitable[ServerAnswer]]
    """Answers a query that was checked and written anew, within so many seconds.

    Raises:
        QuestionRefusedError: it cannot be asked, or would take too much.
        StoreUnavailableError: the server failed.
    """
    reads_payloads: bool = True
    """False: a codec has wrapped what is stored, so the server cannot tell what it says."""


@runtime_checkable
class StoreOnServer(Protocol):
    """A store that may be on a server which answers queries itself."""

    @property
    def sql_server(self) -> SqlServer | None: ...


def sql_server_of(store: Store) -> SqlServer | None:
    """The server that answers the queries about a store; None: `connection_to_query` does."""
    return store.sql_server if isinstance(store, StoreOnServer) else None


def connection_to_query(store: Store) -> Awaitable[Connection]:
    """
    Raises:
        QuestionRefusedError: this store does not know SQL.
    """
    if not isinstance(store, QueriedStore):
        raise QuestionRefusedError(f"The store {store.describe()} cannot be asked in SQL.")
    return store.query_connection()


async def ask(
    connection: Connection, question: Callable[[sqlite3.Connection], Question], limit_seconds: float
) -> Answered:
    """Ask, and close the connection. `question` is made on its thread.

    Raises:
        QuestionRefusedError: it cannot be asked, or would take too much.
        sqlite3.Error: the store failed.
    """
    limit = TimeLimit(connection.interrupt_now, limit_seconds)
    try:
        return await connection.run(_Asking(limit, limit_seconds).run, question)
    finally:
        limit.cancel()
        connection.interrupt_now()
        await connection.close()


class _Asking:
    """One question, on the thread of its connection."""

    def __init__(self, limit: TimeLimit, limit_seconds: float) -> None:
        self._limit = limit
        self._limit_seconds = limit_seconds
        self._size = _ProcessSize()
        self._size_before_bytes = self._size.now()
        self._is_too_large = False
        self._value_limit_bytes = VALUE_LIMIT_BYTES
        self._bounded = BoundedFunctions(has_no_time_left=lambda: limit.expired)

    def run(self, connection: sqlite3.Connection, make: Callable[[sqlite3.Connection], Question]) -> Answered:
        try:
            question = make(connection)
            self._value_limit_bytes = question.value_limit_bytes
            _prepare(connection, question)
            self._bounded.install(connection, question.value_limit_bytes)
            connection.set_progress_handler(self._look, LOOK_EVERY_INSTRUCTIONS)
            return _rows(connection.execute(question.sql))
        except (sqlite3.Error, sqlite3.Warning) as error:
            reason = self._reason(error)
            if reason is None:
                raise
            raise QuestionRefusedError(reason) from error
        finally:
            self._bounded.close()
            self._size.close()

    def _look(self) -> int:
        """Anything but 0 stops the query."""
        self._is_too_large = self._size.now() - self._size_before_bytes > MEMORY_LIMIT_BYTES
        return int(self._is_too_large or self._limit.expired)

    def _reason(self, error: Exception) -> str | None:
        """What a person is told; None: the store itself failed."""
        if self._limit.expired:
            return f"The query took longer than {self._limit_seconds:g} seconds and was stopped. Ask for less."
        if self._is_too_large:
            return f"The query took more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory and was stopped. Ask for less."
        if self._bounded.refusal is not None:
            return self._bounded.refusal
        if is_too_big(error):
            many = (
                " It names so many that each may have no more." if self._value_limit_bytes < VALUE_LIMIT_BYTES else ""
            )
            return f"The query makes a value of more than {self._value_limit_bytes} bytes.{many} Ask for less of it."
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_AUTH" or "prohibited" in str(error) or "not authorized" in str(error):
            return f"The query may not do that ({error}). It can read the documented tables and nothing else."
        if name in ("SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_CONSTRAINT", "") or isinstance(
            error, sqlite3.Warning | sqlite3.ProgrammingError
        ):
            return f"SQLite does not take the query: {error}."
        return None


def _prepare(connection: sqlite3.Connection, question: Question) -> None:
    connection.execute(SQL["temporary_tables_in_memory"])  # First: it drops what is temporary.
    for name, (count, function) in question.functions.items():
        connection.create_function(name, count, function, deterministic=True)
    for name, (count, aggregate) in question.aggregates.items():
        connection.create_aggregate(name, count, aggregate)
    for statement, rows in question.preparations:
        if rows:
            connection.executemany(statement, rows)
        else:
            connection.execute(statement)
    connection.execute(SQL["letters_as_they_are"])
    connection.execute(SQL["read_only"])
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, question.value_limit_bytes)
    for limit, value in _LIMITS:
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorizer(question))


def _authorizer(question: Question) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """Says what the query may do. The last argument is the view that wants it, if one does."""
    open_views = frozenset(question.views)
    views = open_views | frozenset(question.hidden_views)
    functions = FUNCTIONS | frozenset(question.functions) | frozenset(question.aggregates)
    trust = question.trust
    # Where a view is dissolved into the query, SQLite asks for the tables below it as such, without a column. It does
    # so for parts of the query that have a name, too; these are in no schema.
    counted = STORED_TABLES | frozenset(question.tables)

    def authorize(action: int, first: str | None, second: str | None, schema: str | None, view: str | None) -> int:
        is_by_view = trust.is_given or (view is not None and view.lower() in views)
        if action in _READS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            name = (first or "").lower()
            is_open = (
                name in open_views or name in TABLE_FUNCTIONS or (not second and (name in counted or schema is None))
            )
            return sqlite3.SQLITE_OK if is_open or is_by_view else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if (second or "").lower() in functions else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_DENY

    return authorize


def _rows(cursor: sqlite3.Cursor) -> Answered:
    rows: list[tuple[Any, ...]] = []
    size_bytes = 0
    for row in cursor:
        rows.append(row)
        size_bytes += 8 * len(row) + sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(rows) > ROWS_LIMIT:
            raise QuestionRefusedError(f"The answer has more than {ROWS_LIMIT} rows. Write LIMIT, or ask for less.")
        if size_bytes > ANSWER_LIMIT_BYTES:
            raise QuestionRefusedError(
                f"The answer holds more than {ANSWER_LIMIT_BYTES >> 20} MiB. Ask for fewer columns or rows."
            )
    return Answered(tuple(one[0] for one in cursor.description), rows)


class _ProcessSize:
    """The size of this process in bytes; where the system does not tell it, the largest size it ever had; or else 0."""

    def __init__(self) -> None:
        self._file = os.open(_PROC_STATM, os.O_RDONLY) if os.path.exists(_PROC_STATM) else None

    def now(self) -> int:
        if self._file is not None:
            return int(os.pread(self._file, 100, 0).split()[1]) * _PAGE_BYTES
        if sys.platform == "win32":
            return 0
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

"""`translate_for_server`: a question as PostgreSQL takes it, made of nothing but what is listed here.

The query is parsed, and written anew from its tree. Every part of the tree must be of a listed kind, every function
and type a listed one. A table of ours is a part of the query that reads a view and is put before it; other names behind
FROM get a prefix that no table of the server has, so they mean a part of the query or nothing, in whichever scope they
stand. So no table of the server is reached, and no function that does anything but compute, however the query is
written. What the server does with a question is limited once more in `durably.storage.postgres.asking`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ErrorLevel
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

from durably.ids import is_storable
from durably.runtime.queries.dialect import BadQueryError, checked_query, derived, parsed, too_nested
from durably.runtime.queries.tables import ALL_TABLES, ColumnType
from durably.storage.statements import parse_statements

_SYNTAX: Final = frozenset({
    exp.Select, exp.Union, exp.Except, exp.Intersect, exp.Subquery, exp.With, exp.CTE, exp.From, exp.Join, exp.Where,
    exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Fetch, exp.LimitOptions, exp.Distinct,
    exp.Table, exp.TableAlias, exp.Identifier, exp.Column, exp.Star, exp.Alias, exp.Literal, exp.Boolean, exp.Null,
    exp.Paren, exp.Tuple, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is,
    exp.NullSafeEQ, exp.NullSafeNEQ, exp.In, exp.Between, exp.Like, exp.ILike, exp.Add, exp.Sub, exp.Mul, exp.Div,
    exp.Mod, exp.Neg, exp.DPipe, exp.Case, exp.If, exp.Cast, exp.DataType, exp.DataTypeParam, exp.Interval, exp.Var,
    exp.Exists, exp.Window, exp.WindowSpec, exp.Filter, exp.JSONExtract, exp.JSONExtractScalar, exp.JSONPath,
    exp.JSONPathRoot, exp.JSONPathKey, exp.JSONPathSubscript,
})  # fmt: skip
_FUNCTIONS: Final[Mapping[type[exp.Expr], str]] = {
    exp.Abs: "abs", exp.Avg: "avg", exp.Ceil: "ceil", exp.Coalesce: "coalesce", exp.Count: "count",
    exp.CurrentTimestamp: "current_timestamp", exp.DenseRank: "dense_rank", exp.Extract: "extract",
    exp.FirstValue: "first_value", exp.Floor: "floor", exp.Greatest: "greatest", exp.GroupConcat: "string_agg",
    exp.Lag: "lag", exp.LastValue: "last_value", exp.Lead: "lead", exp.Least: "least", exp.Length: "length",
    exp.Lower: "lower", exp.Max: "max", exp.Min: "min", exp.Nullif: "nullif", exp.Rank: "rank", exp.Round: "round",
    exp.RowNumber: "row_number", exp.Substring: "substring", exp.Sum: "sum", exp.TimestampTrunc: "date_trunc",
    exp.Trim: "trim", exp.Upper: "upper",
}  # fmt: skip
"""Functions that only compute, and that make nothing large of something small."""
_TYPES: Final = frozenset({
    exp.DType.BIGINT, exp.DType.BOOLEAN, exp.DType.DATE, exp.DType.DECIMAL, exp.DType.DOUBLE, exp.DType.FLOAT,
    exp.DType.INT, exp.DType.INTERVAL, exp.DType.JSON, exp.DType.JSONB, exp.DType.SMALLINT, exp.DType.TEXT,
    exp.DType.TIMESTAMP, exp.DType.TIMESTAMPTZ, exp.DType.VARCHAR,
})  # fmt: skip
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z_]+")
_PARTS_OF_TABLE: Final = frozenset({"this", "alias", "joins", "db", "catalog"})
_PLACE: Final = "durably_views"
_PREFIX: Final = "query:"
"""Of the names that a query gives to its parts."""
_PAYLOADS: Final = frozenset({
    "completion_failure", "completion_result", "completion_success_value", "completion_success_value_utf8",
    "entry_json", "last_failure", "value", "value_length", "value_utf8", "raw_length",
})  # fmt: skip
"""Columns that say what a codec may have wrapped."""
_NULLS: Final[Mapping[ColumnType, str]] = {
    ColumnType.TEXT: "text", ColumnType.UNSIGNED: "bigint", ColumnType.LONG: "bigint", ColumnType.INTEGER: "bigint",
    ColumnType.REAL: "float8", ColumnType.BOOLEAN: "boolean", ColumnType.MOMENT: "timestamptz",
    ColumnType.DURATION: "interval", ColumnType.BINARY: "bytea", ColumnType.NUMBERS: "text", ColumnType.TEXTS: "text",
}  # fmt: skip

Rows = tuple[Sequence[str], Sequence[Sequence[object]]]


def _views() -> Mapping[str, str]:
    text = files("durably.runtime.queries").joinpath("server_views.sql").read_text(encoding="utf-8")
    return {one.name: one.sql.rstrip(";") for one in parse_statements(text)}


def _known_columns(sql: str) -> frozenset[str]:
    query = sqlglot.parse_one(sql, dialect=Postgres)
    assert isinstance(query, exp.Select)
    return frozenset(one.alias_or_name for one in query.expressions)


VIEWS: Final = _views()
_KNOWN: Final = {name: _known_columns(sql) for name, sql in VIEWS.items()}


def translate_for_server(
    text: str, *, schema: str, now: str | None, rows: Mapping[str, Rows], reads_payloads: bool = True
) -> str:
    """`rows`: tables that are known here and not to the server, by name. `now`: the present moment.

    Raises:
        BadQueryError: it is no query, or none that can be asked.
    """
    if not is_storable(text):
        raise BadQueryError("The query has NUL or half a surrogate pair in it, which no text in PostgreSQL has.")
    try:
        query, tables = checked_query(text)
        normalized = normalize_identifiers(query, dialect=Postgres)
        for node in list(normalized.walk()):
            _check(node)
        adapted = normalized.transform(_adapted, now)
        _rename(adapted)
        sql = adapted.sql(dialect=Postgres, identify=True, comments=False, unsupported_level=ErrorLevel.RAISE)
        # What was written is read once more: a text that ends sooner than it was meant to would show here.
        for node in parsed(sql).walk():
            _check(node)
            if isinstance(node, exp.Table):
                assert node.name in tables or node.name.startswith(_PREFIX), "only these are asked"
        used = sorted(tables)
        before = [f'"{name}" as not materialized ({_table(name, schema, rows, reads_payloads)})' for name in used]
        if not before:
            return sql
        # A query of its own around it, since it may begin with parts of its own.
        return f"with {', '.join(before)}\nselect * from (\n{sql}\n) as asked"
    except RecursionError as error:
        raise too_nested() from error


def _rename(query: exp.Expr) -> None:
    """Keep names that the query gives to its parts apart from those of the server."""
    for table in list(query.find_all(exp.Table)):
        if table.name.lower() in ALL_TABLES:
            table.set("this", exp.to_identifier(table.name.lower(), quoted=True))
            continue
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.set("this", exp.to_identifier(_PREFIX + table.name, quoted=True))
    for part in query.find_all(exp.CTE):
        part.args["alias"].set("this", exp.to_identifier(_PREFIX + part.alias, quoted=True))


def _check(node: exp.Expr) -> None:
    kind = type(node)
    match node:
        case exp.With() if node.args.get("recursive"):
            raise BadQueryError("WITH RECURSIVE cannot be asked of a store in PostgreSQL.")
        case exp.Table():
            if not isinstance(node.this, exp.Identifier):
                raise BadQueryError(f"Only tables can stand behind FROM: there is {_shown(node)}.")
            others = {name for name, value in node.args.items() if value} - _PARTS_OF_TABLE
            if others:
                raise BadQueryError(f"A table cannot be asked in that way: {_shown(node)}.")
        case exp.DataType() if node.this not in _TYPES:
            raise BadQueryError(f"The type {_shown(node)} cannot be used in a query.")
        case exp.Literal() if not node.is_string and not _NUMBER.fullmatch(str(node.this)):
            raise BadQueryError(f"{_shown(node)} is no number.")
        case exp.Var() if not _WORD.fullmatch(str(node.this)):
            raise BadQueryError(f"{_shown(node)} cannot stand there.")
        case _ if kind in _SYNTAX or kind in _FUNCTIONS:
            return
        case exp.Func():
            name = node.name if isinstance(node, exp.Anonymous) else node.sql_name()
            raise BadQueryError(
                f"The function {name.lower()}() cannot be used in a query of a store in PostgreSQL. There are: "
                f"{', '.join(sorted(_FUNCTIONS.values()))}."
            )
        case _:
            raise BadQueryError(f"A query of a store in PostgreSQL cannot hold this: {_shown(node)}.")


def _shown(node: exp.Expr) -> str:
    shown = node.sql(dialect=Postgres, comments=False)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def _adapted(node: exp.Expr, now: str | None) -> exp.Expr:
    match node:
        case exp.Subquery() if isinstance(node.parent, exp.From | exp.Join):
            return derived(node)
        case exp.CurrentTimestamp():
            moment = exp.Null() if now is None else exp.Literal.string(now)
            return exp.cast(moment, exp.DType.TIMESTAMPTZ)
        case _:
            return node


def _table(name: str, schema: str, rows: Mapping[str, Rows], reads_payloads: bool) -> str:
    """A table with all of its columns, those that nothing is known of as NULL."""
    types = ALL_TABLES[name]
    known = _KNOWN.get(name, frozenset())
    source = f"({VIEWS[name].replace(_PLACE, _quoted(schema))}) as known" if name in VIEWS else "(select 1) as none"
    if name in rows:
        given, values = rows[name]
        known = frozenset(given)
        source = _values(given, values, types)
    hidden: frozenset[str] = frozenset() if reads_payloads else _PAYLOADS
    columns = [
        _quoted(column)
        if column in known and column not in hidden
        else f"{'0' if column == 'partition_key' else 'null'}::{_NULLS[type]} as {_quoted(column)}"
        for column, type in types.items()
    ]
    empty = " where false" if source == "(select 1) as none" else ""
    return f"select {', '.join(columns)} from {source}{empty}"


def _values(names: Sequence[str], rows: Sequence[Sequence[object]], types: Mapping[str, ColumnType]) -> str:
    lines = [", ".join(f"{_literal(value)}::{_NULLS[types[name]]}" for name, value in zip(names, row, strict=True))
             for row in rows]  # fmt: skip
    columns = ", ".join(map(_quoted, names))
    return f"(values {', '.join(f'({line})' for line in lines)}) as known ({columns})"


def _literal(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case _:
            return "'" + str(value).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""`translate`: a question in the SQL that Restate's tools write, as SQLite takes it.

They write the dialect of DataFusion, which is close to Postgres. Only one query comes through: no statement that
changes anything, no function that SQLite lacks and we do not know, no name for a part of it that a table has.
Identifiers are written in backticks, because SQLite takes a name in double quotes that it does not know for a text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import TokenType
from sqlglot.tokens import Tokenizer

from durably.runtime.queries.tables import ALL_TABLES, SCHEMA_COLUMNS, SCHEMA_TABLES, TABLES, TYPES_BY_NAME, ColumnType

SQL_LIMIT_CHARACTERS: Final = 128 * 1024
NESTING_LIMIT: Final = 24
"""Brackets in brackets."""
TOKENS_LIMIT: Final = 5_000
READ_TABLES_LIMIT: Final = 256
"""Tables and named parts that a query reads, where each part stands for what it is: SQLite writes them out like that
before it runs anything, and ten parts that each read the one before twice are a thousand tables.
"""
EXPRESSIONS_LIMIT: Final = 200_000
"""Operations, values and columns of a query, where each column of a part or a subquery stands for what it is computed
from: SQLite writes these out, too. They take some 75 MB then.
"""
PARSER_STEPS_LIMIT: Final = 50_000
"""The parser tries several readings of `date(` and the like, and those inside each time anew: 24 of them in each other
would take hours. What has none of these takes one or two steps for each word.
"""

_SCHEMA: Final = {"columns": SCHEMA_COLUMNS, "tables": SCHEMA_TABLES}
_FIRST: Final = "first_by"
_LAST: Final = "last_by"
_OPENING: Final = frozenset({TokenType.L_PAREN, TokenType.CASE})
_CLOSING: Final = frozenset({TokenType.R_PAREN, TokenType.END})
_ARRAYS: Final = frozenset({TokenType.L_BRACKET, TokenType.L_BRACE})
_BEGINS: Final = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN})
_CHANGES: Final = (exp.Into, exp.Lock, exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Copy, exp.Create, exp.Command)
"""What a query may not hold. SQLite is asked for nothing but reading anyway; this says so in a sentence."""
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_PREDICATES: Final = (exp.Predicate, exp.Not, exp.And, exp.Or, exp.Boolean, exp.Exists, exp.In, exp.Between)
_VALUES: Final = (exp.Column, exp.Func, exp.DPipe)
_SAME_TYPE: Final = (exp.Min, exp.Max, exp.Paren, exp.FirstValue, exp.LastValue, exp.AnyValue, exp.Coalesce)


class BadQueryError(ValueError):
    """A query that cannot be asked; the sentence is for who wrote it."""


class _OurSqlite(SQLite):
    """SQLite, with identifiers in backticks."""

    class Tokenizer(SQLite.Tokenizer):
        IDENTIFIERS = ["`", '"', ("[", "]")]  # noqa: RUF012  # sqlglot reads it from the class.


class _PatientPostgres(Postgres):
    """Postgres, whose parser gives up in the end."""

    class Parser(PostgresParser):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self._steps = 0
            super().__init__(*arguments, **named)

        def _advance(self, times: int = 1) -> None:
            self._steps += 1
            if self._steps > PARSER_STEPS_LIMIT:
                raise too_nested()
            super()._advance(times)


@dataclass(frozen=True, slots=True)
class Translated:
    """A query for SQLite, and what is known of its columns."""

    sql: str
    types: dict[str, ColumnType]
    """By the name of the column in the answer, where its expression says so."""
    tables: frozenset[str]
    """Those that it reads."""
    values: int
    """How many values it may hold at a time in a row, at most: those of columns, and those that it makes."""


def translate(text: str) -> Translated:
    """
    Raises:
        BadQueryError: it is no query, or none that can be asked.
    """
    try:
        return _translated(text)
    except RecursionError as error:
        raise too_nested() from error


def checked_query(text: str) -> tuple[exp.Query, frozenset[str]]:
    """The one query that a text is, and the tables that it reads.

    Raises:
        BadQueryError: it is no query, or reads tables that there are not.
    """
    _check_size(text)
    query = parsed(text)
    if _read_tables(query, {}) > READ_TABLES_LIMIT:
        raise BadQueryError(
            f"The query reads more than {READ_TABLES_LIMIT} tables, where each of its named parts counts as often as "
            "it is used. Use them less often."
        )
    if _written_out(query, {}).size > EXPRESSIONS_LIMIT:
        raise BadQueryError(
            f"The query has more than {EXPRESSIONS_LIMIT} operations, where a column of a subquery counts as what it "
            "is computed from, as often as it is used. Use them less often."
        )
    named = {one.alias.lower() for one in query.find_all(exp.CTE)}
    for name in named & ALL_TABLES.keys():
        raise BadQueryError(f"'{name}' is a table; give the part of the query another name.")
    for table in list(query.find_all(exp.Table)):
        _check_table(table, named)
    return query, frozenset(one.name.lower() for one in query.find_all(exp.Table)) - named


def _translated(text: str) -> Translated:
    query, tables = checked_query(text)
    types = _types(query)
    _name_columns(query)
    sql = query.transform(_adapted).sql(
        dialect=_OurSqlite,
        identify=True,
        normalize_functions="lower",  # A column without a name is called by it: `count(*)`.
        comments=False,
        unsupported_level=ErrorLevel.IGNORE,
    )
    return Translated(sql, types, tables, values=sum(1 for _ in query.find_all(*_VALUES)))


def _name_columns(query: exp.Query) -> None:
    """`FROM (…) AS t(x, y)`: SQLite names the columns of a part (`WITH`), but not those of a subquery."""
    for node in list(query.find_all(exp.Subquery, exp.Values, exp.Table)):
        alias = node.args.get("alias")
        if not isinstance(alias, exp.TableAlias) or not alias.columns:
            continue
        name = alias.this
        named = exp.Subquery(this=exp.select("*").from_(name.copy()), alias=exp.TableAlias(this=name.copy()))
        node.replace(named)
        node.set("alias", None)
        part = node.this if isinstance(node, exp.Subquery) else node
        whole = exp.select("*").from_(part) if isinstance(part, exp.Table) else part
        named.this.set("with_", exp.With(expressions=[exp.CTE(this=whole, alias=alias)]))


def _check_size(text: str) -> None:
    if len(text) > SQL_LIMIT_CHARACTERS:
        raise BadQueryError(f"The query is longer than {SQL_LIMIT_CHARACTERS} characters. Ask for less at a time.")
    try:
        tokens = Tokenizer(dialect=Postgres).tokenize(text)
    except SqlglotError as error:
        raise BadQueryError(f"This is no SQL: {_plain(error)}") from error
    if len(tokens) > TOKENS_LIMIT:
        raise BadQueryError(f"The query has more than {TOKENS_LIMIT} words and signs. Ask for less at a time.")
    if tokens and tokens[0].token_type not in _BEGINS:
        raise _no_query()
    if any(token.token_type in _ARRAYS for token in tokens):
        raise BadQueryError(
            "There are no arrays here: lists are JSON text, and json_extract(list, '$[0]') reads one of its elements."
        )
    depth = 0
    for token in tokens:
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        if depth > NESTING_LIMIT:
            raise too_nested()


def too_nested() -> BadQueryError:
    return BadQueryError(f"The query is nested more than {NESTING_LIMIT} deep. Write it with fewer brackets.")


def parsed(text: str) -> exp.Query:
    try:
        found = [one for one in sqlglot.parse(text, dialect=_PatientPostgres) if one is not None]
    except SqlglotError as error:
        raise BadQueryError(f"This is no SQL: {_plain(error)}") from error
    if len(found) != 1:
        raise BadQueryError(f"Ask one query at a time; there are {len(found)} statements.")
    query = found[0]
    if not isinstance(query, exp.Select | exp.SetOperation) or query.find(*_CHANGES):
        raise _no_query()
    return query


def _no_query() -> BadQueryError:
    return BadQueryError("Only queries are answered: write SELECT … FROM …")


class _Part:
    """A part of a query that has a name (WITH). It may read itself, and those that stand behind it."""

    def __init__(self, cte: exp.CTE, scope: Mapping[str, _Part]) -> None:
        self._cte = cte
        self._scope = scope
        self._tables: int | None = None

    def tables(self) -> int:
        """How many it reads, at least one."""
        if self._tables is None:
            self._tables = 1  # For itself, while they are counted.
            self._tables = max(1, _read_tables(self._cte.this, self._scope))
        return self._tables


def _read_tables(node: exp.Expr, scope: Mapping[str, _Part]) -> int:
    """How many tables are read, each part that is in scope counted as often as it is used."""
    parts = [one for one in node.iter_expressions() if isinstance(one, exp.With)]
    if parts:
        inner = dict(scope)
        inner |= {cte.alias.lower(): _Part(cte, inner) for part in parts for cte in part.expressions}
        scope = inner
    own = 0
    if isinstance(node, exp.Table):
        own = scope[node.name.lower()].tables() if node.name.lower() in scope else 1
    return own + sum(_read_tables(one, scope) for one in node.iter_expressions() if not isinstance(one, exp.With))


class _Written(NamedTuple):
    """How many expressions a query has, written out: all of them, and at most for one of its columns."""

    size: int
    column: int


class _Computed:
    """What a named part computes. A column of its own that it reads is one that has been computed."""

    def __init__(self, cte: exp.CTE, scope: Mapping[str, _Computed], outer: int) -> None:
        self._cte = cte
        self._scope = scope
        self._outer = outer
        self._written: _Written | None = None

    def written(self) -> _Written:
        if self._written is None:
            self._written = _Written(1, 1)
            self._written = _written_out(self._cte.this, self._scope, self._outer)
        return self._written


def _written_out(query: exp.Expr, scope: Mapping[str, _Computed], outer: int = 1) -> _Written:
    """The size of a SELECT, of several that are put together, or of one in brackets.

    `outer`: that of a column of the query around it, which it may use.
    """
    parts = [one for one in query.iter_expressions() if isinstance(one, exp.With)]
    if parts:
        inner = dict(scope)
        inner |= {cte.alias.lower(): _Computed(cte, inner, outer) for part in parts for cte in part.expressions}
        scope = inner
    if not isinstance(query, exp.Select):
        sides = [_written_out_source(one, scope, outer) for one in _sources(query)]
        return _Written(sum((one.size for one in sides), 1), max((one.column for one in sides), default=1))
    sources = [_written_out_source(one, scope, outer) for one in _sources(query)]
    column = max([outer, *(one.column for one in sources)])
    size = sum(one.size for one in sources)
    widest = 1
    for one in query.iter_expressions():
        if not isinstance(one, exp.With | exp.From):
            written = _size_of(one, column, scope)
            size += written
            if one.arg_key == "expressions":
                widest = max(widest, written)
    return _Written(size, widest)


def _sources(query: exp.Expr) -> Iterator[exp.Expr]:
    """The tables and subqueries that it reads or joins, or that stand in its brackets."""
    for one in query.iter_expressions():
        if isinstance(one, exp.From | exp.Join):
            yield one.this
        elif isinstance(one, exp.Query | exp.Table) and not isinstance(query, exp.Select):
            yield one


def _written_out_source(source: exp.Expr, scope: Mapping[str, _Computed], outer: int) -> _Written:
    if not isinstance(source, exp.Table):
        return _written_out(source, scope, outer)
    named = scope.get(source.name.lower())
    read = [_Written(1, 1) if named is None else named.written()]
    read += [_written_out_source(one, scope, outer) for one in _sources(source)]
    return _Written(sum(one.size for one in read), max(one.column for one in read))


def _size_of(node: exp.Expr, column: int, scope: Mapping[str, _Computed]) -> int:
    """Of an expression whose columns have that size each."""
    if isinstance(node, exp.Column | exp.Star):
        return column
    if isinstance(node, exp.Query):
        return _written_out(node, scope, column).size
    joined = node.this if isinstance(node, exp.Join) else None
    return 1 + sum(_size_of(one, column, scope) for one in node.iter_expressions() if one is not joined)


def _check_table(table: exp.Table, named: Collection[str]) -> None:
    """`named`: parts of the query that it gives names to."""
    if not table.name:
        raise BadQueryError("Only tables can stand behind FROM, and there stands a function.")
    if table.db.lower() == "information_schema":
        meant = _SCHEMA.get(table.name.lower())
        if meant is None:
            raise BadQueryError(f"There is no table information_schema.{table.name}.")
        alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name))
        table.replace(exp.Table(this=exp.to_identifier(meant), alias=alias))
        return
    if table.db.lower() not in ("", "public"):
        raise BadQueryError(f"There is no schema {table.db}.")
    if table.name.lower() not in TABLES and table.name.lower() not in named:
        raise BadQueryError(f"There is no table '{table.name}'. There are: {', '.join(sorted(TABLES))}.")
    if table.db:
        table.set("db", None)
        table.set("catalog", None)


# ---------------------------------------------------------------- what SQLite has otherwise


def _adapted(node: exp.Expr) -> exp.Expr:
    match node:
        case exp.FirstValue() | exp.LastValue() if not isinstance(node.parent, exp.Window):
            return _first_of_a_group(node)
        case exp.Subquery() if isinstance(node.parent, exp.From | exp.Join):
            return derived(node)
        case exp.ArrayAgg():
            return exp.Anonymous(this="json_group_array", expressions=[node.this])
        case exp.CurrentTimestamp() | exp.CurrentDatetime():
            return exp.Anonymous(this="now")
        case exp.Add() | exp.Sub() if isinstance(node.expression, exp.Interval):
            return _shifted(node)
        case _:
            return node


def _first_of_a_group(node: exp.Expr) -> exp.Expr:
    """`FIRST_VALUE(x ORDER BY y)` as an aggregate."""
    wanted, order = node.this, exp.Literal.number(1)
    is_first = isinstance(node, exp.FirstValue)
    if isinstance(wanted, exp.Order):
        (ordered, *others) = wanted.expressions
        if others:
            raise BadQueryError("FIRST_VALUE and LAST_VALUE take one column in ORDER BY.")
        wanted, order = wanted.this, ordered.this
        is_first ^= bool(ordered.args.get("desc"))
    return exp.Anonymous(this=_FIRST if is_first else _LAST, expressions=[wanted, order])


def derived(node: exp.Subquery) -> exp.Expr:
    """A subquery in FROM that is about one table.

    Without a name of its own it has that of the table: what stands outside may use it. Of `SELECT *` it computes the
    columns that are used outside; SQLite would compute all of them where there is a LIMIT.
    """
    inner = node.this
    source = inner.args.get("from_") if isinstance(inner, exp.Select) else None
    if source is None or inner.args.get("joins") or not isinstance(source.this, exp.Table):
        return node
    if not node.alias:
        node.set("alias", exp.TableAlias(this=exp.to_identifier(source.this.alias_or_name)))
    outer, columns = node.find_ancestor(exp.Select), ALL_TABLES.get(source.this.name.lower())
    is_all = len(inner.expressions) == 1 and isinstance(inner.expressions[0], exp.Star)
    depends_on_them = any(inner.args.get(part) for part in ("distinct", "order", "group", "having"))
    if (
        outer is None
        or columns is None
        or not is_all
        or depends_on_them
        or any(one.is_star for one in outer.expressions)
    ):
        return node
    inside = {id(one) for one in node.find_all(exp.Column)}
    used = {one.name.lower() for one in outer.find_all(exp.Column) if id(one) not in inside}
    wanted: list[exp.Expr] = [exp.column(name) for name in columns if name in used]
    inner.set("expressions", wanted or [exp.alias_(exp.Literal.number(1), "nothing")])
    return node


def _shifted(node: exp.Binary) -> exp.Expr:
    interval = node.expression
    number, unit = interval.this, interval.args.get("unit")
    name = "" if unit is None else unit.name.lower().rstrip("s")
    try:
        seconds = float(number.name) * _SECONDS[name]
    except (KeyError, ValueError, AttributeError):
        raise BadQueryError("An interval is written as INTERVAL '5 minutes', with a unit up to weeks.") from None
    signed = -seconds if isinstance(node, exp.Sub) else seconds
    return exp.Anonymous(this="shifted", expressions=[node.this.transform(_adapted), exp.Literal.number(repr(signed))])


# ---------------------------------------------------------------- what the columns of the answer are


def _types(query: exp.Query) -> dict[str, ColumnType]:
    """Of each column that says by itself what it is. `*` stands for the names that tables have."""
    known = dict(TYPES_BY_NAME)
    outer = list(_projections(query))
    for select in reversed(list(query.find_all(exp.Select))):  # The innermost first: the outer ones refer to them.
        for projection in select.expressions:
            _note(projection, known)
    found: dict[str, ColumnType] = {}
    if any(one.is_star for one in outer):
        found |= known
    for projection in outer:
        if not projection.is_star:
            found.pop(projection.alias_or_name, None)
            type = _type_of(projection, known)
            if type is not None:
                found[projection.output_name] = type
    return found


def _projections(query: exp.Query) -> Sequence[exp.Expr]:
    while isinstance(query, exp.SetOperation | exp.Subquery):
        query = query.this
    return query.expressions if isinstance(query, exp.Select) else []


def _note(projection: exp.Expr, known: dict[str, ColumnType]) -> None:
    if isinstance(projection, exp.Alias):
        type = _type_of(projection, known)
        if type is None:
            known.pop(projection.alias, None)
        else:
            known[projection.alias] = type


def _type_of(expression: exp.Expr, known: dict[str, ColumnType]) -> ColumnType | None:
    match expression:
        case exp.Alias():
            return _type_of(expression.this, known)
        case exp.Column():
            return known.get(expression.name)
        case exp.Subquery():
            inner = _projections(expression)
            return _type_of(inner[0], known) if len(inner) == 1 else None
        case exp.Window():
            return _type_of(expression.this, known)
        case exp.Order():
            return _type_of(expression.this, known)
        case exp.Case():
            return next((type for type in (_type_of(one, known) for one in _branches(expression)) if type), None)
        case _ if isinstance(expression, _PREDICATES):
            return ColumnType.BOOLEAN
        case _ if isinstance(expression, _SAME_TYPE):
            return _type_of(expression.this, known)
        case _:
            return None


def _branches(case: exp.Case) -> Iterator[exp.Expr]:
    for branch in case.args["ifs"]:
        yield branch.args["true"]
    if case.args.get("default") is not None:
        yield case.args["default"]


def _plain(error: Exception) -> str:
    """The first line of what the parser says, without the colours of a terminal."""
    first = str(error).splitlines()[0] if str(error) else "it cannot be read"
    return first.replace("\x1b[4m", "").replace("\x1b[0m", "")

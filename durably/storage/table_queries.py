"""Queries for objects, answered by their tables: by columns and indexes as far as these tell, then by the objects.

Each answer is of one snapshot. A page behind an object is looked for from there on in an index, so it costs the same
however many come before it.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from durably.queries import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    FieldKind,
    FieldName,
    Not,
    OneOf,
    Operator,
    TableLayout,
    TableQuery,
    comparable,
    holds,
    is_exact_in_columns,
)
from durably.storage.damage import DamagedError, text_with_damage_marked
from durably.storage.entry_reading import stored_payload
from durably.storage.records import Unreadable, VersionsAnswer, field_part
from durably.storage.tables import (
    COLUMN_TYPE,
    MOST_DIGITS,
    MOST_EXPONENT,
    MOST_IN_SQL,
    ODD_KINDS,
    TABLE_PREFIX,
    columns_of,
    quoted,
    sql_text,
    table_columns,
)

_SQL_OPERATORS: Final = {
    Operator.EQUAL: "is",
    Operator.UNEQUAL: "is not",
    Operator.BEFORE: "<",
    Operator.UP_TO: "<=",
    Operator.BEHIND: ">",
    Operator.FROM: ">=",
}
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_VALUE: Final = "null"
_DECIMAL: Final = "ifnull(cast(? as real), 0)"
"""By the same rounding as in the column. A cast alone would have an affinity, which keeps SQLite from its indexes."""


def search(connection: sqlite3.Connection, progressed: Callable[[], None], query: TableQuery) -> VersionsAnswer | None:
    """Objects that fit, in order.

    None: there is no such table, as in a store that was opened for reads alone, or it does not tell the order.
    """
    table = query.table
    name = quoted(TABLE_PREFIX + table.name)
    with _snapshot(connection):
        if not _has_columns(connection, table):
            return None
        if query.order is not None and not _is_in_order(connection, name, query.order):
            return None
        translation = _Translation(connection, query)
        where = [translation.states, *translation.where]
        condition = None if translation.is_exact else query.condition
        ordering = ["m.id"] if query.order is None else [f"m.{quoted(query.order.name)}", "m.id"]
        direction = "desc" if query.is_descending else "asc"
        ordered = ", ".join(f"{one} {direction}" for one in ordering)
        answers = (
            connection.execute(
                f"select m.id, s.value from {name} as m cross join state as s "
                f"on s.service = {sql_text(table.service)} and s.key = m.id and s.field = {sql_text(table.field)} "
                f"where {' and '.join([*where, *behind.where])} order by {ordered} limit ?",
                [*translation.parameters, *behind.parameters, query.limit if condition is None else -1],
            )
            for behind in _behind(connection, name, ordering, query)
        )
        return _versions(connection, progressed, chain.from_iterable(answers), table.field, query.limit, condition)


def count(connection: sqlite3.Connection, query: TableQuery) -> int | None:
    """How many objects fit; None: columns do not tell exactly."""
    with _snapshot(connection):
        if not _has_columns(connection, query.table):
            return None
        translation = _Translation(connection, query)
        if not translation.is_exact:
            return None
        where = " and ".join([translation.states, *translation.where])
        name = quoted(TABLE_PREFIX + query.table.name)
        sql = f"select count(*) from {name} as m where {where}"
        return int(connection.execute(sql, translation.parameters).fetchone()[0])


def read_versions(
    connection: sqlite3.Connection, progressed: Callable[[], None], table: TableLayout, after: str, limit: int
) -> VersionsAnswer:
    """All objects of a class, by key and behind one."""
    sql = "select key, value from state where service = ? and key > ? and field = ? order by key limit ?"
    rows = connection.execute(sql, [table.service, after, table.field, limit])
    return _versions(connection, progressed, rows, table.field, limit)


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("begin")
    try:
        yield
    finally:
        connection.execute("rollback")


def _has_columns(connection: sqlite3.Connection, table: TableLayout) -> bool:
    there = columns_of(connection, quoted(TABLE_PREFIX + table.name))
    return bool(there) and all(there.get(column.name) == COLUMN_TYPE for column in table_columns(table))


def _versions(
    connection: sqlite3.Connection,
    progressed: Callable[[], None],
    rows: Iterator[tuple[str, Any]],
    field: str,
    limit: int,
    condition: Condition | None = None,
) -> VersionsAnswer:
    found: list[tuple[str, bytes]] = []
    unreadable: Unreadable | None = None
    is_all = True
    connection.text_factory = text_with_damage_marked
    try:
        for id, stored in rows:
            progressed()
            if len(found) >= limit:
                is_all = False
                break
            try:
                version = stored_payload(stored)
                if condition is None or holds(condition, msgspec.json.decode(version)):
                    found.append((id, version))
            except (DamagedError, msgspec.DecodeError) as error:
                unreadable = unreadable or Unreadable(field_part(field), str(error))
    finally:
        connection.text_factory = str
    return VersionsAnswer(found, unreadable, is_all=is_all and (condition is not None or len(found) < limit))


# ---------------------------------------------------------------------- where a page begins


class _Behind(NamedTuple):
    """A range of an order, from its beginning to its end."""

    where: list[str]
    parameters: list[Any]


def _behind(connection: sqlite3.Connection, name: str, ordering: list[str], query: TableQuery) -> Iterator[_Behind]:
    """What comes behind the object of an id, in ranges that an index finds; what has no value comes first."""
    if query.after is None:
        yield _Behind([], [])
        return
    compared = "<" if query.is_descending else ">"
    if query.order is None:
        yield _Behind([f"m.id {compared} ?"], [query.after])
        return
    column = ordering[0]
    row = connection.execute(f"select {column} from {name} as m where m.id = ?", (query.after,)).fetchone()
    value = None if row is None else row[0]
    without_value = _Behind([f"{column} is null", f"m.id {compared} ?"], [query.after])
    if value is None:
        yield without_value
        if not query.is_descending:
            yield _Behind([f"{column} is not null"], [])
        return
    yield _Behind([f"({column}, m.id) {compared} (?, ?)"], [value, query.after])
    if query.is_descending:
        yield _Behind([f"{column} is null"], [])


def _is_in_order(connection: sqlite3.Connection, name: str, field: FieldName) -> bool:
    """The values of a column are in the order of those in the JSON. An index tells it at once, where there is one."""
    column = quoted(field.name)
    if field.kind in ODD_KINDS:
        return not _has_odd(connection, name, column)
    if field.kind is not FieldKind.INTEGER:
        return True
    beyond = (f"{column} >= {(1 << 63) - 1}", f"{column} <= -{(1 << 63) - 1}")  # Kept as floating point, from there on.
    sql = " or ".join(f"exists (select 1 from {name} where {one})" for one in beyond)
    return not connection.execute(f"select {sql}").fetchone()[0]


def _has_odd(connection: sqlite3.Connection, name: str, column: str) -> bool:
    sql = f"select exists (select 1 from {name} where {column} >= '')"
    return bool(connection.execute(sql).fetchone()[0])


# ---------------------------------------------------------------------- conditions


class _Translation:
    """A query in SQL, as far as columns tell: no object that fits is left out."""

    def __init__(self, connection: sqlite3.Connection, query: TableQuery) -> None:
        self._columns = {column.name for column in table_columns(query.table)}
        name = quoted(TABLE_PREFIX + query.table.name)
        fields = {field.name: field for field in _fields_of(query.condition) if field.name in self._columns}
        self._may_be_odd = {
            field.name
            for field in fields.values()
            if field.kind in ODD_KINDS
            and field != query.order
            and (field.name not in query.table.indexed or _has_odd(connection, name, quoted(field.name)))
        }
        self.parameters: list[Any] = [*query.states]
        plus = "+" if len(query.states) > 1 or _names_values(query) else ""
        self.states = f"{plus}m.state in ({', '.join('?' * len(query.states))})"
        """Behind the plus SQLite looks for another index: where these are all states that there are, and where few
        values of an indexed field tell more than the state does.
        """
        self.is_exact = True
        """No object is let in that does not fit."""
        self.where = [] if query.condition is None else [self._sql(query.condition, is_wide=True)]

    def _sql(self, condition: Condition, *, is_wide: bool) -> str:
        """Where columns do not tell, an object is let in if it `is_wide`, and else left out, as `not` turns it round.

        What has no value is neither before nor behind one. SQL says null to that, which is no only where nothing
        negates it, and what makes it one keeps SQLite from its indexes.
        """
        match condition:
            case AllOf() | AnyOf():
                parts = [self._sql(part, is_wide=is_wide) for part in condition.parts]
                joint, of_none = (" and ", "1") if isinstance(condition, AllOf) else (" or ", "0")
                return f"({joint.join(parts) or of_none})"
            case Not():
                return f"(not {self._sql(condition.part, is_wide=not is_wide)})"
            case Compare():
                return self._compared(condition, is_wide=is_wide)
            case OneOf():
                return self._one_of(condition, is_wide=is_wide)

    def _compared(self, condition: Compare, *, is_wide: bool) -> str:
        field, operator = condition.field, condition.operator
        if field.name not in self._columns:
            return self._untold(is_wide=is_wide)
        column = f"m.{quoted(field.name)}"
        value = _held(field, condition.value)
        if value is None:
            return self._near(condition, column, is_wide=is_wide)
        self.parameters += value.parameters
        told = f"{column} {_SQL_OPERATORS[operator]} {value.sql}"
        if not is_wide and operator not in (Operator.EQUAL, Operator.UNEQUAL):
            told = f"coalesce({told}, 0)"
        return self._even(field, column, told, is_wide=is_wide)

    def _one_of(self, condition: OneOf, *, is_wide: bool) -> str:
        field = condition.field
        if field.name not in self._columns or len(condition.values) > MOST_IN_SQL:
            return self._untold(is_wide=is_wide)
        column = f"m.{quoted(field.name)}"
        held = [(value, _held(field, value)) for value in condition.values if value is not None]
        known = [one for _, one in held if one is not None]
        self.parameters += chain.from_iterable(one.parameters for one in known)
        told = f"{column} in ({', '.join(one.sql for one in known)})"
        parts = [told if is_wide else f"coalesce({told}, 0)"]
        if len(held) < len(condition.values):
            parts.append(f"{column} is null")
        for value, one in held:
            if one is None:
                parts.append(self._near(Compare(field, Operator.EQUAL, value), column, is_wide=is_wide))
        return self._even(field, column, f"({' or '.join(parts)})", is_wide=is_wide)

    def _even(self, field: FieldName, column: str, told: str, *, is_wide: bool) -> str:
        """Odd values are looked at in the object."""
        if field.name not in self._may_be_odd:
            return told
        self.is_exact = False
        return f"({told} or {column} >= '')" if is_wide else f"({told} and coalesce({column} < '', 1))"

    def _near(self, condition: Compare, column: str, *, is_wide: bool) -> str:
        """Compared with a value that no column can hold: those near to it are let in."""
        near = _nearly(comparable(condition.field.kind, condition.value))
        if not is_wide or condition.operator is Operator.UNEQUAL or math.isinf(near):
            return self._untold(is_wide=is_wide)
        self.is_exact = False
        low = math.nextafter(math.nextafter(near, -math.inf), -math.inf)
        high = math.nextafter(math.nextafter(near, math.inf), math.inf)
        match condition.operator:
            case Operator.BEFORE | Operator.UP_TO:
                self.parameters.append(high)
                told = f"{column} <= ?"
            case Operator.BEHIND | Operator.FROM:
                self.parameters.append(low)
                told = f"{column} >= ?"
            case _:
                self.parameters += [low, high]
                told = f"{column} between ? and ?"
        return self._even(condition.field, column, told, is_wide=True)

    def _untold(self, *, is_wide: bool) -> str:
        self.is_exact = False
        return "1" if is_wide else "0"


class _Held(NamedTuple):
    """A value as a column holds it."""

    sql: str
    parameters: list[Any]


def _held(field: FieldName, value: Any) -> _Held | None:
    """None: a column does not tell exactly how it compares with this one."""
    if value is None:
        return _Held(_NO_VALUE, [])
    match field.kind:
        case FieldKind.DECIMAL:
            text = _shortest(comparable(field.kind, value))
            return None if text is None else _Held(_DECIMAL, [text])
        case FieldKind.MOMENT:
            moment: datetime = comparable(field.kind, value)
            return _Held("?", [(moment - _START) // timedelta(microseconds=1)])
        case _ if is_exact_in_columns(field, value):
            return _Held("?", [int(value) if isinstance(value, bool) else value])
        case _:
            return None


def _nearly(number: Any) -> float:
    """A number in floating point; infinite where that is too small for it."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _shortest(number: Decimal) -> str | None:
    """A decimal in as few digits as it has; None: they are too many for a column."""
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        return None
    written = "".join(map(str, digits))
    shortest = written.rstrip("0") or "0"
    exponent += 0 if shortest == "0" else len(written) - len(shortest)
    if len(shortest) > MOST_DIGITS or abs(exponent) > MOST_EXPONENT:
        return None
    return f"{'-' * sign}{shortest}e{exponent if shortest != '0' else 0}"


def _names_values(query: TableQuery) -> bool:
    """Only a few values of an indexed field fit."""
    conditions = query.condition.parts if isinstance(query.condition, AllOf) else (query.condition,)
    return any(isinstance(one, OneOf) and one.field.name in query.table.indexed for one in conditions)


def _fields_of(condition: Condition | None) -> Iterator[FieldName]:
    match condition:
        case Compare() | OneOf():
            yield condition.field
        case AllOf() | AnyOf():
            for part in condition.parts:
                yield from _fields_of(part)
        case Not():
            yield from _fields_of(condition.part)
        case None:
            pass

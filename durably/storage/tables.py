"""Tables of objects: a row for each object of a class, with its fields as columns, for queries.

They follow from the state that is stored anyway: triggers on `state` keep them, so a row changes in the statement that
changes its object (rules P6 and X5), and a store that has none costs nothing. They are made, and given further columns,
when a runtime opens the store; nothing that is in them is lost by deleting them. Their SQL is made here, since it names
the fields of users' classes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

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
    holds,
    is_exact_in_columns,
)
from durably.storage.damage import DamagedError, text_with_damage_marked
from durably.storage.entry_reading import stored_payload
from durably.storage.records import Unreadable, VersionsAnswer, field_part
from durably.storage.statements import SQL

TABLE_PREFIX: Final = "model_"
_COLUMN_TYPES: Final = {
    FieldKind.INTEGER: "any",
    FieldKind.NUMBER: "any",
    FieldKind.TEXT: "any",
    FieldKind.BOOLEAN: "any",
    FieldKind.DAY: "any",
    FieldKind.DECIMAL: "real",
    FieldKind.MOMENT: "real",
}
MOST_IN_SQL: Final = 500
"""Values that a field may be one of, in SQL; more are looked through in Python."""
_IS_VERSION: Final = (
    "case when json_valid(v.j) then json_type(v.j) is 'object' and json_type(v.j, '$.state') is 'text' else 0 end"
)
"""What has no state is no version: an edit may have left it. `and` alone would not keep SQLite from parsing first."""
_LOOSE: Final = (FieldKind.DECIMAL, FieldKind.MOMENT)
"""Columns that hold these nearly: the store answers with some that do not fit, which the machine looks at again."""
_SQL_OPERATORS: Final = {
    Operator.EQUAL: "is",
    Operator.UNEQUAL: "is not",
    Operator.BEFORE: "<",
    Operator.UP_TO: "<=",
    Operator.BEHIND: ">",
    Operator.FROM: ">=",
}


def lay_tables(connection: sqlite3.Connection, tables: Sequence[TableLayout]) -> None:
    """Make the tables that are missing, and add columns and indexes that are. None: delete all that there are."""
    connection.execute(SQL["begin"])
    try:
        if not tables:
            _drop_tables(connection)
        for table in tables:
            _lay(connection, table)
        connection.execute(SQL["end"])
    except BaseException:
        if connection.in_transaction:
            connection.execute(SQL["give_up"])
        raise


def _drop_tables(connection: sqlite3.Connection) -> None:
    for kind in ("trigger", "table"):
        names = connection.execute(
            "select name from sqlite_schema where type = ? and name glob ?", (kind, f"{TABLE_PREFIX}*")
        ).fetchall()
        for (name,) in names:
            connection.execute(f"drop {kind} {_quoted(name)}")


def _lay(connection: sqlite3.Connection, table: TableLayout) -> None:
    name = _quoted(TABLE_PREFIX + table.name)
    columns = [*_columns(table)]
    there = _columns_of(connection, name)
    if any(there.get(column.name, _COLUMN_TYPES[column.kind]) != _COLUMN_TYPES[column.kind] for column in columns):
        connection.execute(f"drop table {name}")  # A field compares in another way: all follows from the state anew.
        there = {}
    if not there:
        connection.execute(f"create table {name} (id text primary key, state text not null) strict, without rowid")
    added = [column for column in columns if column.name not in there]
    for column in added:
        connection.execute(f"alter table {name} add column {_quoted(column.name)} {_COLUMN_TYPES[column.kind]}")
    if not there:
        _lay_triggers(connection, table)
        _fill(connection, table, "1")
    elif _lay_triggers(connection, table):  # Rows stay as they are where they say the same.
        same = " and ".join(f"m.{_quoted(column.name)} is {_expression(column)}" for column in columns)
        state = "m.state is v.j ->> '$.state'"
        where = f"m.id = v.key and {state}" + (f" and {same}" if same else "")
        _fill(connection, table, f"not exists (select 1 from {name} as m where {where})")
    _lay_indexes(connection, table)


def _columns_of(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    return {str(row[1]): str(row[2]).lower() for row in connection.execute(f"pragma table_info({name})")}


def _lay_triggers(connection: sqlite3.Connection, table: TableLayout) -> bool:
    """Returns whether other triggers, or none, have kept the rows until now."""
    has_changed = False
    for name, sql in _triggers(table):
        find = "select sql from sqlite_schema where type = 'trigger' and name = ?"
        found = connection.execute(find, (name,)).fetchone()
        if found is None or found[0] != sql:
            connection.execute(f"drop trigger if exists {_quoted(name)}")
            connection.execute(sql)
            has_changed = True
    return has_changed


def _triggers(table: TableLayout) -> Iterator[tuple[str, str]]:
    name, of = TABLE_PREFIX + table.name, f"= {_text(table.service)}"
    field = f"field = {_text(table.field)}"
    version = "(select new.key, cast(new.value as text) as j)"
    for event in ("insert", "update"):
        gone = (
            f"delete from {_quoted(name)} where id = new.key "
            f"and not exists (select 1 from {version} as v where {_IS_VERSION});"
        )
        yield (
            f"{name}_{event}",
            (
                f"create trigger {_quoted(f'{name}_{event}')} after {event} on state "
                f"when new.service {of} and new.{field} begin {gone} {_put(table, version, '1')}; end"
            ),
        )
    yield (
        f"{name}_delete",
        (
            f"create trigger {_quoted(f'{name}_delete')} after delete on state "
            f"when old.service {of} and old.{field} begin delete from {_quoted(name)} where id = old.key; end"
        ),
    )


def _put(table: TableLayout, versions: str, where: str) -> str:
    """Put rows into a table, of `versions`: a select of (key, j), which is a version as JSON."""
    columns = [*_columns(table)]
    names = ["id", "state", *(_quoted(column.name) for column in columns)]
    values = ["v.key", "v.j ->> '$.state'", *(_expression(column) for column in columns)]
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    return (
        f"insert into {_quoted(TABLE_PREFIX + table.name)} ({', '.join(names)}) select {', '.join(values)} "
        f"from {versions} as v where {_IS_VERSION} and ({where}) on conflict (id) do update set {changed}"
    )


def _fill(connection: sqlite3.Connection, table: TableLayout, where: str) -> None:
    versions = (
        f"(select key, cast(value as text) as j from state where service = {_text(table.service)} "
        f"and field = {_text(table.field)})"
    )
    connection.execute(_put(table, versions, where))


def _expression(column: FieldName) -> str:
    path = _text(f'$."{column.name}"')
    match column.kind:
        case FieldKind.DECIMAL:
            return f"cast(v.j ->> {path} as real)"
        case FieldKind.MOMENT:
            return f"julianday(v.j ->> {path})"
        case _:
            return f"v.j ->> {path}"


def _lay_indexes(connection: sqlite3.Connection, table: TableLayout) -> None:
    name = TABLE_PREFIX + table.name
    wanted: dict[str, tuple[str, ...]] = {f"{name}_by_state": ("state", "id")}
    for column in table.indexed:  # For questions about all states, and about one: both in the order of the answer.
        wanted[f"{name}_by_{column}"] = (column, "id", "state")
        wanted[f"{name}_by_state_and_{column}"] = ("state", column, "id")
    found = {
        str(row[0])
        for row in connection.execute(
            "select name from sqlite_schema where type = 'index' and tbl_name = ? and sql is not null", (name,)
        )
    }
    for index in found - wanted.keys():
        connection.execute(f"drop index {_quoted(index)}")
    for index in wanted.keys() - found:
        columns = ", ".join(_quoted(column) for column in wanted[index])
        connection.execute(f"create index {_quoted(index)} on {_quoted(name)} ({columns})")


def search(connection: sqlite3.Connection, progressed: Callable[[], None], query: TableQuery) -> VersionsAnswer | None:
    """Objects that fit, in order, in one snapshot: columns tell as far as they can, and the rest is looked at here.

    None: there is no such table, as in a store that was opened for reads alone.
    """
    table = query.table
    name = _quoted(TABLE_PREFIX + table.name)
    known = {column.name for column in _columns(table)}
    if not known <= _columns_of(connection, name).keys() - {"id", "state"} or not _columns_of(connection, name):
        return None
    parameters: list[Any] = [*query.states]
    where = [_in_states(query)]
    is_exact = query.condition is None or _is_exact(query.condition, known)
    if query.condition is not None:
        part = _sql_of(query.condition, known, parameters)
        if part is not None:
            where.append(part)
    compared, direction = ("<", "desc") if query.is_descending else (">", "asc")
    ordering = ["m.id"] if query.order is None else [f"m.{_quoted(query.order.name)}", "m.id"]
    if query.after is not None:
        where.append(_behind(ordering, compared, name, query, parameters))
    parameters.append(query.limit if is_exact else -1)
    sql = (
        f"select m.id, s.value from {name} as m cross join state as s "
        f"on s.service = {_text(table.service)} and s.key = m.id and s.field = {_text(table.field)} "
        f"where {' and '.join(where)} order by {', '.join(f'{one} {direction}' for one in ordering)} limit ?"
    )
    condition = None if is_exact else query.condition
    return _versions(connection, progressed, sql, parameters, table.field, query.limit, condition)


def read_versions(
    connection: sqlite3.Connection, progressed: Callable[[], None], table: TableLayout, after: str, limit: int
) -> VersionsAnswer:
    """All objects of a class, by key and behind one."""
    parameters = [table.service, after, table.field, limit]
    sql = "select key, value from state where service = ? and key > ? and field = ? order by key limit ?"
    return _versions(connection, progressed, sql, parameters, table.field, limit)


def _versions(
    connection: sqlite3.Connection,
    progressed: Callable[[], None],
    sql: str,
    parameters: list[Any],
    field: str,
    limit: int,
    condition: Condition | None = None,
) -> VersionsAnswer:
    found: list[tuple[str, bytes]] = []
    unreadable: Unreadable | None = None
    is_all = True
    connection.text_factory = text_with_damage_marked
    try:
        for id, stored in connection.execute(sql, parameters):
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


def _in_states(query: TableQuery) -> str:
    """Behind the plus SQLite looks for another index: where these are all states that there are, and where few values
    of an indexed field tell more than the state does.
    """
    plus = "+" if len(query.states) > 1 or _names_values(query) else ""
    return f"{plus}m.state in ({', '.join('?' * len(query.states))})"


def _names_values(query: TableQuery) -> bool:
    """Only a few values of an indexed field fit."""
    conditions = query.condition.parts if isinstance(query.condition, AllOf) else (query.condition,)
    return any(isinstance(one, OneOf) and one.field.name in query.table.indexed for one in conditions)


def _behind(ordering: list[str], compared: str, name: str, query: TableQuery, parameters: list[Any]) -> str:
    """Behind the object of an id, in the order of a query; nothing is before or behind what has no value."""
    if len(ordering) == 1:
        parameters.append(query.after)
        return f"m.id {compared} ?"
    column = ordering[0]
    of = f"(select a.{column.removeprefix('m.')} from {name} as a where a.id = ?)"
    parameters += [query.after] * 4
    beyond = f"({column} {compared} {of} or ({of} is null and {column} is not null))"
    if query.is_descending:  # What has no value comes last.
        beyond = f"({column} {compared} {of} or ({of} is not null and {column} is null))"
    return f"({beyond} or ({column} is {of} and m.id {compared} ?))"


def count(connection: sqlite3.Connection, query: TableQuery) -> int | None:
    """How many objects fit; None: columns do not tell exactly."""
    table = query.table
    if not _columns_of(connection, _quoted(TABLE_PREFIX + table.name)):
        return None
    parameters: list[Any] = [*query.states]
    where = [_in_states(query)]
    if query.condition is not None:
        if not _is_exact(query.condition, {column.name for column in _columns(table)}):
            return None
        part = _sql_of(query.condition, {column.name for column in _columns(table)}, parameters)
        assert part is not None
        where.append(part)
    sql = f"select count(*) from {_quoted(TABLE_PREFIX + table.name)} as m where {' and '.join(where)}"
    return int(connection.execute(sql, parameters).fetchone()[0])


def _is_exact(condition: Condition, columns: set[str]) -> bool:
    match condition:
        case Compare():
            field = condition.field
            return field.name in columns and field.kind not in _LOOSE and is_exact_in_columns(field, condition.value)
        case OneOf():
            field = condition.field
            if field.name not in columns or field.kind in _LOOSE or len(condition.values) > MOST_IN_SQL:
                return False
            return all(is_exact_in_columns(field, value) for value in condition.values)
        case AllOf() | AnyOf():
            return all(_is_exact(part, columns) for part in condition.parts)
        case Not():
            return _is_exact(condition.part, columns)


def _sql_of(condition: Condition, columns: set[str], parameters: list[Any], *, in_not: bool = False) -> str | None:
    """What columns tell of a condition: no object that fits is left out. None: nothing.

    What has no value is neither before nor behind one. SQL says null to that, which is no only where nothing negates
    it, and what makes it one (`in_not`) keeps SQLite from its indexes.
    """
    match condition:
        case AllOf():
            parts = [_sql_of(part, columns, parameters, in_not=in_not) for part in condition.parts]
            known = [part for part in parts if part is not None]
            return f"({' and '.join(known)})" if known else ("1" if not parts else None)
        case _ if not _is_exact(condition, columns):
            return None
        case AnyOf():
            parts = [_sql_of(part, columns, parameters, in_not=in_not) for part in condition.parts]
            return f"({' or '.join(map(str, parts)) or '0'})"
        case Not():
            return f"(not {_sql_of(condition.part, columns, parameters, in_not=True)})"
        case Compare():
            parameters.append(_parameter(condition.value))
            column = f"m.{_quoted(condition.field.name)}"
            compared = f"{column} {_SQL_OPERATORS[condition.operator]} ?"
            is_never_null = condition.operator in (Operator.EQUAL, Operator.UNEQUAL)
            return f"coalesce({compared}, 0)" if in_not and not is_never_null else compared
        case OneOf():
            column = f"m.{_quoted(condition.field.name)}"
            values = [value for value in condition.values if value is not None]
            parameters += [_parameter(value) for value in values]
            found = f"{column} in ({', '.join('?' * len(values))})"
            if in_not:
                found = f"coalesce({found}, 0)"
            return f"({found} or {column} is null)" if len(values) < len(condition.values) else found


def _parameter(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _columns(table: TableLayout) -> Iterator[FieldName]:
    return (column for column in table.columns if column.kind in _COLUMN_TYPES)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

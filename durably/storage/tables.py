"""Tables of objects: a row for each object of a class, with its fields as columns, for queries.

They follow from the state that is stored anyway: triggers on `state` keep them, so a row changes in the statement that
changes its object (rules P6 and X5), and a store that has none costs nothing. They are made, and given further columns,
when a runtime opens the store; nothing that is in them is lost by deleting them. Their SQL is made here, since it names
the fields of users' classes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from durably.queries import FieldKind, FieldName, TableLayout
from durably.storage.statements import SQL

TABLE_PREFIX: Final = "model_"
COLUMN_KINDS: Final = frozenset(FieldKind) - {FieldKind.OTHER}
"""Fields that have a column. It holds what is in the JSON, but for these two."""
ODD_KINDS: Final = (FieldKind.DECIMAL, FieldKind.MOMENT)
"""Columns of numbers that compare as the texts in the JSON say: a decimal, and microseconds since 1970 in UTC. A text
that no number stands for exactly is itself in the column, an odd value; it is behind all numbers.
"""
COLUMN_TYPE: Final = "any"
MOST_IN_SQL: Final = 500
"""Values that a field may be one of, in SQL; more are looked through in Python."""
MOST_DIGITS: Final = 15
"""Of a decimal that a floating-point number stands for: any two of them are two numbers, and in the same order."""
MOST_EXPONENT: Final = 99
_IS_VERSION: Final = (
    "case when json_valid(v.j) then json_type(v.j) is 'object' and json_type(v.j, '$.state') is 'text' else 0 end"
)
"""What has no state is no version: an edit may have left it. `and` alone would not keep SQLite from parsing first."""
_DIGIT: Final = "[0-9]"
_DECIMAL: Final = (
    "case when t not glob '*[^0-9.eE+-]*' "
    "and (t not glob '*[eE]*' or t glob '*[eE][+-][0-9]' or t glob '*[eE][+-][0-9][0-9]') "
    f"and length(replace(ltrim(t, '+-0.'), '.', '')) <= {MOST_DIGITS} then cast(t as real) else t end"
)
_SECONDS: Final = f"{'-'.join([_DIGIT * 4, _DIGIT * 2, _DIGIT * 2])}T{':'.join([_DIGIT * 2] * 3)}"
_MOMENT: Final = (
    f"coalesce(case when t glob '{_SECONDS}*' and (substr(t, 20, 1) <> '.' or substr(t, 21, 6) glob '{_DIGIT * 6}') "
    f"and (zone in ('', 'Z') or zone glob '[+-]{_DIGIT * 2}:{_DIGIT * 2}') "
    "then unixepoch(substr(t, 1, 19) || zone) * 1000000 "
    "+ iif(substr(t, 20, 1) = '.', cast(substr(t, 21, 6) as integer), 0) end, t)"
)


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
            connection.execute(f"drop {kind} {quoted(name)}")


def _lay(connection: sqlite3.Connection, table: TableLayout) -> None:
    name = quoted(TABLE_PREFIX + table.name)
    columns = [*table_columns(table)]
    there = columns_of(connection, name)
    if any(there.get(column.name, COLUMN_TYPE) != COLUMN_TYPE for column in columns):
        connection.execute(f"drop table {name}")  # An earlier version made it: all follows from the state anew.
        there = {}
    if not there:
        connection.execute(f"create table {name} (id text primary key, state text not null) strict, without rowid")
    added = [column for column in columns if column.name not in there]
    for column in added:
        connection.execute(f"alter table {name} add column {quoted(column.name)} {COLUMN_TYPE}")
    if not there:
        _lay_triggers(connection, table)
        _fill(connection, table, "1")
    elif _lay_triggers(connection, table):  # Rows stay as they are where they say the same.
        same = " and ".join(f"m.{quoted(column.name)} is {_expression(column)}" for column in columns)
        state = "m.state is v.j ->> '$.state'"
        where = f"m.id = v.key and {state}" + (f" and {same}" if same else "")
        _fill(connection, table, f"not exists (select 1 from {name} as m where {where})")
    _lay_indexes(connection, table)


def columns_of(connection: sqlite3.Connection, name: str) -> dict[str, str]:
    return {str(row[1]): str(row[2]).lower() for row in connection.execute(f"pragma table_info({name})")}


def _lay_triggers(connection: sqlite3.Connection, table: TableLayout) -> bool:
    """Returns whether other triggers, or none, have kept the rows until now."""
    has_changed = False
    for name, sql in _triggers(table):
        find = "select sql from sqlite_schema where type = 'trigger' and name = ?"
        found = connection.execute(find, (name,)).fetchone()
        if found is None or found[0] != sql:
            connection.execute(f"drop trigger if exists {quoted(name)}")
            connection.execute(sql)
            has_changed = True
    return has_changed


def _triggers(table: TableLayout) -> Iterator[tuple[str, str]]:
    name, of = TABLE_PREFIX + table.name, f"= {sql_text(table.service)}"
    field = f"field = {sql_text(table.field)}"
    version = "(select new.key, cast(new.value as text) as j)"
    for event in ("insert", "update"):
        gone = (
            f"delete from {quoted(name)} where id = new.key "
            f"and not exists (select 1 from {version} as v where {_IS_VERSION});"
        )
        yield (
            f"{name}_{event}",
            (
                f"create trigger {quoted(f'{name}_{event}')} after {event} on state "
                f"when new.service {of} and new.{field} begin {gone} {_put(table, version, '1')}; end"
            ),
        )
    yield (
        f"{name}_delete",
        (
            f"create trigger {quoted(f'{name}_delete')} after delete on state "
            f"when old.service {of} and old.{field} begin delete from {quoted(name)} where id = old.key; end"
        ),
    )


def _put(table: TableLayout, versions: str, where: str) -> str:
    """Put rows into a table, of `versions`: a select of (key, j), which is a version as JSON."""
    columns = [*table_columns(table)]
    names = ["id", "state", *(quoted(column.name) for column in columns)]
    values = ["v.key", "v.j ->> '$.state'", *(_expression(column) for column in columns)]
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    return (
        f"insert into {quoted(TABLE_PREFIX + table.name)} ({', '.join(names)}) select {', '.join(values)} "
        f"from {versions} as v where {_IS_VERSION} and ({where}) on conflict (id) do update set {changed}"
    )


def _fill(connection: sqlite3.Connection, table: TableLayout, where: str) -> None:
    versions = (
        f"(select key, cast(value as text) as j from state where service = {sql_text(table.service)} "
        f"and field = {sql_text(table.field)})"
    )
    connection.execute(_put(table, versions, where))


def _expression(column: FieldName) -> str:
    path = sql_text(f'$."{column.name}"')
    value = f"v.j ->> {path}"
    match column.kind:
        case FieldKind.DECIMAL:
            return f"(select {_DECIMAL} from (select cast({value} as text) as t))"
        case FieldKind.MOMENT:
            text = f"select cast({value} as text) as t"
            zoned = f"select t, iif(substr(t, 20, 1) = '.', substr(t, 27), substr(t, 20)) as zone from ({text})"
            return f"(select {_MOMENT} from ({zoned}))"
        case _:
            return value


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
        connection.execute(f"drop index {quoted(index)}")
    for index in wanted.keys() - found:
        columns = ", ".join(quoted(column) for column in wanted[index])
        connection.execute(f"create index {quoted(index)} on {quoted(name)} ({columns})")


def table_columns(table: TableLayout) -> Iterator[FieldName]:
    return (column for column in table.columns if column.kind in COLUMN_KINDS)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def sql_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

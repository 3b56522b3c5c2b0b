"""Tables of objects in PostgreSQL: a row for each object of a class, with its fields as columns, for queries.

As in a SQLite file (`durably.storage.tables`), triggers on `state` keep the rows, in the commit that changes the
objects, and a store without models pays nothing. Columns have real types and tell exactly: what a column cannot hold as
Python compares it (a field that an edit gave another type, a text with NUL, a long text in an index) makes its row an
odd one, and while there is one, queries look at every object. So no commit fails for the sake of a table.

A table says in its comment how it was laid out. It is made anew from the state when that is not what is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from hashlib import blake2b
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
    is_exact_in_columns,
)
from durably.storage.damage import DamagedError
from durably.storage.entry_reading import stored_payload
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.rows import PostgresRows
from durably.storage.postgres.statements import STATEMENTS
from durably.storage.records import Unreadable, VersionsAnswer, field_part
from durably.storage.tables import MOST_IN_SQL, TABLE_PREFIX

FORM: Final = 1
"""Of what is made here for a layout. Another number makes all tables anew."""
FILLED_AT_A_TIME: Final = 2_000
"""Objects: the server must not be silent for too long."""
NAME_LIMIT_BYTES: Final = 63
INDEXED_LIMIT_BYTES: Final = 400
"""Of a value in an index, which takes 2,700 bytes in a row."""
STATE_LIMIT_BYTES: Final = 200
"""Of the name of a state, which is in indexes, too."""
ODD: Final = ":odd"
"""The column that says of a row that its columns do not tell all. No field is called so."""
_LARGEST_EXPONENT: Final = 200
_COLUMN_TYPES: Final = {
    FieldKind.INTEGER: "numeric",
    FieldKind.NUMBER: "numeric",
    FieldKind.TEXT: 'text collate "C"',
    FieldKind.BOOLEAN: "boolean",
    FieldKind.DAY: 'text collate "C"',
    FieldKind.DECIMAL: "numeric",
    FieldKind.MOMENT: "timestamptz",
}
_DECIMAL: Final = r"^[+-]?([0-9]{1,200}([.][0-9]{0,200})?|[.][0-9]{1,200})([eE][+-]?[0-9]{1,2})?$"
_DAY: Final = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_IS_VERSION: Final = "coalesce(jsonb_typeof(v) = 'object' and jsonb_typeof(v -> 'state') = 'string', false)"
"""What has no state is no version: an edit may have left it."""
_SQL_OPERATORS: Final = {
    Operator.EQUAL: "=",
    Operator.UNEQUAL: "is distinct from",
    Operator.BEFORE: "<",
    Operator.UP_TO: "<=",
    Operator.BEHIND: ">",
    Operator.FROM: ">=",
}


def lay_tables(connection: PgConnection, tables: Sequence[TableLayout], epoch: int) -> None:
    """Make the tables that are missing or laid out in another way. None: drop all that there are.

    Raises:
        psycopg.Error: with the SQLSTATE `EPOCH_MOVED`, another process owns the store.
    """
    with connection.transaction():
        connection.execute(STATEMENTS["hold_epoch"], (epoch,))
        if not tables:
            names = connection.execute(STATEMENTS["model_tables"], (TABLE_PREFIX,)).fetchall()
            for (name,) in names:
                _drop(connection, name)
        for table in tables:
            name = table_name(table)
            found = connection.execute(STATEMENTS["comment_of_table"], (_quoted(name),)).fetchone()
            if found != (comment(table),):
                _make(connection, table, name)


def table_name(table: TableLayout) -> str:
    return _short(TABLE_PREFIX + table.name)


def comment(table: TableLayout) -> str:
    """What a table says of itself."""
    told = msgspec.json.encode([FORM, table]).decode()
    return f"Made by durably from the objects of {table.service}; it is made anew when it is dropped. {told}"


def _drop(connection: PgConnection, name: str) -> None:
    keep, put = _quoted(_short(f"{name}_keep")), _quoted(_short(f"{name}_put"))
    connection.execute(f"drop function if exists {keep}() cascade".encode())  # With the triggers that call it.
    connection.execute(f"drop function if exists {put}(text, text)".encode())
    connection.execute(f"drop table if exists {_quoted(name)}".encode())


def _make(connection: PgConnection, table: TableLayout, name: str) -> None:
    _drop(connection, name)
    connection.execute(STATEMENTS["make_model_moment"])
    columns = [*_columns(table)]
    lines = [
        'id text collate "C" primary key',
        'state text collate "C" not null',
        f"{_quoted(ODD)} boolean not null",
        *(f"{_column(column.name)} {_COLUMN_TYPES[column.kind]}" for column in columns),
    ]
    connection.execute(f"create table {_quoted(name)} ({', '.join(lines)}) with (fillfactor = 80)".encode())
    connection.execute(f"comment on table {_quoted(name)} is {_text(comment(table))}".encode())
    # Before there are rows: an index of many would keep the server silent for long.
    for number, index in enumerate(_indexes(table)):
        connection.execute(f"create index {_quoted(_short(f'{name}_by_{number}'))} on {_quoted(name)} {index}".encode())
    for statement in _functions(table, name, columns):
        connection.execute(statement.encode())
    _fill(connection, table, name)
    connection.execute(f"analyze {_quoted(name)}".encode())


def _indexes(table: TableLayout) -> Iterator[str]:
    yield "(state, id)"
    yield f"(id) where {_quoted(ODD)}"
    for column in table.indexed:  # For questions about all states, and about one: both in the order of the answer.
        yield f"({_column(column)} nulls first, id, state)"
        yield f"(state, {_column(column)} nulls first, id)"


def _functions(table: TableLayout, name: str, columns: Sequence[FieldName]) -> Iterator[str]:
    """What puts a row, what keeps it at each change, and the triggers."""
    put, keep = _quoted(_short(f"{name}_put")), _quoted(_short(f"{name}_keep"))
    names = ["id", "state", _quoted(ODD), *(_column(column.name) for column in columns)]
    expressions = [f"{_expression(one, table)} as c{place}" for place, one in enumerate(columns)]
    read = ", ".join([*expressions, "v ->> 'state' as s"])
    lost = [f"octet_length(s) > {STATE_LIMIT_BYTES}", *(_lost(one, place) for place, one in enumerate(columns))]
    told = [f"left(s, {STATE_LIMIT_BYTES})", f"coalesce({' or '.join(lost)}, false)"]
    values = ["of_key", *told, *(f"c{place}" for place in range(len(columns)))]
    changed = ", ".join(f"{one} = excluded.{one}" for one in names[1:])
    nothing = "".join(", null" for _ in columns)
    body = f"""
declare
    v jsonb;
begin
    begin
        v := stored::jsonb;
    exception when others then
        insert into {_quoted(name)} ({", ".join(names)}) values (of_key, '', true{nothing})
        on conflict (id) do update set {changed};
        return;
    end;
    if {_IS_VERSION} then
        insert into {_quoted(name)} ({", ".join(names)})
        select {", ".join(values)} from (select {read}) as told
        on conflict (id) do update set {changed};
    else
        delete from {_quoted(name)} where id = of_key;
    end if;
end"""
    yield f"create function {put}(of_key text, stored text) returns void language plpgsql as {_text(body)}"
    body = f"""
begin
    if tg_op = 'DELETE' then
        delete from {_quoted(name)} where id = old.key;
    else
        perform {put}(new.key, new.value);
    end if;
    return null;
end"""
    yield f"create function {keep}() returns trigger language plpgsql as {_text(body)}"
    for row, events in (("new", "insert or update"), ("old", "delete")):
        of = f"{row}.service = {_text(table.service)} and {row}.field = {_text(table.field)}"
        trigger = _quoted(_short(f"{name}_{row}"))
        yield f"create trigger {trigger} after {events} on state for each row when ({of}) execute function {keep}()"


def _expression(column: FieldName, table: TableLayout) -> str:
    """The value of a field as its column holds it; null where it cannot."""
    field = f"(v -> {_text(column.name)})"
    said = f"(v ->> {_text(column.name)})"
    match column.kind:
        case FieldKind.INTEGER | FieldKind.NUMBER:
            short = f"octet_length({said}) <= {INDEXED_LIMIT_BYTES}"
            return (
                f"case jsonb_typeof({field}) when 'number' then case when {short} then {field}::numeric end "
                f"when 'boolean' then {field}::boolean::int::numeric end"
            )
        case FieldKind.BOOLEAN:
            return f"case when jsonb_typeof({field}) = 'boolean' then {field}::boolean end"
        case FieldKind.DECIMAL:
            return (
                f"case when jsonb_typeof({field}) in ('string', 'number') and {said} ~ {_text(_DECIMAL)} "
                f"then {said}::numeric end"
            )
        case FieldKind.MOMENT:
            return f"case when jsonb_typeof({field}) = 'string' then model_moment({said}) end"
        case FieldKind.DAY:
            return f"case when jsonb_typeof({field}) = 'string' and {said} ~ {_text(_DAY)} then {said} end"
        case _:
            short = f" and octet_length({said}) <= {INDEXED_LIMIT_BYTES}" if column.name in table.indexed else ""
            return f"case when jsonb_typeof({field}) = 'string'{short} then {said} end"


def _lost(column: FieldName, place: int) -> str:
    """Whether the column does not hold what the field says."""
    return f"(c{place} is null and jsonb_typeof(v -> {_text(column.name)}) <> 'null')"


def _fill(connection: PgConnection, table: TableLayout, name: str) -> None:
    put = _parameterized(_quoted(_short(f"{name}_put")))
    fill = (
        f"select max(key), count({put}(key, value)) from (select key, value from state "
        "where service = %s and field = %s and key > %s order by key limit %s) as portion"
    )
    after = ""
    while True:
        parameters = (table.service, table.field, after, FILLED_AT_A_TIME)
        row = connection.execute(fill.encode(), parameters).fetchone()
        assert row is not None
        if row[0] is None:
            return
        after = row[0]


def search(connection: PgConnection, query: TableQuery) -> VersionsAnswer | None:
    """Objects that fit, in order, in one snapshot; None: columns do not tell."""
    table = query.table
    name = _parameterized(_quoted(table_name(table)))
    with PostgresRows(connection).snapshot():
        parameters: list[Any] = []
        where = _where(connection, name, query, parameters)
        if where is None:
            return None
        compared, direction = ("<", "desc") if query.is_descending else (">", "asc")
        by, ordering = ["m.id"], [f"m.id {direction}"]
        if query.order is not None:
            by.insert(0, f"m.{_parameterized(_column(query.order.name))}")
            ordering.insert(0, f"{by[0]} {'desc nulls last' if query.is_descending else 'asc nulls first'}")
        order = ", ".join(ordering)
        # Objects are looked up one by one: an old estimate of how much `state` holds would join them otherwise.
        value = "select s.value from state as s where s.service = %s and s.key = m.id and s.field = %s"
        rows: list[Any] = []
        for behind in _behind(connection, name, by, compared, query):
            fits = " and ".join([*where, *behind.where])
            fitting = f"select {', '.join(by)} from {name} as m where {fits} order by {order} limit %s"
            sql = f"select m.id, ({value}) from ({fitting}) as m order by {order}"
            given = [table.service, table.field, *parameters, *behind.parameters, query.limit - len(rows)]
            rows += connection.execute(sql.encode(), given, prepare=False).fetchall()
            if len(rows) >= query.limit:
                break
    found: list[tuple[str, bytes]] = []
    unreadable: Unreadable | None = None
    for id, stored in rows:
        try:
            found.append((id, stored_payload(stored)))
        except DamagedError as error:
            unreadable = unreadable or Unreadable(field_part(table.field), str(error))
    return VersionsAnswer(found, unreadable, is_all=len(rows) < query.limit)


def count(connection: PgConnection, query: TableQuery) -> int | None:
    """How many objects fit; None: columns do not tell."""
    name = _parameterized(_quoted(table_name(query.table)))
    with PostgresRows(connection).snapshot():
        parameters: list[Any] = []
        where = _where(connection, name, query, parameters)
        if where is None:
            return None
        sql = f"select count(*) from {name} as m where {' and '.join(where)}"
        row = connection.execute(sql.encode(), parameters, prepare=False).fetchone()
    assert row is not None
    return int(row[0])


def _where(connection: PgConnection, name: str, query: TableQuery, parameters: list[Any]) -> list[str] | None:
    """What columns tell of a query; None: not all."""
    odd = f"select 1 from {name} where {_parameterized(_quoted(ODD))} limit 1"
    if connection.execute(odd.encode(), prepare=False).fetchone() is not None:
        return None
    columns = {column.name for column in _columns(query.table)}
    if query.condition is not None and not _is_exact(query.condition, columns):
        return None
    if len(query.states) == 1:  # So an index that begins with the state gives the rows in order.
        parameters.append(query.states[0])
        where = ["m.state = %s"]
    else:
        parameters.append([*query.states])
        where = ["m.state = any(%s)"]
    if query.condition is not None:
        where.append(_sql_of(query.condition, parameters))
    return where


class _Behind(NamedTuple):
    """A range of an order, from its beginning to its end."""

    where: list[str]
    parameters: list[Any]


def _behind(
    connection: PgConnection, name: str, ordering: list[str], compared: str, query: TableQuery
) -> Iterator[_Behind]:
    """What comes behind the object of an id, in ranges that an index finds; what has no value comes first."""
    if query.after is None:
        yield _Behind([], [])
        return
    if len(ordering) == 1:
        yield _Behind([f"m.id {compared} %s"], [query.after])
        return
    column = ordering[0]
    place = f"select {column} from {name} as m where m.id = %s"
    row = connection.execute(place.encode(), (query.after,), prepare=False).fetchone()
    value = None if row is None else row[0]
    if value is None:
        yield _Behind([f"{column} is null", f"m.id {compared} %s"], [query.after])
        if not query.is_descending:
            yield _Behind([f"{column} is not null"], [])
        return
    yield _Behind([f"({column}, m.id) {compared} (%s, %s)"], [value, query.after])
    if query.is_descending:
        yield _Behind([f"{column} is null"], [])


def _is_exact(condition: Condition, columns: set[str]) -> bool:
    match condition:
        case Compare():
            return condition.field.name in columns and _is_held(condition.field, condition.value)
        case OneOf():
            if condition.field.name not in columns or len(condition.values) > MOST_IN_SQL:
                return False
            return all(_is_held(condition.field, value) for value in condition.values)
        case AllOf() | AnyOf():
            return all(_is_exact(part, columns) for part in condition.parts)
        case Not():
            return _is_exact(condition.part, columns)


def _is_held(field: FieldName, value: Any) -> bool:
    """A column can be compared with this value."""
    if value is None:
        return True
    if field.kind is FieldKind.DECIMAL:
        number = comparable(field.kind, value)
        return isinstance(number, Decimal) and number.is_finite() and abs(number.adjusted()) < _LARGEST_EXPONENT
    return is_exact_in_columns(field, value)


def _sql_of(condition: Condition, parameters: list[Any], *, in_not: bool = False) -> str:
    """What has no value is neither before nor behind one. SQL says null to that, which is no only where nothing
    negates it.
    """
    match condition:
        case AllOf():
            return f"({' and '.join(_sql_of(part, parameters, in_not=in_not) for part in condition.parts) or 'true'})"
        case AnyOf():
            return f"({' or '.join(_sql_of(part, parameters, in_not=in_not) for part in condition.parts) or 'false'})"
        case Not():
            return f"(not {_sql_of(condition.part, parameters, in_not=True)})"
        case Compare():
            column = f"m.{_parameterized(_column(condition.field.name))}"
            if condition.value is None:
                nulls = {Operator.EQUAL: f"{column} is null", Operator.UNEQUAL: f"{column} is not null"}
                return nulls.get(condition.operator, "false")
            parameters.append(_parameter(condition.field, condition.value))
            compared = f"{column} {_SQL_OPERATORS[condition.operator]} %s"
            return f"coalesce({compared}, false)" if in_not else compared
        case OneOf():
            column = f"m.{_parameterized(_column(condition.field.name))}"
            values = [value for value in condition.values if value is not None]
            parameters += [_parameter(condition.field, value) for value in values]
            found = f"{column} in ({', '.join(['%s'] * len(values))})" if values else "false"
            if in_not:
                found = f"coalesce({found}, false)"
            return f"({found} or {column} is null)" if len(values) < len(condition.values) else found


def _parameter(field: FieldName, value: Any) -> Any:
    match field.kind:
        case FieldKind.INTEGER | FieldKind.NUMBER:
            return Decimal(str(value))
        case FieldKind.DECIMAL | FieldKind.MOMENT:
            return comparable(field.kind, value)
        case _:
            return value


def _columns(table: TableLayout) -> Iterator[FieldName]:
    return (column for column in table.columns if column.kind in _COLUMN_TYPES)


def _column(name: str) -> str:
    return _quoted(_short(name))


def _short(name: str) -> str:
    """PostgreSQL cuts longer names off, so that two could be one."""
    encoded = name.encode()
    if len(encoded) <= NAME_LIMIT_BYTES:
        return name
    return f"{encoded[:40].decode(errors='ignore')} {blake2b(encoded, digest_size=8).hexdigest()}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _parameterized(sql: str) -> str:
    """In a statement with parameters."""
    return sql.replace("%", "%%")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

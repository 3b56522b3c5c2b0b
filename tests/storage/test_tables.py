"""Tables of models: what a query costs does not depend on how much there is, and what says the same is not written."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
)
from durably.storage.table_queries import count, search
from durably.storage.tables import lay_tables

AMOUNT: Final = FieldName("amount", FieldKind.INTEGER)
NOTE: Final = FieldName("note", FieldKind.TEXT)
PRICE: Final = FieldName("price", FieldKind.DECIMAL)
DUE: Final = FieldName("due", FieldKind.MOMENT)
ORDERS: Final = TableLayout("order", "Orders", "version", (AMOUNT, PRICE, DUE), ("amount", "price", "due"))
STATES: Final = ("created", "paid")
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
EIGHT: Final = Compare(AMOUNT, Operator.EQUAL, 8)
LARGE: Final = Compare(AMOUNT, Operator.BEHIND, 90)
SMALL: Final = Compare(AMOUNT, Operator.BEFORE, 150)
FEW: Final = OneOf(AMOUNT, (8, 9, 10))


def ask(
    states: tuple[str, ...] = ("created",),
    condition: Condition | None = None,
    order: FieldName | None = None,
    after: str | None = None,
    *,
    is_descending: bool = False,
) -> TableQuery:
    return TableQuery(ORDERS, states, condition, order, is_descending, after, 10)


QUERIES: Final = {
    "one state": ask(),
    "one state, by a field": ask(condition=EIGHT),
    "one state, a range of a field in its order": ask(condition=LARGE, order=AMOUNT),
    "one state, by one of some values": ask(condition=FEW),
    "one state, in the order of a field": ask(order=AMOUNT, is_descending=True),
    "a page of one state": ask(after=f"order_{150:026}"),
    "all states": ask(STATES),
    "all states, by a field": ask(STATES, EIGHT),
    "all states, a range of a field in its order": ask(STATES, LARGE, AMOUNT),
    "all states, by one of some values": ask(STATES, FEW),
    "all states, the largest of a range": ask(STATES, SMALL, AMOUNT, is_descending=True),
    "all states, in the order of a field": ask(STATES, order=AMOUNT),
    "a page of all states": ask(STATES, after=f"order_{150:026}", is_descending=True),
    "one state, by a large number": ask(condition=OneOf(AMOUNT, (8, 1 << 60))),
    "one state, by a decimal": ask(condition=Compare(PRICE, Operator.EQUAL, "8.50")),
    "one state, by a decimal of many digits": ask(
        condition=Compare(PRICE, Operator.BEHIND, f"90.{'3' * 28}"), order=PRICE
    ),
    "all states, decimals in their order": ask(STATES, Compare(PRICE, Operator.FROM, 90), PRICE),
    "one state, by a moment": ask(condition=OneOf(DUE, ("2026-01-01T02:00:08.000001+02:00", "2026-01-01T00:00:12Z"))),
    "all states, moments in their order": ask(
        STATES, Compare(DUE, Operator.BEFORE, "2026-01-01T00:01:00Z"), DUE, is_descending=True
    ),
}
PAGES: Final = {
    f"{name} in the order of {order.name}{', from the last on' if is_descending else ''}": ask(
        states, order=order, is_descending=is_descending
    )
    for name, states in (("one state", ("created",)), ("all states", STATES))
    for order in (AMOUNT, PRICE, DUE)
    for is_descending in (False, True)
}


def versions_of(size: int) -> Iterator[tuple[str, bytes]]:
    """So many orders, each of an amount of its own; every seventh has nothing but a state."""
    for number in range(size):
        id = f"order_{number:026}"
        moment = START + timedelta(seconds=number, microseconds=1)
        fields = {"amount": number, "price": f"{number}.5", "due": moment} if number % 7 else {}
        yield id, msgspec.json.encode({"state": STATES[number % 2], "id": id, **fields})


@contextmanager
def empty_store(table: TableLayout) -> Generator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(
            "create table state (service text not null, key text not null, field text not null, value any not null, "
            "primary key (service, key, field)) strict"
        )
        lay_tables(connection, [table])
        yield connection


@contextmanager
def store_of(size: int) -> Generator[sqlite3.Connection]:
    with empty_store(ORDERS) as connection:
        connection.execute("begin")
        for id, version in versions_of(size):
            connection.execute("insert into state values ('Orders', ?, 'version', ?)", (id, version))
        connection.execute("commit")
        yield connection


def steps_of(connection: sqlite3.Connection, query: TableQuery) -> int:
    """How many instructions of its machine SQLite needs."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    connection.set_progress_handler(step, 1)
    try:
        found = search(connection, lambda: None, query)
    finally:
        connection.set_progress_handler(None, 0)
    assert found is not None
    assert found.versions
    return steps


def test_a_query_by_state_and_indexed_field_costs_the_same_among_ten_times_as_many_objects() -> None:
    with store_of(200) as small, store_of(2_000) as large:
        cost = {name: (steps_of(small, query), steps_of(large, query)) for name, query in QUERIES.items()}
    assert {name: steps for name, steps in cost.items() if steps[1] > 1.1 * steps[0]} == {}


@pytest.mark.parametrize("name", PAGES)
def test_the_last_page_costs_what_the_first_one_does(name: str) -> None:
    query = PAGES[name]
    with store_of(2_000) as connection:
        ids = found(connection, msgspec.structs.replace(query, limit=2_000))
        places = [10, len(ids) // 14, len(ids) // 2, len(ids) - 20]  # The second one has no value.
        costs = [steps_of(connection, msgspec.structs.replace(query, after=ids[place])) for place in places]
        assert max(costs) < 1.5 * min(costs), costs
        for place in places:
            after = msgspec.structs.replace(query, after=ids[place - 1])
            assert found(connection, after) == ids[place : place + 10]


def found(connection: sqlite3.Connection, query: TableQuery) -> list[str]:
    answer = search(connection, lambda: None, query)
    assert answer is not None
    return [id for id, _ in answer.versions]


def text_of(moment: datetime) -> str:
    """As msgspec writes it."""
    return str(msgspec.to_builtins(moment))


SOLD: Final = FieldName("sold", FieldKind.MOMENT)
COST: Final = FieldName("cost", FieldKind.DECIMAL)
WEIGHT: Final = FieldName("weight", FieldKind.NUMBER)
THINGS: Final = TableLayout(
    "thing", "Things", "version", (AMOUNT, NOTE, PRICE, DUE, SOLD, COST, WEIGHT), ("amount", "price", "due", "weight")
)
DECIMALS: Final[st.SearchStrategy[Any]] = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "0",
            "-0",
            "0E-9",
            "1",
            "1.0",
            "1E+3",
            "1000",
            "1000.00",
            "0.1",
            "0.10",
            "-2",
            "0.3",
            "0.30000000000000001",
            "0.30000000000000002",
            "1E-18",
            "1E+400",
            "1E+401",
            "-1E-400",
            "Infinity",
            "-Infinity",
            "1234567890123456.7",
            "1234567890123456.8",
            "123456789012345",
            "0.000000123456789012345",
        ]
    ),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-3, max_value=3).map(str),
    st.fractions(max_denominator=7).map(lambda one: str(Decimal(one.numerator) / one.denominator)),
)


def moment_text(microseconds: int, minutes: int) -> str:
    return text_of((START + timedelta(microseconds=microseconds)).astimezone(timezone(timedelta(minutes=minutes))))


def near_power(sign: int, power: int, more: int) -> int:
    return sign * (1 << power) + more


MOMENTS: Final[st.SearchStrategy[Any]] = st.none() | st.builds(
    moment_text,
    st.sampled_from([0, 1, 2, 999_999, 1_000_000, 1_000_001, -1, 86_399_999_999, -(10**16), 10**17]),
    st.sampled_from([0, 120, -330, 870, 1_200, -1_439]),
)
INTEGERS: Final[st.SearchStrategy[Any]] = (
    st.none()
    | st.integers(-2, 2)
    | st.builds(near_power, st.sampled_from([1, -1]), st.sampled_from([53, 62, 63, 64, 100]), st.integers(-2, 2))
)
WEIGHTS: Final[st.SearchStrategy[Any]] = (
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2, 2)
)
NOTES: Final[st.SearchStrategy[Any]] = st.none() | st.text(st.sampled_from("aAä\U0001f600 '\"\\%"), max_size=3)
VALUES: Final[Mapping[FieldName, st.SearchStrategy[Any]]] = {
    AMOUNT: INTEGERS,
    NOTE: NOTES,
    PRICE: DECIMALS,
    COST: DECIMALS,
    DUE: MOMENTS,
    SOLD: MOMENTS,
    WEIGHT: WEIGHTS,
}
FEW_VALUES: Final = {field: st.lists(values, min_size=1, max_size=4) for field, values in VALUES.items()}


@st.composite
def conditions(draw: st.DrawFn, known: Mapping[str, list[Any]]) -> Condition:
    field = draw(st.sampled_from([*VALUES]))
    values = st.sampled_from(known[field.name]) | VALUES[field]  # What is there is asked for, too.
    if draw(st.booleans()):
        return OneOf(field, tuple(draw(st.lists(values, max_size=3))))
    return Compare(field, draw(st.sampled_from([*Operator])), draw(values))


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[TableQuery]]:
    known = {field.name: draw(few) for field, few in FEW_VALUES.items()}
    versions = draw(
        st.lists(
            st.fixed_dictionaries(
                {"state": st.sampled_from(STATES), **{name: st.sampled_from(values) for name, values in known.items()}}
            ),
            max_size=8,
        )
    )
    trees = st.recursive(
        conditions(known),
        lambda inner: (
            st.builds(Not, inner)
            | st.lists(inner, max_size=3).map(lambda parts: AllOf(tuple(parts)))
            | st.lists(inner, max_size=3).map(lambda parts: AnyOf(tuple(parts)))
        ),
        max_leaves=5,
    )
    queries = st.builds(
        TableQuery,
        st.just(THINGS),
        st.sampled_from([STATES, *((one,) for one in STATES)]),
        st.none() | trees,
        st.none() | st.sampled_from([*VALUES]),
        st.booleans(),
        st.none() | st.integers(0, 7).map("thing_{}".format),
        st.integers(1, 4),
    )
    return versions, draw(st.lists(queries, min_size=1, max_size=8))


def plain_answer(stored: Mapping[str, Mapping[str, Any]], query: TableQuery) -> list[str]:
    """What a query means, by a look at every object."""

    def place(id: str) -> tuple[Any, ...]:
        if query.order is None:
            return (id,)
        value = comparable(query.order.kind, stored[id].get(query.order.name))
        return (value is not None, 0 if value is None else value, id)

    def fits(version: Mapping[str, Any]) -> bool:
        return version["state"] in query.states and (query.condition is None or holds(query.condition, version))

    ids = sorted((id for id, version in stored.items() if fits(version)), key=place, reverse=query.is_descending)
    if query.after is not None:
        start = place(query.after)
        ids = [id for id in ids if (place(id) < start if query.is_descending else place(id) > start)]
    return ids


@settings(max_examples=150)
@given(programs())
def test_columns_and_a_look_at_every_object_agree(program: tuple[list[dict[str, Any]], list[TableQuery]]) -> None:
    versions, queries = program
    stored = {f"thing_{number}": {**version, "id": f"thing_{number}"} for number, version in enumerate(versions)}
    with empty_store(THINGS) as connection:
        for id, version in stored.items():
            connection.execute(
                "insert into state values ('Things', ?, 'version', ?)", (id, msgspec.json.encode(version))
            )
        for query in queries:
            if query.after is not None and query.after not in stored:
                query = msgspec.structs.replace(query, after=None)
            expected = plain_answer(stored, query)
            answer = search(connection, lambda: None, query)
            if answer is not None:
                assert [id for id, _ in answer.versions] == expected[: query.limit]
            known = count(connection, query)
            if known is not None:
                assert known == len(plain_answer(stored, msgspec.structs.replace(query, after=None)))


@pytest.mark.parametrize(
    ("versions", "kind"),
    [
        ([{"price": "1.5"}, {"price": "1.50"}, {"price": "0.1"}, {"price": "12E+3"}], PRICE),
        ([{"due": text_of(START)}, {"due": text_of(START + timedelta(microseconds=1))}, {"due": None}], DUE),
        ([{"amount": 1 << 60}, {"amount": (1 << 60) + 1}, {"amount": -((1 << 63) - 2)}], AMOUNT),
    ],
)
def test_ordinary_values_are_told_by_columns_alone(versions: list[dict[str, Any]], kind: FieldName) -> None:
    with empty_store(THINGS) as connection:
        for number, version in enumerate(versions):
            body = msgspec.json.encode({"state": "paid", "id": str(number), **version})
            connection.execute("insert into state values ('Things', ?, 'version', ?)", (str(number), body))
        condition = Compare(kind, Operator.EQUAL, versions[0][kind.name])
        assert count(connection, TableQuery(THINGS, STATES, condition)) is not None
        assert search(connection, lambda: None, TableQuery(THINGS, STATES, condition, kind)) is not None


def test_a_table_whose_decimals_were_kept_in_another_way_is_made_anew() -> None:
    with empty_store(THINGS) as connection:
        version = msgspec.json.encode({"state": "paid", "id": "thing_1", "price": "0.3333333333333333333"})
        connection.execute("insert into state values ('Things', 'thing_1', 'version', ?)", (version,))
        connection.executescript(
            "drop table model_thing; create table model_thing (id text primary key, state text not null, price real) "
            "strict, without rowid; insert into model_thing values ('thing_1', 'paid', 0.3333)"
        )
        query = TableQuery(THINGS, STATES, Compare(PRICE, Operator.EQUAL, "0.3333333333333333333"))
        assert search(connection, lambda: None, query) is None, "what reads alone does not lay it"
        lay_tables(connection, [THINGS])
        assert found(connection, query) == ["thing_1"]


@pytest.mark.parametrize("indexed", [(), ("note",)])
def test_an_added_field_writes_no_row(indexed: tuple[str, ...]) -> None:
    with store_of(200) as connection:
        before = connection.total_changes
        wider = TableLayout("order", "Orders", "version", (*ORDERS.columns, NOTE), (*ORDERS.indexed, *indexed))
        lay_tables(connection, [wider])
        assert connection.total_changes == before
        version = msgspec.json.encode({"state": "paid", "id": "order_new", "amount": 7, "note": "new"})
        connection.execute("insert into state values ('Orders', 'order_new', 'version', ?)", (version,))
        query = TableQuery(wider, STATES, Compare(NOTE, Operator.EQUAL, "new"))
        assert count(connection, query) == 1

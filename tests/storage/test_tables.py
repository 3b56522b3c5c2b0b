"""Tables of models: what a query costs does not depend on how much there is, and what says the same is not written."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Final

import msgspec
import pytest

from durably.queries import Compare, Condition, FieldKind, FieldName, OneOf, Operator, TableLayout, TableQuery
from durably.storage.tables import count, lay_tables, search

AMOUNT: Final = FieldName("amount", FieldKind.INTEGER)
NOTE: Final = FieldName("note", FieldKind.TEXT)
ORDERS: Final = TableLayout("order", "Orders", "version", (AMOUNT,), ("amount",))
STATES: Final = ("created", "paid")
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
}


@contextmanager
def store_of(size: int) -> Generator[sqlite3.Connection]:
    """A table of so many orders, each of an amount of its own."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(
            "create table state (service text not null, key text not null, field text not null, value any not null, "
            "primary key (service, key, field)) strict"
        )
        lay_tables(connection, [ORDERS])
        connection.execute("begin")
        for number in range(size):
            id = f"order_{number:026}"
            version = msgspec.json.encode({"state": STATES[number % 2], "id": id, "amount": number})
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


@pytest.mark.parametrize("indexed", [("amount",), ("amount", "note")])
def test_an_added_field_writes_no_row(indexed: tuple[str, ...]) -> None:
    with store_of(200) as connection:
        before = connection.total_changes
        wider = TableLayout("order", "Orders", "version", (AMOUNT, NOTE), indexed)
        lay_tables(connection, [wider])
        assert connection.total_changes == before
        version = msgspec.json.encode({"state": "paid", "id": "order_new", "amount": 7, "note": "new"})
        connection.execute("insert into state values ('Orders', 'order_new', 'version', ?)", (version,))
        query = TableQuery(wider, STATES, Compare(NOTE, Operator.EQUAL, "new"))
        assert count(connection, query) == 1

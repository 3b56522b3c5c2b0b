"""Tables of models in PostgreSQL: real columns and indexes, kept in the commit, and made anew where they do not fit."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator
from contextlib import closing, contextmanager
from decimal import Decimal
from random import Random
from typing import Any, Final, cast

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from durably import Runtime
from durably.codecs import AesGcmCodec
from durably.errors import StoreInUseError
from durably.ids import Address
from durably.queries import Compare, FieldKind, FieldName, Operator, TableLayout, TableQuery
from durably.storage.postgres import PostgresStore
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.server import connector, place_of
from durably.storage.postgres.tables import search
from durably.storage.records import Batch, Owner, StateRecord
from tests.models.test_queries import ASKED, MADE, Asked, Made, Old, Thing, Things, answers, pages_go_on
from tests.postgres import PostgresServer
from tests.storage.test_tables import AMOUNT, NOTE, ORDERS, PAGES, QUERIES, STATES, versions_of

pytestmark = pytest.mark.slow

ME: Final = Owner(host="here", process_id=1, since=1)
SECOND: Final = Owner(host="there", process_id=2, since=2)
ALL: Final = TableQuery(ORDERS, STATES)


class Shelf:
    """A store with objects of the class `Orders`, without a runtime."""

    def __init__(self, server: PostgresServer, *tables: TableLayout) -> None:
        self.url = server.new_url()
        self.store = PostgresStore(self.url)
        self._tables = tables
        self._position = 0

    async def __aenter__(self) -> Shelf:
        await self.open(*self._tables)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    async def open(self, *tables: TableLayout) -> None:
        self._position = max(self._position, (await self.store.open(ME)).last_position)
        await self.store.lay_tables(tables)

    async def put(self, **versions: bytes) -> None:
        self._position += 1
        state = [StateRecord(Address("Orders", id), "version", version) for id, version in versions.items()]
        await self.store.commit(Batch(last_position=self._position, state=state))

    async def fill(self, size: int) -> None:
        await self.put(**dict(versions_of(size)))

    async def ids(self, query: TableQuery) -> list[str] | None:
        found = await self.store.search(query)
        return None if found is None else [id for id, _ in found.versions]

    @contextmanager
    def beside(self) -> Generator[psycopg.Connection[tuple[Any, ...]]]:
        url, _, schema = self.url.partition("?schema=")
        with psycopg.connect(url, autocommit=True, options=f"-c search_path={schema}") as connection:
            yield connection


def order(state: str, **fields: Any) -> bytes:
    return json.dumps({"state": state, **fields}).encode()


def equal(field: FieldName, value: Any, operator: Operator = Operator.EQUAL) -> TableQuery:
    table = TableLayout("order", "Orders", "version", (field,), (field.name,))
    return TableQuery(table, ("created",), Compare(field, operator, value))


def test_rows_change_in_the_commit_of_their_objects(server: PostgresServer) -> None:
    async def check() -> None:
        async with Shelf(server, ORDERS) as shelf:
            await shelf.put(a=order("created", amount=1), b=order("paid", amount=2))
            assert await shelf.ids(ALL) == ["a", "b"]
            await shelf.put(a=order("paid", amount=3))
            with shelf.beside() as connection:
                assert connection.execute("select id, state, amount from model_order order by id").fetchall() == [
                    ("a", "paid", Decimal(3)),
                    ("b", "paid", Decimal(2)),
                ]
                connection.execute("delete from state where key = 'b'")
            assert await shelf.ids(ALL) == ["a"]
            await shelf.put(b=order("s" * 200))
            assert await shelf.ids(TableQuery(ORDERS, ("s" * 200,))) == ["b"]
            await shelf.put(a=b'"no version"')
            assert await shelf.ids(ALL) == []
            assert await shelf.store.count_objects(ALL) == 0

    asyncio.run(check())


def test_a_query_is_answered_by_an_index(server: PostgresServer) -> None:
    """What it reads does not grow with the objects that there are."""

    async def check() -> None:
        async with Shelf(server, ORDERS) as shelf:
            await shelf.fill(3_000)
            with closing(connector(place_of(shelf.url))()) as connection:
                connection.execute("analyze model_order")
                for name, query in {**QUERIES, **deep_pages(connection)}.items():
                    plan = plan_of(connection, query)
                    most = max(int(rows) for rows in re.findall(r"model_order.*actual rows=([0-9]+)", plan))
                    removed = sum(int(rows) for rows in re.findall(r"Rows Removed by Filter: ([0-9]+)", plan))
                    assert "Seq Scan" not in plan, (name, plan)
                    assert most + removed <= 20, (name, plan)
            wider = msgspec.structs.replace(ORDERS, columns=(*ORDERS.columns, NOTE))
            await shelf.open(wider)  # In more than one portion.
            assert await shelf.store.count_objects(TableQuery(wider, STATES)) == 3_000

    asyncio.run(check())


def deep_pages(connection: PgConnection) -> dict[str, TableQuery]:
    """Pages far behind the first one, among objects without a value, too."""
    pages: dict[str, TableQuery] = {}
    for name, query in PAGES.items():
        ids = [id for id, _ in found_by(connection, msgspec.structs.replace(query, limit=3_000))]
        for place in (len(ids) // 14, len(ids) // 2, len(ids) - len(ids) // 14):
            pages[f"{name}, behind {place}"] = page = msgspec.structs.replace(query, after=ids[place - 1])
            assert [id for id, _ in found_by(connection, page)] == ids[place : place + 10]
    return pages


def found_by(connection: PgConnection, query: TableQuery) -> list[tuple[str, bytes]]:
    answer = search(connection, query)
    assert answer is not None
    return [*answer.versions]


def plan_of(connection: PgConnection, query: TableQuery) -> str:
    """How the server has carried out the statement that answers a query."""
    explained: list[str] = []

    class Explaining:
        closed = False
        info = connection.info

        def execute(self, sql: bytes, *arguments: Any, **named: Any) -> Any:
            if sql.startswith(b"select m.id, ("):
                plan = b"explain (analyze, costs off, timing off) " + sql
                explained.extend(line for (line,) in connection.execute(plan, *arguments, **named))
            return connection.execute(sql, *arguments, **named)

    search(cast("PgConnection", Explaining()), query)
    return "\n".join(explained)


def test_a_table_is_made_anew_when_its_layout_changes_and_when_it_was_dropped(server: PostgresServer) -> None:
    wider = msgspec.structs.replace(ORDERS, columns=(*ORDERS.columns, NOTE), indexed=("amount", "note"))
    noted = TableQuery(wider, STATES, Compare(NOTE, Operator.EQUAL, "new"))

    async def check() -> None:
        async with Shelf(server, ORDERS) as shelf:
            await shelf.put(a=order("created", amount=1, note="new"), b=order("paid", amount=2))
            assert await shelf.ids(noted) is None
            with shelf.beside() as connection:
                oid = "select 'model_order'::regclass::oid"
                before = connection.execute(oid).fetchall()
                await shelf.open(ORDERS)
                assert connection.execute(oid).fetchall() == before
                await shelf.open(wider)
                assert connection.execute(oid).fetchall() != before
                assert await shelf.ids(noted) == ["a"]
                assert await shelf.ids(ALL) is None
                await shelf.put(c=order("paid", note="new"))
                assert await shelf.store.count_objects(noted) == 2
                connection.execute("drop table model_order")
                connection.execute('drop trigger "model_order_new" on state')
                await shelf.open(wider)
                assert await shelf.ids(noted) == ["a", "c"]
            await shelf.store.lay_tables([])
            with shelf.beside() as connection:
                assert connection.execute("select to_regclass('model_order'), count(*) from state").fetchone() == (
                    None,
                    3,
                )
            await shelf.put(d=order("paid", note="new"))

    asyncio.run(check())


ODD: Final = {
    "a text with NUL": (NOTE, b'{"state": "created", "note": "a\\u0000b"}'),
    "half a pair": (NOTE, b'{"state": "created", "note": "\\ud800"}'),
    "a long text in an index": (NOTE, order("created", note=Random(1).randbytes(5_000).hex())),
    "a long state": (NOTE, order(Random(1).randbytes(5_000).hex(), note="x")),
    "another type": (AMOUNT, order("created", amount="1")),
    "too many digits": (AMOUNT, b'{"state": "created", "amount": 1%s}' % (b"0" * 3_000)),
    "no moment": (FieldName("made", FieldKind.MOMENT), order("created", made="2026-02-31T00:00:00Z")),
    "a moment of another form": (FieldName("made", FieldKind.MOMENT), order("created", made="20260228T000000")),
    "no number": (FieldName("price", FieldKind.DECIMAL), order("created", price="Infinity")),
    "a huge number": (FieldName("price", FieldKind.DECIMAL), order("created", price="1e999999")),
    "no day": (FieldName("day", FieldKind.DAY), order("created", day="today")),
    "no truth": (FieldName("ready", FieldKind.BOOLEAN), order("created", ready=1)),
    "not JSON": (NOTE, b'{"state": "created", '),
    "no text": (NOTE, b"\xff\xfe"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_columns_cannot_tell_fails_no_commit_and_is_looked_for_in_the_objects(
    server: PostgresServer, name: str
) -> None:
    field, version = ODD[name]
    query = equal(field, None, Operator.UNEQUAL)

    async def check() -> None:
        async with Shelf(server, query.table) as shelf:
            assert await shelf.ids(query) == []
            await shelf.put(a=version)
            assert await shelf.ids(query) is None
            assert await shelf.store.count_objects(query) is None
            await shelf.open(TableLayout("order", "Orders", "version", (field,)))  # Filled anew.
            await shelf.put(a=order("created"))
            await shelf.open(query.table)
            assert await shelf.ids(query) == []

    asyncio.run(check())


def test_names_that_postgres_would_cut_off_stay_apart(server: PostgresServer) -> None:
    long = "a" * 70
    fields = [FieldName(f"{long}{n}%s\"'", FieldKind.TEXT) for n in range(2)]
    table = TableLayout(f"{long}_order", "Ord'ers%s", "version", tuple(fields), tuple(field.name for field in fields))

    async def check() -> None:
        async with Shelf(server, table) as shelf:
            version = order("created", **{fields[0].name: "x", fields[1].name: "y"})
            state = [StateRecord(Address("Ord'ers%s", "a"), "version", version)]
            await shelf.store.commit(Batch(last_position=1, state=state))
            for field, value, wanted in ((fields[0], "x", ["a"]), (fields[1], "x", []), (fields[1], "y", ["a"])):
                query = TableQuery(table, ("created",), Compare(field, Operator.EQUAL, value), field)
                assert await shelf.ids(query) == wanted
            await shelf.store.lay_tables([])

    asyncio.run(check())


def test_an_owner_that_was_superseded_lays_nothing(server: PostgresServer) -> None:
    async def check() -> None:
        async with Shelf(server, ORDERS) as shelf:
            with shelf.beside() as connection:
                connection.execute("update lease set is_held = false")
            second = PostgresStore(shelf.url)
            await second.open(SECOND)
            with pytest.raises(StoreInUseError):
                await shelf.store.lay_tables([])
            await second.lay_tables([ORDERS])
            assert await second.count_objects(ALL) == 0
            await second.close()

    asyncio.run(check())


def test_with_a_codec_there_is_no_table(server: PostgresServer) -> None:
    url = server.new_url()

    async def check() -> None:
        async with Runtime(url, [Things], codec=AesGcmCodec(bytes(32))) as runtime:
            things = runtime.machine(Things)
            first, _ = await things.make(1)
            await things.age(first, since=7)
            assert await things.count(Old, since=7) == 1
            assert await things.count(Thing) == 1
        assert server.execute(
            "select count(*) from pg_class where relname like 'model%' and relkind = 'r' and relnamespace = '"
            + url.partition("schema=")[2]
            + "'::regnamespace"
        ) == [(0,)]

    asyncio.run(check())


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=MADE, asked=ASKED)
def test_columns_and_python_agree(server: PostgresServer, made: Made, asked: Asked) -> None:
    asyncio.run(answers(server.new_url(), made, asked))


def test_behind_an_object_that_is_gone_pages_go_on_or_it_is_told(server: PostgresServer) -> None:
    asyncio.run(pages_go_on(server.new_url()))

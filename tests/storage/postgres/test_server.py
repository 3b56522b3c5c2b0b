"""Where a store lies and what may keep one: URLs, secrets and settings."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("psycopg")

from psycopg.conninfo import conninfo_to_dict

from durably import DefinitionError, StoreUnavailableError
from durably.storage.connect import store_from_url
from durably.storage.postgres import PostgresStore
from durably.storage.postgres.server import connector, place_of
from durably.testing.stores.contract import OWNER
from tests.postgres import PostgresServer, running_postgres

SECRET = "hunter2"


def test_a_url_names_database_and_schema_and_never_shows_its_password() -> None:
    store = store_from_url(f"postgresql://mary:{SECRET}@db.example:5433/tickets?sslmode=require&schema=live")
    assert isinstance(store, PostgresStore)
    assert store.describe() == "postgres db.example:5433/tickets, schema live"
    place = place_of(f"postgres://mary:{SECRET}@db.example/tickets?options=-c%20work_mem%3D1MB")
    assert "work_mem=1MB" in place.conninfo
    assert (place.schema, place.lease_seconds) == ("durably", 10)
    assert SECRET not in place.name


def test_options_of_a_url_are_read_as_libpq_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    place = place_of("postgresql:///tickets?host=/run/postgresql&password=a+b&client_encoding=SQL_ASCII")
    assert conninfo_to_dict(place.conninfo).items() >= {
        "host": "/run/postgresql", "dbname": "tickets", "password": "a+b", "client_encoding": "UTF8",
    }.items()  # fmt: skip
    assert place_of("postgresql:///tickets").name == "postgres local socket/tickets, schema durably"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://mary:{SECRET}@db.example/tickets?nonsense=1",
        f"postgresql://mary:top/{SECRET}@db.example/tickets",
        f"postgresql://mary:top@{SECRET}@db.example/tickets",
        f"postgresql://mary:{SECRET}@[::1/tickets",
        f"postgresql://mary:{SECRET}@db.example/tickets?schema=",
        f"postgresql://mary:{SECRET}@db.example/tickets?schema=$user",
        f"postgresql://mary:{SECRET}@db.example/tickets?schema=pg_temp",
        f"postgresql://mary:{SECRET}@db.example/tickets?lease_seconds=soon",
        f"postgresql://mary:{SECRET}@db.example/tickets?lease_seconds=0",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        store_from_url(url)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_server_that_is_away_is_a_sentence_without_the_password() -> None:
    store = PostgresStore(f"postgresql://mary:{SECRET}@127.0.0.1:1/tickets")
    with pytest.raises(StoreUnavailableError, match="Check that the server runs and can be reached") as raised:
        asyncio.run(store.open(OWNER))
    assert SECRET not in str(raised.value)


@pytest.mark.slow
def test_what_cannot_keep_a_store_is_refused_with_a_sentence(server: PostgresServer) -> None:
    server.execute("create role guest login; create schema foreign_tables; create table foreign_tables.t ()")
    server.execute("create schema left_behind; create function left_behind.f() returns int language sql as 'select 1'")
    server.execute("create schema of_types; create domain of_types.name_text as text")
    server.execute("create database latin encoding 'LATIN1' template template0")
    base = f"postgresql://tester@127.0.0.1:{server.port}"
    for url, sentence in (
        (f"{base}/nowhere", "does not exist. Create it"),
        (f"{base}/postgres?schema=foreign_tables", "is not empty, and holds no store"),
        (f"{base}/postgres?schema=left_behind", "is not empty, and holds no store"),
        (f"{base}/postgres?schema=of_types", "is not empty, and holds no store"),
        (f"{base}/latin", "encoding is LATIN1"),
        (f"postgresql://guest@127.0.0.1:{server.port}/postgres?schema=g", "The role needs the right"),
    ):
        with pytest.raises(StoreUnavailableError, match=sentence):
            asyncio.run(PostgresStore(url).open(OWNER))


@pytest.mark.slow
def test_a_server_that_may_lose_what_it_acknowledges_is_refused_and_a_wrong_password_too() -> None:
    with running_postgres(fsync="off", synchronous_commit="off") as unsafe:
        with pytest.raises(StoreUnavailableError, match="fsync = off"):
            asyncio.run(PostgresStore(unsafe.new_url()).open(OWNER))
        unsafe.execute(f"alter role tester password '{SECRET}'")
        unsafe.require_passwords()
        with pytest.raises(StoreUnavailableError, match="Check the user and the password") as raised:
            asyncio.run(
                PostgresStore(f"postgresql://tester:wrong-{SECRET}@127.0.0.1:{unsafe.port}/postgres").open(OWNER)
            )
        assert SECRET not in str(raised.value)


@pytest.mark.slow
def test_what_a_role_has_set_does_not_reach_the_store(server: PostgresServer) -> None:
    server.execute("create role odd login superuser")
    for setting in ("idle_session_timeout = '5min'", "default_transaction_isolation = 'serializable'"):
        server.execute(f"alter role odd set {setting}")
    connect = connector(place_of(f"postgresql://odd@127.0.0.1:{server.port}/postgres?schema=odd"))
    with connect() as connection:
        for name, wanted in (("idle_session_timeout", "0"), ("transaction_isolation", "read committed")):
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == (wanted,)


@pytest.mark.slow
def test_what_a_role_may_not_is_told_and_ends_when_it_may_again(server: PostgresServer) -> None:
    url = server.new_url().replace("tester@", "limited@")
    schema = url.partition("schema=")[2]
    server.execute("create role limited login")
    server.execute("grant create on database postgres to limited")

    async def go() -> None:
        store = PostgresStore(url)
        await store.open(OWNER)
        await store.close()

    def refused() -> str:
        with pytest.raises(StoreUnavailableError) as raised:
            asyncio.run(go())
        return str(raised.value)

    asyncio.run(go())
    server.execute(f"alter schema {schema} owner to tester")
    assert "permission denied for schema" in refused()
    server.execute(f"alter schema {schema} owner to limited")
    server.execute(f"revoke all on {schema}.layout from limited")
    assert "permission denied for table layout. The role needs the right" in refused()
    server.execute(f"grant all on {schema}.layout to limited")
    server.execute("alter role limited connection limit 0")
    assert "too many connections for role" in refused()
    assert "No connection is free." in refused()
    server.execute("alter role limited connection limit -1")
    server.execute(f"alter table {schema}.state add column another int")
    asyncio.run(go())

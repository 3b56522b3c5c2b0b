"""`runtime.query()` and `POST /query` of a store in PostgreSQL: the documented tables can be read, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

pytest.importorskip("sqlglot")

from durably import (
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    TerminalError,
    VirtualObject,
    handler,
    state,
)
from durably.codecs import AesGcmCodec
from durably.errors import StoreUnavailableError
from durably.runtime.queries import queries
from durably.storage.postgres import PostgresStore, asking
from durably.storage.querying import QuestionRefusedError, ServerAnswer, SqlServer
from tests.postgres import PATIENCE_SECONDS, PostgresServer

pytestmark = pytest.mark.slow


class Cart(VirtualObject, name="AskedCart"):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, count: int) -> int:
        if count < 0:
            raise TerminalError("too few", code=418)
        self.total += count
        return self.total

    @handler(retry=RetryPolicy(max_attempts=1))
    async def fail(self, ctx: ObjectContext) -> None:
        raise ValueError("a bug")


HOSTILE = [
    "select rolpassword from pg_authid where exists (with pg_authid as (select 1) select 1 from pg_authid)",
    "with a as (select rolpassword from pg_authid), pg_authid as (select 1) select * from a",
    "with a as (select 1 from pg_roles), b as (with pg_roles as (select 1) select 1 from pg_roles) select 1 from a",
    'with "PG_ROLES" as (select 1) select * from pg_roles',
    "select 'a\x00b'",
    "select '\ud800'",
    "",
    ";",
    "select 1; select 2",
    "commit; drop table state",
    "select 1; drop schema public cascade",
    "commit",
    "rollback",
    "begin",
    "set role tester",
    "reset role",
    "set session authorization tester",
    "reset session authorization",
    "set transaction read write",
    "do $$begin perform pg_sleep(1); end$$",
    "copy state to program 'id'",
    "copy (select 1) to '/tmp/x'",
    "call x()",
    "create table x (y int)",
    "create function f() returns int as '' language sql",
    "insert into state values (1)",
    "update state set value = ''",
    "delete from state",
    "truncate state",
    "vacuum",
    "explain analyze select 1",
    "prepare x as select 1",
    "execute x",
    "declare x cursor for select 1",
    "listen x",
    "notify x",
    "load 'x'",
    "lock table state",
    "grant all on state to public",
    "alter role tester superuser",
    "select 1 into x",
    "select 1 for update",
    "values (1)",
    "table state",
    "with x as (delete from state returning *) select * from x",
    "with recursive n (x) as (select 1 union all select x + 1 from n) select count(*) from n",
    "select pg_terminate_backend(1)",
    "select pg_catalog.pg_terminate_backend(1)",
    'select "pg_terminate_backend"(1)',
    "select pg_cancel_backend(pid) from pg_stat_activity",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/x')",
    "select pg_read_file('/etc/passwd')",
    "select pg_read_binary_file('/etc/passwd')",
    "select pg_ls_dir('.')",
    "select * from pg_ls_dir('.')",
    "select * from rows from (pg_ls_dir('.')) as x",
    "select pg_sleep(60)",
    "select set_config('role', 'tester', false)",
    "select current_setting('data_directory')",
    "select pg_reload_conf()",
    "select dblink('', 'select 1')",
    "select query_to_xml('select 1', true, true, '')",
    "select pg_advisory_lock(1)",
    "select table_to_xml('state', true, true, '')",
    "select nextval('x')",
    "select txid_current()",
    "select version()",
    "select current_user",
    "select inet_server_addr()",
    "select repeat('x', 1000000000)",
    "select lpad('x', 1000000000)",
    "select * from generate_series(1, 1000000000)",
    "select regexp_replace('x', 'x', 'y')",
    "select 'x' ~ '(x+x+)+y'",
    "select * from pg_authid",
    "select * from pg_catalog.pg_shadow",
    "select * from steps",
    "select * from owner",
    "select * from durably.state",
    "select * from invocations",
    "select argument from sys_invocation",
    "select seed from sys_invocation",
    "select (sys_invocation).id from sys_invocation",
    "select 'state'::regclass",
    "select '/etc/passwd'::text::regproc",
    "select * from sys_invocation tablesample system (1)",
    "select $1",
    "select :x",
    "select %s",
    "select %(x)s",
    "select e'\\\\'",
    "select e'\\'' || pg_sleep(1) --'",
    "select $x$ $x$",
    "select u&'\\0041'",
    "select interval '1'' || pg_sleep(60) || '''",
    "select '1' operator(pg_catalog.+) 1",
    "select 1/0",
    "select 'x'::int",
    "select " + "(" * 200 + "1" + ")" * 200,
    "select * from sys_invocation, lateral (select 1) as x",
    "with sys_invocation as (select 1 as x) select * from sys_invocation",
    "select xmlparse(document '<a/>')",
]


def on(url: str, check: Callable[[Runtime], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with Runtime(url, [Cart], **options) as runtime:
            await check(runtime)

    asyncio.run(run())


def test_the_tables_are_answered_under_the_names_of_the_admin_api(server: PostgresServer) -> None:
    async def check(runtime: Runtime) -> None:
        await runtime.object(Cart, "a'b").add.options(idempotency_key="once")(3)
        with pytest.raises(TerminalError):
            await runtime.object(Cart, "b").add.options(idempotency_key="bad")(-1)
        with pytest.raises(PausedInvocationError):
            await runtime.object(Cart, "c").fail()

        async def rows(sql: str) -> list[tuple[Any, ...]]:
            return (await runtime.query(sql)).rows

        assert await rows("SELECT target, status, completion_result FROM sys_invocation ORDER BY created_at") == [
            ("AskedCart/a'b/add", "completed", "success"),
            ("AskedCart/b/add", "completed", "failure"),
            ("AskedCart/c/fail", "paused", None),
        ]
        assert await rows("select service_key, key, value_utf8, value from state where service_key = 'a''b'") == [
            ("a'b", "total", "3", b"3")
        ]
        assert await rows("select name, ty, public from sys_service") == [("AskedCart", "virtual_object", True)]
        assert await rows("select status from sys_invocation_status where status = 'paused'") == [("paused",)]
        assert await rows("select retry_count from sys_invocation_state") == [(1,)]
        assert await rows("select * from sys_vqueues") == []
        assert await rows("select count(*), sum(retry_count), avg(retry_count) from sys_invocation") == [(3, 1, 1 / 3)]
        assert await rows("select count(*) from information_schema.columns where table_name = 'sys_inbox'") == [(6,)]
        newest = (
            "with a as (select id as x from sys_invocation order by created_at desc limit 1) select count(*) from a"
        )
        assert await rows(newest) == [(1,)]
        named = (
            "with a (n) as (select 1), b as (select n + 1 as n from a) select a.n, c.n from a join b as c on c.n > a.n"
        )
        assert await rows(named) == [(1, 2)]
        inner = (
            "select (with A as (select id from sys_invocation) select count(a.id) from a), s.name from sys_service s"
        )
        assert await rows(inner) == [(3, "AskedCart")]
        assert await rows('SELECT "State".key FROM state AS "State" LIMIT 1') == [("total",)]
        recent = (
            "select count(*) from sys_invocation where created_at > now() - interval '1 hour' and created_at <= now()"
        )
        assert await rows(recent) == [(3,)]
        answer = await runtime.query("select created_at, completion_retention, id as x, id as x from sys_invocation")
        assert [type for _, type in answer.columns] == ["moment", "duration", "text", "text"]
        assert answer.rows[0][0].endswith("Z")
        assert answer.rows[0][1] == "PT86400S"
        assert (await runtime.query("select * from sys_invocation")).columns[0] == ("id", "text")

    on(server.new_url(), check)


def test_nothing_else_can_be_asked(server: PostgresServer) -> None:
    async def check(runtime: Runtime) -> None:
        await runtime.object(Cart, "a").add(3)
        for sql in HOSTILE:
            with pytest.raises(ValueError, match=r".{10}") as refused:
                await runtime.query(sql)
            assert str(refused.value).endswith((".", "…")), (sql, str(refused.value))
        assert (await runtime.query("select value_utf8 from state")).rows == [("3",)]
        assert await runtime.object(Cart, "a").add(1) == 4

    on(server.new_url(), check)


def test_the_admin_port_answers_as_it_does_for_a_file(server: PostgresServer) -> None:
    async def check(runtime: Runtime) -> None:
        await runtime.object(Cart, "a").add(3)
        transport = httpx.ASGITransport(runtime.asgi(admin=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            wanted = {"accept": "application/json"}
            answered = await client.post("/query", json={"query": "select value from state"}, headers=wanted)
            assert answered.json() == {"rows": [{"value": "33"}]}
            refused = await client.post("/query", json={"query": "select pg_sleep(9)"}, headers=wanted)
            assert refused.status_code == 400
            assert "pg_sleep() cannot be used" in refused.json()["message"]

    on(server.new_url(), check)


async def asked(url: str, sql: str, limit_seconds: float = 10.0) -> ServerAnswer:
    """Past the check of the query, as if it had a hole."""
    async with Runtime(store := PostgresStore(url), [Cart]) as runtime:
        await runtime.object(Cart, "a").add(3)
        return await store.sql_server.ask(sql.replace("{schema}", store.sql_server.schema), limit_seconds)


PAST_THE_CHECK = [
    ("select 1; drop table x", "syntax error"),
    ("select 1) as answer; commit; drop table x; select (1", "cannot insert multiple commands"),
    ("select 1 as a from pg_sleep(60)", r"longer than 0\.3 seconds"),
    ("select nextval(pg_get_serial_sequence('s', 's'))", "does not exist"),
    ("select {schema}.check_epoch(1, 99)", "does not exist"),
    ("select 1/0", "division by zero"),
    ("select * from state", "does not exist"),
]


@pytest.mark.parametrize(("sql", "sentence"), PAST_THE_CHECK)
def test_the_server_holds_to_it_even_where_the_check_has_a_hole(
    server: PostgresServer, sql: str, sentence: str
) -> None:
    with pytest.raises(QuestionRefusedError, match=sentence):
        asyncio.run(asked(server.new_url(), sql, 0.3))


def test_nothing_that_a_question_does_stays(server: PostgresServer) -> None:
    asyncio.run(asked(server.new_url(), "select lo_create(0), set_config('search_path', 'x', false)"))
    assert server.execute("select count(*) from pg_largeobject_metadata") == [(0,)]


def test_a_query_role_sees_the_views_alone(server: PostgresServer) -> None:
    url = server.new_url()
    schema = url.partition("schema=")[2]

    async def check() -> None:
        async with Runtime(store := PostgresStore(f"{url}&query_role=asker"), [Cart]) as runtime:
            await runtime.object(Cart, "a").add(3)
            with pytest.raises(StoreUnavailableError, match="the role of `query_role` cannot be taken"):
                await runtime.query("select id from sys_invocation")
            server.execute("create role asker nologin")
            server.execute(f"grant usage on schema {schema} to asker")
            views = ("invocation", "journal", "state", "inbox", "keyed_service_status", "idempotency", "promise")
            server.execute(f"grant select on {', '.join(f'{schema}.sys_{view}' for view in views)} to asker")
            assert (await runtime.query("select value_utf8 from state")).rows == [("3",)]
            assert (await runtime.query("select status from sys_invocation")).rows == []
            for table in ("sys_journal", "sys_inbox", "sys_keyed_service_status", "sys_idempotency", "sys_promise"):
                await runtime.query(f"select * from {table}")
            for hole in (f"select * from {schema}.steps", "select pg_read_file('/etc/passwd')"):
                with pytest.raises(QuestionRefusedError, match="permission denied"):
                    await store.sql_server.ask(hole, 5.0)

    try:
        asyncio.run(check())
    finally:
        server.execute("drop owned by asker; drop role asker")


def test_an_answer_is_limited_in_rows_values_bytes_and_time(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    twelve = " union all ".join(["select 1 as n"] * 12)
    many = "select count(a.n) from " + ", ".join(f"({twelve}) as {name}" for name in "abcdefghi")

    async def check(runtime: Runtime) -> None:
        await runtime.object(Cart, "a").add(3)
        monkeypatch.setattr(queries, "LIMIT_SECONDS", 0.3)
        with pytest.raises(ValueError, match=r"longer than 0\.3 seconds"):
            await runtime.query(many)
        monkeypatch.setattr(queries, "LIMIT_SECONDS", 10.0)
        monkeypatch.setattr(asking, "VALUE_LIMIT_BYTES", 1000)
        with pytest.raises(ValueError, match="a value of more than 1000 bytes"):
            await runtime.query(f"select string_agg('{'x' * 100}', '') from ({twelve}) as a")
        monkeypatch.setattr(asking, "ROWS_LIMIT", 11)
        with pytest.raises(ValueError, match="more than 11 rows"):
            await runtime.query(twelve)
        monkeypatch.setattr(asking, "ROWS_LIMIT", 12)
        assert len((await runtime.query(twelve)).rows) == 12
        monkeypatch.setattr(asking, "ANSWER_LIMIT_BYTES", 10)
        with pytest.raises(ValueError, match="holds more than 0 MiB"):
            await runtime.query(twelve)

    on(server.new_url(), check)


def test_a_question_that_is_wanted_no_longer_ends_on_the_server(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LIMIT_SECONDS", 900.0)
    twelve = " union all ".join(["select 1 as n"] * 12)
    many = "select count(a.n) from " + ", ".join(f"({twelve}) as {name}" for name in "abcdefghijkl")
    running = "select 1 from pg_stat_activity where state = 'active' and query like 'FETCH%answer%'"

    async def check(runtime: Runtime) -> None:
        asking = asyncio.ensure_future(runtime.query(many))
        while not (is_running := server.execute(running)):
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        began = time.monotonic()
        while is_running and time.monotonic() - began < PATIENCE_SECONDS:
            await asyncio.sleep(0.05)
            is_running = server.execute(running)
        assert not is_running

    on(f"{server.new_url()}&answer_limit_seconds=1800", check)


def test_what_a_codec_has_wrapped_is_not_told(server: PostgresServer) -> None:
    async def check(runtime: Runtime) -> None:
        await runtime.object(Cart, "a").add.options(idempotency_key="once")(3)
        assert (await runtime.query("select service_key, key, value_utf8 from state")).rows == [("a", "total", None)]
        told = await runtime.query("select status, completion_result, idempotency_key from sys_invocation")
        assert told.rows == [("completed", None, "once")]

    on(server.new_url(), check, codec=AesGcmCodec(bytes(32)))


def test_a_server_that_is_a_value_says_what_it_reads() -> None:
    server = PostgresStore("postgresql://db/tickets?schema=shop").sql_server
    assert isinstance(server, SqlServer)
    assert (server.schema, server.reads_payloads) == ("shop", True)

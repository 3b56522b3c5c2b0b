"""`POST /query`: what a runtime keeps, in SQL, under the names of Restate's tables; and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably import (
    Context,
    DurablePromise,
    ObjectContext,
    RetryPolicy,
    Runtime,
    Service,
    SharedWorkflowContext,
    SqliteStore,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.codecs import AesGcmCodec, Codec
from durably.runtime.queries.journals import JournalRows
from durably.runtime.queries.tables import TABLES
from durably.testing import Harness

pytest.importorskip("sqlglot")
pa = pytest.importorskip("pyarrow")


class Counter(VirtualObject, journal_retention=3600):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, n: int) -> int:
        self.total += n
        await ctx.run("note", lambda: "noted")
        return self.total

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        await ctx.sleep(1000)
        return await ctx.service(Greeter).greet("late")


class Greeter(Service, private=True):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hi {name}"

    @handler(retry=RetryPolicy(initial=100.0, maximum=100.0))
    async def fail(self, ctx: Context) -> None:
        raise RuntimeError("again")

    @handler
    async def refuse(self, ctx: Context) -> None:
        raise TerminalError("never", code=418)


class Signup(Workflow):
    clicked: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return await self.clicked

    @shared
    async def click(self, ctx: SharedWorkflowContext, word: str) -> None:
        await self.clicked.resolve(word)


@pytest.fixture
async def app() -> AsyncIterator[Harness]:
    async with Harness(Counter, Greeter, Signup) as app:
        yield app
        for name in ("Counter", "Greeter", "Signup"):
            await app.kill(name)


@asynccontextmanager
async def admin_of(runtime: Runtime | Harness) -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(runtime.asgi(admin=True))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


@pytest.fixture
async def admin(app: Harness) -> AsyncIterator[httpx.AsyncClient]:
    async with admin_of(app) as client:
        yield client


async def rows(admin: httpx.AsyncClient, sql: str) -> list[dict[str, Any]]:
    answered = await admin.post("/v4/query", json={"query": sql}, headers={"accept": "application/json"})
    assert answered.status_code == 200, answered.text
    found: list[dict[str, Any]] = answered.json()["rows"]
    return found


async def test_invocations_stand_where_operators_expect_them(app: Harness, admin: httpx.AsyncClient) -> None:
    first = await app.object(Counter, "a").wait.send()
    queued = await app.object(Counter, "a").add.send(1)
    later = await app.object(Counter, "a").add.after(50).send(1)
    failing = await app.service(Greeter).fail.send()
    refused = await app.service(Greeter).refuse.options(idempotency_key="k").send()
    done = await app.object(Counter, "b").add.send(2)
    await app.settle()
    found = await rows(admin, "SELECT * FROM sys_invocation")
    by_id = {one["id"]: one for one in found}
    assert {id: one["status"] for id, one in by_id.items()} == {
        first.id: "suspended", queued.id: "pending", later.id: "scheduled", failing.id: "backing-off",
        refused.id: "completed", done.id: "completed",
    }  # fmt: skip
    raw = await rows(admin, "SELECT id, status FROM sys_invocation_status")
    assert {one["id"]: one["status"] for one in raw} == {
        first.id: "suspended", queued.id: "inboxed", later.id: "scheduled", failing.id: "invoked",
        refused.id: "completed", done.id: "completed",
    }  # fmt: skip
    assert by_id[failing.id]["next_retry_at"] == "2026-01-01T00:01:40.000Z"
    assert "again" in by_id[failing.id]["last_failure"]
    assert (by_id[refused.id]["completion_result"], by_id[refused.id]["completion_failure"]) == (
        "failure", "[418] never",
    )  # fmt: skip
    assert by_id[refused.id]["idempotency_key"] == "k"
    assert by_id[done.id]["completion_result"] == "success"
    assert by_id[later.id]["scheduled_start_at"] == "2026-01-01T00:00:50.000Z"
    assert [one["id"] for one in await rows(admin, "SELECT id FROM sys_inbox")] == [queued.id]
    (held,) = await rows(admin, "SELECT * FROM sys_keyed_service_status")
    assert held == {"partition_key": 0, "service_name": "Counter", "service_key": "a", "invocation_id": first.id}
    await app.kill("Counter/a")
    assert await rows(admin, "SELECT invocation_id FROM sys_keyed_service_status") == []


TIMES = "created_at", "inboxed_at", "scheduled_at", "running_at", "modified_at", "completed_at"


async def test_moments_tell_when_what_happened(app: Harness, admin: httpx.AsyncClient) -> None:
    first = await app.object(Counter, "a").wait.send()
    later = await app.object(Counter, "a").add.after(50).send(1)
    failing = await app.service(Greeter).fail.send()
    await app.advance(60)
    waiting = await app.service(Greeter).greet.options(idempotency_key="k").send("Ann")
    assert await waiting == "Hi Ann"
    signup = await app.workflow(Signup, "s").run.send()
    await app.advance(50)
    found = {one["id"]: one for one in await rows(admin, "SELECT * FROM sys_invocation")}

    def seconds(id: str) -> dict[str, int]:
        told = {name: found[id].get(name) for name in TIMES}
        zero = datetime(2026, 1, 1, tzinfo=UTC)
        return {name: (datetime.fromisoformat(one) - zero).seconds for name, one in told.items() if one is not None}

    assert seconds(first.id) == {"created_at": 0, "inboxed_at": 0, "running_at": 0, "modified_at": 0}
    assert seconds(later.id) == {"created_at": 0, "scheduled_at": 0, "inboxed_at": 50, "modified_at": 50}
    assert seconds(failing.id) == {"created_at": 0, "modified_at": 100}
    assert seconds(waiting.id) == {"created_at": 60, "modified_at": 60, "completed_at": 60}
    assert seconds(signup.id) == {"created_at": 60, "inboxed_at": 60, "running_at": 60, "modified_at": 60}
    assert found[first.id]["suspended_waiting_for_completions"] == [0]
    assert found[signup.id]["suspended_waiting_for_completions"] == [0]
    assert found[first.id]["suspended_waiting_for_signals"] == []
    assert (found[first.id]["journal_size"], found[first.id]["journal_commands_size"]) == (2, 2)
    retentions = {id: one["journal_retention"] for id, one in found.items()}
    assert (retentions[first.id], retentions[failing.id], retentions[waiting.id]) == ("PT3600S", "PT0S", "PT86400S")
    by_modified = "SELECT id FROM sys_invocation ORDER BY modified_at DESC, id LIMIT 2"
    assert (await rows(admin, by_modified))[0]["id"] == failing.id
    (joined,) = await rows(
        admin,
        "SELECT ss.in_flight, st.pinned_service_protocol_version AS v FROM sys_invocation_status st "
        "JOIN sys_invocation_state ss ON ss.partition_key = st.partition_key AND ss.id = st.id "
        f"WHERE st.id = '{signup.id}'",
    )
    assert joined == {"in_flight": False, "v": 5}


@pytest.mark.parametrize("codec", [None, AesGcmCodec(bytes(32))], ids=["plain", "encrypted"])
async def test_stored_values_are_read_through_the_codec(tmp_path: Path, codec: Codec | None) -> None:
    store = SqliteStore(tmp_path / "app.db")
    async with Runtime(store, [Counter, Greeter, Signup], codec=codec) as runtime, admin_of(runtime) as admin:
        assert await runtime.object(Counter, "a").add(3) == 3
        signup = await runtime.workflow(Signup, "s").run.send()
        await runtime.workflow(Signup, "s").click("yes")
        assert await signup == "yes"
        assert await rows(admin, "select * from state") == [{
            "partition_key": 0, "service_name": "Counter", "service_key": "a", "key": "total", "key_length": 5,
            "value_utf8": "3", "value": "33", "value_length": 1,
        }]  # fmt: skip
        (clicked,) = await rows(admin, "SELECT * FROM sys_promise")
        assert (clicked["key"], clicked["completed"]) == ("clicked", True)
        assert clicked["completion_success_value_utf8"] == '"yes"'
        (added,) = await rows(admin, "SELECT id FROM sys_invocation_status WHERE target = 'Counter/a/add'")
        asked = f"SELECT j.index, entry_type FROM sys_journal j WHERE id = '{added['id']}' ORDER BY index"
        journal = await rows(admin, asked)
        assert [(one["index"], one["entry_type"]) for one in journal] == [
            (0, "Command: Input"), (1, "Command: Run"), (2, "Command: SetState"), (3, "Notification: Run"),
            (4, "Command: Output"),
        ]  # fmt: skip
        (told,) = await rows(admin, f"SELECT entry_json FROM sys_journal WHERE id = '{added['id']}' AND name = 'note'")
        assert json.loads(told["entry_json"])["Command"]["Run"]["name"] == "note"


async def test_what_is_not_durable_yet_is_waited_for(app: Harness, admin: httpx.AsyncClient) -> None:
    adding = [asyncio.ensure_future(app.object(Counter, f"{n}").add(1)) for n in range(20)]
    counted = await rows(admin, "SELECT COUNT(*) AS n FROM sys_invocation")
    await asyncio.gather(*adding)
    after = await rows(admin, "SELECT COUNT(*) AS n FROM state")
    assert after == [{"n": 20}]
    assert counted[0]["n"] <= 20


NEWEST = """
    SELECT target_service_name, FIRST_VALUE(id ORDER BY created_at DESC) AS newest, MIN(created_at) AS oldest
    FROM sys_invocation WHERE status == 'completed' GROUP BY target_service_name
"""
JOINED = """
    SELECT CAST(NULL AS STRING) AS a, dp.id IS NOT NULL AS b
    FROM sys_invocation i LEFT JOIN public.sys_deployment dp ON dp.id = i.pinned_deployment_id
"""
PECULIAR = [
    NEWEST,
    JOINED,
    "SELECT first_value(id) AS one, sum(retry_count) AS n FROM sys_invocation GROUP BY status",
    "SELECT COUNT(1) FROM (SELECT * FROM sys_invocation inv LIMIT 5) WHERE inv.status IN ('completed')",
    "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 'sys_journal' AND column_name IN ('version')",
    "SELECT sj.index FROM sys_journal sj ORDER BY index DESC LIMIT 100",
    "select key, value from state where service_name = 'Counter' and service_key = 'a' ;",
    "SELECT id FROM sys_invocation WHERE created_at > now() - INTERVAL '1 hour' ORDER BY modified_at DESC NULLS LAST",
    "WITH busy AS (SELECT * FROM sys_invocation) SELECT array_agg(id), count(*) FILTER (WHERE status = 'x') FROM busy",
    "SELECT row_number() OVER (PARTITION BY status ORDER BY id) FROM sys_invocation UNION ALL SELECT 1",
    *(f"SELECT * FROM {table}" for table in TABLES),
]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT x, t.y FROM (VALUES (1, 'a'), (2, 'b')) AS t(x, y)", [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]),
        ("SELECT * FROM (SELECT 1, 2) AS t(x, y)", [{"x": 1, "y": 2}]),
        (
            (
                "SELECT t.n, u.ty FROM (SELECT name FROM sys_service ORDER BY name LIMIT 1) AS t(n) "
                "JOIN (SELECT name, ty FROM (SELECT name, ty FROM sys_service) AS s(name, ty)) AS u(m, ty) ON u.m = t.n"
            ),
            [{"n": "Counter", "ty": "virtual_object"}],
        ),
        ("SELECT count(*) FROM sys_service", [{"count(*)": 3}]),
        ("SELECT COUNT(*) FROM sys_deployment AS d(a, b, c, d, e, f, g)", [{"count(*)": 1}]),
    ],
)
async def test_columns_have_the_names_that_they_are_given(
    admin: httpx.AsyncClient, sql: str, expected: list[dict[str, Any]]
) -> None:
    assert await rows(admin, sql) == expected


async def test_the_dialect_of_restates_tools_is_understood(app: Harness, admin: httpx.AsyncClient) -> None:
    await app.object(Counter, "a").add(3)
    for sql in PECULIAR:
        for accept in ("application/json", "*/*"):
            answered = await admin.post("/query", json={"query": sql}, headers={"accept": accept})
            assert answered.status_code == 200, (sql, answered.text)


async def test_what_a_query_does_not_want_is_not_computed(
    app: Harness, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.object(Counter, "a").add(3)
    read: list[int] = []

    def size(_: JournalRows, number: int) -> int:
        read.append(number)
        return 7

    monkeypatch.setattr(JournalRows, "size", size)
    for sql in (
        "SELECT count(1) AS n FROM (SELECT * FROM sys_invocation inv LIMIT 50000) WHERE inv.status != 'scheduled'",
        "SELECT count(*) AS n FROM (SELECT * FROM sys_invocation LIMIT 50000)",
        "SELECT id FROM sys_invocation_status ORDER BY created_at",
    ):
        assert len(await rows(admin, sql)) == 1
    assert read == []
    (whole,) = await rows(admin, "SELECT * FROM (SELECT DISTINCT * FROM sys_invocation LIMIT 1)")
    assert (whole["journal_size"], len(read)) == (7, 1)


async def test_the_types_of_columns_are_told(app: Harness, admin: httpx.AsyncClient) -> None:
    await app.object(Counter, "a").add(3)
    sql = (
        "SELECT id, created_at AS born, max(created_at) AS last, completion_retention, status = 'completed' AS is_over,"
        " count(*) AS n, 1.5 AS half, x.value, suspended_waiting_for_signals FROM sys_invocation i "
        "JOIN state x ON x.service_key = i.target_service_key GROUP BY id"
    )
    answered = await admin.post("/query", json={"query": sql})
    assert answered.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answered.content).read_all()
    assert [f"{field.name}: {field.type}" for field in table.schema] == [
        "id: large_string", "born: timestamp[ms, tz=+00:00]", "last: timestamp[ms, tz=+00:00]",
        "completion_retention: duration[ms]", "is_over: bool", "n: int64", "half: double", "value: large_binary",
        "suspended_waiting_for_signals: list<item: uint32>",
    ]  # fmt: skip
    (row,) = table.to_pylist()
    assert (row["is_over"], row["n"], row["value"]) == (True, 1, b"3")
    (told,) = await rows(admin, sql)
    assert (told["is_over"], told["value"], told["born"]) == (True, "33", "2026-01-01T00:00:00.000Z")
    assert "suspended_waiting_for_signals" not in told


async def test_the_deployment_and_services_are_those_of_the_other_answers(
    app: Harness, admin: httpx.AsyncClient
) -> None:
    (deployment,) = (await admin.get("/deployments")).json()["deployments"]
    (told,) = await rows(admin, "SELECT * FROM sys_deployment")
    assert (told["id"], told["services"]) == (deployment["id"], ["Counter", "Greeter", "Signup"])
    services = await rows(admin, "SELECT name, ty, public FROM sys_service")
    assert services == [
        {"name": "Counter", "ty": "virtual_object", "public": True},
        {"name": "Greeter", "ty": "service", "public": False},
        {"name": "Signup", "ty": "workflow", "public": True},
    ]

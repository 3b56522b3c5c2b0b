"""`POST /query` cannot write, attach, read a file, fill memory or disk, or keep the process busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably import Runtime, SqliteStore
from tests.admin.test_query import Counter, Greeter, Signup, admin_of, rows
from tests.levels import level

FORBIDDEN = [
    "", ";", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE state", "selec", "SELECT 'a", "SELECT FROM", "VALUES (1)",
    "INSERT INTO state VALUES (1)", "UPDATE state SET value = 1", "DELETE FROM state", "DROP TABLE invocations",
    "CREATE TABLE x (y)", "CREATE TEMP VIEW x AS SELECT 1", "SELECT 1 INTO x", "ATTACH 'x.db' AS x", "VACUUM INTO 'x'",
    "PRAGMA query_only = 0", "PRAGMA writable_schema = 1", "BEGIN", "COMMIT", "EXPLAIN SELECT 1", "REINDEX", "ANALYZE",
    "WITH x AS (INSERT INTO state VALUES (1) RETURNING *) SELECT * FROM x", "COPY state TO 'x'",
    "SELECT * FROM invocations", "SELECT * FROM main.invocations", "SELECT * FROM temp.live", "SELECT * FROM live",
    "SELECT * FROM known_invocations", "SELECT * FROM sqlite_master", "SELECT * FROM sqlite_temp_schema",
    "SELECT * FROM pragma_table_info('invocations')", "SELECT * FROM pragma_database_list()", "SELECT * FROM dbstat",
    "SELECT * FROM owner", "SELECT seed FROM sys_invocation", 'SELECT "no such column" FROM state',
    "WITH sys_invocation AS (SELECT 1 AS x) SELECT * FROM sys_invocation",
    "WITH state AS (SELECT * FROM main.owner) SELECT * FROM state", "SELECT (SELECT seed FROM invocations LIMIT 1)",
    "SELECT * FROM information_schema.nothing", "SELECT load_extension('x')", "SELECT readfile('/etc/passwd')",
    "SELECT writefile('x', 'y')", "SELECT zeroblob(1000000000)", "SELECT randomblob(1000000000)",
    "SELECT printf('%1000000000d', 1)", "SELECT format('%.*c', 1000000000, 'x')", "SELECT sqlite_compileoption_get(1)",
    "SELECT fts3_tokenizer('simple')", "SELECT edit('x')", "SELECT nonsense(1)",
    "SELECT " + "(" * 200 + "1" + ")" * 200,
    "SELECT " + "1+" * 10_000 + "1", "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(500)), "SELECT 1 FOR UPDATE",
    "SELECT id FROM sys_invocation WHERE " + " OR ".join(["id = 'x'"] * 1000), "SELECT x'",
    "SELECT " + "x" * 200_000, "SELECT ARRAY[1]", "SELECT " + "date(" * 14 + "1" + ")" * 14,
    "SELECT 1" + "::int" * 2_000, "SELECT * FROM state, lateral (SELECT * FROM main.steps) AS x",
]  # fmt: skip


@asynccontextmanager
async def untouched(folder: Path) -> AsyncGenerator[httpx.AsyncClient]:
    """The admin API of a runtime on a file, which is afterwards as it was."""
    async with Runtime(SqliteStore(folder / "app.db"), [Counter, Greeter, Signup]) as runtime:
        await runtime.object(Counter, "a").add(3)
        before = (folder / "app.db").read_bytes(), (folder / "app.db-wal").read_bytes()
        names = sorted(path.name for path in folder.iterdir())
        async with admin_of(runtime) as client:
            yield client
        assert sorted(path.name for path in folder.iterdir()) == names
        assert ((folder / "app.db").read_bytes(), (folder / "app.db-wal").read_bytes()) == before
        assert await runtime.state(Counter, "a") == {"total": 3}


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with untouched(tmp_path) as client:
        yield client


async def test_a_query_reads_the_documented_tables_and_nothing_else(file: httpx.AsyncClient) -> None:
    for sql in FORBIDDEN:
        answered = await file.post("/query", json={"query": sql}, headers={"accept": "application/json"})
        assert answered.status_code == 400, (sql, answered.text)
        assert len(answered.json()["message"]) > 10
    assert await rows(file, "SELECT value_utf8 FROM state") == [{"value_utf8": "3"}]


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
DOUBLED = "WITH RECURSIVE n(x) AS (SELECT 'aaaaaaaa' UNION ALL SELECT x || x FROM n) SELECT max(length(x)) FROM n"
JOINED_TO_ITSELF = """
    WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3000)
    SELECT count(*) FROM n a, n b, n c, n d WHERE a.x + b.x + c.x + d.x = 0
"""
CONCATENATED = """
    WITH RECURSIVE n(x, y) AS (SELECT 1, 'aaaaaaaaaaaaaaaa' UNION ALL SELECT x + 1, y FROM n LIMIT 10000000)
    SELECT length(group_concat(y)) FROM n
"""
SORTED = f"""
    WITH RECURSIVE n(x, y) AS (
        SELECT 1, replace('{"a" * 1_000}', 'a', '{"b" * 900}') UNION ALL SELECT x + 1, y || x FROM n
    )
    SELECT x, y FROM n ORDER BY y
"""
MANY_LARGE_COLUMNS = f"""
    WITH n(y) AS (SELECT replace('{"a" * 1_000}', 'a', '{"b" * 900}'))
    SELECT {", ".join(f"y || '{n}' AS c{n}" for n in range(190))} FROM n
"""
MANY_ROWS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
TOO_MUCH = [ENDLESS, DOUBLED, JOINED_TO_ITSELF, CONCATENATED, SORTED, MANY_LARGE_COLUMNS, MANY_ROWS]


async def test_a_query_that_takes_too_much_is_stopped(file: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.runtime.queries.queries.LIMIT_SECONDS", 0.05)
    for sql in TOO_MUCH:
        answered = await file.post("/query", json={"query": sql}, headers={"accept": "application/json"})
        assert answered.status_code == 400, (sql, answered.text[:200])
        assert "sk for" in answered.json()["message"]


def doubled(parts: int, step: str = "SELECT a.x FROM {0} a, {0} b") -> list[str]:
    return ["c0 AS (SELECT 1 AS x)", *(f"c{n} AS ({step.format(f'c{n - 1}')})" for n in range(1, parts))]


@pytest.mark.parametrize("step", ["SELECT a.x FROM {0} a, {0} b", "SELECT x FROM {0} UNION ALL SELECT x FROM {0}"])
async def test_parts_that_read_each_other_twice_are_not_written_out(file: httpx.AsyncClient, step: str) -> None:
    """SQLite writes them out before any clock or memory is looked at: 14 of them are 8,192 tables."""
    for parts in (doubled(14, step), doubled(14, step)[::-1], doubled(30, step)):  # SQLite takes them in any order.
        last = f"c{len(parts) - 1}"
        for sql in (
            f"WITH {', '.join(parts)} SELECT count(*) AS n FROM {last}",
            f"SELECT (WITH {', '.join(parts)} SELECT count(*) FROM {last}) AS n",
        ):
            answered = await file.post("/query", json={"query": sql}, headers={"accept": "application/json"})
            assert (answered.status_code, "named parts" in answered.json()["message"]) == (400, True), answered.text
    few = ", ".join(doubled(5, step))
    assert len(await rows(file, f"WITH {few} SELECT count(*) AS n FROM c4")) == 1
    counting = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 5) SELECT max(x) AS x FROM n"
    assert await rows(file, counting) == [{"x": 5}]


@pytest.mark.parametrize(
    ("step", "levels"),
    [
        ("SELECT x || x AS x FROM {0}", 18),
        ("SELECT (SELECT x || x) AS x FROM {0}", 18),
        ("SELECT x || x AS x FROM (SELECT 1 AS one) AS a JOIN {0} ON true", 18),
        ("SELECT x || x AS x FROM {0} UNION ALL SELECT 'a'", 18),
        (f"SELECT coalesce({', '.join('x' * 9)}) AS x FROM {{0}}", 7),
    ],
)
async def test_columns_that_are_computed_from_each_other_are_not_written_out(
    file: httpx.AsyncClient, step: str, levels: int
) -> None:
    """SQLite writes them out before any clock or memory is looked at: 18 are 262,144 operations."""
    parts = ["c0 AS (SELECT service_key AS x FROM state)", *doubled(levels, step)[1:]]
    nested = "(SELECT service_key AS x FROM state) AS y"
    for _ in range(1, levels):
        nested = f"({step.format(nested)}) AS y"
    for sql in (
        f"WITH {', '.join(parts)} SELECT x FROM c{levels - 1}",
        f"WITH {', '.join(parts[::-1])} SELECT 1 WHERE EXISTS (SELECT x FROM c{levels - 1})",
        f"SELECT x FROM {nested}",
        f"SELECT x FROM ({nested} CROSS JOIN state)",
    ):
        answered = await file.post("/query", json={"query": sql}, headers={"accept": "application/json"})
        assert (answered.status_code, "computed from" in answered.json()["message"]) == (400, True), answered.text
    assert len(await rows(file, f"WITH {', '.join(parts[:3])} SELECT x FROM c2")) < 5


async def test_very_many_values_share_the_memory(file: httpx.AsyncClient) -> None:
    """SQLite looks at no memory between the branches of a CASE, and keeps the value of each."""
    large = f"replace('{'a' * 1_000}', 'a', '{'b' * 900}')"  # 900,000 characters
    assert await rows(file, f"SELECT length({large}) AS n FROM state") == [{"n": 900_000}]
    branches = " ".join(f"WHEN y || '{n}' THEN {n}" for n in range(400))
    answered = await file.post(
        "/query", json={"query": f"WITH n(y) AS (SELECT {large}) SELECT CASE '' {branches} END FROM n"}
    )
    assert answered.status_code == 400
    assert "so many that each may have no more" in answered.json()["message"] or "too large in replace" in answered.text
    few = " ".join(f"WHEN y || '{n}' THEN {n}" for n in range(20))
    assert await rows(file, f"WITH n(y) AS (SELECT 'b') SELECT CASE 'b7' {few} END AS n FROM n") == [{"n": 7}]


async def test_only_some_queries_are_answered_at_once(file: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.runtime.queries.queries.LIMIT_SECONDS", 0.05)
    asked = [file.post("/query", json={"query": ENDLESS}) for _ in range(6)]
    codes = sorted(answered.status_code for answered in await asyncio.gather(*asked))
    assert codes == [400] * 4 + [429] * 2
    assert await rows(file, "SELECT 1 AS x") == [{"x": 1}]


async def test_a_body_that_is_no_query_is_refused(file: httpx.AsyncClient) -> None:
    for body, code in ((b"{}", 400), (b"[", 400), (b'{"query": 1}', 400), (b'{"query": "\xff"}', 400)):
        answered = await file.post("/query", content=body, headers={"content-type": "application/json"})
        assert answered.status_code == code
    assert (await file.post("/query", content=b"SELECT 1")).status_code == 415
    assert (await file.get("/query")).status_code == 405


LARGE = f"replace(replace('{'a' * 200}', 'a', '{'a' * 200}'), 'b', 'c')"
PRODUCTS = [
    f"SELECT trim({LARGE}, replace({LARGE}, 'a', 'b') || 'a')", f"SELECT ltrim({LARGE}, {LARGE})",
    f"SELECT TRIM(BOTH {LARGE} FROM {LARGE})", f"SELECT rtrim({LARGE}, {LARGE})", f"SELECT instr({LARGE}, {LARGE})",
    f"SELECT position({LARGE} IN {LARGE})", f"SELECT strpos({LARGE}, {LARGE} || 'b')",
    f"SELECT replace({LARGE}, {LARGE} || 'b', '')", f"SELECT 1 WHERE {LARGE} LIKE {LARGE}",
    f"SELECT {LARGE} LIKE {LARGE} ESCAPE '\\'", f"SELECT {LARGE} GLOB {LARGE}", f"SELECT like({LARGE}, {LARGE})",
]  # fmt: skip


async def test_no_function_computes_where_no_clock_is_looked_at(file: httpx.AsyncClient) -> None:
    for sql in PRODUCTS:
        answered = await file.post("/query", json={"query": sql}, headers={"accept": "application/json"})
        assert answered.status_code == 400, (sql, answered.text[:200])
        assert "texts of" in answered.json()["message"] or "GLOB" in sql, answered.text
    told = await rows(
        file,
        "SELECT trim('xay', 'xy') AS t, instr('abc', 'c') AS i, replace('aa', 'a', 1.5) AS r, "
        "NULL LIKE 'a' AS n, 'Aa' LIKE 'A_' AS l, 'aa' LIKE 'A%' AS u, '5%' LIKE '5\\%' ESCAPE '\\' AS e",
    )
    assert told == [{"t": "a", "i": 3, "r": "1.51.5", "l": True, "u": False, "e": True}]
    grows = await file.post("/query", json={"query": f"SELECT replace('{'a' * 60_000}', 'a', '{'b' * 60_000}')"})
    assert (grows.status_code, "too large" in grows.json()["message"]) == (400, True)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="elsewhere a limit is for the largest size ever")
async def test_queries_one_after_the_other_get_no_more_memory(
    file: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably.storage.querying.MEMORY_LIMIT_BYTES", 32 << 20)
    peaks: list[int] = []
    for _ in range(5):
        answered = await file.post("/query", json={"query": SORTED})
        assert "32 MiB" in answered.json()["message"]
        status = Path("/proc/self/status").read_text()
        peaks.append(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
    assert peaks[-1] - peaks[0] < 32 << 10


names = st.sampled_from([
    "sys_invocation", "state", "sys_journal", "sys_promise", "public.state", "invocations", "main.state", "temp.live",
    "live", "known_invocations", "known_handlers", "sqlite_master", "sqlite_temp_master", "owner", "steps", "n",
    "json_each('[1]')", "json_tree('[1]')", "pragma_database_list", "pragma_table_info('state')", "dbstat",
    "fsdir('/')", "generate_series(1, 1000000000)", "bytecode('select 1')", "`main`.`invocations`",
    "information_schema.columns", "(VALUES (1))",
])  # fmt: skip
constants = st.sampled_from([
    "1", "-1", "NULL", "'a'", "x'00'", "1e999", "9223372036854775807", "key", "value", "id", "x", "n.x", "seed",
    "rowid", "created_at", "now()", "'/etc/passwd'", "zeroblob(1000000000)", "randomblob(1000000000)",
    "hex(zeroblob(500000))", "last_insert_rowid()", "changes()", "sqlite_version()", "printf('%*d', 1000000000, 1)",
    "load_extension('x')", "readfile('/etc/passwd')", "writefile('x', 'y')", "edit('x')", "current_setting('a')",
    "pg_read_file('x')", "INTERVAL '1 day'", "*", "$1", "?", ":a", "@a", "E'\\x00'", "$$a$$",
])  # fmt: skip
signs = st.sampled_from(["+", "||", "*", "/", "%", "LIKE", "=", "->>", "IN", "IS", "AND", "::", "COLLATE"])
functions = st.sampled_from([
    "length", "replace", "count", "group_concat", "json_group_array", "substr", "hex", "trim", "moment", "payload",
    "journal_size", "journal_entry", "waited_for", "step_at", "first_value", "cast", "date", "abs", "shifted", "",
])  # fmt: skip


def composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{} {} {}".format, inner, signs, inner),
        st.builds("{}({})".format, functions, st.lists(inner, max_size=3).map(", ".join)),
        inner.map("(SELECT {} FROM state)".format),
        inner.map("CASE WHEN {} THEN 1 END".format),
        inner.map("sum({}) OVER (ORDER BY key)".format),
    )


values = st.recursive(constants, composed, max_leaves=5)
selects = st.builds(
    "SELECT {} FROM {}{}{}".format, st.lists(values, min_size=1, max_size=3).map(", ".join), names,
    st.just("") | values.map(" WHERE {}".format) | st.builds(" JOIN {} ON {}".format, names, values),
    st.just("") | st.builds(" {} {}".format, st.sampled_from(["ORDER BY", "LIMIT", "GROUP BY"]), values),
)  # fmt: skip
recursive = st.builds(
    "WITH RECURSIVE n(x) AS (SELECT {} UNION ALL SELECT {} FROM n) {}".format,
    values,
    values | st.just("x || x"),
    selects,
)
changes = st.builds(
    "{} {}".format,
    st.sampled_from([
        "ATTACH '/tmp/x' AS", "DETACH", "PRAGMA writable_schema = 1;", "PRAGMA temp_store_directory = '/';",
        "VACUUM INTO", "INSERT INTO state", "REPLACE INTO state", "UPDATE state SET value = 1;", "DELETE FROM state;",
        "DROP TABLE", "CREATE TABLE y AS", "CREATE TEMP TRIGGER t", "EXPLAIN QUERY PLAN", "COPY state TO '/tmp/x'",
        "SAVEPOINT a;", "SELECT 1;", "WITH n AS (DELETE FROM state RETURNING *)", "BEGIN;", "/*", "--", "(", ";",
        "SELECT 1 INTO y UNION", "SET a = 1;", "CALL x();", "DO $$ $$;", "ALTER TABLE state RENAME TO y;",
        "GRANT ALL ON state TO x;",
    ]), selects,
)  # fmt: skip


def test_no_statement_does_anything_but_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.runtime.queries.queries.LIMIT_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as runner:
        served = untouched(tmp_path)
        client = runner.run(served.__aenter__())

        async def ask(sql: str) -> httpx.Response:
            async with asyncio.timeout(60):
                return await client.post("/query", json={"query": sql}, headers={"accept": "application/json"})

        @settings(
            max_examples=level().examples, deadline=None, derandomize=not level().is_search, database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )  # fmt: skip
        @given(selects | recursive | changes)
        def law(sql: str) -> None:
            answered = runner.run(ask(sql))
            assert answered.status_code in (200, 400), (sql, answered.text)
            told: Any = answered.json()
            if answered.status_code == 400:
                assert len(told["message"]) > 10
            else:
                assert not {"seed", "epoch"} & {name for row in told["rows"] for name in row}, sql

        law()
        runner.run(served.__aexit__(None, None, None))

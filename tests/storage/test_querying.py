"""A connection for questions can do nothing but read what it is meant to, whatever SQL comes to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from durably.storage.connections import connect
from durably.storage.memory import MemoryStore
from durably.storage.querying import Answered, Question, QuestionRefusedError, ask, connection_to_query
from durably.storage.records import Owner
from durably.storage.sqlite import SqliteStore

OWNER = Owner(host="here.example", process_id=1, since=0)
REFUSED = [
    "insert into invocations (number) values (1)", "delete from state", "update owner set epoch = 7",
    "drop table state",
    "create table x (y)", "create temp table x (y)", "create temp view y as select 1", "attach ':memory:' as x",
    "attach 'other.db' as x", "detach main", "vacuum", "vacuum into 'copy.db'", "reindex", "analyze", "begin", "commit",
    "pragma query_only = 0", "pragma writable_schema = 1", "pragma table_info('state')", "pragma user_version",
    "select * from state", "select * from main.state", "select seed from invocations", "select * from owner",
    "select * from sqlite_schema", "select * from sqlite_temp_schema", "select * from inner_view",
    "select * from hidden_table", "select * from pragma_table_info('state')", "select * from pragma_database_list",
    "select * from json_tree('[1]')", "select load_extension('x')", "select zeroblob(1000000000)",
    "select randomblob(8)",
    "select printf('%1000000d', 1)", "select sqlite_version()", "select char(1)", "select last_insert_rowid()",
    "with seen as (select * from main.owner) select * from seen where 0 union select * from owner",
    "select 1; select 2", "select", "nonsense",
]  # fmt: skip


async def answered(store: SqliteStore | MemoryStore, sql: str) -> Answered:
    def question(_: sqlite3.Connection) -> Question:
        return Question(
            sql,
            preparations=[
                ("create temp table hidden_table (x)", ()),
                ("insert into hidden_table values (?)", [(1,), (2,)]),
                ("create temp view inner_view as select field, value, x from main.state, temp.hidden_table", ()),
                ("create temp view seen as select field, count(*) as n from temp.inner_view group by field", ()),
            ],
            views=["seen"],
            hidden_views=["inner_view"],
            tables=["hidden_table"],
        )

    return await ask(await connection_to_query(store), question, 5.0)


async def test_nothing_but_reading_is_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(tmp_path / "app.db")
    await store.open(OWNER)
    try:
        before = (await answered(store, "select * from seen")).rows
        for sql in REFUSED:
            with pytest.raises(QuestionRefusedError):
                await answered(store, sql)
        assert (await answered(store, "select * from seen")).rows == before
        assert {path.name for path in tmp_path.iterdir()} <= {"app.db", "app.db-wal", "app.db-shm", "app.db.lock"}
        writer = await connect(tmp_path / "app.db")
        assert await writer.run(lambda one: one.execute("select epoch from owner").fetchone()) == (1,)
        await writer.close()
    finally:
        await store.close()


async def test_a_memory_store_is_asked_as_a_copy() -> None:
    store = MemoryStore()
    await store.open(OWNER)
    assert (await answered(store, "select n from seen where field = 'plain'")).rows in ([], [(2,)])
    with pytest.raises(QuestionRefusedError):
        await answered(store, "delete from state")

"""Large payloads go another way than JSON: a commit costs what it writes, and a load takes what it returns."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from durably.errors import StoreUnavailableError
from durably.ids import Address, InvocationStatus
from durably.storage.connections import ReadLimitError, TimeLimit
from durably.storage.encoding import LARGE_BYTES, encode_batch
from durably.storage.pieces import PORTION_RECORDS, PieceReader
from durably.storage.records import Batch, CompletionRecord, InvocationUpdate, SignalRecord, StepRecord
from durably.storage.sqlite import SqliteStore
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, field, invocation

T = TypeVar("T")

LARGE = b'"' + b"x" * (64 * LARGE_BYTES) + b'"'
SMALL = b'"small"'
JOE = Address("Ticket", "joe")


def everything(payload: bytes, number: int = 1) -> Batch:
    """A batch with a payload wherever one may stand."""
    return Batch(
        last_position=number + 1,
        accepted=[invocation(number, argument=payload, failure=payload, outcome=payload)],
        steps=[StepRecord(number, 0, payload)],
        completions=[CompletionRecord(number, 0, number + 1, False, payload)],
        state=[field("a", payload)],
        signals=[SignalRecord(number, number + 1, "approved", False, payload)],
    )


def test_no_large_payload_is_in_the_json_of_a_batch() -> None:
    large, small = encode_batch(everything(LARGE), 1), encode_batch(everything(SMALL), 1)
    assert json_bytes(large.parameters) <= json_bytes(small.parameters)
    assert sorted(name for name, _ in large.puts) == [
        "put_argument", "put_completion", "put_failure", "put_outcome", "put_signal", "put_state",
        "put_step",
    ]  # fmt: skip
    assert all(values[0] is LARGE for _, values in large.puts)
    assert small.puts == []


def json_bytes(parameters: tuple[int | bytes | None, ...]) -> int:
    return sum(len(part) for part in parameters if isinstance(part, bytes))


async def test_a_large_payload_is_one_statement_more_and_only_for_the_batch_that_has_it(
    tmp_path: Path, new_store: NewStore
) -> None:
    """Rule X5: everybody else's commit stays one statement."""
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    statements = trace(store)
    await store.commit(everything(LARGE))
    assert sorted(distinct(statements)) == [
        "begin immediate", "commit", "insert arguments", "insert batch", "insert completions",
        "insert signals", "insert state", "insert steps", "update invocations",
    ]  # fmt: skip
    statements.clear()
    await store.commit(Batch(last_position=3, state=[field("a", SMALL, JOE)]))
    assert distinct(statements) == ["insert batch"]


async def test_a_batch_with_a_large_payload_is_all_there_or_not_at_all(tmp_path: Path, new_store: NewStore) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, accepted=[invocation(1)], steps=[StepRecord(1, 0, SMALL)]))
    with pytest.raises(StoreUnavailableError):
        await store.commit(Batch(last_position=2, state=[field("a", SMALL)], steps=[StepRecord(1, 0, LARGE)]))
    assert (await store.open(OWNER)).last_position == 1
    assert await store.state(MARY) == {}


@pytest.mark.parametrize("table", ["invocations", "steps", "completions", "signals", "state"])
async def test_the_trees_in_which_rows_are_found_hold_no_payload(
    table: str, tmp_path: Path, new_store: NewStore
) -> None:
    """A search that passes a large row would read all of it (`without rowid` does that)."""
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(everything(LARGE))
    await store.close()
    connection = sqlite3.connect(tmp_path / "app.db")
    (sql,) = connection.execute("select sql from sqlite_schema where name = ?", (table,)).fetchone()
    assert "without rowid" not in sql
    assert connection.execute("select length(argument) from invocations").fetchone() == (None,)
    connection.close()


async def test_a_status_changes_without_its_large_argument_being_written_again(
    tmp_path: Path, new_store: NewStore
) -> None:
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, accepted=[invocation(1, argument=LARGE)]))
    await store.open(OWNER)  # Empties the write-ahead log.
    for position in range(2, 12):
        update = InvocationUpdate(
            number=1, status=InvocationStatus.RUNNING, mailbox_position=None, attempts=position, failure=None
        )
        await store.commit(Batch(last_position=position, updated=[update]))
    assert (tmp_path / "app.db-wal").stat().st_size < len(LARGE)


async def test_a_load_fetches_each_large_payload_by_itself(tmp_path: Path, new_store: NewStore) -> None:
    """No answer holds more than one of them, so a load takes little more memory than it returns."""
    store = new_store(tmp_path / "app.db", readers=1)
    await store.open(OWNER)
    count = 2 * PORTION_RECORDS
    await store.commit(
        Batch(
            last_position=count,
            accepted=[invocation(1)],
            steps=[StepRecord(1, index, SMALL) for index in range(count)],
            completions=[CompletionRecord(1, index, index + 1, False, LARGE) for index in range(count)],
        )
    )
    answers: list[int] = []
    readers = store._readers  # pyright: ignore[reportPrivateUsage]
    run = readers.run

    def note(_: sqlite3.Cursor, row: tuple[object, ...]) -> tuple[object, ...]:
        answers.append(sum(map(bytes_in, row)))
        return row

    async def watched(function: Callable[[sqlite3.Connection, Callable[[], None]], T]) -> T:
        def watch(connection: sqlite3.Connection, progressed: Callable[[], None]) -> T:
            connection.row_factory = note
            return function(connection, progressed)

        return await run(watch)

    readers.run = watched  # type: ignore[method-assign]
    (loaded,) = await store.load([MARY], pending_limit=1)
    assert sum(len(one.value) for one in loaded.started[0].completions) == count * len(LARGE)
    assert answers.count(len(LARGE)) == count
    assert max(answers) == len(LARGE)
    assert sum(answers) < 1.01 * count * len(LARGE)


def bytes_in(value: object) -> int:
    return len(value) if isinstance(value, str | bytes) else 8


async def test_what_takes_too_long_to_load_is_left_out_and_named_and_the_others_are_there(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of ours is not a failure of the store."""
    store = new_store(tmp_path / "app.db")
    await store.open(OWNER)
    await store.commit(everything(LARGE))
    await store.commit(Batch(last_position=5, accepted=[invocation(4, address=JOE)], state=[field("a", SMALL, JOE)]))
    monkeypatch.setattr(PieceReader, "_payload", slow)
    large, small = await store.load([MARY, JOE], pending_limit=1)
    assert (large.state, large.left_out_bytes) == ({}, len(LARGE))
    (journal,) = large.started
    assert (journal.record.id, journal.left_out_bytes) == (invocation(1).id, 4 * len(LARGE))
    assert (small.state, small.left_out_bytes) == ({"a": SMALL}, None)
    assert await store.load([JOE], pending_limit=1) == [small]


def slow(reader: PieceReader, stored: str | int | bytes, statement: str, *key: object) -> bytes:
    """What runs into the time limit at a large payload."""
    if isinstance(stored, int) and statement not in ("large_failure", "large_outcome"):
        raise ReadLimitError("it took too long")
    return stored if isinstance(stored, bytes) else str(stored).encode()


async def test_a_read_that_gets_on_is_not_stopped_and_one_that_stands_still_is() -> None:
    stopped: list[bool] = []
    limit = TimeLimit(lambda: stopped.append(True), 60.0)
    for _ in range(5):
        limit.progressed()
        limit.look()
    assert (stopped, limit.expired) == ([], False)
    limit.look()
    assert (stopped, limit.expired) == ([True], True)
    limit.cancel()


def distinct(statements: list[str]) -> list[str]:
    """What the statements do to which table. SQLite reports one anew for each trigger that it fires."""
    names = [re.sub(r"( or ignore)?( into)? ", " ", line.split("\n")[0], count=1) for line in statements]
    return list(dict.fromkeys(" ".join(name.split()[:2]).rstrip(";") for name in names))


def trace(store: SqliteStore) -> list[str]:
    """The statements that the store runs from now on, without what its triggers do."""
    statements: list[str] = []
    writer = store._writer  # pyright: ignore[reportPrivateUsage]
    assert writer is not None
    writer.connection._conn.set_trace_callback(  # pyright: ignore[reportPrivateUsage]
        lambda line: None if line.startswith("--") else statements.append(line)
    )
    return statements

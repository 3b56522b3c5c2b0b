"""What a `MemoryStore` keeps, as a database in memory for those who ask in SQL."""

from __future__ import annotations

import sqlite3

from durably.storage.connections import Connection, opened
from durably.storage.encoding import encode_batch
from durably.storage.memory import Disk
from durably.storage.migrations import migrate
from durably.storage.records import Batch, StateRecord
from durably.storage.sqlite import WRITER_DEFINITIONS
from durably.storage.statements import SQL

EPOCH_OF_A_NEW_DATABASE = 0


async def copied(disk: Disk) -> Connection:
    """A connection to a database in memory that holds all that a question can be about, as it is now."""
    everything = _contents(disk)
    connection = await opened(lambda: sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
    await connection.run(_write, everything)
    return connection


def _contents(disk: Disk) -> Batch:
    rows = [disk.rows[number] for number in sorted(disk.rows)]
    return Batch(
        last_position=disk.last_position,
        accepted=[row.record for row in rows],
        steps=[step for row in rows for step in row.steps.values()],
        completions=[one for row in rows for one in row.completions.values()],
        timers=[timer for row in rows for timer in row.timers.values()],
        state=[
            StateRecord(address, field, value)
            for address, fields in disk.state.items()
            for field, value in fields.items()
        ],
        promises=[promise for promises in disk.promises.values() for promise in promises.values()],
    )


def _write(connection: sqlite3.Connection, everything: Batch) -> None:
    migrate(connection, "memory")
    for name in WRITER_DEFINITIONS:
        connection.execute(SQL[name])
    batch = encode_batch(everything, EPOCH_OF_A_NEW_DATABASE)
    connection.execute(SQL[batch.statement], batch.parameters)
    for parameters in batch.further:
        connection.execute(SQL["commit_batch"], parameters)
    for name, values in batch.puts:
        connection.execute(SQL[name], values)

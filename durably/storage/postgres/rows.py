"""`PostgresRows`: what the readers of the store read, on the thread of a connection."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import psycopg
from psycopg.pq import TransactionStatus

from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.statements import STATEMENTS
from durably.storage.row_source import Parameters, Row


class PostgresRows:
    """As `durably.storage.row_source.RowSource`. The server itself stops a statement that takes too long."""

    __slots__ = ("_connection",)

    def __init__(self, connection: PgConnection) -> None:
        self._connection = connection

    def rows(self, statement: str, parameters: Parameters, /) -> Iterator[Row]:
        return iter(self._connection.execute(STATEMENTS[statement], parameters).fetchall())

    @contextmanager
    def snapshot(self) -> Generator[None]:
        self._connection.execute(STATEMENTS["begin_reading"])
        try:
            yield
        finally:
            give_up(self._connection)


def give_up(connection: PgConnection) -> None:
    """Undo the transaction, if there is one and the server is still there."""
    if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
        try:
            connection.execute(STATEMENTS["give_up"])
        except psycopg.Error:
            connection.close()

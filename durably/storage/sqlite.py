"""`SqliteStore`: all records in one SQLite file, next to the program that uses it.

A commit is one statement and one hop to a thread (rule X5), durable when it returns. Reads run on connections of their
own and each is one statement, thus one snapshot. The file belongs to one runtime at a time: a lock says so early, the
epoch makes it true (rule X4). After a failed commit nothing is read or written until `open` has begun anew on fresh
connections and everything readable has been made durable (rule X3).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.storage.checkpoints import Checkpointer
from durably.storage.checkpoints import run as run_checkpoint
from durably.storage.connections import (
    Connection,
    Parameters,
    Readers,
    answer,
    apply_settings,
    connect,
    make_views,
    pieces,
)
from durably.storage.encoding import (
    decode_found,
    decode_invocations,
    decode_journals,
    decode_keyed,
    decode_object,
    decode_objects,
    decode_recoverable,
    decode_state,
    decode_timers,
    encode_batch,
    encode_rows,
)
from durably.storage.migrations import migrate, refuse_foreign, refuse_older
from durably.storage.ownership import OwnerLock, taken_over_sentence
from durably.storage.records import (
    PENDING_BYTES,
    Batch,
    InvocationRecord,
    Opened,
    Owner,
    StoredInvocation,
    StoredObject,
    TimerPlace,
    TimerRecord,
)
from durably.storage.sqlite_errors import describe_error, is_busy, is_epoch_moved, is_too_big
from durably.storage.statements import SQL

Q = TypeVar("Q")
A = TypeVar("A")

OLDEST_SQLITE = (3, 38, 0)
CHECKPOINT_TRIES = 5
MIB = 1 << 20
FIRST_TIMER = (-(1 << 63), 0, "", 0)
"""Comes before every `TimerPlace`."""
IN_HAND = (InvocationStatus.RUNNING, InvocationStatus.PENDING, InvocationStatus.BACKING_OFF, InvocationStatus.PAUSED)


class Writer:
    """The one connection that writes. Its methods run on the connection's thread; `failed` is read on the loop's."""

    def __init__(self, connection: Connection, store: str) -> None:
        self.connection = connection
        self.epoch = 0
        self.failed = False
        self.stopping = False
        self._store = store

    def take_over(self, connection: sqlite3.Connection, owner: Owner) -> Opened:
        """Make the file ours, fence whoever had it (rule X4), and make durable what is readable (rule X3)."""
        refuse_foreign(connection, self._store)
        apply_settings(connection)
        migrate(connection, self._store)
        parameters = (owner.host, owner.process_id, owner.since)
        epoch, last_position = connection.execute(SQL["take_over"], parameters).fetchone()
        self._make_durable(connection)
        connection.execute(SQL["batch"])
        connection.execute(SQL["batch_is_applied"])
        connection.execute(SQL["state_is_applied"])
        self.epoch = epoch
        return Opened(epoch=epoch, last_position=last_position)

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        for _ in range(CHECKPOINT_TRIES):
            if not run_checkpoint(connection, "checkpoint_and_shrink").blocked:
                return
        raise StoreUnavailableError(
            f"The store {self._store} cannot be opened: another program reads it in a long transaction. End that first."
        )

    def commit(self, connection: sqlite3.Connection, parameters: Parameters) -> None:
        """Commit a batch. It is tried again while somebody else writes: busy is no failure (rule X3)."""
        while True:
            try:
                connection.execute(SQL["commit_batch"], parameters)
            except sqlite3.Error as error:
                if is_busy(error) and not self.stopping:
                    continue
                self.failed = True
                raise
            except BaseException:
                self.failed = True
                raise
            return

    def current_owner(self, connection: sqlite3.Connection) -> Owner:
        host, process_id, since = connection.execute(SQL["current_owner"]).fetchone()
        return Owner(host=host, process_id=process_id, since=since)


class SqliteStore:
    """Keeps everything in the SQLite database at `path`, which is created when it is not there.

    `readers` connections serve reads, none longer than `read_limit_seconds`. The write-ahead log is copied into the
    database when it holds `checkpoint_mib`. While it holds more than `wal_limit_mib`, because another program reads in
    one long transaction, requests from outside are refused and every commit tries to copy it first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readers: int = 2,
        read_limit_seconds: float = 10.0,
        checkpoint_mib: int = 4,
        wal_limit_mib: int = 256,
    ) -> None:
        if str(path) in ("", ":memory:"):
            raise DefinitionError("SqliteStore keeps a file, so it needs a path. Use MemoryStore to keep nothing.")
        self.path = Path(path)
        self._lock = OwnerLock(self.path.with_name(self.path.name + ".lock"), self.describe())
        self._readers = Readers(self.path, self.describe(), count=readers, limit_seconds=read_limit_seconds)
        self._checkpointer = Checkpointer(
            self.path, self.describe(), threshold_bytes=checkpoint_mib * MIB, limit_bytes=wal_limit_mib * MIB
        )
        self._writer: Writer | None = None
        self._is_read_only = False

    def describe(self) -> str:
        return f"sqlite {self.path}"

    def congestion(self) -> str | None:
        return self._checkpointer.congestion()

    # ------------------------------------------------------------ opening and closing

    async def open(self, owner: Owner, /) -> Opened:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(str(part) for part in OLDEST_SQLITE)
            raise StoreUnavailableError(f"This Python comes with SQLite {sqlite3.sqlite_version}; {needed} is needed.")
        self._lock.refuse_other(owner)
        was_held = self._lock.is_held
        await self._drop_connections()
        self._lock.acquire(owner)
        try:
            return await self._open_connections(owner)
        except BaseException as error:
            await self._drop_connections()
            if not was_held:
                # Who opens again after a failure keeps the lock: nobody else shall come between two tries.
                self._lock.release()
            if isinstance(error, sqlite3.Error):
                raise StoreUnavailableError(describe_error(error, self.describe())) from error
            raise

    async def open_read_only(self) -> None:
        """Open for reads alone, beside whoever owns the store or after them: nothing is taken over or migrated.

        The database stays as it is. Where nobody has it open, SQLite may leave its side files, `-wal` and `-shm`.

        Raises:
            StoreInUseError: this very object is open already.
            StoreUnavailableError: it is not there, cannot be read, is not ours, or has the layout of another version.
        """
        if self._writer is not None:
            raise StoreInUseError(f"The store {self.describe()} is open here already. Read from it as it is.")
        if not self.path.is_file():
            raise StoreUnavailableError(f"The store {self.describe()} is not there. Check the path.")
        await self._drop_connections()
        try:
            await self._readers.open(self._prepare_to_read, read_only=True)
        except sqlite3.Error as error:
            await self._drop_connections()
            raise StoreUnavailableError(describe_error(error, self.describe())) from error
        except BaseException:
            await self._drop_connections()
            raise
        self._is_read_only = True

    def _prepare_to_read(self, connection: sqlite3.Connection) -> None:
        refuse_foreign(connection, self.describe())
        refuse_older(connection, self.describe())
        make_views(connection)

    async def close(self) -> None:
        await self._drop_connections()
        self._lock.release()

    async def _open_connections(self, owner: Owner) -> Opened:
        writer = self._writer = Writer(await connect(self.path), self.describe())
        opened = await writer.connection.run(writer.take_over, owner)
        await self._readers.open()
        await self._checkpointer.open(self._readers)
        return opened

    async def _drop_connections(self) -> None:
        writer, self._writer = self._writer, None
        self._is_read_only = False
        if writer is not None:
            writer.stopping = True
        await self._readers.close()
        await self._checkpointer.close()
        if writer is not None:
            await writer.connection.close()

    # ------------------------------------------------------------ writing

    async def commit(self, batch: Batch, /) -> None:
        writer = self._working()
        parameters = encode_batch(batch, writer.epoch)
        await self._checkpointer.make_room()
        try:
            await writer.connection.run(writer.commit, parameters)
        except sqlite3.Error as error:
            raise await self._commit_error(writer, error) from error
        self._checkpointer.note_commit(sum(len(part) for part in parameters if isinstance(part, bytes)))

    async def _commit_error(self, writer: Writer, error: sqlite3.Error) -> StoreInUseError | StoreUnavailableError:
        if not is_epoch_moved(error):
            return StoreUnavailableError(describe_error(error, self.describe()))
        holder = await writer.connection.run(writer.current_owner)
        return StoreInUseError(taken_over_sentence(self.describe(), holder))

    def _working(self) -> Writer:
        if self._is_read_only:
            raise StoreUnavailableError(f"The store {self.describe()} is open for reads only. Open it as its owner.")
        if self._writer is None:
            raise StoreUnavailableError(f"The store {self.describe()} is not open. Open it before using it.")
        if self._writer.failed:
            raise StoreUnavailableError(f"A commit to the store {self.describe()} failed before. Open it again first.")
        return self._writer

    # ------------------------------------------------------------ reading

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        limits = {"pending_limit": pending_limit, "pending_bytes": PENDING_BYTES}

        async def ask(some: Sequence[Address]) -> list[StoredObject]:
            asked = encode_rows([tuple(address) for address in some])
            return decode_objects(await self._read("load", {"addresses": asked, **limits}), some)

        async def ask_in_pieces(address: Address) -> list[StoredObject]:
            parameters = {"service": address.service, "key": address.key, **limits}
            return [decode_object(await self._readers.read("load_in_pieces", parameters, pieces), address)]

        parts = await self._in_parts(ask, addresses, ask_in_pieces)
        return [stored for part in parts for stored in part]

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        async def ask(some: Sequence[str]) -> dict[str, InvocationRecord]:
            return decode_found(await self._read("find", {"ids": encode_rows(list(some))}))

        return _merged(await self._in_parts(ask, ids))

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        async def ask(some: Sequence[KeyScope]) -> dict[KeyScope, InvocationRecord]:
            parameters = {"scopes": encode_rows([tuple(scope) for scope in some])}
            return decode_keyed(await self._read("find_keyed", parameters), some)

        return _merged(await self._in_parts(ask, scopes))

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        async def ask(some: Sequence[int]) -> dict[int, StoredInvocation]:
            return decode_journals(await self._read("fetch", {"numbers": encode_rows(list(some))}))

        return _merged(await self._in_parts(ask, numbers))

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        return decode_recoverable(await self._read("recoverable", {"after": after, "limit": limit}))

    async def timers(self, until: int, limit: int, /, *, after: TimerPlace | None = None) -> list[TimerRecord]:
        due, number, kind, command = after if after is not None else FIRST_TIMER
        parameters = {
            "until": until, "limit": limit,
            "after_due": due, "after_number": number, "after_kind": kind, "after_command": command,
        }  # fmt: skip
        return decode_timers(await self._read("timers", parameters))

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        return decode_invocations(await self._read_fewer("expired", {"now": now}, limit))

    async def state(self, address: Address, /) -> Mapping[str, bytes]:
        return decode_state(await self._read("state", {"service": address.service, "key": address.key}))

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        statement = "invocations_in_hand" if status in IN_HAND else "invocations"
        parameters = {"after": after, "service": service, "key": key, "handler": handler, "status": status}
        return decode_invocations(await self._read_fewer(statement, parameters, limit))

    async def _read(self, name: str, parameters: Parameters) -> str:
        if not self._is_read_only:
            self._working()
        return await self._readers.read(name, parameters, answer)

    async def _read_fewer(self, name: str, parameters: Mapping[str, object], limit: int) -> str:
        """Read at most `limit` rows, and fewer if so many do not fit into one answer."""
        while True:
            try:
                return await self._read(name, {**parameters, "limit": limit})
            except StoreUnavailableError as error:
                if limit == 1 or not is_too_big(error.__cause__):
                    raise
                limit //= 2

    async def _in_parts(
        self,
        ask: Callable[[Sequence[Q]], Awaitable[A]],
        questions: Sequence[Q],
        ask_in_pieces: Callable[[Q], Awaitable[A]] | None = None,
    ) -> list[A]:
        """Ask everything at once, or half at a time what does not fit into one answer, and last of all in pieces."""
        if not questions:
            return []
        try:
            return [await ask(questions)]
        except StoreUnavailableError as error:
            if not is_too_big(error.__cause__) or (len(questions) == 1 and ask_in_pieces is None):
                raise
        if len(questions) == 1 and ask_in_pieces is not None:
            return [await ask_in_pieces(questions[0])]
        half = len(questions) // 2
        first = await self._in_parts(ask, questions[:half], ask_in_pieces)
        return first + await self._in_parts(ask, questions[half:], ask_in_pieces)


def _merged(parts: list[dict[Q, A]]) -> dict[Q, A]:
    return {question: answered for part in parts for question, answered in part.items()}

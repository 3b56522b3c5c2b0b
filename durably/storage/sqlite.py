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
from functools import partial
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
    ReadLimitError,
    apply_settings,
    connect,
    make_views,
)
from durably.storage.decoding import (
    LargePayloadError,
    decode_found,
    decode_invocations,
    decode_journals,
    decode_keyed,
    decode_objects,
    decode_recoverable,
    decode_timers,
)
from durably.storage.encoding import EncodedBatch, encode_batch, encode_rows
from durably.storage.migrations import migrate, refuse_foreign, refuse_older
from durably.storage.ownership import OwnerLock, taken_over_sentence
from durably.storage.pieces import PAGE_RECORDS, PieceReader
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
WRITER_DEFINITIONS = (
    "renewal", "renewal_is_applied", "removal", "removal_is_applied", "clearance", "clearance_is_applied",
    "batch", "batch_is_applied", "state_is_applied",
)  # fmt: skip
MIB = 1 << 20
NOTHING_LOADED = -1
"""As the limit of a load: journals and snapshots are measured, and none is loaded."""
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
        for name in WRITER_DEFINITIONS:
            connection.execute(SQL[name])
        self.epoch = epoch
        return Opened(epoch=epoch, last_position=last_position)

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        for _ in range(CHECKPOINT_TRIES):
            if not run_checkpoint(connection, "checkpoint_and_shrink").blocked:
                return
        raise StoreUnavailableError(
            f"The store {self._store} cannot be opened: another program reads it in a long transaction. End that first."
        )

    def commit(self, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        """Commit a batch. It is tried again while somebody else writes: busy is no failure (rule X3)."""
        write = self._write_with_large_payloads if batch.puts else self._write
        while True:
            try:
                write(connection, batch)
            except sqlite3.Error as error:
                if is_busy(error) and not self.stopping:
                    continue
                self.failed = True
                raise
            except BaseException:
                self.failed = True
                raise
            return

    def _write(self, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        """Rule X5: one statement is a whole transaction."""
        connection.execute(SQL["commit_batch"], batch.parameters)

    def _write_with_large_payloads(self, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        connection.execute(SQL["begin"])
        try:
            connection.execute(SQL["commit_batch"], batch.parameters)
            for name, values in batch.puts:
                connection.execute(SQL[name], values)
            connection.execute(SQL["end"])
        except BaseException:
            if connection.in_transaction:
                connection.execute(SQL["give_up"])
            raise

    def current_owner(self, connection: sqlite3.Connection) -> Owner:
        host, process_id, since = connection.execute(SQL["current_owner"]).fetchone()
        return Owner(host=host, process_id=process_id, since=since)


class SqliteStore:
    """Keeps everything in the SQLite database at `path`, which is created when it is not there.

    `readers` connections serve reads, none longer than `read_limit_seconds`. The write-ahead log is copied into the
    database when it holds `checkpoint_mib`. While it holds more than `wal_limit_mib`, because another program reads in
    one long transaction, requests from outside are refused and every commit tries to copy it first. An invocation
    whose argument, steps and completions hold more than `load_limit_mib`, or whose object's state does, is not loaded:
    the runtime pauses it, and the others go on.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readers: int = 2,
        read_limit_seconds: float = 10.0,
        checkpoint_mib: int = 4,
        wal_limit_mib: int = 256,
        load_limit_mib: int = 1024,
    ) -> None:
        if str(path) in ("", ":memory:"):
            raise DefinitionError("SqliteStore keeps a file, so it needs a path. Use MemoryStore to keep nothing.")
        self.path = Path(path)
        self._lock = OwnerLock(self.path.with_name(self.path.name + ".lock"), self.describe())
        self._readers = Readers(self.path, self.describe(), count=readers, limit_seconds=read_limit_seconds)
        self._checkpointer = Checkpointer(
            self.path, self.describe(), threshold_bytes=checkpoint_mib * MIB, limit_bytes=wal_limit_mib * MIB
        )
        self._load_limit_bytes = load_limit_mib * MIB
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
        encoded = encode_batch(batch, writer.epoch)
        await self._checkpointer.make_room()
        try:
            await writer.connection.run(writer.commit, encoded)
        except sqlite3.Error as error:
            raise await self._commit_error(writer, error) from error
        self._checkpointer.note_commit(encoded.size_bytes)

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
            answer = await self._read("load", {"addresses": asked, **limits}, self._load_limit_bytes)
            return decode_objects(answer, some)

        async def ask_in_pieces(address: Address, limit_bytes: int) -> list[StoredObject]:
            return [await self._in_pieces(lambda reader: reader.load(address, pending_limit, limit_bytes))]

        parts = await self._in_parts(ask, addresses, ask_in_pieces)
        return [stored for part in parts for stored in part]

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        async def ask(some: Sequence[str]) -> dict[str, InvocationRecord]:
            return decode_found(await self._read("find", {"ids": encode_rows(list(some))}))

        async def ask_in_pieces(id: str, _: int) -> dict[str, InvocationRecord]:
            return await self._in_pieces(lambda reader: reader.find({"ids": encode_rows([id])}))

        return _merged(await self._in_parts(ask, ids, ask_in_pieces))

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        async def ask(some: Sequence[KeyScope]) -> dict[KeyScope, InvocationRecord]:
            return decode_keyed(await self._read("find_keyed", _scope_parameters(some)), some)

        async def ask_in_pieces(scope: KeyScope, _: int) -> dict[KeyScope, InvocationRecord]:
            return await self._in_pieces(lambda reader: reader.find_keyed(_scope_parameters([scope]), [scope]))

        return _merged(await self._in_parts(ask, scopes, ask_in_pieces))

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        async def ask(some: Sequence[int]) -> dict[int, StoredInvocation]:
            answer = await self._read("fetch", {"numbers": encode_rows(list(some))}, self._load_limit_bytes)
            return decode_journals(answer)

        async def ask_in_pieces(number: int, limit_bytes: int) -> dict[int, StoredInvocation]:
            return await self._in_pieces(lambda reader: reader.fetch(number, limit_bytes))

        return _merged(await self._in_parts(ask, numbers, ask_in_pieces))

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
        return await self._page("expired", {"now": now}, limit)

    async def paused(self, limit: int, /) -> list[InvocationRecord]:
        return await self._page("paused", {}, limit)

    # ------------------------------------------------------------ for those who look into the store (`Introspection`)

    async def objects(self, addresses: Sequence[Address], /) -> list[StoredObject]:
        return await self.load(addresses, pending_limit=0)

    async def state(self, address: Address, /) -> Mapping[str, bytes]:
        return await self._in_pieces(lambda reader: reader.state(address))

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        statement = "invocations_in_hand" if status in IN_HAND else "invocations"
        parameters = {"after": after, "service": service, "key": key, "handler": handler, "status": status}
        return await self._page(statement, parameters, limit)

    # ------------------------------------------------------------ how reads are divided

    async def _read(self, name: str, parameters: Parameters, limit_bytes: int | None = None) -> str:
        self._refuse_unless_readable()
        return await self._readers.read(name, parameters, limit_bytes=limit_bytes)

    async def _in_pieces(self, read: Callable[[PieceReader], A]) -> A:
        self._refuse_unless_readable()
        return await self._readers.run(lambda connection, progressed: read(PieceReader(connection, progressed)))

    def _refuse_unless_readable(self) -> None:
        if not self._is_read_only:
            self._working()

    async def _page(self, name: str, parameters: Mapping[str, object], limit: int) -> list[InvocationRecord]:
        """At most `limit` records, and fewer where they are large."""
        try:
            return decode_invocations(await self._read(name, {**parameters, "limit": limit}))
        except LargePayloadError:
            pass
        except StoreUnavailableError as error:
            if not _asks_for_too_much(error):
                raise
        limit = min(limit, PAGE_RECORDS)
        while True:
            asked = {**parameters, "limit": limit}
            try:
                return await self._in_pieces(partial(PieceReader.page, name=name, parameters=asked))
            except ReadLimitError:
                if limit == 1:
                    raise
                limit //= 2

    async def _in_parts(
        self,
        ask: Callable[[Sequence[Q]], Awaitable[A]],
        questions: Sequence[Q],
        ask_in_pieces: Callable[[Q, int], Awaitable[A]],
    ) -> list[A]:
        """Ask everything at once, or half at a time what does not fit into one answer, and last of all in pieces.

        `ask_in_pieces` is given how many bytes of a journal or snapshot may be loaded.
        """
        if not questions:
            return []
        try:
            return [await ask(questions)]
        except LargePayloadError:
            pass
        except StoreUnavailableError as error:
            if not _asks_for_too_much(error):
                raise
        if len(questions) == 1:
            try:
                return [await ask_in_pieces(questions[0], self._load_limit_bytes)]
            except ReadLimitError:  # Rule L5
                return [await ask_in_pieces(questions[0], NOTHING_LOADED)]
        half = len(questions) // 2
        first = await self._in_parts(ask, questions[:half], ask_in_pieces)
        return first + await self._in_parts(ask, questions[half:], ask_in_pieces)


def _asks_for_too_much(error: StoreUnavailableError) -> bool:
    return isinstance(error, ReadLimitError) or is_too_big(error.__cause__)


def _scope_parameters(scopes: Sequence[KeyScope]) -> dict[str, object]:
    return {"scopes": encode_rows([tuple(scope) for scope in scopes])}


def _merged(parts: list[dict[Q, A]]) -> dict[Q, A]:
    return {question: answered for part in parts for question, answered in part.items()}

"""`SqliteStore`: all records in one SQLite file, next to the program that uses it.

A commit is one statement and one hop to a thread (rule X5), durable when it returns. Reads run on connections of their
own and each is one statement, thus one snapshot. The file belongs to one runtime at a time: a lock says so early, the
epoch makes it true (rule X4). A store is its file: links to it are followed, and while the file is not at its path
nothing is acknowledged or answered (rule X9). After a failed commit nothing is read or written until `open` has begun
anew on fresh connections, has found the same store, and has made durable everything readable (rule X3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from durably.errors import (
    DefinitionError,
    DurablyError,
    StoreInUseError,
    StoreLostError,
    StoreUnavailableError,
    UndecodableError,
)
from durably.ids import Address, InvocationStatus, KeyScope, is_storable
from durably.queries import TableLayout, TableQuery
from durably.storage.checkpoints import Checkpointer
from durably.storage.checkpoints import run as run_checkpoint
from durably.storage.connections import (
    Connection,
    Mode,
    Parameters,
    Readers,
    ReadLimitError,
    apply_settings,
    connect,
    make_views,
)
from durably.storage.decoding import (
    NeedsPiecesError,
    decode_found,
    decode_invocations,
    decode_journals,
    decode_kept,
    decode_keyed,
    decode_mailbox,
    decode_moments,
    decode_objects,
    decode_open_messages,
    decode_orders,
    decode_places,
    decode_recoverable,
    decode_summaries,
    decode_timers,
)
from durably.storage.durable_files import sync
from durably.storage.encoding import EncodedBatch, encode_batch, encode_rows
from durably.storage.entry_reading import read_entries
from durably.storage.event_reading import read_events
from durably.storage.examination import Row, rows_of
from durably.storage.files import StoreFiles
from durably.storage.identity import KnownStore, OwnerRow, foreign_sentence, stored_identity
from durably.storage.lock_waiting import LockWaiting
from durably.storage.migrations import is_ours, migrate, refuse_foreign, refuse_older
from durably.storage.ownership import OwnerLock, taken_over_sentence
from durably.storage.pieces import PAGE_RECORDS, PieceReader
from durably.storage.records import (
    EVER,
    PENDING_BYTES,
    Batch,
    EntryAnswer,
    EntryQuery,
    EventAnswer,
    EventQuery,
    InvocationRecord,
    JournalSize,
    KeptJournalRecord,
    MailboxRecord,
    ObjectSummary,
    Opened,
    OpenMessages,
    OrderRecord,
    Owner,
    PlaceKey,
    PlaceRecord,
    StoredInvocation,
    StoredObject,
    TimerPlace,
    TimerRecord,
    VersionsAnswer,
)
from durably.storage.row_source import RowSource, read_rows
from durably.storage.sqlite_errors import (
    describe_error,
    is_busy,
    is_damaged_text,
    is_epoch_moved,
    is_full,
    is_not_a_database,
    is_too_big,
)
from durably.storage.statements import SQL
from durably.storage.store import VALUE_LIMIT_BYTES, VERIFIED, DiskFullError, check_size
from durably.storage.table_queries import count, read_versions, search
from durably.storage.tables import lay_tables

Q = TypeVar("Q")
A = TypeVar("A")

OLDEST_SQLITE = (3, 38, 0)
MIB = 1 << 20
CHECK_ALL_EVERY_SECONDS = 0.4
"""How often `verify` looks at the files of the log too; each commit, which depends on them, looks at them itself."""
WRITER_DEFINITIONS = (
    "renewal", "renewal_is_applied", "removal", "removal_is_applied", "clearance", "clearance_is_applied",
    "signalling", "signalling_is_applied", "ordering", "ordering_is_applied", "keeping", "keeping_is_applied",
    "workflow_changes", "workflow_changes_are_applied", "entry_changes", "entry_changes_are_applied",
    "batch", "batch_is_applied", "state_is_applied",
)  # fmt: skip
NOTHING_LOADED = -1
"""As the limit of a load: journals and snapshots are measured, and none is loaded."""
FIRST_TIMER = (-(1 << 63), 0, "", 0)
"""Comes before every `TimerPlace`."""
FIRST_PLACE = (0, "", "")
"""Comes before every `PlaceKey`."""
READ_IN_PIECES = (NeedsPiecesError, msgspec.DecodeError, ValueError)
"""What an answer in one piece fails with that is no answer, or a question with a name that no JSON can hold."""
IN_HAND = (InvocationStatus.RUNNING, InvocationStatus.PENDING, InvocationStatus.BACKING_OFF, InvocationStatus.PAUSED)


class Writer:
    """The one connection that writes. Its methods run on the connection's thread; `failure` is read on the loop's."""

    def __init__(self, connection: Connection, files: StoreFiles, store: str) -> None:
        self.connection = connection
        self.epoch = 0
        self.failure: BaseException | None = None
        """Why a commit failed. Others may ask before its own caller has heard of that."""
        self.stopping = False
        self.loop = asyncio.get_running_loop()
        self._files = files
        self._store = store

    def take_over(self, connection: sqlite3.Connection, owner: Owner, known: KnownStore | None) -> OwnerRow:
        """Make the file ours and fence its previous owner (rule X4); one that is `known` must be the same (rule X9)."""
        if known is None:
            refuse_foreign(connection, self._store)
            apply_settings(connection)
            migrate(connection, self._store)
        else:
            self._refuse_unless_ours(connection)
            apply_settings(connection)
        connection.execute(SQL["begin"])
        try:
            before = self.owner_row(connection)
            if known is not None:
                known.refuse_other(before, self._store)
                known.note_take_over(before.epoch + 1)
            connection.execute(SQL["take_over"], (owner.host, owner.process_id, owner.since))
            connection.execute(SQL["end"])
        except BaseException:
            if connection.in_transaction:
                connection.execute(SQL["give_up"])
            raise
        self.epoch = before.epoch + 1
        return before._replace(epoch=self.epoch, host=owner.host, process_id=owner.process_id, since=owner.since)

    def _refuse_unless_ours(self, connection: sqlite3.Connection) -> None:
        try:
            ours = is_ours(connection)
        except sqlite3.Error as error:
            if not is_not_a_database(error):
                raise
            ours = False
        if not ours:
            raise StoreLostError(foreign_sentence(self._store, self._files.resolve()))

    def make_durable(self, connection: sqlite3.Connection, checkpoints_are_external: bool) -> bool:
        """Make durable what is readable (rule X3). False: somebody who reads in a transaction is in the way.

        The program that makes external checkpoints reads in one transaction for all its life. Then the log itself is
        made durable; what has been copied out of it already was before.
        """
        if checkpoints_are_external:
            sync(Path(self._files.log_path))
        elif run_checkpoint(connection, "checkpoint_and_shrink").blocked:
            return False
        for name in WRITER_DEFINITIONS:
            connection.execute(SQL[name])
        return True

    def commit(self, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        """Commit a batch. It is tried again while somebody else writes: busy is no failure (rule X3)."""
        write = self._write_in_pieces if batch.puts or batch.further else self._write
        try:
            self._files.check_log()  # What is written behind a gap is not durable either.
            while True:
                try:
                    write(connection, batch)
                except sqlite3.Error as error:
                    if is_busy(error) and not self.stopping:
                        continue
                    raise
                break
            self._files.note_commit(batch.last_position)
            self._files.check()  # What is written into a file without a name is not durable.
        except BaseException as error:
            self.failure = error
            raise

    def _write(self, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        """Rule X5: one statement is a whole transaction."""
        connection.execute(SQL[batch.statement], batch.parameters)

    def _write_in_pieces(self, connection: sqlite3.Connection, batch: EncodedBatch) -> None:
        connection.execute(SQL["begin"])
        try:
            connection.execute(SQL[batch.statement], batch.parameters)
            for parameters in batch.further:
                connection.execute(SQL["commit_batch"], parameters)
            for name, values in batch.puts:
                connection.execute(SQL[name], values)
            connection.execute(SQL["end"])
        except BaseException:
            if connection.in_transaction:
                connection.execute(SQL["give_up"])
            raise

    def is_encoded(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute(SQL["is_encoded"]).fetchone()[0])

    def has_schedules(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute(SQL["has_schedules"]).fetchone()[0])

    def has_subscriptions(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute(SQL["has_subscriptions"]).fetchone()[0])

    def has_events(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute(SQL["has_events"]).fetchone()[0])

    def has_places(self, connection: sqlite3.Connection) -> bool:
        return bool(connection.execute(SQL["has_places"]).fetchone()[0])

    def owner_row(self, connection: sqlite3.Connection) -> OwnerRow:
        return OwnerRow(*connection.execute(SQL["current_owner"]).fetchone())


class SqliteStore:
    """Keeps everything in the SQLite database at `path`, which is created when it is not there.

    `readers` connections serve reads, none longer than `read_limit_seconds`. The write-ahead log is copied into the
    database when it holds `checkpoint_mib`. While it holds more than `wal_limit_mib`, because another program reads in
    one long transaction, requests from outside are refused and every commit tries to copy it first. An invocation
    whose argument, steps and completions hold more than `load_limit_mib`, or whose object's state does, is not loaded:
    the runtime pauses it, and the others go on. A value of more than `value_limit_bytes` is not stored: what would give
    it fails, and the others go on.

    `checkpoints="external"` is for a program that copies the log into the database in our place, as Litestream does:
    none is made here, and the log is as long as that program lets it become.
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
        value_limit_bytes: int = VALUE_LIMIT_BYTES,
        checkpoints: Literal["own", "external"] = "own",
    ) -> None:
        if checkpoints not in ("own", "external"):
            raise DefinitionError(f"SqliteStore(checkpoints=...) is 'own' or 'external', not {checkpoints!r}.")
        refuse_no_path(os.fspath(path))
        self.path = Path(path)
        self._files = StoreFiles(self.path, self.describe())
        self._lock: OwnerLock | None = None
        self._readers = Readers(self.describe(), count=readers, limit_seconds=read_limit_seconds)
        self._checkpointer = Checkpointer(
            self._files,
            self.describe(),
            threshold_bytes=checkpoint_mib * MIB,
            limit_bytes=wal_limit_mib * MIB,
            are_external=checkpoints == "external",
        )
        self._checkpoints_are_external = checkpoints == "external"
        self._load_limit_bytes = load_limit_mib * MIB
        self.value_limit_bytes = value_limit_bytes
        self._writer: Writer | None = None
        self._known: KnownStore | None = None
        """The store that was open and has not been closed."""
        self._check_all_at = 0.0
        self._is_read_only = False
        self._is_without_log = False
        """It was opened for reads alone, where no write-ahead log lay beside the database."""

    def describe(self) -> str:
        return f"sqlite {self.path}"

    def congestion(self) -> str | None:
        return self._checkpointer.congestion()

    # ------------------------------------------------------------ opening and closing

    async def open(self, owner: Owner, /) -> Opened:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(str(part) for part in OLDEST_SQLITE)
            raise StoreUnavailableError(f"This Python comes with SQLite {sqlite3.sqlite_version}; {needed} is needed.")
        if self._lock is not None:
            self._lock.refuse_other(owner)
        try:
            # Before the connections close: a file that is open keeps its number, afterwards a new one may get it.
            found = self._files.find()
        finally:
            await self._drop_connections()
        if self._known is not None:
            self._known.refuse_other_file(found, self.describe(), self._files.resolve())
        lock = self._lock = OwnerLock(self._files.lock, self.describe()) if self._lock is None else self._lock
        was_held = lock.is_held
        lock.acquire(owner)
        try:
            return await self._open_connections(owner, lock)
        except BaseException as error:
            await self._drop_connections()
            if not was_held:
                # An owner that opens again after a failure keeps the lock: no other may come between two tries.
                lock.release()
            if isinstance(error, sqlite3.Error):
                raise StoreUnavailableError(describe_error(error, self.describe())) from error
            raise

    async def open_read_only(self) -> None:
        """Open for reads alone, beside the owner of the store or after it: nothing is taken over or migrated.

        The database stays as it is, and `close` leaves no side files, `-wal` and `-shm`, that were not there before.

        Raises:
            StoreInUseError: this very object is open already.
            StoreUnavailableError: it is not there, cannot be read, is not ours, or has the layout of another version.
        """
        if self._writer is not None:
            raise StoreInUseError(f"The store {self.describe()} is open here already. Read from it as it is.")
        if self._files.find() is None:
            raise StoreUnavailableError(f"The store {self.describe()} is not there. Check the path.")
        await self._drop_connections()
        waiting = LockWaiting(self.describe())
        self._is_without_log = not self._files.has_log()
        try:
            await waiting.unlocked(self._open_readers)
        except sqlite3.Error as error:
            await self._drop_connections()
            raise StoreUnavailableError(describe_error(error, self.describe())) from error
        except BaseException:
            await self._drop_connections()
            raise
        self._is_read_only = True

    async def _open_readers(self) -> None:
        await self._readers.close()
        await self._readers.open(self._files.resolve(), Mode.READ_ONLY, self._prepare_to_read)

    def _prepare_to_read(self, connection: sqlite3.Connection) -> None:
        refuse_foreign(connection, self.describe())
        refuse_older(connection, self.describe())
        make_views(connection)

    async def close(self) -> None:
        await self._drop_connections()
        if self._is_without_log:
            self._is_without_log = False
            await self._remove_empty_log()
        self._known = None
        if self._lock is not None:
            self._lock.release()

    async def _remove_empty_log(self) -> None:
        """Let SQLite delete the empty log that it has made for the readers, unless somebody else uses it by now.

        The last connection that may write does so when it closes, after it has made sure that it is the last.
        """
        with contextlib.suppress(OSError, sqlite3.Error):
            if os.stat(self._files.log_path).st_size == 0:
                connection = await connect(self._files.resolve(), Mode.EXISTING)
                try:
                    await connection.run(is_ours)
                finally:
                    await connection.close()

    async def _open_connections(self, owner: Owner, lock: OwnerLock) -> Opened:
        files, known = self._files, self._known
        path = files.resolve()
        mode = Mode.CREATE if known is None else Mode.EXISTING
        writer = self._writer = Writer(await connect(path, mode), files, self.describe())
        row = await self._take_over(writer, owner, known)
        is_encoded = await writer.connection.run(writer.is_encoded)
        has_schedules = await writer.connection.run(writer.has_schedules)
        has_subscriptions = await writer.connection.run(writer.has_subscriptions)
        has_events = await writer.connection.run(writer.has_events)
        has_places = await writer.connection.run(writer.has_places)
        found = files.find()  # Now that it was written to: some file systems give a file another number at that moment.
        if found is None:
            raise StoreUnavailableError(f"The store {self.describe()} was deleted while it was being opened.")
        files.pin(found, lock.identity(), partial(stored_identity, path))
        await self._readers.open(path)
        await self._checkpointer.open(self._readers)
        files.check()
        if known is None:
            self._known = KnownStore(found, owner, row)
        return Opened(
            epoch=row.epoch, last_position=row.last_position, has_schedules=has_schedules,
            has_subscriptions=has_subscriptions, is_encoded=is_encoded, has_places=has_places, has_events=has_events,
            store_id=row.store_id,
        )  # fmt: skip

    async def _take_over(self, writer: Writer, owner: Owner, known: KnownStore | None) -> OwnerRow:
        """Become the owner, waiting while another program has the database locked, as a commit does (rule X3)."""
        waiting = LockWaiting(self.describe())
        row = await waiting.unlocked(lambda: writer.connection.run(writer.take_over, owner, known))
        are_external = self._checkpoints_are_external
        while not await waiting.unlocked(lambda: writer.connection.run(writer.make_durable, are_external)):
            await waiting.pause("another program reads it in one long transaction")
        return row

    async def _drop_connections(self) -> None:
        """Close everything, to the end even if the caller is cancelled: no other code has these connections."""
        writer, self._writer = self._writer, None
        is_overwritten = self._files.changes is not None and self._files.changes.is_overwritten
        self._files.unpin()
        self._is_read_only = False
        if writer is not None:
            writer.stopping = True
        closing = asyncio.ensure_future(self._close_connections(writer, leaves_log=is_overwritten))
        try:
            await asyncio.shield(closing)
        finally:
            await closing

    async def _close_connections(self, writer: Writer | None, *, leaves_log: bool) -> None:
        """`leaves_log`: the log is not copied into the database, as the last connection to close otherwise does."""
        last = await self._reading_connection() if leaves_log else None
        await self._readers.close()
        await self._checkpointer.close()
        if writer is not None:
            await writer.connection.close()
        if last is not None:
            await last.close()

    async def _reading_connection(self) -> Connection | None:
        connection = await connect(self._files.resolve(), Mode.READ_ONLY)
        try:
            await connection.run(is_ours)
        except sqlite3.Error:
            await connection.close()
            return None
        return connection

    # ------------------------------------------------------------ writing

    @property
    def checks_every_value(self) -> bool:
        return False

    def check(self, value: bytes, /) -> None:
        check_size(value, self.value_limit_bytes)

    async def commit(self, batch: Batch, /) -> None:
        writer = self._working()
        encoded = encode_batch(batch, writer.epoch)
        await self._checkpointer.make_room()
        try:
            await writer.connection.run(writer.commit, encoded)
        except sqlite3.Error as error:
            raise await self._commit_error(writer, error) from error
        self._checkpointer.note_commit(encoded.size_bytes)
        if self._known is not None:
            self._known.note_commit(batch.last_position)

    async def _commit_error(self, writer: Writer, error: sqlite3.Error) -> StoreInUseError | StoreUnavailableError:
        if is_full(error):
            return DiskFullError(describe_error(error, self.describe()))
        if not is_epoch_moved(error):
            return StoreUnavailableError(describe_error(error, self.describe()))
        row = await writer.connection.run(writer.owner_row)
        return StoreInUseError(taken_over_sentence(self.describe(), row.owner))

    def verify(self) -> Awaitable[None]:
        writer = self._working()
        now = writer.loop.time()
        if now >= self._check_all_at:
            self._files.check()
            self._check_all_at = now + CHECK_ALL_EVERY_SECONDS
        else:
            self._files.check_owner()  # Rule X9
        return VERIFIED

    def _working(self) -> Writer:
        if self._is_read_only:
            raise StoreUnavailableError(f"The store {self.describe()} is open for reads only. Open it as its owner.")
        if self._writer is None:
            raise StoreUnavailableError(f"The store {self.describe()} is not open. Open it before using it.")
        if self._writer.failure is not None:
            raise self._refusal_after(self._writer.failure)
        return self._writer

    def _refusal_after(self, failure: BaseException) -> DurablyError:
        """For what comes after a commit that failed. Its reason counts here too: it may be the first that is heard."""
        if isinstance(failure, DurablyError):
            return failure
        reason = describe_error(failure, self.describe()) if isinstance(failure, sqlite3.Error) else repr(failure)
        sentence = f"A commit failed before. {reason} Open the store again first."
        is_disk = isinstance(failure, sqlite3.Error) and is_full(failure)
        return DiskFullError(sentence) if is_disk else StoreUnavailableError(sentence)

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

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        return await self._read_rows(lambda source: read_entries(source, queries))

    async def events(self, query: EventQuery, /) -> EventAnswer:
        return await self._read_rows(lambda source: read_events(source, query))

    async def event_sizes(self) -> list[tuple[str, int]]:
        self._refuse_unless_readable()
        return await self._readers.run(lambda connection, _: connection.execute(SQL["event_sizes"]).fetchall())

    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        writer = self._working()
        try:
            await writer.connection.run(lay_tables, tables)
        except sqlite3.Error as error:
            raise StoreUnavailableError(describe_error(error, self.describe())) from error

    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        self._refuse_unless_readable()
        return await self._readers.run(lambda connection, progressed: search(connection, progressed, query))

    async def count_objects(self, query: TableQuery, /) -> int | None:
        self._refuse_unless_readable()
        return await self._readers.run(lambda connection, _: count(connection, query))

    async def versions(self, table: TableLayout, /, *, after: str, limit: int) -> VersionsAnswer:
        self._refuse_unless_readable()
        return await self._readers.run(
            lambda connection, progressed: read_versions(connection, progressed, table, after, limit)
        )

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        async def ask(some: Sequence[str]) -> dict[str, InvocationRecord]:
            return decode_found(await self._read("find", {"ids": encode_rows(list(some))}))

        async def ask_in_pieces(id: str, _: int) -> dict[str, InvocationRecord]:
            if not is_storable(id):
                return {}
            return await self._in_pieces(lambda reader: reader.find({"ids": encode_rows([id])}))

        return _merged(await self._in_parts(ask, ids, ask_in_pieces))

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        async def ask(some: Sequence[KeyScope]) -> dict[KeyScope, InvocationRecord]:
            return decode_keyed(await self._read("find_keyed", _scope_parameters(some)), some)

        async def ask_in_pieces(scope: KeyScope, _: int) -> dict[KeyScope, InvocationRecord]:
            if not all(map(is_storable, scope)):
                return {}
            return await self._in_pieces(lambda reader: reader.find_keyed(_scope_parameters([scope]), [scope]))

        return _merged(await self._in_parts(ask, scopes, ask_in_pieces))

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        async def ask(some: Sequence[int]) -> dict[int, StoredInvocation]:
            answer = await self._read("fetch", {"numbers": encode_rows(list(some))}, self._load_limit_bytes)
            return decode_journals(answer)

        async def ask_in_pieces(number: int, limit_bytes: int) -> dict[int, StoredInvocation]:
            return await self._in_pieces(lambda reader: reader.fetch(number, limit_bytes))

        return _merged(await self._in_parts(ask, numbers, ask_in_pieces))

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        async def ask(some: Sequence[int]) -> dict[int, StoredInvocation]:
            answer = await self._read("fetch_ended", {"numbers": encode_rows(list(some))}, self._load_limit_bytes)
            return decode_journals(answer)

        async def ask_in_pieces(number: int, limit_bytes: int) -> dict[int, StoredInvocation]:
            return await self._in_pieces(lambda reader: reader.fetch(number, limit_bytes, ended=True))

        return _merged(await self._in_parts(ask, numbers, ask_in_pieces))

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        self._refuse_unless_readable()
        asked = {"service": address.service, "key": address.key, "most": most}
        (has_more,) = await self._readers.run(lambda one, _: one.execute(SQL["has_more_entries"], asked).fetchone())
        return bool(has_more)

    async def journal_size(self, number: int, /) -> JournalSize:
        self._refuse_unless_readable()
        asked = {"number": number}
        return JournalSize(*await self._readers.run(lambda one, _: one.execute(SQL["journal_size"], asked).fetchone()))

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        return decode_recoverable(await self._read("recoverable", {"after": after, "limit": limit}))

    async def held_up(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        return decode_recoverable(await self._read("held_up", {"after": after, "limit": limit}))

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        due, number, kind, command = after if after is not None else FIRST_TIMER
        parameters = {
            "until": until, "limit": limit, "asked_after": asked_after,
            "after_due": due, "after_number": number, "after_kind": kind, "after_command": command,
        }  # fmt: skip
        return decode_timers(await self._read("timers", parameters))

    async def orders(self, after: int, limit: int, /) -> list[OrderRecord]:
        return decode_orders(await self._read("orders", {"after": after, "limit": limit}))

    async def places(self, limit: int, /, *, after: PlaceKey | None = None) -> list[PlaceRecord]:
        number, name, key = FIRST_PLACE if after is None else after
        parameters = {"limit": limit, "after_number": number, "after_name": name, "after_key": key}
        return decode_places(await self._read("places", parameters))

    async def open_messages(self, service: str, handler: str, /) -> list[OpenMessages]:
        return decode_open_messages(await self._read("open_messages", {"service": service, "handler": handler}))

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        return await self._page("expired", {"now": now}, limit)

    async def expired_promises(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        return decode_moments(await self._read("expired_promises", {"now": now, "limit": limit}))

    async def expired_journals(self, now: int, limit: int, /) -> list[KeptJournalRecord]:
        return decode_kept(await self._read("expired_journals", {"now": now, "limit": limit}))

    async def expired_objects(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        return decode_moments(await self._read("expired_objects", {"now": now, "limit": limit}))

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

    async def summaries(self, service: str, /, *, after: str, limit: int) -> list[ObjectSummary]:
        while True:
            try:
                asked = {"service": service, "after": after, "limit": limit}
                return decode_summaries(await self._read("summaries", asked))
            except ReadLimitError:
                if limit == 1:
                    raise
                limit = (limit + 1) // 2

    async def mailbox(self, address: Address, /, *, before: int) -> MailboxRecord:
        asked = {"service": address.service, "key": address.key, "before": before}
        return decode_mailbox(await self._read("mailbox", asked))

    async def timers_of(self, numbers: Sequence[int], /) -> list[TimerRecord]:
        return decode_timers(await self._read("timers_of", {"numbers": encode_rows(list(numbers))}))

    async def query_connection(self) -> Connection:
        """As `durably.storage.querying.QueriedStore`."""
        self._refuse_unless_readable()
        return await connect(self._files.resolve(), Mode.READ_ONLY)

    async def examine(self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[Row]:
        """The rows of a statement of `examination.sql`.

        Raises:
            StoreUnavailableError: SQLite failed; a damaged file makes it do so.
        """
        self._refuse_unless_readable()
        return await self._readers.run(
            lambda connection, progressed: rows_of(connection, progressed, statement, parameters)
        )

    # ------------------------------------------------------------ how reads are divided

    async def _read(self, name: str, parameters: Parameters, limit_bytes: int | None = None) -> str:
        self._refuse_unless_readable()
        return await self._readers.read(name, parameters, limit_bytes=limit_bytes)

    async def _read_rows(self, read: Callable[[RowSource], A]) -> A:
        self._refuse_unless_readable()
        return await self._readers.run(lambda connection, progressed: read_rows(connection, progressed, read))

    async def _in_pieces(self, read: Callable[[PieceReader], A]) -> A:
        try:
            return await self._read_rows(lambda source: read(PieceReader(source)))
        except UndecodableError:
            raise
        except (msgspec.DecodeError, ValueError) as error:
            raise StoreUnavailableError(
                f"The store {self.describe()} holds rows that no version of durably has written: {error}. Run "
                "`durably doctor`, which names them; keep a copy of the file, and restore a backup from before."
            ) from error

    def _refuse_unless_readable(self) -> None:
        if not self._is_read_only:
            self._working()

    async def _page(self, name: str, parameters: Mapping[str, object], limit: int) -> list[InvocationRecord]:
        """At most `limit` records, and fewer where they are large."""
        try:
            return decode_invocations(await self._read(name, {**parameters, "limit": limit}))
        except READ_IN_PIECES:
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
        except READ_IN_PIECES:
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


def refuse_no_path(path: str) -> None:
    """Raise for what SQLite would not take for the path of a file.

    Raises:
        DefinitionError: with a sentence that says what to write.
    """
    if path in ("", ":memory:"):
        raise DefinitionError("SqliteStore keeps a file, so it needs a path. Use MemoryStore to keep nothing.")
    if path.startswith(("file:", "sqlite:")):
        raise DefinitionError(
            f"SqliteStore takes a path, and {path!r} is a URL. Write the path itself (or `./{path}` if the file is "
            "called so); `Runtime(...)` takes URLs such as `sqlite:///tickets.db`."
        )
    if "\0" in path:
        raise DefinitionError(f"{path!r} is no path: it holds a NUL character. Check how it was put together.")


def _asks_for_too_much(error: StoreUnavailableError) -> bool:
    """Less at a time helps: also where one text among many is damaged (rule L5)."""
    return isinstance(error, ReadLimitError) or is_too_big(error.__cause__) or is_damaged_text(error.__cause__)


def _scope_parameters(scopes: Sequence[KeyScope]) -> dict[str, object]:
    return {"scopes": encode_rows([tuple(scope) for scope in scopes])}


def _merged(parts: list[dict[Q, A]]) -> dict[Q, A]:
    return {question: answered for part in parts for question, answered in part.items()}

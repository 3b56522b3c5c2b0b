"""`PostgresStore`: all records in one schema of a PostgreSQL database, for one active process with failover.

A commit is one call of a function in the database and one trip to it (rule X5), durable when it returns. Each read is
one statement, or a transaction with one snapshot. One runtime owns the store, by a lease (`ownership`); a commit under
an older epoch changes nothing, and nothing is answered until `verify` has asked the server whose store this is
(rules X4 and X9). After a failed commit nothing is read or written until `open` has taken the store again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec
import psycopg

from durably.errors import DefinitionError, DurablyError, StoreInUseError, StoreUnavailableError, UndecodableError
from durably.ids import Address, InvocationStatus, KeyScope, is_storable
from durably.queries import TableLayout, TableQuery
from durably.storage.connections import ReadLimitError
from durably.storage.damage import DamagedError
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
from durably.storage.encoding import EncodedBatch, Put, encode_batch, encode_rows, text_of
from durably.storage.entry_reading import read_entries, stored_payload
from durably.storage.event_reading import read_events
from durably.storage.ownership import held_sentence, taken_over_sentence
from durably.storage.pieces import PAGE_RECORDS, PieceReader
from durably.storage.postgres.asking import answer
from durably.storage.postgres.connection import PgConnection
from durably.storage.postgres.errors import describe_error, is_epoch_moved, is_full, is_to_repeat, is_too_much
from durably.storage.postgres.ownership import KnownStore, Renewal, TakeOver, Tenant, end_writer, let_go
from durably.storage.postgres.rows import PostgresRows, give_up
from durably.storage.postgres.server import Place, connector, lay_out, place_of, refuse_unsafe
from durably.storage.postgres.sessions import Sessions
from durably.storage.postgres.statements import STATEMENTS
from durably.storage.postgres.tables import count, lay_tables, search
from durably.storage.querying import ServerAnswer, SqlServer
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
    Unreadable,
    VersionsAnswer,
    field_part,
)
from durably.storage.row_source import Parameters
from durably.storage.store import DiskFullError, check_size

Q = TypeVar("Q")
A = TypeVar("A")

VALUE_LIMIT_BYTES: Final = 256 << 20
"""PostgreSQL takes a gigabyte in one field, and what is no text is kept as text of four thirds of its size."""
NAMES_LIMIT_BYTES: Final = 2_000
"""A row of an index takes 2,700 bytes, and holds the names of a class and a field beside those of users."""
MIB: Final = 1 << 20
NOTHING_LOADED: Final = -1
FIRST_TIMER: Final = (-(1 << 63), 0, "", 0)
FIRST_PLACE: Final = (0, "", "")
READ_IN_PIECES: Final = (NeedsPiecesError, msgspec.DecodeError, ValueError)
IN_HAND: Final = (
    InvocationStatus.RUNNING, InvocationStatus.PENDING, InvocationStatus.BACKING_OFF, InvocationStatus.PAUSED
)  # fmt: skip
_ROWS_AS_JSON: Final = ("put_events", "put_places")
"""The statements whose first parameter is JSON, and not a large payload."""


class Limits(NamedTuple):
    """How long what may take, in seconds."""

    lease_seconds: float
    read_seconds: float
    answer_seconds: float


class Tenure:
    """The connections of one owner under one epoch, until the first failure or the end."""

    def __init__(self, place: Place, limits: Limits, readers: int) -> None:
        # Half, so that the server has time left to say that it has stopped a read.
        read_limit_seconds = min(limits.read_seconds, limits.answer_seconds / 2)
        reading = connector(place, answer_limit_seconds=limits.answer_seconds, limit_seconds=read_limit_seconds)
        # A lease that has run out is no reason to wait any longer. It need not be replicated: who holds it after a
        # failover is told by sessions of the new server, and safety is in the epoch.
        keeper_limit_seconds = min(limits.answer_seconds, max(limits.lease_seconds, 1.0))
        keeping = connector(
            place, answer_limit_seconds=keeper_limit_seconds, limit_seconds=read_limit_seconds, is_replicated=False
        )
        self.writer = Sessions(connector(place, answer_limit_seconds=limits.answer_seconds))
        self.keeper = Sessions(keeping)
        """Renews the lease, and nothing else: no question waits behind it."""
        self.checker = Sessions(reading)
        """Asks whose store it is."""
        self.readers = Sessions(reading, count=readers)
        self.tenant: Tenant | None = None
        """Us; once the store is taken."""
        self.failure: BaseException | None = None
        self.renewal: Renewal | None = None
        self.laid: frozenset[TableLayout] = frozenset()
        """The tables of objects that are kept."""

    async def close(self, *, at_once: bool) -> None:
        if self.renewal is not None:
            self.renewal.stop()
        for sessions in (self.writer, self.readers, self.checker, self.keeper):
            await sessions.close(at_once=at_once)


class PostgresStore:
    """Keeps everything in the database that `url` names, in the schema `durably` or that of `?schema=`.

    `lease_seconds`, an argument or an option of the URL: so long after its last sign (ten seconds) an owner whose
    session is still there counts as stopped, and another one may take the store over. `answer_limit_seconds`, also an
    argument or an option: a server that is silent for so long (30 seconds) within a statement is given up, and the
    store counts as unavailable until it has been opened again; whether a commit became durable is found out then.
    `readers` connections serve reads, none longer than `read_limit_seconds`, nor than half of the answer limit. An
    invocation or a snapshot that holds more than `load_limit_mib` is not loaded: the runtime pauses it. `advertised` is
    told to those who find the store in use, as the address to turn to.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: float | None = None,
        answer_limit_seconds: float | None = None,
        readers: int = 2,
        read_limit_seconds: float = 10.0,
        load_limit_mib: int = 512,
        value_limit_bytes: int = VALUE_LIMIT_BYTES,
        advertised: str = "",
    ) -> None:
        self._place = place_of(url)
        self._limits = Limits(
            lease_seconds=self._place.lease_seconds if lease_seconds is None else lease_seconds,
            read_seconds=read_limit_seconds,
            answer_seconds=self._place.answer_limit_seconds if answer_limit_seconds is None else answer_limit_seconds,
        )
        for name, seconds in (("lease", self._limits.lease_seconds), ("answer_limit", self._limits.answer_seconds)):
            if not 0.1 <= seconds <= 3600:
                raise DefinitionError(f"`{name}_seconds` is {seconds}; it lies between 0.1 and 3600.")
        self._reader_count = readers
        self._load_limit_bytes = load_limit_mib * MIB
        self.value_limit_bytes = value_limit_bytes
        self.advertised = advertised
        self._tenure: Tenure | None = None
        self._owner: Owner | None = None
        self._known: KnownStore | None = None
        self._asking: list[asyncio.Future[None]] = []
        """Those who wait for a check that has not begun."""
        self._check: asyncio.Task[None] | None = None

    def describe(self) -> str:
        return self._place.name

    def congestion(self) -> str | None:
        return None

    # ------------------------------------------------------------ opening and closing

    async def open(self, owner: Owner, /) -> Opened:
        if self._owner is not None and self._owner != owner:
            raise StoreInUseError(held_sentence(self.describe(), self._owner))
        before = self._tenure
        if before is not None:
            before.failure = before.failure or StoreUnavailableError(f"The store {self.describe()} is being opened.")
            await before.writer.close(at_once=True)
        tenure = Tenure(self._place, self._limits, self._reader_count)
        try:
            opened = await self._take(tenure, owner)
        except BaseException as error:
            # The lease of an owner that opens again stays held: no other process shall come between two tries.
            await tenure.close(at_once=True)
            if self._owner is None:
                self._known = None
            if isinstance(error, psycopg.Error):
                raise StoreUnavailableError(describe_error(error, self.describe())) from error
            raise
        self._tenure, self._owner = tenure, owner
        if before is not None:
            await before.close(at_once=True)
        return opened

    async def _take(self, tenure: Tenure, owner: Owner) -> Opened:
        known = self._known
        await tenure.writer.run(partial(refuse_unsafe, place=self._place))
        await tenure.writer.run(partial(lay_out, place=self._place, is_known=known is not None))
        attempt = TakeOver(
            store=self.describe(), owner=owner, known=known, lease_us=round(self._limits.lease_seconds * 1_000_000),
            advertised=self.advertised, session=await tenure.keeper.run(lambda connection: connection.info.backend_pid),
        )  # fmt: skip
        if known is not None:
            known.epochs.append(known.epochs[-1] + 1)
        before = (owner, None) if known is None else (known.owner, known.epochs)

        def end_other() -> None:
            tenure.readers.tell(partial(end_writer, owner=before[0], known_epochs=before[1]))

        taken = await tenure.writer.run(partial(attempt.run, end_writer=end_other))
        tenure.tenant = Tenant(owner, taken.epoch)
        if known is None:
            self._known = KnownStore(taken.store_id, owner, [taken.epoch], taken.last_position)
        else:
            known.epochs = [taken.epoch]
        tenure.renewal = Renewal(tenure.keeper, tenure.tenant, self._limits.lease_seconds)
        marks = await tenure.readers.run(lambda connection: connection.execute(STATEMENTS["marks"]).fetchone())
        assert marks is not None
        is_encoded, has_schedules, has_subscriptions, has_places, has_events = marks
        return Opened(
            epoch=taken.epoch, last_position=taken.last_position, has_schedules=has_schedules,
            has_subscriptions=has_subscriptions, is_encoded=is_encoded, has_places=has_places, has_events=has_events,
            store_id=taken.store_id,
        )  # fmt: skip

    async def close(self) -> None:
        tenure, self._tenure = self._tenure, None
        self._known = self._owner = None
        if tenure is not None:
            if tenure.renewal is not None:
                tenure.renewal.stop()
            await tenure.writer.close(at_once=tenure.failure is not None)
            try:
                if tenure.tenant is not None:
                    await tenure.keeper.run(partial(let_go, tenant=tenure.tenant))
            except psycopg.Error:
                pass  # The session ends with us, which says the same.
            finally:
                await tenure.close(at_once=True)

    # ------------------------------------------------------------ writing

    @property
    def names_limit_bytes(self) -> int:
        """As `durably.storage.store.IndexesNames`."""
        return NAMES_LIMIT_BYTES

    @property
    def checks_every_value(self) -> bool:
        return False

    def check(self, value: bytes, /) -> None:
        check_size(value, self.value_limit_bytes)

    async def commit(self, batch: Batch, /) -> None:
        tenure = self._working()
        assert tenure.tenant is not None
        encoded = encode_batch(batch, tenure.tenant.epoch)
        try:
            await tenure.writer.run(partial(_commit, tenure, encoded))
        except psycopg.Error as error:
            raise await self._commit_error(tenure, error) from error
        if self._known is not None:
            self._known.position = max(self._known.position, batch.last_position)

    async def _commit_error(self, tenure: Tenure, error: psycopg.Error) -> DurablyError:
        if is_epoch_moved(error):
            failure = tenure.failure = await self._taken_over(tenure)
            return failure
        sentence = describe_error(error, self.describe())
        return DiskFullError(sentence) if is_full(error) else StoreUnavailableError(sentence)

    async def _taken_over(self, tenure: Tenure) -> StoreInUseError:
        try:
            row = await tenure.checker.run(
                lambda connection: connection.execute(STATEMENTS["current_owner"]).fetchone(), may_repeat=True
            )
        except psycopg.Error:
            row = None
        owner = None if row is None else Owner(host=row[0], process_id=row[1], since=row[2])
        return StoreInUseError(taken_over_sentence(self.describe(), owner))

    def verify(self) -> Awaitable[None]:
        """Rule X9: one question to the server serves all who asked before it began."""
        self._working()
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(asked)
        if self._check is None:
            self._check = asyncio.ensure_future(self._check_owner())
        return asked

    async def _check_owner(self) -> None:
        try:
            while self._asking:
                asking, self._asking = self._asking, []
                failure = await self._doubt()
                for asked in asking:
                    if asked.done():
                        continue
                    if failure is None:
                        asked.set_result(None)
                    else:
                        asked.set_exception(failure)
        finally:
            self._check = None

    async def _doubt(self) -> DurablyError | None:
        """Why this is not known to be the owner. None: it is."""
        try:
            tenure = self._working()
            row = await tenure.checker.run(
                lambda connection: connection.execute(STATEMENTS["current_epoch"]).fetchone(), may_repeat=True
            )
        except psycopg.Error as error:
            return StoreUnavailableError(describe_error(error, self.describe()))
        except DurablyError as error:
            return error
        tenant = tenure.tenant
        if tenant is not None and row == (tenant.epoch, *msgspec.structs.astuple(tenant.owner)):
            return None
        failure = tenure.failure = await self._taken_over(tenure)
        return failure

    def _working(self) -> Tenure:
        tenure = self._tenure
        if tenure is None:
            raise StoreUnavailableError(f"The store {self.describe()} is not open. Open it before using it.")
        if tenure.failure is not None:
            raise self._refusal_after(tenure.failure)
        if tenure.renewal is not None and tenure.renewal.is_lost:
            raise StoreInUseError(taken_over_sentence(self.describe(), None))
        return tenure

    def _refusal_after(self, failure: BaseException) -> DurablyError:
        """For what comes after a commit that failed. Its reason counts here too: it may be the first that is heard."""
        if isinstance(failure, DurablyError):
            return failure
        if is_epoch_moved(failure):
            return StoreInUseError(taken_over_sentence(self.describe(), None))
        sentence = f"A commit failed before. {describe_error(failure, self.describe())} Open the store again first."
        return DiskFullError(sentence) if is_full(failure) else StoreUnavailableError(sentence)

    # ------------------------------------------------------------ reading

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        limits = {"pending_limit": pending_limit, "pending_bytes": PENDING_BYTES}

        async def ask(some: Sequence[Address]) -> list[StoredObject]:
            asked = {"addresses": _rows([tuple(address) for address in some]), **limits}
            return decode_objects(await self._read("load", asked, self._load_limit_bytes), some)

        async def ask_in_pieces(address: Address, limit_bytes: int) -> list[StoredObject]:
            return [await self._in_pieces(lambda reader: reader.load(address, pending_limit, limit_bytes))]

        parts = await self._in_parts(ask, addresses, ask_in_pieces)
        return [stored for part in parts for stored in part]

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        return await self._run(lambda connection: read_entries(PostgresRows(connection), queries))

    async def events(self, query: EventQuery, /) -> EventAnswer:
        return await self._run(lambda connection: read_events(PostgresRows(connection), query))

    async def event_sizes(self) -> list[tuple[str, int]]:
        return await self._run(lambda connection: [*PostgresRows(connection).rows("event_sizes", ())])

    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        tenure = self._working()
        assert tenure.tenant is not None
        try:
            await tenure.writer.run(partial(lay_tables, tables=tables, epoch=tenure.tenant.epoch))
        except psycopg.Error as error:
            raise await self._commit_error(tenure, error) from error
        tenure.laid = frozenset(tables)

    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        if query.table not in self._working().laid:
            return None
        return await self._run(partial(search, query=query))

    async def count_objects(self, query: TableQuery, /) -> int | None:
        if query.table not in self._working().laid:
            return None
        return await self._run(partial(count, query=query))

    async def versions(self, table: TableLayout, /, *, after: str, limit: int) -> VersionsAnswer:
        asked = (table.service, after, table.field, limit)
        rows = await self._run(lambda connection: [*PostgresRows(connection).rows("versions", asked)])
        found: list[tuple[str, bytes]] = []
        unreadable: Unreadable | None = None
        for id, stored in rows:
            try:
                found.append((id, stored_payload(stored)))
            except DamagedError as error:
                unreadable = unreadable or Unreadable(field_part(table.field), str(error))
        return VersionsAnswer(found, unreadable, is_all=len(rows) < limit)

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        async def ask(some: Sequence[str]) -> dict[str, InvocationRecord]:
            return decode_found(await self._read("find", {"ids": _rows(list(some))}))

        async def ask_in_pieces(id: str, _: int) -> dict[str, InvocationRecord]:
            if not is_storable(id):
                return {}
            return await self._in_pieces(lambda reader: reader.find({"ids": _rows([id])}))

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
        return await self._fetch("fetch", numbers, ended=False)

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        return await self._fetch("fetch_ended", numbers, ended=True)

    async def _fetch(self, statement: str, numbers: Sequence[int], *, ended: bool) -> Mapping[int, StoredInvocation]:
        async def ask(some: Sequence[int]) -> dict[int, StoredInvocation]:
            return decode_journals(await self._read(statement, {"numbers": _rows(list(some))}, self._load_limit_bytes))

        async def ask_in_pieces(number: int, limit_bytes: int) -> dict[int, StoredInvocation]:
            return await self._in_pieces(lambda reader: reader.fetch(number, limit_bytes, ended=ended))

        return _merged(await self._in_parts(ask, numbers, ask_in_pieces))

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        asked = {"service": address.service, "key": address.key, "most": most}
        ((has_more,),) = await self._run(lambda connection: [*PostgresRows(connection).rows("has_more_entries", asked)])
        return bool(has_more)

    async def journal_size(self, number: int, /) -> JournalSize:
        asked = {"number": number}
        (size,) = await self._run(lambda connection: [*PostgresRows(connection).rows("journal_size", asked)])
        return JournalSize(*size)

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
            "after_due": due, "after_number": number, "after_kind": str(kind), "after_command": command,
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
        wanted = None if status is None else str(status)
        parameters = {"after": after, "service": service, "key": key, "handler": handler, "status": wanted}
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
        return decode_timers(await self._read("timers_of", {"numbers": _rows(list(numbers))}))

    # ------------------------------------------------------------ for people, in SQL

    @property
    def sql_server(self) -> SqlServer:
        """As `durably.storage.querying.StoreOnServer`."""
        return SqlServer(self._place.schema, self._ask)

    async def _ask(self, sql: str, limit_seconds: float) -> ServerAnswer:
        """On a connection of its own: a question that takes long holds up no read of the runtime."""
        self._working()
        limits = self._limits
        limit_seconds = min(limit_seconds, limits.answer_seconds / 2)
        asking = Sessions(connector(self._place, answer_limit_seconds=limits.answer_seconds))
        asked = partial(
            answer, sql=sql, role=self._place.query_role, limit_seconds=limit_seconds, store=self.describe()
        )
        try:
            return await asking.run(asked)
        except psycopg.Error as error:
            raise StoreUnavailableError(describe_error(error, self.describe())) from error
        finally:
            await asking.close(at_once=True)

    # ------------------------------------------------------------ how reads are divided

    async def _run(self, function: Callable[[PgConnection], A]) -> A:
        tenure = self._working()
        try:
            return await tenure.readers.run(function, may_repeat=True)
        except psycopg.Error as error:
            sentence = describe_error(error, self.describe())
            raise (ReadLimitError if is_too_much(error) else StoreUnavailableError)(sentence) from error

    async def _read(self, name: str, parameters: Parameters, limit_bytes: int | None = None) -> str:
        """The answer of a statement that has one row of one column.

        Raises:
            ReadLimitError: it took too long, or is too large for one piece.
        """
        ((answer,),) = await self._run(lambda connection: [*PostgresRows(connection).rows(name, parameters)])
        if limit_bytes is not None and len(answer) > limit_bytes:
            raise ReadLimitError(f"An answer of the store {self.describe()} holds more than {limit_bytes} bytes.")
        return str(answer)

    async def _in_pieces(self, read: Callable[[PieceReader], A]) -> A:
        try:
            return await self._run(lambda connection: read(PieceReader(PostgresRows(connection))))
        except UndecodableError:
            raise
        except (msgspec.DecodeError, ValueError) as error:
            raise StoreUnavailableError(
                f"The store {self.describe()} holds rows that no version of durably has written: {error}."
            ) from error

    async def _page(self, name: str, parameters: Mapping[str, object], limit: int) -> list[InvocationRecord]:
        """At most `limit` records, and fewer where they are large."""
        try:
            return decode_invocations(await self._read(name, {**parameters, "limit": limit}))
        except (*READ_IN_PIECES, ReadLimitError):
            pass
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
            self._working()
            return []
        try:
            return [await ask(questions)]
        except (*READ_IN_PIECES, ReadLimitError):
            pass
        if len(questions) == 1:
            try:
                return [await ask_in_pieces(questions[0], self._load_limit_bytes)]
            except ReadLimitError:  # Rule L5
                return [await ask_in_pieces(questions[0], NOTHING_LOADED)]
        half = len(questions) // 2
        first = await self._in_parts(ask, questions[:half], ask_in_pieces)
        return first + await self._in_parts(ask, questions[half:], ask_in_pieces)


def _commit(tenure: Tenure, batch: EncodedBatch, connection: PgConnection) -> None:
    """On the writer's thread. The failure is noted there: others may ask before the caller has heard of it."""
    try:
        while True:
            try:
                _write(connection, batch)
            except psycopg.Error as error:
                give_up(connection)
                if is_to_repeat(error):
                    continue
                raise
            return
    except BaseException as error:
        tenure.failure = error
        raise


def _write(connection: PgConnection, batch: EncodedBatch) -> None:
    if not batch.puts and not batch.further:
        connection.execute(STATEMENTS[batch.statement], _texts(batch.parameters))  # Rule X5
        return
    connection.execute(STATEMENTS["begin"])
    connection.execute(STATEMENTS[batch.statement], _texts(batch.parameters))
    for parameters in batch.further:
        connection.execute(STATEMENTS["commit_batch"], _texts(parameters))
    for put in batch.puts:
        connection.execute(STATEMENTS[put[0]], _put_values(put))
    connection.execute(STATEMENTS["end"])


def _put_values(put: Put) -> list[object]:
    name, values = put
    if name.startswith("put_") and name not in _ROWS_AS_JSON:
        payload, *rest = values
        assert isinstance(payload, bytes)
        return [text_of(payload), *rest]
    return _texts(values)


def _texts(values: Sequence[object]) -> list[object]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def _rows(records: Sequence[object]) -> str:
    encoded = encode_rows(records)
    return "[]" if encoded is None else encoded.decode()


def _scope_parameters(scopes: Sequence[KeyScope]) -> dict[str, object]:
    return {"scopes": _rows([tuple(scope) for scope in scopes])}


def _merged(parts: list[dict[Q, A]]) -> dict[Q, A]:
    return {question: answered for part in parts for question, answered in part.items()}

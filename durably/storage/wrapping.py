"""`WrappedStore`: a store around another one, which it passes everything on to."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from durably.ids import Address, InvocationStatus, KeyScope
from durably.queries import TableLayout, TableQuery
from durably.storage.connections import Connection
from durably.storage.introspection import InspectableStore
from durably.storage.querying import SqlServer, connection_to_query, sql_server_of
from durably.storage.records import (
    EVER,
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
from durably.storage.store import names_limit_of


class WrappedStore:
    """Passes everything on to `inner`. Override what shall be different."""

    def __init__(self, inner: InspectableStore) -> None:
        self.inner = inner

    def describe(self) -> str:
        return self.inner.describe()

    def congestion(self) -> str | None:
        return self.inner.congestion()

    async def open(self, owner: Owner, /) -> Opened:
        return await self.inner.open(owner)

    async def close(self) -> None:
        await self.inner.close()

    def query_connection(self) -> Awaitable[Connection]:
        return connection_to_query(self.inner)

    @property
    def sql_server(self) -> SqlServer | None:
        return sql_server_of(self.inner)

    @property
    def value_limit_bytes(self) -> int:
        return self.inner.value_limit_bytes

    @property
    def names_limit_bytes(self) -> int | None:
        return names_limit_of(self.inner)

    @property
    def checks_every_value(self) -> bool:
        return self.inner.checks_every_value

    def check(self, value: bytes, /) -> None:
        self.inner.check(value)

    async def commit(self, batch: Batch, /) -> None:
        await self.inner.commit(batch)

    def verify(self) -> Awaitable[None]:
        return self.inner.verify()

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        return await self.inner.load(addresses, pending_limit=pending_limit)

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        return await self.inner.entries(queries)

    async def events(self, query: EventQuery, /) -> EventAnswer:
        return await self.inner.events(query)

    async def event_sizes(self) -> list[tuple[str, int]]:
        return await self.inner.event_sizes()

    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        await self.inner.lay_tables(tables)

    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        return await self.inner.search(query)

    async def count_objects(self, query: TableQuery, /) -> int | None:
        return await self.inner.count_objects(query)

    async def versions(self, table: TableLayout, /, *, after: str, limit: int) -> VersionsAnswer:
        return await self.inner.versions(table, after=after, limit=limit)

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        return await self.inner.find(ids)

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        return await self.inner.find_keyed(scopes)

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        return await self.inner.fetch(numbers)

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        return await self.inner.fetch_ended(numbers)

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        return await self.inner.has_more_entries(address, most)

    async def journal_size(self, number: int, /) -> JournalSize:
        return await self.inner.journal_size(number)

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        return await self.inner.recoverable(after, limit)

    async def held_up(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        return await self.inner.held_up(after, limit)

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        return await self.inner.timers(until, limit, after=after, asked_after=asked_after)

    async def orders(self, after: int, limit: int, /) -> list[OrderRecord]:
        return await self.inner.orders(after, limit)

    async def places(self, limit: int, /, *, after: PlaceKey | None = None) -> list[PlaceRecord]:
        return await self.inner.places(limit, after=after)

    async def open_messages(self, service: str, handler: str, /) -> list[OpenMessages]:
        return await self.inner.open_messages(service, handler)

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        return await self.inner.expired(now, limit)

    async def expired_promises(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        return await self.inner.expired_promises(now, limit)

    async def expired_journals(self, now: int, limit: int, /) -> list[KeptJournalRecord]:
        return await self.inner.expired_journals(now, limit)

    async def expired_objects(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        return await self.inner.expired_objects(now, limit)

    async def paused(self, limit: int, /) -> list[InvocationRecord]:
        return await self.inner.paused(limit)

    async def objects(self, addresses: Sequence[Address], /) -> list[StoredObject]:
        return await self.inner.objects(addresses)

    async def state(self, address: Address, /) -> Mapping[str, bytes]:
        return await self.inner.state(address)

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        return await self.inner.invocations(
            after=after, limit=limit, service=service, key=key, handler=handler, status=status
        )

    async def summaries(self, service: str, /, *, after: str, limit: int) -> list[ObjectSummary]:
        return await self.inner.summaries(service, after=after, limit=limit)

    async def mailbox(self, address: Address, /, *, before: int) -> MailboxRecord:
        return await self.inner.mailbox(address, before=before)

    async def timers_of(self, numbers: Sequence[int], /) -> list[TimerRecord]:
        return await self.inner.timers_of(numbers)

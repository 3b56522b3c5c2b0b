"""`EncodedStore`: a store whose values a codec wraps (rule V8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from durably.ids import Address, InvocationStatus, KeyScope
from durably.queries import TableLayout, TableQuery
from durably.storage.codec_marker import CodecMarker, marker_of
from durably.storage.introspection import InspectableStore
from durably.storage.payload_coding import Codec, PayloadCoding
from durably.storage.querying import SqlServer
from durably.storage.records import (
    Batch,
    EntryAnswer,
    EntryQuery,
    EventAnswer,
    EventQuery,
    InvocationRecord,
    Opened,
    Owner,
    StoredInvocation,
    StoredObject,
    VersionsAnswer,
)
from durably.storage.wrapping import WrappedStore


class EncodedStore(WrappedStore):
    """Keeps its records in another store, with their values wrapped by a codec.

    A codec that does not fit the store is refused when it is opened (`CodecMarker`).
    """

    def __init__(self, inner: InspectableStore, codec: Codec) -> None:
        super().__init__(inner)
        self._coding = PayloadCoding(codec)
        """How its values are wrapped; its marker says so, once it is known."""
        self._marker = CodecMarker(self.describe(), codec)
        self._checks_every_value = not getattr(codec, "encodes_everything", False)
        self._is_recognised = False
        """The codec fits the store that is open. One that is opened again after a failure is the same (rule X9)."""

    async def open(self, owner: Owner, /) -> Opened:
        opened = await super().open(owner)
        if not self._is_recognised:
            try:
                await self._recognise(opened)
            except BaseException:
                await super().close()
                raise
            self._is_recognised = True
        return replace(opened, is_encoded=False)

    async def close(self) -> None:
        self._is_recognised = False
        await super().close()

    async def _recognise(self, opened: Opened) -> None:
        is_new = not opened.last_position
        known = await self.recognise_read_only(is_new=is_new)
        missing = self._marker.missing(known, is_new=is_new)
        if missing:
            await self.inner.commit(Batch(last_position=opened.last_position, state=missing))
            added = {record.field: record.value for record in missing if record.value is not None}
            self._coding = self._marker.coding({**known, **added}, is_new=is_new)

    async def recognise_read_only(self, *, is_new: bool = False) -> Mapping[str, bytes]:
        """The marker of the inner store, which is open and may be open for reads alone.

        Raises:
            StoreUnavailableError: the codec does not fit it.
        """
        known = await marker_of(self.inner)
        self._marker.refuse_unless_readable(known, is_new=is_new)
        self._coding = self._marker.coding(known, is_new=is_new)
        return known

    def unwrap(self, data: bytes, /) -> bytes:
        """A value as it was before the inner store had it; for those who read that one by themselves.

        Raises:
            UndecodableError: the codec cannot read it.
        """
        return self._coding.unwrap(data)

    @property
    def sql_server(self) -> SqlServer | None:
        server = super().sql_server
        return None if server is None else dataclasses.replace(server, reads_payloads=False)

    @property
    def checks_every_value(self) -> bool:
        return self._checks_every_value or self.inner.checks_every_value

    def check(self, value: bytes, /) -> None:
        self.inner.check(self._coding.wrap(value))

    async def commit(self, batch: Batch, /) -> None:
        await super().commit(self._coding.batch(batch))

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        return [self._coding.object(one) for one in await super().load(addresses, pending_limit=pending_limit)]

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        answers = await super().entries(queries)
        return [self._coding.entries(query, answer) for query, answer in zip(queries, answers, strict=True)]

    async def events(self, query: EventQuery, /) -> EventAnswer:
        return self._coding.events(await super().events(query))

    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        """None are kept: they would say in plain what the codec wraps."""
        await super().lay_tables([])

    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        return None

    async def count_objects(self, query: TableQuery, /) -> int | None:
        return None

    async def versions(self, table: TableLayout, /, *, after: str, limit: int) -> VersionsAnswer:
        return self._coding.versions(table.field, await super().versions(table, after=after, limit=limit))

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        return {id: self._coding.invocation(one) for id, one in (await super().find(ids)).items()}

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        return {scope: self._coding.invocation(one) for scope, one in (await super().find_keyed(scopes)).items()}

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        return {number: self._coding.stored(one) for number, one in (await super().fetch(numbers)).items()}

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        return {number: self._coding.stored(one) for number, one in (await super().fetch_ended(numbers)).items()}

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        return [self._coding.invocation(one) for one in await super().expired(now, limit)]

    async def paused(self, limit: int, /) -> list[InvocationRecord]:
        return [self._coding.invocation(one) for one in await super().paused(limit)]

    async def objects(self, addresses: Sequence[Address], /) -> list[StoredObject]:
        return [self._coding.object(one) for one in await super().objects(addresses)]

    async def state(self, address: Address, /) -> Mapping[str, bytes]:
        return self._coding.state(await super().state(address))

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        found = await super().invocations(
            after=after, limit=limit, service=service, key=key, handler=handler, status=status
        )
        return [self._coding.invocation(one) for one in found]

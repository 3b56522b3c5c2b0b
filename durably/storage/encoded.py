"""`EncodedStore`: a store whose values a codec wraps (rule V8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from durably.errors import StoreUnavailableError, UndecodableError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.storage.introspection import InspectableStore
from durably.storage.payload_coding import Codec, PayloadCoding
from durably.storage.records import (
    Batch,
    InvocationRecord,
    Opened,
    Owner,
    StateRecord,
    StoredInvocation,
    StoredObject,
)
from durably.storage.wrapping import WrappedStore

CHECK: Final = Address("", "durably")
"""Where a value stands by which the codec is recognised. No object has an empty service."""
CHECK_FIELD: Final = "codec"
CHECK_VALUE: Final = b"durably"


class EncodedStore(WrappedStore):
    """Keeps its records in another store, with their values wrapped by a codec.

    Values that were there before are read as they are. The codec is recognised at opening by a value of its own, so
    that a wrong key is found before anything is read or written.
    """

    def __init__(self, inner: InspectableStore, codec: Codec) -> None:
        super().__init__(inner)
        self._coding = PayloadCoding(codec)

    async def open(self, owner: Owner, /) -> Opened:
        opened = await super().open(owner)
        try:
            await self._recognise(opened)
        except BaseException:
            await super().close()
            raise
        return opened

    async def _recognise(self, opened: Opened) -> None:
        known = (await self.inner.state(CHECK)).get(CHECK_FIELD)
        if known is None:
            check = StateRecord(CHECK, CHECK_FIELD, self._coding.wrap(CHECK_VALUE))
            await self.inner.commit(Batch(last_position=opened.last_position, state=[check]))
            return
        try:
            is_known = self._coding.unwrap(known) == CHECK_VALUE
        except UndecodableError as error:
            raise StoreUnavailableError(
                f"The codec cannot read the store {self.describe()}: {error.message}"
            ) from error
        if not is_known:
            raise StoreUnavailableError(f"The store {self.describe()} was written with another codec.")

    async def commit(self, batch: Batch, /) -> None:
        await super().commit(self._coding.batch(batch))

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        return [self._coding.object(one) for one in await super().load(addresses, pending_limit=pending_limit)]

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        return {id: self._coding.invocation(one) for id, one in (await super().find(ids)).items()}

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        return {scope: self._coding.invocation(one) for scope, one in (await super().find_keyed(scopes)).items()}

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        return {number: self._coding.stored(one) for number, one in (await super().fetch(numbers)).items()}

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

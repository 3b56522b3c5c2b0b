"""`EncodedStore`: a store whose values a codec wraps (rule V8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from durably.errors import StoreUnavailableError, UndecodableError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.storage.introspection import InspectableStore, Introspection
from durably.storage.payload_coding import MARK, Codec, PayloadCoding
from durably.storage.records import (
    MARKER,
    PLAIN_FIELD,
    Batch,
    InvocationRecord,
    Opened,
    Owner,
    StateRecord,
    StoredInvocation,
    StoredObject,
)
from durably.storage.wrapping import WrappedStore

CODEC_FIELD: Final = "codec"
"""What the fields begin with that each hold one value which a codec has written. `codec:2027`: with the key `2027`."""
COPY: Final = "#2"
"""What the field of the second copy ends with. One record that is damaged does not lock the store (rule L5)."""
MARKER_VALUE: Final = b"durably"


class AcceptPlain:
    """A codec for a store that has values in plain: it reads them as they are, and writes what is new with `codec`.

    So a store can be given a codec while it is in use. `durably encrypt` writes the old values anew, and makes this
    superfluous. Until then, who can write to the file can put a plain value into the place of an encrypted one.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.current: str = getattr(codec, "current", "")
        """The id of the key that encodes, if there is one."""

    def encode(self, data: bytes, /) -> bytes:
        return self.codec.encode(data)

    def decode(self, data: bytes, /) -> bytes:
        return self.codec.decode(data)


class EncodedStore(WrappedStore):
    """Keeps its records in another store, with their values wrapped by a codec.

    A store knows the codecs, and the keys, with which it was written: it holds a value by each of them. So a wrong key,
    a missing one, and a codec on a store in plain are refused when it is opened, before anything is read or written.
    """

    def __init__(self, inner: InspectableStore, codec: Codec) -> None:
        super().__init__(inner)
        accepts_plain = isinstance(codec, AcceptPlain)
        self._coding = PayloadCoding(codec, accepts_plain=accepts_plain)
        self._accepts_plain = accepts_plain
        self._own_field = codec_field(codec)

    async def open(self, owner: Owner, /) -> Opened:
        opened = await super().open(owner)
        try:
            await self._recognise(opened)
        except BaseException:
            await super().close()
            raise
        return replace(opened, is_encoded=False)

    async def _recognise(self, opened: Opened) -> None:
        known = await marker_of(self.inner)
        self.refuse_unless_readable(known, is_new=not opened.last_position)
        missing = [
            StateRecord(MARKER, field, self._coding.wrap(MARKER_VALUE))
            for field in (self._own_field, self._own_field + COPY)
            if field not in known
        ]
        if not known and opened.last_position:
            missing.append(StateRecord(MARKER, PLAIN_FIELD, MARKER_VALUE))
        if missing:
            await self.inner.commit(Batch(last_position=opened.last_position, state=missing))

    def refuse_unless_readable(self, known: Mapping[str, bytes], *, is_new: bool) -> None:
        """Raise for a store that this codec does not fit. `known` is its marker; `is_new`: it is empty.

        Raises:
            StoreUnavailableError: with a sentence that says what to do.
        """
        if not known and not is_new and not self._accepts_plain:
            raise StoreUnavailableError(
                f"The store {self.describe()} was written without a codec, and this runtime has one. Stop it and write "
                "its values anew, with `durably encrypt`; or let the runtime read them as they are: "
                "codec=AcceptPlain(...)."
            )
        if PLAIN_FIELD in known and not self._accepts_plain:
            raise StoreUnavailableError(
                f"The store {self.describe()} has values in plain among the encoded ones. Write them anew, with "
                "`durably encrypt`; or let the runtime read them as they are: codec=AcceptPlain(...)."
            )
        for field in sorted({field.removesuffix(COPY) for field in known} - {PLAIN_FIELD}):
            self._refuse_unless_own(field, [known[copy] for copy in (field, field + COPY) if copy in known])

    def _refuse_unless_own(self, field: str, copies: Sequence[bytes]) -> None:
        """One copy that can be read is enough."""
        refusal: UndecodableError | None = None
        for copy in copies:
            try:
                if copy.startswith(MARK) and self._coding.unwrap(copy) == MARKER_VALUE:
                    return
            except UndecodableError as error:
                refusal = error
        if refusal is None:
            raise StoreUnavailableError(f"The store {self.describe()} was written with another codec.")
        key = field.removeprefix(CODEC_FIELD).removeprefix(":")
        beside = f" The key {key!r} has written to it: give the codec that one too." if key else ""
        raise StoreUnavailableError(
            f"The codec cannot read the store {self.describe()}: {refusal.message}{beside}"
        ) from refusal

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


def codec_field(codec: Codec) -> str:
    """The field of the marker that is written by this codec, and by its current key if it has several."""
    key: str = getattr(codec, "current", "")
    return f"{CODEC_FIELD}:{key}" if key else CODEC_FIELD


async def marker_of(store: Introspection) -> Mapping[str, bytes]:
    """What an open store says of its codecs; a field that is damaged is empty."""
    (marker,) = await store.objects([MARKER])
    return marker.state


async def refuse_encoded(store: InspectableStore) -> None:
    """Raise for an open store that holds values of a codec, for those who have none.

    Raises:
        StoreUnavailableError: with a sentence that says what to do.
    """
    if any(field != PLAIN_FIELD for field in await marker_of(store)):
        raise encoded_error(store.describe())


def encoded_error(store: str) -> StoreUnavailableError:
    """What those hear who have no codec for a store that was written with one."""
    return StoreUnavailableError(
        f"The store {store} was written with a codec, and there is none here to read it. Give Runtime(codec=...) the "
        "one that wrote it, with its keys, or write the values in plain with `durably decrypt`."
    )

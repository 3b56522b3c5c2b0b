"""`DecodingStore`: the far side of a runtime's codec, so that a simulated disk is readable for those who check it.

Between the two, every value is as a real disk would have it. A value that the codec has left as it was is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.payload_coding import HEADER_MARK, MARK, Codec, PayloadCoding
from durably.storage.records import Opened, Owner


class ReversingCodec:
    """The cheapest codec that leaves no JSON readable."""

    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


class DecodingStore(EncodedStore):
    """Unwraps what comes from an `EncodedStore`, and wraps what that one reads."""

    def __init__(self, inner: InspectableStore, codec: Codec) -> None:
        super().__init__(inner, codec)
        self._coding = FarSide(codec)

    async def open(self, owner: Owner, /) -> Opened:
        return await self.inner.open(owner)


class FarSide(PayloadCoding):
    """Unwraps where a runtime's codec wraps, and wraps where it unwraps."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._other = PayloadCoding(codec)

    def wrap(self, data: bytes) -> bytes:
        assert data.startswith(MARK), "a value reached the store as it was, past the codec"
        return self._other.unwrap(data)

    def unwrap(self, data: bytes) -> bytes:
        return self._other.wrap(data)

    def wrap_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        left = [name for name, value in headers.items() if not value.startswith(HEADER_MARK)]
        assert not left, f"the headers {', '.join(left)} reached the store as they were, past the codec"
        return self._other.unwrap_headers(headers)

    def unwrap_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return self._other.wrap_headers(headers)

"""`CompressionCodec`: values as zlib writes them, where that makes them smaller."""

from __future__ import annotations

import zlib
from typing import Final

from durably.actors.values.type_checks import is_int
from durably.errors import UndecodableError

AS_IT_IS: Final = b"\x00"
DEFLATED: Final = b"\x01"
LARGEST_BYTES: Final = 1 << 30


class CompressionCodec:
    """Compresses values of at least `threshold_bytes`. `level` is zlib's, 1 (fast) to 9 (small).

    A value of more than `largest_bytes` is written as it is. One that would become larger is refused when it is read: a
    few bytes can say so.
    """

    encodes_everything = True

    def __init__(self, *, level: int = 3, threshold_bytes: int = 256, largest_bytes: int = LARGEST_BYTES) -> None:
        if not is_int(level) or not 1 <= level <= 9:
            raise ValueError(f"CompressionCodec(level=...) is 1 to 9, not {level!r}.")
        for option, size in (("threshold_bytes", threshold_bytes), ("largest_bytes", largest_bytes)):
            if not is_int(size) or size < 0:
                raise ValueError(f"CompressionCodec({option}=...) is a number of bytes, not {size!r}.")
        self._level = level
        self._threshold_bytes = threshold_bytes
        self._largest_bytes = largest_bytes

    def encode(self, data: bytes, /) -> bytes:
        if self._threshold_bytes <= len(data) <= self._largest_bytes:
            deflated = zlib.compress(data, self._level)
            if len(deflated) < len(data):
                return DEFLATED + deflated
        return AS_IT_IS + data

    def decode(self, data: bytes, /) -> bytes:
        """
        Raises:
            UndecodableError: no such codec wrote it, or it would be too large.
        """
        kind, content = data[:1], data[1:]
        if kind == AS_IT_IS:
            return content
        if kind != DEFLATED:
            raise UndecodableError("A stored value was not written by CompressionCodec.")
        inflater = zlib.decompressobj()
        try:
            value = inflater.decompress(content, self._largest_bytes + 1)
        except zlib.error as error:
            raise UndecodableError(f"A stored value is damaged: {error}.") from error
        if len(value) > self._largest_bytes:
            raise UndecodableError(
                f"A stored value takes more than {self._largest_bytes:,} bytes. CompressionCodec(largest_bytes=...) "
                "sets the limit."
            )
        if not inflater.eof:
            raise UndecodableError("A stored value is damaged: its end is missing.")
        return value

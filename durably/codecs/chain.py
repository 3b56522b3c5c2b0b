"""`CodecChain`: one codec after the other."""

from __future__ import annotations

from durably.storage.codec_marker import checked_codec
from durably.storage.payload_coding import Codec


class CodecChain:
    """Encodes with each codec in the order given, and decodes in the opposite one. Compress first, then encrypt."""

    def __init__(self, *codecs: Codec) -> None:
        if not codecs:
            raise TypeError("CodecChain() has no codecs. Give it some, or leave codec= out.")
        self._codecs = tuple(checked_codec(codec, "CodecChain") for codec in codecs)
        keys = (getattr(codec, "current", "") for codec in codecs)
        self.current = "+".join(key for key in keys if key)
        """The ids of the keys that encode, if there are any."""
        self.encodes_everything = all(getattr(codec, "encodes_everything", False) for codec in codecs)

    def encode(self, data: bytes, /) -> bytes:
        for codec in self._codecs:
            data = codec.encode(data)
        return data

    def decode(self, data: bytes, /) -> bytes:
        for codec in reversed(self._codecs):
            data = codec.decode(data)
        return data

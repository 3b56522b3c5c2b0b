"""`ContainedCodec`: a codec of the user's, which may raise anything (rule E3)."""

from __future__ import annotations

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.storage.codec_marker import AcceptPlain
from durably.storage.payload_coding import Codec


class ContainedCodec:
    """Turns everything that the codec raises into an Exception."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.name = type(codec).__name__
        self.current: str = getattr(codec, "current", "")
        self.encodes_everything: bool = getattr(codec, "encodes_everything", False)

    def encode(self, data: bytes, /) -> bytes:
        try:
            return self._codec.encode(data)
        except Exception:
            raise
        except USER_ERRORS as error:
            let_signals_pass(error)
            raise RuntimeError(f"it raised {error!r}") from error

    def decode(self, data: bytes, /) -> bytes:
        try:
            return self._codec.decode(data)
        except Exception:
            raise
        except USER_ERRORS as error:
            let_signals_pass(error)
            raise RuntimeError(f"it raised {error!r}") from error


def contained_codec(codec: Codec) -> Codec:
    """The same codec, whose errors are Exceptions."""
    return AcceptPlain(ContainedCodec(codec.codec)) if isinstance(codec, AcceptPlain) else ContainedCodec(codec)

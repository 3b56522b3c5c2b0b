"""Values to bytes and back, by annotation: the only way in which a value crosses a border (rule V1).

`codec_for(annotation)` gives the codec of a type. Encoding is deterministic (sets are sorted), so what is encoded
can be compared on replay; decoding gives the annotated type or says where the bytes do not fit. What a type cannot
express in JSON is found when the codec is made. msgspec does the work; pydantic models are hooked in at their place
in the tree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec.inspect import type_info

from durably.actors.values.descriptions import MISSING as MISSING
from durably.actors.values.descriptions import describe, shortened, shortened_bytes
from durably.actors.values.encoding import encode_canonically, encode_plainly, plain_encoder, unencodable
from durably.actors.values.models import decode_custom
from durably.actors.values.type_checks import is_bytes
from durably.actors.values.type_features import Features
from durably.errors import DefinitionError, DurablyError, UndecodableError, UnencodableError

T = TypeVar("T")


CACHED_CODECS = 2_048
JSON = "application/json"


class Serde(Protocol[T]):
    """Bytes and back, for one kind of content. Shipped: `JsonSerde` and `BytesSerde`."""

    content_type: str

    def encode(self, value: T, /) -> bytes: ...
    def decode(self, data: bytes, /) -> T: ...


class TypeCodec(Generic[T]):
    """The codec of one annotation.

    `encode` raises UnencodableError, `decode` raises UndecodableError; both say where. `immutable` tells that a
    value of this type cannot change in place (rule V2). The two functions are attributes, not methods: one call less
    where it counts.
    """

    __slots__ = ("annotation", "decode", "encode", "encode_exactly", "immutable", "verify")

    annotation: Any
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    encode_exactly: Callable[[T], bytes]
    """Like `encode`, and refuses a value that would not decode again, such as a string where a number is declared."""
    verify: Callable[[T, bytes], None]
    """The second half of `encode_exactly`: refuses a value that, encoded as these bytes, would not decode again."""
    immutable: bool

    def __init__(
        self,
        annotation: Any,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        *,
        immutable: bool,
        exact: bool,
    ) -> None:
        self.annotation = annotation
        self.encode = encode
        self.decode = decode
        self.encode_exactly = encode if exact else self._encode_and_verify
        self.verify = _nothing_to_verify if exact else self._verify
        self.immutable = immutable

    def _encode_and_verify(self, value: T) -> bytes:
        data = self.encode(value)
        self.verify(value, data)
        return data

    def _verify(self, value: T, data: bytes) -> None:
        try:
            self.decode(data)
        except UndecodableError as error:
            raise UnencodableError(
                f"{shortened(value)} is not a value of {describe(self.annotation)}: {error.message}"
            ) from error


def _nothing_to_verify(_value: object, _data: bytes) -> None:
    """What is encoded exactly has been verified by that."""


class JsonSerde(Generic[T]):
    """JSON of one type; without an argument, of whatever JSON can say."""

    content_type = JSON

    def __init__(self, returns: type[T] | Any = Any) -> None:
        self._codec: TypeCodec[T] = codec_for(returns)

    def encode(self, value: T, /) -> bytes:
        return self._codec.encode(value)

    def decode(self, data: bytes, /) -> T:
        return self._codec.decode(data)


class BytesSerde:
    """Bytes as they are."""

    content_type = "application/octet-stream"

    def encode(self, value: bytes, /) -> bytes:
        if not is_bytes(value):
            raise UnencodableError(f"BytesSerde takes bytes, not {shortened(value)} ({type(value).__name__}).")
        return bytes(value)

    def decode(self, data: bytes, /) -> bytes:
        return data


def codec_for(annotation: Any) -> TypeCodec[Any]:
    """The codec of a resolved annotation; of `MISSING`, and of `Any`, that of plain JSON.

    Raises:
        DefinitionError: values of this type cannot be written as JSON and read again.
    """
    try:
        return _cached_codec(annotation)
    except TypeError as error:
        if isinstance(error, DurablyError):
            raise
        return _make_codec(annotation)  # An annotation that cannot be hashed, such as Annotated[int, []].


@lru_cache(maxsize=CACHED_CODECS)
def _cached_codec(annotation: Any) -> TypeCodec[Any]:
    return _make_codec(annotation)


def _make_codec(annotation: Any) -> TypeCodec[Any]:
    if annotation is MISSING:
        annotation = Any
    if annotation is type(None):
        annotation = None
    simple = _SIMPLE.get(annotation) if isinstance(annotation, type | None) else None
    if simple is not None:
        return simple
    features = Features()
    try:
        features.visit(type_info(annotation), describe(annotation))
        decoder = msgspec.json.Decoder(annotation, dec_hook=decode_custom)
    except DefinitionError:
        raise
    except Exception as error:  # msgspec evaluates user classes here, and anything may come out of them.
        raise DefinitionError(
            f"{describe(annotation)} cannot be stored and sent as JSON: {error}. "
            "Use another type, or pass a Serde of your own where one can be given."
        ) from error
    encode = encode_canonically if features.unordered or features.open else encode_plainly
    return TypeCodec(
        annotation,
        encode,
        _decoding(decoder, annotation),
        immutable=features.immutable,
        exact=annotation in (Any, object),
    )


# ---------------------------------------------------------------- decoding

_PATH = re.compile(r" - at `(?:key in )?(\$[^`]*)`$")


def _decoding(decoder: msgspec.json.Decoder[Any], annotation: Any) -> Callable[[bytes], Any]:
    decode = decoder.decode

    def decode_or_explain(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception as error:  # Validators of users' classes may raise anything.
            path, reason = located(error)
            raise UndecodableError(
                f"Expected {describe(annotation)}, got {shortened_bytes(data)}: "
                f"{reason}{'' if path == '$' else f' at {path}'}.",
                path=path,
                reason=reason,
            ) from error

    return decode_or_explain


def located(error: Exception) -> tuple[str, str]:
    """Where bytes did not fit, as a path from `$`, and why."""
    text = str(error)
    found = _PATH.search(text)
    reason = text[: found.start()] if found else text
    return found[1] if found else "$", reason.rstrip(".") or type(error).__name__


# ---------------------------------------------------------------- the types that are everywhere


def _fast_codec(annotation: Any, fits: type, immutable: bool = True) -> TypeCodec[Any]:
    """For a plain type: one test instead of decoding tells that a value is what it should be."""
    encode = plain_encoder.encode
    decoder = msgspec.json.Decoder(annotation)

    def encode_if_it_fits(value: Any) -> bytes:
        if type(value) is fits:
            try:
                return encode(value)
            except UnicodeEncodeError as error:
                raise unencodable(value, error) from error
        return _encode_misfit(value, annotation, decoder)

    return TypeCodec(annotation, encode_if_it_fits, _decoding(decoder, annotation), immutable=immutable, exact=True)


def _encode_misfit(value: Any, annotation: Any, decoder: msgspec.json.Decoder[Any]) -> bytes:
    """A value of another type than the plain one declared: a subclass of it passes, an int for a float too."""
    data = encode_plainly(value)
    try:
        decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise UnencodableError(f"{shortened(value)} is not a value of {describe(annotation)}: {error}.") from error
    return data


def _encode_float(value: Any) -> bytes:
    if isinstance(value, float) and not math.isfinite(value):
        raise UnencodableError(
            f"{value!r} cannot be stored and sent as JSON, which knows no such number. Use None, or a string."
        )
    if type(value) is float:
        return plain_encoder.encode(value)
    return _encode_misfit(value, float, _float_decoder)


def _encode_none(value: object) -> bytes:
    if value is not None:
        raise UnencodableError(f"{shortened(value)} came where the annotation says None.")
    return b"null"


def _decode_none(data: bytes) -> None:
    if data not in (b"null", b""):
        raise UndecodableError(f"Expected nothing (None), got {shortened_bytes(data)}.")


_float_decoder = msgspec.json.Decoder(float)

_SIMPLE: dict[Any, TypeCodec[Any]] = {
    str: _fast_codec(str, str),
    int: _fast_codec(int, int),
    bool: _fast_codec(bool, bool),
    float: TypeCodec(float, _encode_float, _decoding(_float_decoder, float), immutable=True, exact=True),
    None: TypeCodec(None, _encode_none, _decode_none, immutable=True, exact=True),
}

"""Values to bytes and back, by annotation: the only way in which a value crosses a border (rule V1).

`codec_for(annotation)` gives the codec of a type. Encoding is deterministic (sets are sorted), so what is encoded
can be compared on replay; decoding gives the annotated type or says where the bytes do not fit. What a type cannot
express in JSON is found when the codec is made. msgspec does the work; pydantic models are hooked in at their place
in the tree.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
from msgspec.inspect import type_info

from durably.actors.values.adapters import Adapter, has_pydantic
from durably.actors.values.certainty import certain
from durably.actors.values.constraints import Declarations, declarations_in
from durably.actors.values.descriptions import MISSING as MISSING
from durably.actors.values.descriptions import describe, named, shortened
from durably.actors.values.encoding import encode_canonically, encode_plainly
from durably.actors.values.models import decode_custom
from durably.actors.values.plain_codecs import PLAIN_CODECS, explained
from durably.actors.values.plain_codecs import located as located
from durably.actors.values.type_checks import is_bytes
from durably.actors.values.type_codec import Proof
from durably.actors.values.type_codec import TypeCodec as TypeCodec
from durably.actors.values.type_features import Features
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError, DurablyError, UnencodableError

T = TypeVar("T")


CACHED_CODECS = 2_048
JSON = "application/json"


class Serde(Protocol[T]):
    """Bytes and back, for one kind of content. Shipped: `JsonSerde` and `BytesSerde`."""

    content_type: str

    def encode(self, value: T, /) -> bytes: ...
    def decode(self, data: bytes, /) -> T: ...


class JsonSerde(Generic[T]):
    """JSON of one type; without an argument, of whatever JSON can say."""

    content_type = JSON

    def __init__(self, returns: type[T] | Any = Any) -> None:
        self._codec: TypeCodec[T] = codec_for(returns)

    def encode(self, value: T, /) -> bytes:
        return self._codec.encode_exactly(value)

    def decode(self, data: bytes, /) -> T:
        return self._codec.decode(data)

    def admit(self, data: bytes, /) -> bytes:
        """What is stored of bytes from outside; raises UndecodableError."""
        return self._codec.admit(data)


class BytesSerde:
    """Bytes as they are."""

    content_type = "application/octet-stream"

    def encode(self, value: bytes, /) -> bytes:
        if not is_bytes(value):
            raise UnencodableError(f"BytesSerde takes bytes, not {shortened(value)} ({type(value).__name__}).")
        return bytes(value)

    def decode(self, data: bytes, /) -> bytes:
        return data


def encoder_of(serde: Serde[T] | TypeCodec[T]) -> Callable[[T], bytes]:
    """What gives bytes that are read again, of a codec or of a Serde."""
    return serde.encode_exactly if isinstance(serde, TypeCodec) else partial(encode_readably, serde)


def encode_readably(serde: Serde[T], value: T) -> bytes:
    """The bytes of a value by a Serde, which for one of the user's are seen to be read again (rule V5).

    Raises:
        UnencodableError: what it gave is not bytes, or is refused by its own `decode`. Whatever its `encode` raises.
    """
    data: Any = serde.encode(value)
    if isinstance(serde, JsonSerde | BytesSerde):
        return cast("bytes", data)
    if not isinstance(data, bytes):
        raise UnencodableError(
            f"{type(serde).__name__}.encode gave {shortened(data)} for {shortened(value)}, not bytes."
        )
    try:
        serde.decode(data)
    except USER_ERRORS as error:  # The Serde is the user's.
        let_signals_pass(error)
        raise UnencodableError(
            f"{type(serde).__name__} cannot decode again what it made of {shortened(value)}: {error}."
        ) from error
    return data


def admit(serde: Serde[Any], data: bytes) -> bytes:
    """What is stored of bytes from outside, which a Serde has to understand; raises what its `decode` does."""
    if isinstance(serde, JsonSerde):
        return serde.admit(data)
    serde.decode(data)
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
    plain = PLAIN_CODECS.get(annotation) if isinstance(annotation, type | None) else None
    if plain is not None:
        return plain
    declared = declarations_in(annotation)
    if declared.foreign is not None:
        return _adapted_codec(annotation, declared, f"{describe(annotation)} holds {declared.foreign}")
    features = Features()
    try:
        shape = type_info(annotation)
        features.visit(shape, describe(annotation))
        decoder = msgspec.json.Decoder(annotation, dec_hook=decode_custom)
    except DefinitionError:
        raise
    except USER_ERRORS as error:  # msgspec evaluates user classes here, and anything may come out of them.
        let_signals_pass(error)
        if _is_union_for_pydantic(error):
            return _adapted_codec(
                annotation, declared, f"{describe(annotation)} holds a union that JSON cannot tell apart"
            )
        raise DefinitionError(
            f"{describe(annotation)} cannot be stored and sent as JSON: {error}. "
            "Use another type, or pass a Serde of your own where one can be given."
        ) from error
    loose = features.open or declared.is_abstract
    encode = encode_canonically if features.unordered or loose else encode_plainly
    return TypeCodec(
        annotation,
        encode,
        explained(decoder, annotation),
        immutable=features.immutable,
        proof=Proof(
            test=certain(shape),
            loose=loose,
            deep=features.open or features.recursive,
            has_floats=features.has_floats or features.open,
            excludes=features.excludes,
            draws_defaults=declared.draws_defaults,
        ),
    )


def _adapted_codec(annotation: Any, declared: Declarations, why: str) -> TypeCodec[Any]:
    """The codec of a type that only pydantic can read."""
    if declared.struct is not None:
        raise DefinitionError(
            f"{why}, which msgspec does not read, and pydantic does not know the Struct {named(declared.struct)}. Make "
            f"{named(declared.struct)} a dataclass or a pydantic model; or write constraints as msgspec.Meta(...), and "
            "make the members of a union Structs with tag=True."
        )
    if not has_pydantic():
        raise DefinitionError(
            f"{why}, which needs pydantic (pip install pydantic). Without it, write constraints as msgspec.Meta(...), "
            "and make the members of a union msgspec Structs with tag=True."
        )
    adapter = Adapter(annotation)
    features = adapter.features
    return TypeCodec(
        annotation,
        adapter.encode,
        adapter.decode,
        decode_outside=adapter.decode_outside,
        immutable=_is_immutable(annotation),
        proof=Proof(
            test=None,
            loose=features.is_open or declared.is_abstract,
            deep=features.is_open or features.is_recursive,
            has_floats=features.has_floats,
            excludes=features.excludes,
            draws_defaults=declared.draws_defaults,
        ),
    )


def _is_union_for_pydantic(error: BaseException) -> bool:
    """What msgspec says of unions whose members look alike in JSON. Lists and sets nothing tells apart."""
    text = str(error)
    return ("type union" in text.lower()) and "array-like" not in text


def _is_immutable(annotation: Any) -> bool:
    features = Features()
    try:
        features.visit(type_info(annotation), "")
    except (
        DefinitionError,
        TypeError,
        ValueError,
    ):  # Only pydantic knows it: it may change.
        return False
    return features.immutable

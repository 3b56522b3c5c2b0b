"""Values to bytes and back, by annotation: the only way in which a value crosses a border (rule V1).

`codec_for(annotation)` gives the codec of a type. Encoding is deterministic (sets are sorted), so what is encoded
can be compared on replay; decoding gives the annotated type or says where the bytes do not fit. What a type cannot
express in JSON is found when the codec is made. msgspec does the work; pydantic models are hooked in at their place
in the tree.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast

import msgspec
from msgspec.inspect import type_info

from durably.actors.values.adapters import Adapter, has_pydantic
from durably.actors.values.certainty import certain
from durably.actors.values.constraints import Declarations, declarations_in
from durably.actors.values.descriptions import MISSING as MISSING
from durably.actors.values.descriptions import describe, named, shortened, shortened_bytes
from durably.actors.values.encoding import encode_canonically, encode_plainly, place_in
from durably.actors.values.models import decode_custom
from durably.actors.values.plain_codecs import PLAIN_CODECS, explained
from durably.actors.values.round_trip import Difference, IncomparableError, compare, how_to_keep
from durably.actors.values.type_checks import is_bytes, is_class
from durably.actors.values.type_codec import ALWAYS, Proof
from durably.actors.values.type_codec import TypeCodec as TypeCodec
from durably.actors.values.type_features import Features
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass, reason_of
from durably.errors import DefinitionError, DurablyError, UndecodableError, UnencodableError

T = TypeVar("T")


CACHED_CODECS = 2_048
JSON = "application/json"


class Serde(Protocol[T]):
    """Bytes and back, for one kind of content. Shipped: `JsonSerde`, `BytesSerde`, `MsgpackSerde`, and those of
    `durably.protobuf`.

    What `encode` gives is decoded again and compared, so that nothing is stored that would be read as something else
    (rule V5). A Serde that sees to that by itself may say so with an attribute `is_exact = True`. One with an attribute
    `accepts` takes other content types than it gives: `accepts = "*/*"`. An empty answer over HTTP has a content type
    only if the Serde has an attribute `sets_content_type_if_empty = True`. One with a method `admit` gives what is
    stored of bytes from outside, and may refuse more of them than `decode` does.
    """

    content_type: str

    def encode(self, value: T, /) -> bytes: ...
    def decode(self, data: bytes, /) -> T: ...


SerdeFactory: TypeAlias = Callable[[Any], Serde[Any]]
"""Gives the Serde of a type, such as the class `MsgpackSerde`: for a class of actors, or a whole runtime.

A class of Serdes that is for some types only has a class method `for_type`, which gives the Serde of any type.
"""


class JsonSerde(Generic[T]):
    """JSON of one type; without an argument, of every value that JSON can say."""

    content_type = JSON
    is_exact = True

    def __init__(self, returns: type[T] | Any = Any) -> None:
        self.codec: TypeCodec[T] = codec_for(returns)

    def encode(self, value: T, /) -> bytes:
        return self.codec.encode_exactly(value)

    def decode(self, data: bytes, /) -> T:
        return self.codec.decode(data)

    def admit(self, data: bytes, /) -> bytes:
        """What is stored of bytes from outside; raises UndecodableError."""
        return self.codec.admit(data)


class BytesSerde:
    """Bytes as they are."""

    is_exact = True

    def __init__(self, content_type: str = "application/octet-stream", *, accepts: str = "*/*") -> None:
        """What it gives is said to be of `content_type`; what it is given may be of any type in `accepts`."""
        self.content_type = content_type
        self.accepts = accepts

    def encode(self, value: bytes, /) -> bytes:
        if not is_bytes(value):
            raise UnencodableError(f"BytesSerde takes bytes, not {shortened(value)} ({type(value).__name__}).")
        return bytes(value)

    def decode(self, data: bytes, /) -> bytes:
        return data


def encoder_of(serde: Serde[T] | TypeCodec[T]) -> Callable[[T], bytes]:
    """What gives bytes that are read again, of a codec or of a Serde."""
    return serde.encode_exactly if isinstance(serde, TypeCodec) else partial(encode_by, serde)


def encode_readably(serde: Serde[T], value: T) -> bytes:
    """The bytes of a value by a Serde, which for one of the user's are seen to be read as the value again (rule V5).

    Raises:
        UnencodableError: what it gave is not bytes, is refused by its own `decode`, or is read as something else.
            Any error that its `encode` raises.
    """
    data: Any = serde.encode(value)
    if getattr(serde, "is_exact", False) is True and isinstance(data, bytes):
        return data
    if not isinstance(data, bytes):
        raise UnencodableError(
            f"{type(serde).__name__}.encode gave {shortened(data)} for {shortened(value)}, not bytes."
        )
    try:
        read = serde.decode(data)
        _compare_with(serde, value, data, read)
    except Difference as difference:
        raise UnencodableError(
            f"{type(serde).__name__} reads {shortened(difference.value)}{place_in(difference.path)} as "
            f"{shortened(difference.read)} again. "
            + (how_to_keep(difference.value) or "Mend its decode(), or give it a value that it can write."),
            path=f"${difference.path}",
        ) from None
    except USER_ERRORS as error:  # The Serde is the user's.
        let_signals_pass(error)
        raise UnencodableError(
            f"{type(serde).__name__} cannot decode again what it made of {shortened(value)}: {reason_of(error)}."
        ) from error
    return data


def _compare_with(serde: Serde[T], value: T, data: bytes, read: T) -> None:
    """See that a value is the one that was written, by its parts, or by its bytes where nothing compares them.

    Raises:
        Difference: it is not.
    """
    try:
        compare(value, read, loose=False)
    except IncomparableError:
        if serde.encode(read) != data:
            raise Difference(value, read) from None


def admit(serde: Serde[Any], data: bytes) -> bytes:
    """What is stored of bytes from outside, which a Serde has to understand; raises what its `decode` does."""
    own: Callable[[bytes], bytes] | None = getattr(serde, "admit", None)
    if own is not None:
        return own(data)
    serde.decode(data)
    return data


def codec_under(serde: SerdeFactory | None, annotation: Any) -> TypeCodec[Any]:
    """The codec of a resolved annotation where values are written by these Serdes; None: as JSON.

    Raises:
        DefinitionError: the factory has no Serde for this type.
    """
    return codec_for(annotation) if serde is None else codec_of(make_serde(serde, annotation), annotation)


def checked_factory(factory: Any, where: str) -> SerdeFactory | None:
    """What makes Serdes, as it was given.

    Raises:
        TypeError: it is a Serde itself, or cannot be called.
    """
    if factory is None or (callable(factory) and not is_serde(factory)):
        return cast("SerdeFactory | None", factory)
    hint = (
        f"Write {type(factory).__name__}, without parentheses." if is_serde(factory) else "Give it a class of Serdes."
    )
    raise TypeError(f"{where} makes a Serde for each type, and {factory!r} does not. {hint}")


def codec_named(returns: Any, serde: SerdeFactory | None) -> TypeCodec[Any]:
    """The codec of what a user names as `returns`: a type, or a Serde of its own."""
    return codec_of(returns) if is_serde(returns) else codec_under(serde, returns)


def make_serde(factory: SerdeFactory, annotation: Any) -> Serde[Any]:
    """What a factory makes for a resolved annotation.

    Raises:
        DefinitionError: it makes none.
    """
    make: SerdeFactory = getattr(factory, "for_type", factory)
    try:
        made = make(Any if annotation is MISSING else annotation)
    except DurablyError:
        raise
    except USER_ERRORS as error:  # The factory is the user's.
        let_signals_pass(error)
        raise DefinitionError(
            f"{getattr(factory, '__name__', factory)} makes no Serde for {describe(annotation)}: {error}."
        ) from error
    if not is_serde(made):
        raise DefinitionError(
            f"{getattr(factory, '__name__', factory)} made {shortened(made)} for {describe(annotation)}, which is no "
            "Serde: it has no encode(), decode() and content_type."
        )
    return made


def codec_of(serde: Serde[T], annotation: Any = Any) -> TypeCodec[T]:
    """The codec that a Serde is."""
    return TypeCodec(
        annotation,
        partial(encode_by, serde),
        partial(decode_by, serde),
        immutable=_is_immutable(annotation),
        proof=Proof(test=ALWAYS),
        is_json=False,
    )


def encode_by(serde: Serde[T], value: T) -> bytes:
    """The same as `encode_readably`, but every error of the Serde becomes an `UnencodableError`.

    Raises:
        UnencodableError: the Serde cannot write the value.
    """
    try:
        return encode_readably(serde, value)
    except UnencodableError:
        raise
    except USER_ERRORS as error:  # The Serde is the user's.
        let_signals_pass(error)
        raise UnencodableError(
            f"{type(serde).__name__} cannot write {shortened(value)}: {reason_of(error)}."
        ) from error


def decode_by(serde: Serde[T], data: bytes) -> T:
    """The value in some bytes by a Serde.

    Raises:
        UndecodableError: the Serde refuses them.
    """
    try:
        return serde.decode(data)
    except UndecodableError:
        raise
    except USER_ERRORS as error:  # The Serde is the user's.
        let_signals_pass(error)
        raise UndecodableError(
            f"{type(serde).__name__} cannot read {shortened_bytes(data)}: {reason_of(error)}."
        ) from error


def is_serde(value: object) -> bool:
    """A Serde, and no type that names what is to be decoded."""
    return not is_class(value) and all(hasattr(value, name) for name in ("encode", "decode", "content_type"))


def declared_serde(given: Any, where: str) -> Serde[Any]:
    """What a declaration says of a Serde, as it was given.

    Raises:
        DefinitionError: it is none, or is a class of Serdes; `where` is what the sentence names.
    """
    if not is_serde(given):
        hint = f"{named(given)}()" if is_class(given) and hasattr(given, "encode") else "BytesSerde()"
        raise DefinitionError(
            f"{where} is a Serde, with encode(), decode() and content_type, not {shortened(given)}. Give an instance, "
            f"such as {hint}."
        )
    return cast("Serde[Any]", given)


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
            spelled_keys=features.spelled_keys,
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
            spelled_keys=features.spelled_keys,
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

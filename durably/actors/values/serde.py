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
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
from msgspec.inspect import type_info

from durably.actors.values.adapters import Adapter, has_pydantic
from durably.actors.values.certainty import Test, certain
from durably.actors.values.constraints import Declarations
from durably.actors.values.descriptions import MISSING as MISSING
from durably.actors.values.descriptions import describe, named, shortened, shortened_bytes
from durably.actors.values.encoding import (
    check_depth,
    encode_canonically,
    encode_plainly,
    place_in,
    plain_encoder,
    unencodable,
)
from durably.actors.values.models import decode_custom
from durably.actors.values.records import is_record
from durably.actors.values.round_trip import Difference, compare
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

    `encode_exactly` is for every border that a value crosses: what it gives decodes to the value, or it raises
    UnencodableError (rule V5). `encode` proves nothing; it is for comparing values by their bytes. `decode` raises
    UndecodableError. All say where. They are attributes, not methods: one call less where it counts.
    """

    __slots__ = (
        "_deep",
        "_draws_defaults",
        "_excludes",
        "_has_floats",
        "_loose",
        "_plain_json",
        "_test",
        "annotation",
        "decode",
        "encode",
        "encode_exactly",
        "immutable",
        "is_certain",
    )

    annotation: Any
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    encode_exactly: Callable[[T], bytes]
    immutable: bool
    """A value of this type cannot change in place (rule V2)."""
    is_certain: bool
    """What decodes can be encoded again, and is the same then: nothing is left to be proved of it."""

    def __init__(
        self,
        annotation: Any,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        *,
        immutable: bool,
        proof: Proof,
    ) -> None:
        self.annotation = annotation
        self.encode = encode
        self.decode = decode
        self.immutable = immutable
        self.is_certain = proof.test is not None
        self._has_floats = proof.has_floats
        self._excludes = proof.excludes
        self._test = proof.test
        self._loose = proof.loose
        self._deep = proof.deep
        self._plain_json = annotation in (Any, object)
        self._draws_defaults = proof.draws_defaults
        if proof.test is _ALWAYS:
            self.encode_exactly = encode
        elif proof.test is None:
            self.encode_exactly = self._encode_and_verify
        else:
            self.encode_exactly = self._encode_if_certain

    def _encode_if_certain(self, value: T) -> bytes:
        assert self._test is not None
        try:
            certain = self._test(value)
        except Exception:  # A field that was never set, or an attribute of the user's that raises.
            certain = False
        return self.encode(value) if certain else self._encode_and_verify(value)

    def _encode_and_verify(self, value: T) -> bytes:
        if type(value) in _PLAIN_CLASSES and self._plain_json:
            return self.encode(value)
        data = self.encode(value)
        self.verify(value, data)
        return data

    def verify(self, value: T, data: bytes) -> None:
        """See that `data`, which `encode` made of `value`, decodes to it, where that is not certain (rule V5).

        Raises:
            UnencodableError: it does not; says where they differ.
        """
        if self._test is not None and self._is_certainly_right(value):
            return
        read = self._read_again(value, data)
        if self._plain_json and value == read:
            return
        try:
            compare(value, read, loose=self._loose)
        except Difference as difference:
            raise self._lossy(difference) from None
        except Exception as error:  # IncomparableError, or whatever an `__eq__` of the user's raises.
            if self.encode(read) != data:
                raise UnencodableError(
                    f"{shortened(value)} is not the same when it is read as {describe(self.annotation)} again: {error}."
                ) from error

    def _is_certainly_right(self, value: T) -> bool:
        assert self._test is not None
        try:
            return self._test(value)
        except Exception:  # As above.
            return False

    def _read_again(self, value: T, data: bytes) -> T:
        try:
            if self._deep:
                check_depth(data)
            return self.decode(data)
        except UndecodableError as error:
            raise UnencodableError(
                f"{shortened(value)} is not a value of {describe(self.annotation)}: {error.message}", path=error.path
            ) from error
        except RecursionError as error:
            raise unencodable(value, error) from None

    def _lossy(self, difference: Difference) -> UnencodableError:
        value, read = difference.value, difference.read
        return UnencodableError(
            f"{shortened(value)} ({type(value).__name__}){place_in(difference.path)} cannot be stored and sent as "
            f"{describe(self.annotation)}: it would be read as {shortened(read)} ({type(read).__name__}). "
            f"{_way_out(value, read)}",
            path=f"${difference.path}",
        )

    def is_ambiguous(self, data: bytes) -> bool:
        """Whether `encode` may give these bytes for values that differ: NaN is written like None, and of a field that a
        model excludes nothing is."""
        return self._excludes or (self._has_floats and b"null" in data)

    def admit(self, data: bytes) -> bytes:
        """What is stored of bytes from outside: what they decode to can be written again (rule V5).

        Raises:
            UndecodableError: they do not fit the type, or what they say cannot be stored.
        """
        value = self.decode(data)
        if self.is_certain:
            return data
        try:
            if self._plain_json:
                check_depth(data)
                return data
            again = self.encode_exactly(value)
        except UnencodableError as error:
            raise UndecodableError(error.message, path=error.path, reason=error.message.rstrip(".")) from error
        except RecursionError as error:
            raise UndecodableError(str(error), reason=str(error)) from error
        # A default that is drawn when it is read would be another one each time, so it is stored.
        return again if self._draws_defaults else data


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What it takes to know that values of a type are read as they were written."""

    test: Test | None
    """Passes values of which nothing else needs to be proved; None where each has to be decoded."""
    loose: bool = False
    """The type holds `Any`, which is read as plain JSON."""
    deep: bool = False
    """Its values may be nested however deep."""
    has_floats: bool = False
    excludes: bool = False
    """A pydantic model in it has fields that are not written."""
    draws_defaults: bool = False
    """A field that is left out gets a value that may differ from one reading to the next."""


def _ALWAYS(_value: Any) -> bool:  # noqa: N802 - a constant
    """For codecs whose `encode` proves everything by itself."""
    return True


_PLAIN_CLASSES = (str, int, bool, type(None))


def _way_out(value: Any, read: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "JSON has no such number. Use a string, or None."
    if isinstance(value, type(read)) and is_record(value):
        return f"Declare {type(value).__name__}, or a union that names it, so that nothing of it is lost."
    if isinstance(value, str) or isinstance(read, str):
        return "JSON writes both as text: declare only one of them, or a class with a field that says which it is."
    return "Give a value of the declared type, or declare the type that is given."


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
        raise UnencodableError(f"{type(serde).__name__}.encode gave {shortened(data)} for {shortened(value)}, not bytes.")
    try:
        serde.decode(data)
    except Exception as error:  # The Serde is the user's.
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
    simple = _SIMPLE.get(annotation) if isinstance(annotation, type | None) else None
    if simple is not None:
        return simple
    declared = Declarations(annotation)
    if declared.foreign is not None:
        return _adapted_codec(annotation, declared, f"{describe(annotation)} holds {declared.foreign}")
    features = Features()
    try:
        shape = type_info(annotation)
        features.visit(shape, describe(annotation))
        decoder = msgspec.json.Decoder(annotation, dec_hook=decode_custom)
    except DefinitionError:
        raise
    except Exception as error:  # msgspec evaluates user classes here, and anything may come out of them.
        if _is_union_for_pydantic(error):
            return _adapted_codec(annotation, declared, f"{describe(annotation)} holds a union that JSON cannot tell apart")
        raise DefinitionError(
            f"{describe(annotation)} cannot be stored and sent as JSON: {error}. "
            "Use another type, or pass a Serde of your own where one can be given."
        ) from error
    loose = features.open or declared.is_abstract
    encode = encode_canonically if features.unordered or loose else encode_plainly
    return TypeCodec(
        annotation,
        encode,
        _decoding(decoder, annotation),
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
            f"{why}, which needs pydantic: pip install pydantic. Without it, write constraints as msgspec.Meta(...), and "
            "make the members of a union msgspec Structs with tag=True."
        )
    adapter = Adapter(annotation)
    features = adapter.features
    return TypeCodec(
        annotation,
        adapter.encode,
        adapter.decode,
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


def _is_union_for_pydantic(error: Exception) -> bool:
    """What msgspec says of unions whose members look alike in JSON. Lists and sets nothing tells apart."""
    text = str(error)
    return ("type union" in text.lower()) and "array-like" not in text


def _is_immutable(annotation: Any) -> bool:
    features = Features()
    try:
        features.visit(type_info(annotation), "")
    except (DefinitionError, TypeError, ValueError):  # A type that only pydantic knows: who knows whether it can change.
        return False
    return features.immutable


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

    return TypeCodec(
        annotation, encode_if_it_fits, _decoding(decoder, annotation), immutable=immutable, proof=Proof(test=_ALWAYS)
    )


def _encode_misfit(value: Any, annotation: Any, decoder: msgspec.json.Decoder[Any]) -> bytes:
    """A value of another type than the plain one declared: a subclass of it passes, an int for a float too."""
    data = encode_plainly(value)
    try:
        read = decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise UnencodableError(f"{shortened(value)} is not a value of {describe(annotation)}: {error}.") from error
    if read != value:
        raise UnencodableError(
            f"{shortened(value)} ({type(value).__name__}) is not a value of {describe(annotation)}: it would be read as "
            f"{shortened(read)}."
        )
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
    float: TypeCodec(float, _encode_float, _decoding(_float_decoder, float), immutable=True, proof=Proof(test=_ALWAYS)),
    None: TypeCodec(None, _encode_none, _decode_none, immutable=True, proof=Proof(test=_ALWAYS)),
}

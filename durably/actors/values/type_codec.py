"""`TypeCodec`: values of one type as bytes and back, and the proof that what is written is what will be read (rule V5).

What is certain by the exact classes of a value's parts is not proved. Anything else is decoded once and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec

from durably.actors.values.certainty import Test
from durably.actors.values.descriptions import describe, shortened
from durably.actors.values.encoding import check_depth, encode_if_plain, place_in, unencodable
from durably.actors.values.merged_keys import refuse_merged_keys
from durably.actors.values.records import is_record
from durably.actors.values.round_trip import Difference, compare, how_to_keep
from durably.actors.values.type_checks import is_mapping
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import UndecodableError, UnencodableError

T = TypeVar("T")


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
    spelled_keys: bool = False
    """It holds a dict whose keys have several spellings in JSON."""
    draws_defaults: bool = False
    """A field that is left out gets a value that may differ from one reading to the next."""


_by_decode: WeakValueDictionary[Callable[[bytes], Any], TypeCodec[Any]] = WeakValueDictionary()


def codec_of_decode(decode: Callable[[bytes], Any]) -> TypeCodec[Any] | None:
    """The codec of JSON whose `decode` this is; None for any other function, that of a Serde too."""
    return _by_decode.get(decode)


def ALWAYS(_value: Any) -> bool:  # noqa: N802 - a constant
    """For codecs whose `encode` proves everything by itself."""
    return True


class TypeCodec(Generic[T]):
    """The codec of one annotation.

    Values cross borders by `encode_exactly`: what it gives decodes to the value, or it raises UnencodableError (rule
    V5). `encode` proves nothing; it serves to compare values by their bytes. `decode` raises UndecodableError. All say
    where. They are attributes, not methods: one call less where it counts.
    """

    __slots__ = (
        "__weakref__",
        "_decode_outside",
        "_excludes",
        "_has_floats",
        "_loose",
        "_plain_json",
        "_test",
        "annotation",
        "decode",
        "draws_defaults",
        "encode",
        "encode_exactly",
        "immutable",
        "is_certain",
        "is_deep",
        "is_json",
        "refuses_unknown_keys",
        "spelled_keys",
    )

    annotation: Any
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    encode_exactly: Callable[[T], bytes]
    immutable: bool
    """A value of this type cannot change in place (rule V2)."""
    is_certain: bool
    """What decodes can be encoded again, and is the same then; decoding it again gives the same too."""
    is_json: bool
    """What it gives is JSON, not the bytes of a Serde."""
    is_deep: bool
    """Its values may be nested however deep."""
    draws_defaults: bool
    """`admit` may change what it is given: a default that is drawn anew each time is written into it."""
    spelled_keys: bool
    """It holds a dict whose keys have several spellings, which `admit` sees to as a whole."""
    refuses_unknown_keys: bool
    """`admit` looks for keys that no field stands for; of other types that is left to `UnknownKeys`."""

    def __init__(
        self,
        annotation: Any,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        *,
        immutable: bool,
        proof: Proof,
        decode_outside: Callable[[bytes], T] | None = None,
        is_json: bool = True,
    ) -> None:
        """`decode_outside` is for what comes from outside, if it refuses more: unknown keys."""
        self.annotation = annotation
        self.encode = encode
        self.decode = decode
        self._decode_outside = decode_outside or decode
        self.refuses_unknown_keys = decode_outside is not None
        self.is_json = is_json
        self.immutable = immutable
        self.is_certain = proof.test is not None and not proof.draws_defaults
        self._has_floats = proof.has_floats
        self._excludes = proof.excludes
        self._test = proof.test
        self._loose = proof.loose
        self.is_deep = proof.deep
        self._plain_json = is_json and annotation in (Any, object)
        self.spelled_keys = proof.spelled_keys
        self.draws_defaults = proof.draws_defaults
        if is_json:
            _by_decode[decode] = self
        if proof.test is ALWAYS:
            self.encode_exactly = encode
        elif self._plain_json:
            self.encode_exactly = self._encode_json
        elif proof.test is None:
            self.encode_exactly = self._encode_and_prove
        else:
            self.encode_exactly = _encoding_if_certain(proof.test, encode, self._encode_and_prove)

    def _encode_json(self, value: T) -> bytes:
        data = encode_if_plain(value)
        return self._encode_and_prove(value) if data is None else data

    def _encode_and_prove(self, value: T) -> bytes:
        data = self.encode(value)
        self._prove(value, data)
        return data

    def encode_to_change(self, value: T) -> tuple[bytes, bool]:
        """The same as `encode_exactly`, and whether what these bytes decode to is encoded to them again.

        It is not where the value equals what it is read as and is written differently: an int where a float is
        declared.
        """
        if self._plain_json:
            plain = encode_if_plain(value)
            if plain is not None:
                return plain, True
        data = self.encode(value)
        return data, self.verify(value, data)

    def verify(self, value: T, data: bytes) -> bool:
        """See that `data`, which `encode` made of `value`, decodes to it, where that is not certain (rule V5).

        Returns:
            As `encode_to_change` does, whether what `data` decodes to is encoded to it again.

        Raises:
            UnencodableError: it does not; says where they differ.
        """
        if self._test is ALWAYS:  # `encode` has proved it.
            return type(value) is self.annotation or self.encode(self.decode(data)) == data
        return self._is_certainly_right(value) or self.encode(self._prove(value, data)) == data

    def _prove(self, value: T, data: bytes) -> T:
        """What `data` is read as, which is the value."""
        read = self._read_again(value, data)
        if self._plain_json and value == read:
            return read
        try:
            compare(value, read, loose=self._loose)
        except Difference as difference:
            raise _lossy(difference, self.annotation) from None
        except USER_ERRORS as error:  # IncomparableError, or any error of an `__eq__` of the user's.
            let_signals_pass(error)
            if self.encode(read) != data:
                raise UnencodableError(
                    f"{shortened(value)} is not the same when it is read as {describe(self.annotation)} again: {error}."
                ) from error
        return read

    def _is_certainly_right(self, value: T) -> bool:
        try:
            return self._test is not None and self._test(value)
        except USER_ERRORS as error:  # A field that was never set, or an attribute of the user's that raises.
            let_signals_pass(error)
            return False

    def _read_again(self, value: T, data: bytes) -> T:
        try:
            if self.is_deep:
                check_depth(data)
            return self.decode(data)
        except UndecodableError as error:
            lost = _lost_in_json(value, data)
            why, path = (error.message, error.path) if lost is None else (lost.message, lost.path)
            raise UnencodableError(
                f"{shortened(value)} is not a value of {describe(self.annotation)}: {why}", path=path
            ) from error
        except RecursionError as error:
            raise unencodable(value, error) from None

    def is_ambiguous(self, data: bytes) -> bool:
        """Whether different values may have these bytes: NaN is written like None, an excluded field not at all."""
        return self._excludes or (self._has_floats and b"null" in data)

    def admit(self, data: bytes) -> bytes:
        """What is stored of bytes from outside: what they decode to can be written again (rule V5).

        Raises:
            UndecodableError: they do not fit the type, or what they say cannot be stored.
        """
        value = self._decode_outside(data)
        if self.is_certain:
            return data
        if self.spelled_keys:
            refuse_merged_keys(value, msgspec.json.decode(data))
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
        return again if self.draws_defaults else data


def _encoding_if_certain(
    test: Test, encode: Callable[[T], bytes], encode_and_prove: Callable[[T], bytes]
) -> Callable[[T], bytes]:
    """Closes over what it needs: it runs for each argument and each result."""

    def encode_if_certain(value: T) -> bytes:
        try:
            certain = test(value)
        except USER_ERRORS as error:  # As above.
            let_signals_pass(error)
            certain = False
        return encode(value) if certain else encode_and_prove(value)

    return encode_if_certain


def _lost_in_json(value: Any, data: bytes) -> UnencodableError | None:
    """The part of a value that JSON itself does not carry, which says more than that `null` is no float."""
    try:
        compare(value, msgspec.json.decode(data), loose=True)
    except Difference as difference:
        return _lossy(difference, Any)
    except USER_ERRORS as error:  # It says nothing, then.
        let_signals_pass(error)
        return None
    return None


def _lossy(difference: Difference, annotation: Any) -> UnencodableError:
    value, read = difference.value, difference.read
    return UnencodableError(
        f"{shortened(value)} ({type(value).__name__}){place_in(difference.path)} cannot be stored and sent as "
        f"{'JSON' if annotation is Any else describe(annotation)}: it would be read as {shortened(read)} "
        f"({type(read).__name__}). {_way_out(value, read)}",
        path=f"${difference.path}",
    )


def _way_out(value: Any, read: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "JSON has no such number. Use a string, or None."
    if (way_out := how_to_keep(value)) is not None:
        return way_out
    if isinstance(value, type(read)) and is_record(value):
        return f"Declare {type(value).__name__}, or a union that names it, so that nothing of it is lost."
    if is_mapping(value):
        return "Keys that are the same text in JSON fall together, and keys that the type does not declare are lost."
    if type(value) is type(read):
        return "JSON, or a validator or serializer of the class around it, does not keep it as it is."
    if isinstance(value, str) or isinstance(read, str):
        return "JSON writes both as text: declare only one of them, or a class with a field that says which it is."
    return "Give a value of the declared type, or declare the type that is given."

"""Codecs of the types that are everywhere (`str`, `int`, `bool`, `float`, `None`), and decoding that explains itself.

Encoding a plain type proves everything by itself: one test of the class tells that a value is read as it was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from durably.actors.values.descriptions import describe, shortened, shortened_bytes
from durably.actors.values.encoding import encode_plainly, plain_encoder, unencodable
from durably.actors.values.places import located
from durably.actors.values.type_codec import ALWAYS, Proof, TypeCodec
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import UndecodableError, UnencodableError


def explained(decoder: msgspec.json.Decoder[Any], annotation: Any) -> Callable[[bytes], Any]:
    decode = decoder.decode

    def decode_or_explain(data: bytes) -> Any:
        try:
            return decode(data)
        except USER_ERRORS as error:  # Validators of users' classes may raise anything.
            let_signals_pass(error)
            path, reason = located(error, data, decode)
            raise UndecodableError(
                f"Expected {describe(annotation)}, got {shortened_bytes(data)}: "
                f"{reason}{'' if path == '$' else f' at {path}'}.",
                path=path,
                reason=reason,
            ) from error

    return decode_or_explain


def _fast_codec(annotation: Any, fits: type, immutable: bool = True) -> TypeCodec[Any]:
    """For a plain type: one test instead of decoding tells that a value is what it should be."""
    encode = plain_encoder.encode
    decoder = msgspec.json.Decoder(annotation)

    def encode_if_it_fits(value: Any) -> bytes:
        if type(value) is fits:
            try:
                return encode(value)
            except ValueError as error:  # A lone surrogate, or more digits than Python converts.
                raise unencodable(value, error) from error
        return _encode_misfit(value, annotation, decoder)

    return TypeCodec(
        annotation, encode_if_it_fits, explained(decoder, annotation), immutable=immutable, proof=Proof(test=ALWAYS)
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
            f"{shortened(value)} ({type(value).__name__}) is not a value of {describe(annotation)}: it would be read "
            f"as {shortened(read)}."
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
        raise UndecodableError(
            f"Expected nothing (None), got {shortened_bytes(data)}.", reason="Expected nothing, or `null`"
        )


_float_decoder = msgspec.json.Decoder(float)

PLAIN_CODECS: dict[Any, TypeCodec[Any]] = {
    str: _fast_codec(str, str),
    int: _fast_codec(int, int),
    bool: _fast_codec(bool, bool),
    float: TypeCodec(float, _encode_float, explained(_float_decoder, float), immutable=True, proof=Proof(test=ALWAYS)),
    None: TypeCodec(None, _encode_none, _decode_none, immutable=True, proof=Proof(test=ALWAYS)),
}

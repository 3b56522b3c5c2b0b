"""What is sent to an awakeable or as a signal: a value or a failure, and how the one who awaits it reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

from durably.actors.protocol.commands import CompleteAwakeable
from durably.actors.values.descriptions import describe
from durably.actors.values.error_envelopes import encode_failure
from durably.actors.values.names import checked_name
from durably.actors.values.serde import JSON, MISSING, Serde, codec_for, codec_named, codec_of, is_serde
from durably.actors.values.type_checks import is_text
from durably.errors import InvalidArgumentError, InvalidKeyError, TerminalError, UndecodableError
from durably.ids import AWAKEABLE_PREFIX, is_storable, parse_awakeable_id

TAKEN_FOR_JSON: Final = ("", JSON, "text/plain", "application/x-www-form-urlencoded")
REJECTION_CODE = 500
"""Of a rejection that names no code."""


class Sent(msgspec.Struct, frozen=True):
    """A value or a failure on its way to an awakeable or as a signal."""

    failed: bool
    value: bytes


def sent_value(value: Any, serde: Serde[Any] | None = None) -> Sent:
    """A value as a Serde writes it, which the one who awaits names too; without one as plain JSON, by its own type.

    Raises:
        UnencodableError: it cannot be written, or would be read as something else by its own class (rule V5).
    """
    codec = codec_for(MISSING) if serde is None else codec_of(checked_serde(serde))
    return Sent(False, codec.encode_exactly(value))


def sent_body(body: bytes, content_type: str = "") -> Sent:
    """A value as it comes over HTTP: JSON, or nothing; bytes as they are of any other content type.

    Who awaits JSON reads nothing as null (`decoding`). `application/x-www-form-urlencoded` is what curl says of any
    body, and text may be JSON.

    Raises:
        InvalidArgumentError: it is neither, or could not be stored.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if not body or (media_type not in TAKEN_FOR_JSON and not media_type.endswith("+json")):
        return Sent(False, body)
    try:
        return Sent(False, codec_for(MISSING).admit(body))
    except UndecodableError as error:
        raise InvalidArgumentError(
            f"The body is a value as JSON, or empty. {error.message}", path=error.path
        ) from error


def sent_failure(reason: str, code: int) -> Sent:
    """What the one who awaits gets instead of a value."""
    if not is_text(reason):
        raise TypeError(f"The reason of a rejection is text, not {reason!r}.")
    return Sent(True, encode_failure(TerminalError(reason, code=code)))


def resolution(id: str, value: Any, serde: Serde[Any] | None = None) -> CompleteAwakeable:
    """The command that resolves an awakeable.

    Raises:
        InvalidArgumentError: the id is none.
        UnencodableError: the value cannot be written.
    """
    return CompleteAwakeable(checked_id(id), False, sent_value(value, serde).value)


def rejection(id: str, reason: str, code: int) -> CompleteAwakeable:
    """The command that rejects an awakeable.

    Raises:
        InvalidArgumentError: the id is none.
    """
    return CompleteAwakeable(checked_id(id), True, sent_failure(reason, code).value)


def checked_id(id: str) -> str:
    """The id of an awakeable, if it has the form of one."""
    if not is_text(id) or not is_storable(id) or parse_awakeable_id(id) is None:
        raise InvalidArgumentError(
            f"{id!r} is not the id of an awakeable: those begin with 'sign_1', and are cut or changed nowhere. It "
            "is the `id` of the awakeable that the handler made."
        )
    return id


def decoding(returns: Any, what: str, serde: Serde[Any] | None = None) -> Callable[[bytes], Any]:
    """Reads what was sent to `what`. It comes from outside, so what does not fit is a failure that no retry mends.

    `returns` is a type or a Serde, `serde` what reads the type instead of JSON.
    """
    if serde is not None:
        returns = checked_serde(serde)
    decode = codec_named(returns, None).decode
    awaited = returns.content_type if is_serde(returns) else describe(returns)
    nothing = b"null" if not is_serde(returns) or returns.content_type == JSON else b""

    def decoded(data: bytes) -> Any:
        try:
            return decode(data or nothing)
        except UndecodableError as error:
            raise InvalidArgumentError(
                f"What came for {what} is not what its handler awaits ({awaited}). {error.message}",
                path=error.path,
            ) from error

    return decoded


def checked_serde(serde: Any) -> Serde[Any]:
    """A Serde, and not a class of some."""
    if not is_serde(serde):
        raise TypeError(
            f"serde={serde!r} is no Serde: it has no encode(), decode() and content_type. Give an instance, as in "
            "serde=BytesSerde()."
        )
    return cast("Serde[Any]", serde)


def checked_signal_name(name: str) -> str:
    """The name of a signal, if it can be one."""
    sentence = (
        f"The name of a signal is Unicode text without NUL that does not begin with {AWAKEABLE_PREFIX!r}, as ids of "
        f"awakeables do; {name!r} is not."
    )
    if is_text(name) and name.startswith(AWAKEABLE_PREFIX):
        raise InvalidKeyError(sentence)
    return checked_name(name, sentence, may_be_empty=True)

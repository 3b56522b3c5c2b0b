"""What is sent to an awakeable or as a signal: a value or a failure, and how the one who awaits it reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from durably.actors.protocol.commands import CompleteAwakeable
from durably.actors.values.descriptions import describe
from durably.actors.values.error_envelopes import encode_failure
from durably.actors.values.serde import MISSING, codec_for
from durably.actors.values.type_checks import is_text
from durably.errors import InvalidArgumentError, TerminalError, UndecodableError
from durably.ids import AWAKEABLE_PREFIX, is_storable, parse_awakeable_id

REJECTION_CODE = 500
"""Of a rejection that names no code."""


class Sent(msgspec.Struct, frozen=True):
    """A value or a failure on its way to an awakeable or as a signal."""

    failed: bool
    value: bytes


def sent_value(value: Any) -> Sent:
    """A value, as plain JSON: its sender does not know of what type it is awaited.

    Raises:
        UnencodableError: it cannot be written.
    """
    return Sent(False, codec_for(MISSING).encode(value))


def sent_body(body: bytes) -> Sent:
    """A value as it comes over HTTP: JSON, or nothing, which is null.

    Raises:
        InvalidArgumentError: it is neither, or could not be stored.
    """
    try:
        return Sent(False, codec_for(MISSING).admit(body or b"null"))
    except UndecodableError as error:
        raise InvalidArgumentError(
            f"The body is a value as JSON, or empty. {error.message}", path=error.path
        ) from error


def sent_failure(reason: str, code: int) -> Sent:
    """What the one who awaits gets instead of a value."""
    if not is_text(reason):
        raise TypeError(f"The reason of a rejection is text, not {reason!r}.")
    return Sent(True, encode_failure(TerminalError(reason, code=code)))


def resolution(id: str, value: Any) -> CompleteAwakeable:
    """The command that resolves an awakeable.

    Raises:
        InvalidArgumentError: the id is none.
        UnencodableError: the value cannot be written.
    """
    return CompleteAwakeable(checked_id(id), False, sent_value(value).value)


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
            f"{id!r} is not the id of an awakeable: those begin with 'sign_1', and are cut or changed nowhere. Take it "
            "from `ctx.awakeable(...).id`."
        )
    return id


def decoding(returns: Any, what: str) -> Callable[[bytes], Any]:
    """Reads what was sent to `what`. It comes from outside, so what does not fit is a failure that no retry mends."""
    decode = codec_for(returns).decode

    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except UndecodableError as error:
            raise InvalidArgumentError(
                f"What came for {what} is not what its handler awaits ({describe(returns)}). {error.message}",
                path=error.path,
            ) from error

    return decoded


def checked_signal_name(name: str) -> str:
    """The name of a signal, if it can be one."""
    if not is_text(name) or not is_storable(name) or name.startswith(AWAKEABLE_PREFIX):
        raise TypeError(
            f"The name of a signal is Unicode text without NUL that does not begin with {AWAKEABLE_PREFIX!r}, as ids "
            f"of awakeables do; {name!r} is not."
        )
    return name

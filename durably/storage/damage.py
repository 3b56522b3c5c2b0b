"""Payloads that were changed at rest, as far as SQLite and the form in which they are kept can tell (rule L5).

Text with bytes that are not UTF-8 is read with a mark in the place of these bytes, so that one such payload does not
spoil an answer with many. The mark is drawn anew by each process: no stored text has it.
"""

from __future__ import annotations

import codecs
import secrets
from typing import Final

from durably.storage.encoding import bytes_of

NO_UNICODE: Final = f"\ufffd{secrets.token_hex(16)}\ufffd"
_MARKING: Final = "durably-marking"


class DamagedError(Exception):
    """A payload cannot be made into bytes again."""


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return NO_UNICODE, error.end


codecs.register_error(_MARKING, _marked)


def text_with_damage_marked(text: bytes) -> str:
    """The text factory of a connection that reads what may be damaged."""
    return text.decode("utf-8", _MARKING)


def bytes_if_sound(text: str) -> bytes:
    """The bytes that a text was made of.

    Raises:
        DamagedError: it is no longer such text.
    """
    if NO_UNICODE in text:
        raise DamagedError("It is damaged: it is not UTF-8.")
    try:
        return bytes_of(text)
    except ValueError as error:
        raise DamagedError(f"It is damaged: {error}.") from error


def size_of_text(text: str) -> int:
    """How many bytes a text was made of, or holds where it is damaged."""
    try:
        return len(bytes_if_sound(text))
    except DamagedError:
        return len(text)

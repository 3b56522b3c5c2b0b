"""What is wrong with bytes that are meant as JSON and hold no proper text, in words that name the character.

JSON parsers say of a lone surrogate that the input was truncated, or count bytes from some place inside.
"""

from __future__ import annotations

import re

_SURROGATE = re.compile(rb"\\u([dD][89a-fA-F][0-9a-fA-F]{2})")
_HIGH = range(0xD800, 0xDC00)
_LOW = range(0xDC00, 0xE000)


def malformed_text(data: bytes) -> str | None:
    """The reason; None if every character is one."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8, from byte {error.start} (0x{data[error.start]:02x}) on"
    lone = _lone_surrogate(data)
    return None if lone is None else f"it holds the lone surrogate {lone}, which is half of a character and no text"


def _lone_surrogate(data: bytes) -> str | None:
    """The first escape of half a character whose other half does not stand beside it."""
    high: re.Match[bytes] | None = None
    for escape in _SURROGATE.finditer(data.replace(rb"\\", b"__")):
        code = int(escape[1], 16)
        completes = code in _LOW and high is not None and escape.start() == high.end()
        if high is not None and not completes:
            break
        if code in _LOW and high is None:
            return escape[0].decode()
        high = escape if code in _HIGH else None
    return None if high is None else high[0].decode()

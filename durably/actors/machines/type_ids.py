"""Ids such as `order_01h455vb4pex5vsknk084sn02q`: what a thing is, and a UUIDv7, which orders them by time (TypeID)."""

from __future__ import annotations

import re

PREFIX = re.compile(r"[a-z]([a-z0-9_]*[a-z0-9])?")
LONGEST_PREFIX = 63
TRANSITION_PREFIX = "tsn"
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_SUFFIX_DIGITS = 26
_VERSION_7, _VARIANT = 0x7, 0b10


def type_id(prefix: str, moment: int, bits: int) -> str:
    """An id made at a moment (microseconds since 1970 UTC), of at least 62 random bits."""
    milliseconds = (moment // 1_000) & ((1 << 48) - 1)
    first, last = ((moment % 1_000) << 12) // 1_000, bits & ((1 << 62) - 1)  # The first bits go on with the time.
    number = milliseconds << 80 | _VERSION_7 << 76 | first << 64 | _VARIANT << 62 | last
    digits = [_DIGITS[number >> shift & 31] for shift in range(5 * (_SUFFIX_DIGITS - 1), -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def moment_of(id: str) -> int | None:
    """When an id was made, in microseconds since 1970 UTC, to the millisecond; None: it does not tell."""
    digits = id.rpartition("_")[2]
    if len(digits) != _SUFFIX_DIGITS or not {*digits} <= {*_DIGITS}:
        return None
    number = 0
    for digit in digits:
        number = number << 5 | _DIGITS.index(digit)
    return None if number >> 128 or number >> 76 & 0xF != _VERSION_7 else (number >> 80) * 1_000


def has_prefix(id: str, prefix: str) -> bool:
    """Whether an id says that it is of this kind."""
    return id.startswith(f"{prefix}_") and len(id) > len(prefix) + 1

"""How long a delayed send waits, as clients write it: `parse_delay` makes microseconds of it or raises `ValueError`.

Two spellings are understood, as Restate's clients use them: ISO-8601 durations (`PT10S`, `P1DT2H`, `PT0.5S`) and
friendly ones (`10s`, `1h 5m`, `1 hour, 30 minutes`, `1.5 days`, `00:10:00` and `0`). In both the units go from large to
small, each at most once, and only the last may have a fraction. A day is 24 hours. Years and months have no fixed
length and are refused. What is finer than a microsecond is rounded up, so that a message never comes early.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Final

MAXIMUM_DAYS: Final = 100 * 366
MAXIMUM_CHARACTERS: Final = 200

_NANOSECONDS: Final = {
    "week": 7 * 24 * 3600 * 10**9,
    "day": 24 * 3600 * 10**9,
    "hour": 3600 * 10**9,
    "minute": 60 * 10**9,
    "second": 10**9,
    "millisecond": 10**6,
    "microsecond": 10**3,
    "nanosecond": 1,
}
_MAXIMUM_NANOSECONDS: Final = MAXIMUM_DAYS * _NANOSECONDS["day"]

_WORDS: Final = {
    "week": "w wk wks week weeks",
    "day": "d day days",
    "hour": "h hr hrs hour hours",
    "minute": "m min mins minute minutes",
    "second": "s sec secs second seconds",
    "millisecond": "ms msec msecs milli millis millisecond milliseconds",
    "microsecond": "us µs μs usec usecs micro micros microsecond microseconds",
    "nanosecond": "ns nsec nsecs nano nanos nanosecond nanoseconds",
}
_UNITS: Final = {word: unit for unit, words in _WORDS.items() for word in words.split()}

_NUMBER: Final = r"[0-9]+(?:[.,][0-9]+)?"
_ISO: Final = re.compile(
    rf"P(?:({_NUMBER})W)?(?:({_NUMBER})D)?(?:T(?=[0-9])(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?",
    re.IGNORECASE,
)
_ISO_UNITS: Final = ("week", "day", "hour", "minute", "second")
_NEITHER: Final = "it is neither an ISO-8601 duration like PT10S nor a friendly one like 1h 5m"
_CLOCK: Final = re.compile(r"([0-9]+):([0-9]{2}):([0-9]{2}(?:\.[0-9]+)?)")
_FRIENDLY_PART: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµμ]+)\s*(,?)")


def parse_delay(text: str) -> int:
    """Microseconds, zero or more.

    Raises:
        ValueError: with a sentence that says what is wrong with this text.

    """
    if len(text) > MAXIMUM_CHARACTERS:
        raise ValueError(f"it is longer than {MAXIMUM_CHARACTERS} characters")
    spelled = text.strip()
    if spelled.startswith("-"):
        raise ValueError("it is negative")
    spelled = spelled.removeprefix("+")
    if spelled == "0":
        return 0
    return _microseconds(_iso_parts(spelled) if spelled[:1] in ("P", "p") else _friendly_parts(spelled))


def _iso_parts(text: str) -> list[tuple[str, str]]:
    if re.fullmatch(rf"P[^T]*{_NUMBER}[YM].*", text, re.IGNORECASE):
        raise ValueError("years and months have no fixed length, write days")
    match = _ISO.fullmatch(text)
    parts = [(number, unit) for number, unit in zip(match.groups(), _ISO_UNITS, strict=True) if number] if match else []
    if not parts:
        raise ValueError(_NEITHER)
    return parts


def _friendly_parts(text: str) -> list[tuple[str, str]]:
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        return list(zip(clock.groups(), ("hour", "minute", "second"), strict=True))
    parts: list[tuple[str, str]] = []
    position, open_comma = 0, False
    while position < len(text):
        match = _FRIENDLY_PART.match(text, position)
        if match is None:
            raise ValueError(f"it cannot be read from {text[position:].strip()!r} on" if position else _NEITHER)
        number, word, comma = match.groups()
        parts.append((number, _unit(word)))
        position, open_comma = match.end(), bool(comma)
    if not parts:
        raise ValueError("it is empty")
    if open_comma:
        raise ValueError("it ends with a comma")
    return parts


def _unit(word: str) -> str:
    # A single letter is as it stands: an `M` may be meant as months.
    unit = _UNITS.get(word) or (_UNITS.get(word.lower()) if len(word) > 1 else None)
    if unit is None:
        raise ValueError(f"{word!r} is not a unit of time (w, d, h, m, s, ms, us)")
    return unit


def _microseconds(parts: list[tuple[str, str]]) -> int:
    for (number, unit), (_, smaller) in pairwise(parts):
        if _NANOSECONDS[unit] <= _NANOSECONDS[smaller]:
            raise ValueError("units go from large to small, each once")
        if not number.isdecimal():
            raise ValueError("only the smallest unit may have a fraction")
    nanoseconds = sum(Fraction(number.replace(",", ".")) * _NANOSECONDS[unit] for number, unit in parts)
    if nanoseconds > _MAXIMUM_NANOSECONDS:
        raise ValueError(f"it is longer than {MAXIMUM_DAYS} days")
    return ceil(Fraction(nanoseconds, 1000))

"""Cuts a JSON list or object at its outer level into portions of a bounded size, without reading it as a whole.

Of JSON that is well formed, each portion holds whole items. Of any other, at least one portion is not well formed
either, since portions are cut at commas alone: a reader that reads all of them as lists or objects has checked the
whole.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final, NamedTuple

JSON_SPACE: Final = b" \t\r\n"
LOOKED_AT_MARKS: Final = 256
"""So many brackets and commas are looked at one by one before the next stretch is counted at once."""

_DEEPER: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_STRING_BYTES: Final = 64 * 1024
"""So much of a string with escapes is looked at at once."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_OPEN, _CLOSE = b"\2", b"\0"
_LEVELS: Final = bytes.maketrans(b"[{]}", 2 * _OPEN + 2 * _CLOSE)
_FOLDS: Final = 8
"""So many levels are taken off at once, which is faster than counting; JSON is rarely deeper."""
_STRETCH_BYTES: Final = 4 * 1024
"""So much is looked at bracket by bracket at once."""

_MARK = re.compile(rb'[\[\]{},"]')
_KEY = re.compile(rb'\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+:\s*+', re.DOTALL)


class Portion(NamedTuple):
    """Some neighbouring items of a list or object, with the commas between them."""

    start: int
    end: int
    is_single: bool
    """It is one item that is larger than a portion should be."""


def portions(data: bytes, size_bytes: int) -> Iterator[Portion | None]:
    """The portions of `data`, a list or object; None while a large item is being looked through.

    A portion holds about `size_bytes`, or a single item.
    """
    start, last = 1, len(data) - 1
    while start <= last:
        end = last
        for found in _cuts(data, start, last, size_bytes):
            if found is None:
                yield None
            else:
                end = found
        if end - start > 2 * size_bytes:
            before = _last_cut_before(data, start, start + size_bytes)
            if before is not None:
                yield Portion(start, before, False)
                start = before + 1
            yield Portion(start, end, True)
        else:
            yield Portion(start, end, False)
        start = end + 1
        if end == last:
            return
    yield Portion(last, last, False)  # A comma stands at the end, which no portion holds.


def member_of(portion: bytes) -> tuple[bytes, bytes] | None:
    """The key, with its quotes, and the value of an object's only member; None if it is none."""
    key = _KEY.match(portion)
    return None if key is None else (key[1], portion[key.end() :].strip(JSON_SPACE))


def _cuts(data: bytes, start: int, last: int, size_bytes: int) -> Iterator[int | None]:
    """Where the portion from `start` on ends, behind Nones: where the item ends that lies `size_bytes` behind it."""
    if start + size_bytes >= last:
        return
    first = _stretch(data, start, start + size_bytes)
    position, depth = first.end, first.opened - first.closed
    walk_end: int | None = None
    while True:
        for number, (place, mark) in enumerate(_marks(data, position, last if walk_end is None else walk_end)):
            if mark == b"," and depth == 0:
                yield place
                return
            depth += _DEEPER.get(mark, 0)
            if depth < 0:  # It is not well formed, as reading the rest at once will tell.
                return
            position = place + 1
            if walk_end is None and number == LOOKED_AT_MARKS:
                break
        else:
            if walk_end is None:
                return
            position = walk_end
        yield None
        walk_end = None
        length = size_bytes
        while position + length < last:
            stretch = _stretch(data, position, position + length)
            if stretch.closed < depth:
                position, depth = stretch.end, depth + stretch.opened - stretch.closed
                yield None
            elif length > _STRETCH_BYTES:  # The item ends in it.
                length //= 2
            else:
                walk_end = stretch.end
                break


def _marks(data: bytes, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Brackets and commas, not those in strings."""
    while True:
        found = _MARK.search(data, start, stop)
        if found is None:
            return
        start = found.end()
        if found[0] == b'"':
            start = _string_end(data, start)
        else:
            yield found.start(), found[0]


def _string_end(data: bytes, start: int) -> int:
    """Behind the quote that ends the string in which `start` lies, or behind all if there is none."""
    while start < len(data):
        stop = min(start + _STRING_BYTES, len(data))
        quote = data.find(b'"', start, stop)
        if data.find(b"\\", start, stop if quote < 0 else quote) >= 0:
            stop = _behind_escape(data, start, stop)
            quote = _without_escapes(data[start:stop]).find(b'"')
            quote += start if quote >= 0 else 0
        if quote >= 0:
            return quote + 1
        start = stop
    return len(data)


def _behind_escape(data: bytes, start: int, stop: int) -> int:
    """The place, or the next one: `start` is not between a backslash and what it escapes, and this is not either."""
    text = data[start:stop]
    return stop + (len(text) - len(text.rstrip(b"\\"))) % 2


def _without_escapes(text: bytes) -> bytes:
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")


class _Stretch(NamedTuple):
    """Some bytes of JSON, looked at as a whole."""

    end: int
    closed: int
    """How many levels that were open before it are closed in it."""
    opened: int
    """How many that are open after it were opened in it, after that."""


def _stretch(data: bytes, start: int, stop: int) -> _Stretch:
    """From `start`, outside a string, to `stop` or the end of the string there."""
    stop = _behind_escape(data, start, stop)
    text = data[start:stop]
    if b"\\" in text:
        text = _without_escapes(text)
    pieces = text.split(b'"')
    levels = b"".join(pieces[::2]).translate(_LEVELS, _NO_BRACKETS)
    end = stop if len(pieces) % 2 else _string_end(data, stop)
    for _ in range(_FOLDS):
        length = len(levels)
        levels = levels.replace(_OPEN + _CLOSE, b"")
        if len(levels) == length:  # What is left closes first and opens then.
            closed = levels.count(_CLOSE)
            return _Stretch(end, closed, length - closed)
    depths = map(operator.sub, accumulate(levels), range(1, len(levels) + 1))
    closed = -min(0, min(depths, default=0))
    return _Stretch(end, closed, levels.count(_OPEN) - levels.count(_CLOSE) + closed)


def _last_cut_before(data: bytes, start: int, stop: int) -> int | None:
    """The last comma between items in a stretch."""
    position, depth, found = start, 0, None
    while position < stop and depth >= 0:
        stretch = _stretch(data, position, min(position + _STRETCH_BYTES, stop))
        if stretch.closed < depth:
            depth += stretch.opened - stretch.closed
        else:
            for place, mark in _marks(data, position, min(stretch.end, stop)):
                if mark == b"," and depth == 0:
                    found = place
                depth += _DEEPER.get(mark, 0)
        position = stretch.end
    return found

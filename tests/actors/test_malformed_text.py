from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.actors.values.malformed_text import malformed_text

PIECES = some.lists(
    some.sampled_from([r"\ud83d", r"\ude00", r"\uD800", r"\udfff", r"\u0041", r"\\", r"\"", r"\n", "u", "d800", "é"])
)


@given(PIECES)
def test_half_a_character_is_found_wherever_its_other_half_is_missing(pieces: list[str]) -> None:
    text = '"' + "".join(pieces) + '"'
    decoded: str = json.loads(text)
    is_text = not any(0xD800 <= ord(character) < 0xE000 for character in decoded)
    assert (malformed_text(text.encode()) is None) == is_text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (rb'{"a": "\uDC00"}', r"the lone surrogate \uDC00"),
        (rb'"\ud800\ud83d\ude00"', r"the lone surrogate \ud800"),
        (b'"a\xff"', "not UTF-8, from byte 2 (0xff) on"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, says: str) -> None:
    assert says in (malformed_text(data) or "")

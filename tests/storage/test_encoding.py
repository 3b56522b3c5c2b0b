"""Payloads come back as the bytes they were, and names that SQL would mangle are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably.ids import Address
from durably.storage.encoding import BASE64_TAG, bytes_of, encode_batch, encode_rows, text_of
from durably.storage.records import Batch
from tests.storage.samples import field

AS_SQLITE_READS = "select json_extract(value, '$[0]') from json_each(cast(? as text))"
AS_SQLITE_ANSWERS = "select json_array(?)"


def through_sqlite(text: str) -> str:
    """A text on its whole way: into JSON, read by SQLite, written by SQLite as JSON, read here."""
    with closing(sqlite3.connect(":memory:")) as connection:
        (stored,) = connection.execute(AS_SQLITE_READS, (encode_rows([[text]]),)).fetchone()
        (answered,) = connection.execute(AS_SQLITE_ANSWERS, (stored,)).fetchone()
    found: str = orjson.loads(answered)[0]
    return found


@given(st.binary() | st.text().map(lambda text: text.encode()))
@example(b"")
@example(b"\x00")
@example(b"base64:")
@example(b"base64:AA==")
@example(b"\xff")
@example(b"\xef\xbb\xbf{}")
@example("\ufffe\uffff\U0010ffff\u2028\x7f\x01".encode())
def test_any_bytes_come_back_unchanged(payload: bytes) -> None:
    assert bytes_of(through_sqlite(text_of(payload))) == payload


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_name_comes_back_unchanged(name: str) -> None:
    assert through_sqlite(name) == name


def test_json_is_kept_as_readable_text() -> None:
    assert text_of('{"name": "Zoë"}'.encode()) == '{"name": "Zoë"}'
    assert text_of(b"\x00\x01") == BASE64_TAG + "AAE="


@pytest.mark.parametrize("name", ["a\0b", "\0", "\\\0", '"\0', "\\\\\0", "\ud800"])
def test_a_name_that_sql_would_cut_short_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        encode_batch(Batch(last_position=1, state=[field("f", b"1", Address("Ticket", name))]), 1)


@pytest.mark.parametrize("name", ["\\u0000", "\\\\u0000", '"\\u0000', "u0000"])
def test_a_name_that_only_looks_like_that_is_not(name: str) -> None:
    assert through_sqlite(name) == name


def test_an_empty_list_is_nothing_to_do() -> None:
    encoded = encode_batch(Batch(last_position=7), 3)
    epoch, last_position, *lists = encoded.parameters
    assert (epoch, last_position) == (3, 7)
    assert set(lists) == {None}
    assert encoded.puts == []


def test_a_batch_of_nothing_but_fields_takes_the_short_statement() -> None:
    set_one, clear_one = field("f", b"1"), field("f", None)
    assert encode_batch(Batch(last_position=7, state=[set_one]), 3).statement == "commit_state"
    assert encode_batch(Batch(last_position=7, state=[clear_one]), 3).statement == "commit_batch"
    assert encode_batch(Batch(last_position=7, state=[set_one], orders_done=[5]), 3).statement == "commit_batch"

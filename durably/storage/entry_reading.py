"""Reads entries of collections (rule V7), on the thread of a connection. A row is read for each entry of the answer.

A value that is damaged is left out of its answer, which says so (rule L5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from durably.ids import EntryKey
from durably.storage.damage import DamagedError, bytes_if_sound
from durably.storage.records import EntryAnswer, EntryQuery, Unreadable, entry_part
from durably.storage.row_source import RowSource

BEFORE_ALL: Final = (-(1 << 63), "")
BEYOND_ALL: Final = ((1 << 63) - 1, "~")
"""A name that is not empty begins with `#` or `=`."""


def read_entries(source: RowSource, queries: Sequence[EntryQuery]) -> list[EntryAnswer]:
    return [_in_snapshot(source, query) for query in queries]


def _in_snapshot(source: RowSource, query: EntryQuery) -> EntryAnswer:
    if len(query.keys) + bool(query.limit) + query.counts <= 1:  # One statement is one.
        return _answer(source, query)
    with source.snapshot():
        return _answer(source, query)


def _answer(source: RowSource, query: EntryQuery) -> EntryAnswer:
    place = (*query.address, query.field)
    stored: list[tuple[EntryKey, object]] = []
    for key in query.keys:
        for (value,) in source.rows("has_entry" if query.only_keys else "entry", (*place, *key)):
            stored.append((key, b"" if query.only_keys else value))
    if query.limit:
        between = (*(query.after or BEFORE_ALL), *(query.before or BEYOND_ALL))
        statement = "entries_backward" if query.is_backward else "entries_forward"
        for position, name, value in source.rows(statement, (*place, *between, query.limit)):
            stored.append((EntryKey(position, name), value))
    counted = [*source.rows("entry_count", place)] if query.counts else []
    entries: list[tuple[EntryKey, bytes]] = []
    unreadable: Unreadable | None = None
    for key, value in stored:
        try:
            entries.append((key, stored_payload(value)))
        except DamagedError as error:
            unreadable = unreadable or Unreadable(entry_part(query.field, key), str(error))
    return EntryAnswer(entries=entries, count=counted[0][0] if counted else 0, unreadable=unreadable)


def stored_payload(stored: object) -> bytes:
    """
    Raises:
        DamagedError: it is none.
    """
    if isinstance(stored, bytes):
        return stored
    if not isinstance(stored, str):
        raise DamagedError("It is a number.")
    return bytes_if_sound(stored)

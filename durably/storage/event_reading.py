"""Reads events (rule P1), on the thread of a connection. A row is read for each event of the answer.

A value that is damaged is left out of its answer, which says so (rule L5).
"""

from __future__ import annotations

from collections.abc import Iterator

from durably.storage.damage import DamagedError
from durably.storage.entry_reading import stored_payload
from durably.storage.records import DamagedEvent, EventAnswer, EventQuery, EventRecord, Unreadable, event_part
from durably.storage.row_source import RowSource

ANSWER_BYTES = 8 * 1024 * 1024
"""An answer ends with the event that exceeds this."""


def read_events(source: RowSource, query: EventQuery) -> EventAnswer:
    answer = EventAnswer([], [])
    size_bytes = 0
    for position, stream, key, name, id, at, stored in _rows(source, query):
        try:
            value = stored_payload(stored)
        except DamagedError as error:
            record = EventRecord(position, stream, key, name, id, at, b"")
            answer.damaged.append(DamagedEvent(record, Unreadable(event_part(id, stream, key), str(error))))
            continue
        answer.events.append(EventRecord(position, stream, key, name, id, at, value))
        size_bytes += len(value)
        if size_bytes > ANSWER_BYTES:
            break
    return answer


def _rows(source: RowSource, query: EventQuery) -> Iterator[tuple[int, str, str, str, str, int, object]]:
    if query.id is not None:
        return source.rows("event_of_id", (query.id, query.stream))
    between = (query.stream, query.after, query.before)
    if query.key is None:
        return source.rows("events_backward" if query.is_backward else "events_forward", (*between, query.limit))
    statement = "events_of_key_backward" if query.is_backward else "events_of_key_forward"
    return source.rows(statement, (*between, query.key, query.limit))

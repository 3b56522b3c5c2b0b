"""What handlers and callers ask the store besides their own object: events of a stream, and objects of a class."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import Any, Final, cast

import msgspec

from durably.actors.protocol.commands import Question, ReadEvents
from durably.errors import InvalidArgumentError, UnreadableRecordError
from durably.ids import Address, is_storable
from durably.queries import FieldName, TableQuery, check_query, comparable, holds
from durably.storage.records import EventQuery, VersionsAnswer, event_part
from durably.storage.store import Store

PORTION: Final = 1_000


async def answer(store: Store, question: Question) -> bytes:
    """The answer to a question, as JSON: an array of events or of versions of objects, or how many there are.

    Raises:
        UnreadableRecordError: one was damaged.
        InvalidArgumentError: the question cannot be asked: what no store can compare, or too much of it.
    """
    _check(question)
    if isinstance(question, ReadEvents):
        return await _events(store, question)
    if question.counts:
        return b"%d" % await _count(store, question.query)
    return b"[%b]" % b",".join(await _found(store, question.query))


def _check(question: Question) -> None:
    try:
        if isinstance(question, ReadEvents):
            names = [name for name in (question.stream, question.key, question.id) if name is not None]
            if not all(map(is_storable, names)) or question.limit < 0:
                raise ValueError("A question about events names a stream, a key or an id that can be stored.")
        else:
            check_query(question.query)
    except (ValueError, TypeError) as error:  # The store has not failed.
        raise InvalidArgumentError(f"This cannot be asked: {error}") from error


async def _events(store: Store, question: ReadEvents) -> bytes:
    """Of many large ones the store gives a part at a time."""
    found: list[bytes] = []
    query = EventQuery(
        stream=question.stream, key=question.key, id=question.id, limit=question.limit, is_backward=question.is_backward
    )
    while len(found) < question.limit:
        some = await store.events(query)
        for one in some.damaged:
            raise UnreadableRecordError(f"{one.unreadable.part} cannot be read: {one.unreadable.reason}")
        for event in some.events:
            _decoded(event.value, event_part(event.id, event.stream, event.key))
        found += [event.value for event in some.events]
        if not some.events or question.id is not None:
            break
        last, limit = some.events[-1].position, question.limit - len(found)
        beyond = {"before": last} if question.is_backward else {"after": last}
        query = msgspec.structs.replace(query, limit=limit, **beyond)
    return b"[%b]" % b",".join(found)


def _decoded(value: bytes, part: str) -> dict[str, Any]:
    """What a value says; nothing, where an edit has put something else in its place.

    Raises:
        UnreadableRecordError: it was damaged.
    """
    try:
        decoded: object = msgspec.json.decode(value)
        return cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRecordError(f"{part} cannot be read: It is damaged: {error}.") from error


def _version(query: TableQuery, id: str, version: bytes) -> dict[str, Any]:
    return _decoded(version, f"the {query.table.field} of {query.table.service}/{id}")


async def _count(store: Store, query: TableQuery) -> int:
    known = await store.count_objects(query)
    if known is not None:
        return known
    count = 0
    async for id, version in _all_versions(store, query):
        count += _fits(query, _version(query, id, version))
    return count


async def _found(store: Store, query: TableQuery) -> list[bytes]:
    some = await store.search(query)
    if some is None:
        return await _sorted_out(store, query)
    found = _readable(query, some).versions
    for id, version in found:
        _version(query, id, version)
    await _place_of(store, query)  # After the search: a place that was there until now was there then, too.
    return [version for _, version in found]


async def _sorted_out(store: Store, query: TableQuery) -> list[bytes]:
    """Where no table tells: of all objects, those that fit, in order."""
    place = await _place_of(store, query)
    fitting = [
        (_place(query.order, decoded, id), version)
        async for id, version in _all_versions(store, query)
        if _fits(query, decoded := _version(query, id, version))
    ]
    fitting.sort(key=lambda one: one[0], reverse=query.is_descending)
    if place is not None:
        fitting = [one for one in fitting if (one[0] < place if query.is_descending else one[0] > place)]
    return [version for _, version in islice(fitting, query.limit)]


async def _place_of(store: Store, query: TableQuery) -> Any:
    """Where the answer begins.

    Raises:
        InvalidArgumentError: behind an object that is there no longer, in an order that its id does not tell.
    """
    if query.after is None:
        return None
    if query.order is None:
        return _place(None, {}, query.after)
    table = query.table
    (stored,) = await store.load([Address(table.service, query.after)], pending_limit=0)
    value = stored.state.get(table.field)
    version = {} if value is None else _version(query, query.after, value)
    if not version:
        raise InvalidArgumentError(
            f"There is no object {query.after} any longer, so where it was in the order of {query.order.name!r} is not "
            "known. Begin with the first page again, or give after= the id of another object."
        )
    return _place(query.order, version, query.after)


def _place(order: FieldName | None, version: Mapping[str, Any], id: str) -> tuple[Any, ...]:
    if order is None:
        return (id,)
    value = comparable(order.kind, version.get(order.name))
    return (value is not None, 0 if value is None else value, id)


async def _all_versions(store: Store, query: TableQuery) -> AsyncIterator[tuple[str, bytes]]:
    after = ""
    while True:
        some = _readable(query, await store.versions(query.table, after=after, limit=PORTION))
        for one in some.versions:
            yield one
        if some.is_all:
            break
        after = some.versions[-1][0]


def _fits(query: TableQuery, version: Mapping[str, Any]) -> bool:
    return version.get("state") in query.states and (query.condition is None or holds(query.condition, version))


def _readable(query: TableQuery, found: VersionsAnswer) -> VersionsAnswer:
    if found.unreadable is not None:
        raise UnreadableRecordError(
            f"{found.unreadable.part} of an object of {query.table.service} cannot be read: {found.unreadable.reason}"
        )
    return found

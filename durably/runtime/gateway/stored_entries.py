"""What is stored of fields that are not loaded with their objects, for those who look into a runtime from outside."""

from __future__ import annotations

from operator import index
from typing import Any

from durably.actors.large_state import DurableList, LargeField
from durably.actors.protocol.entries import GREATEST_POSITION, LEAST_POSITION, PAGE_ENTRIES
from durably.actors.values.descriptions import shortened
from durably.errors import UnencodableError
from durably.ids import GOING_FIELD, Address, EntryKey
from durably.runtime.invocations.load_errors import unreadable_entry
from durably.storage.introspection import InspectableStore
from durably.storage.records import EntryQuery


async def stored_entries(
    store: InspectableStore, address: Address, field: LargeField, after: Any, limit: int
) -> list[tuple[Any, Any]]:
    """Entries as `Runtime.entries` answers.

    Raises:
        UnreadableRecordError: one was damaged, or cannot be decoded.
        UndecodableError: they do not fit the type of the field, or it has had another one.
        UnencodableError: `after` is no key or index.
    """
    if field.keys is None and after is not None and (not isinstance(after, int) or isinstance(after, bool)):
        raise UnencodableError(f"{field.what} has no entry behind {shortened(after)}: an index is an integer.")
    limit = min(index(limit), PAGE_ENTRIES)
    if limit <= 0:
        return []
    if GOING_FIELD in await store.state(address):
        return []
    while True:
        first = await _first(store, address, field)
        start = None if after is None else field.key(after) if field.keys else _behind(first, after)
        (answer,) = await store.entries([EntryQuery(address, field.name, limit=limit, after=start)])
        if first == await _first(store, address, field):  # Else the list has moved between the reads.
            break
    if answer.unreadable is not None:
        raise unreadable_entry(address, answer.unreadable)
    return [(field.place(key, first), field.decode(value)) for key, value in answer.entries]


async def _first(store: InspectableStore, address: Address, field: LargeField) -> int:
    """The position of the first entry of a list."""
    if field.kind is not DurableList:
        return 0
    return field.bounds((await store.state(address)).get(field.name))[0]


def _behind(first: int, place: int) -> EntryKey:
    """Where what follows an index begins; no index is beyond what the store can compare."""
    return EntryKey(max(LEAST_POSITION, min(first + place, GREATEST_POSITION)), "")

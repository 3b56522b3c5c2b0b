"""Entries of collections as steps, answers and executions know them (rule V7).

A step records changed entries among its changed fields, under names that no field can have: `field NUL position NUL
name` is an entry (None: it is removed), `field NUL` alone says that all of the field's entries were removed before
those others changed, and an entry's name with one more NUL says that the entry is again as the snapshot has it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Protocol, TypeAlias

import msgspec

from durably.ids import EntryKey

_SEPARATOR: Final = "\0"
LEAST_POSITION: Final = -(1 << 63)
GREATEST_POSITION: Final = (1 << 63) - 1
"""The store compares positions as integers of 64 bits."""
PAGE_ENTRIES: Final = 1_000
"""How many entries one read returns at most."""


def name_of_entry(field: str, key: EntryKey) -> str:
    """What a step calls a changed entry."""
    return f"{field}\0{key.position}\0{key.name}"


def name_of_all(field: str) -> str:
    """What a step calls the removal of all entries of a field."""
    return field + _SEPARATOR


def name_of_restored(field: str, key: EntryKey) -> str:
    """What a step calls an entry of which an earlier change is taken back."""
    return name_of_entry(field, key) + _SEPARATOR


def is_of_entries(name: str) -> bool:
    """A changed name of a step is none of a field."""
    return _SEPARATOR in name


def is_restored(name: str) -> bool:
    """A changed name of a step says that an earlier change of an entry is taken back."""
    return name.count(_SEPARATOR) == 3


def field_of(name: str) -> str:
    """The field that a changed name of a step belongs to."""
    return name.partition(_SEPARATOR)[0]


def in_words(name: str) -> str:
    """A changed name of a step, for people."""
    field, *rest = name.split(_SEPARATOR)
    match rest:
        case []:
            return field
        case [""]:
            return f"{field}[all]"
        case [position, key, *_]:
            return f"{field}[{key.removeprefix('=') if key.startswith('=') else position}]"
        case _:
            return name


class PendingPops(Protocol):
    """Entries that pops have taken, and that the handler does not have yet: see `durably.actors.protocol.popped`."""

    def written(self, key: EntryKey, /) -> None:
        """An entry was set or removed."""
        ...

    def give_back_all(self) -> None:
        """The handler has ended: what awaits an entry will not get it."""
        ...


class FieldChanges:
    """What an execution has changed of the entries of one field, over its snapshot."""

    __slots__ = ("_order", "counted", "entries", "is_cleared", "known", "pops")

    def __init__(self) -> None:
        self.is_cleared = False
        """Nothing of the snapshot counts any more."""
        self.entries: dict[EntryKey, bytes | None] = {}
        """None: it is removed."""
        self.known: dict[EntryKey, bool] = {}
        """Whether the snapshot has an entry, of those of which a handler has found out in order to count."""
        self.counted: int | None = None
        """How many entries the snapshot has, once a handler has asked."""
        self.pops: PendingPops | None = None
        """What pops have taken that the handler does not have yet; None: nothing since the last removal of all."""
        self._order: list[EntryKey] | None = None

    def set(self, key: EntryKey, value: bytes | None) -> None:
        if self._order is not None and key not in self.entries:
            place = bisect_left(self._order, key)
            self._order.insert(place, key)
        self.entries[key] = value
        if self.pops is not None:
            self.pops.written(key)

    def restore(self, key: EntryKey) -> None:
        """The entry is again as in the snapshot."""
        self.entries.pop(key, None)
        self._order = None

    def clear(self) -> None:
        self.is_cleared = True
        self.entries.clear()
        self.pops = None
        self._order = None

    def lay(self, later: FieldChanges) -> None:
        """Lay later changes over these."""
        if later.is_cleared:
            self.clear()
        for key, value in later.entries.items():
            self.set(key, value)

    def between(
        self, after: EntryKey | None, before: EntryKey | None, limit: int, *, is_backward: bool
    ) -> list[tuple[EntryKey, bytes | None]]:
        """Changed entries in order, at most `limit`."""
        if self._order is None:
            self._order = sorted(self.entries)
        order = self._order
        first = 0 if after is None else bisect_right(order, after)
        end = len(order) if before is None else bisect_left(order, before)
        keys = order[max(first, end - limit) : end][::-1] if is_backward else order[first : min(end, first + limit)]
        return [(key, self.entries[key]) for key in keys]


NO_FIELD_CHANGES: Final = FieldChanges()
"""Of a field of which nothing was changed. Never written to."""


class EntryChanges:
    """What the steps of an execution have changed of the entries of all fields."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: dict[str, FieldChanges] = {}

    def __bool__(self) -> bool:
        return bool(self.fields)

    def of(self, field: str) -> FieldChanges:
        """For reading."""
        return self.fields.get(field, NO_FIELD_CHANGES)

    def changed(self, field: str) -> FieldChanges:
        """For writing."""
        changes = self.fields.get(field)
        if changes is None:
            changes = self.fields[field] = FieldChanges()
        return changes

    def give_back(self) -> None:
        """What pops await goes back: the handler has ended."""
        for changes in self.fields.values():
            if changes.pops is not None:
                changes.pops.give_back_all()

    def take(self, changes: Mapping[str, bytes | None]) -> None:
        """Lay what one step has changed over this; fields are none of its business."""
        names = [name for name in changes if _SEPARATOR in name]
        for name in names:
            if name.endswith(_SEPARATOR) and name.count(_SEPARATOR) == 1:
                self.changed(name[:-1]).clear()
        for name in names:
            field, *rest = name.split(_SEPARATOR)
            if len(rest) == 2:
                self.changed(field).set(EntryKey(int(rest[0]), rest[1]), changes[name])
            elif len(rest) == 3:
                self.changed(field).restore(EntryKey(int(rest[0]), rest[1]))


class FoundEntries(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a read of entries."""

    entries: list[tuple[EntryKey, bytes]]
    end: EntryKey | None = None
    """Up to which key it tells of all entries that were asked for in order; None: to the end."""
    count: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FoundEntries)
_Position: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 62), lt=1 << 62)]
"""Far from the ends of what 64 bits hold: the positions beside it, and the length of a list, are within 64 bits too."""
_bounds_decoder = msgspec.json.Decoder(tuple[_Position, _Position])


def encode_found(entries: Sequence[tuple[EntryKey, bytes]], end: EntryKey | None = None, count: int = 0) -> bytes:
    return _encoder.encode(FoundEntries([*entries], end, count))


def decode_found(answer: bytes) -> FoundEntries:
    return _decoder.decode(answer)


def encode_bounds(first: int, end: int) -> bytes | None:
    """The positions of a list, which are kept as a field: loaded with its object. One that is empty has none."""
    return msgspec.json.encode((first, end)) if first != end else None


def decode_bounds(data: bytes | None) -> tuple[int, int]:
    """
    Raises:
        msgspec.MsgspecError: these are no bounds of a list.
    """
    if data is None:
        return (0, 0)
    first, end = _bounds_decoder.decode(data)
    if first > end:
        raise msgspec.ValidationError(f"a list cannot begin at {first} and end at {end}")
    return first, end


def end_of(entries: Sequence[tuple[EntryKey, object]], limit: int) -> EntryKey | None:
    """Up to which key these tell of all, if there are so many as were asked for."""
    return entries[-1][0] if entries and len(entries) >= limit else None


def laid_over(
    stored: FoundEntries, changed: Sequence[tuple[EntryKey, bytes | None]], limit: int, *, is_backward: bool
) -> FoundEntries:
    """A page of entries as they are after some changes, which are the first ones in order, at most `limit`."""
    ends = [end for end in (stored.end, end_of(changed, limit)) if end is not None]
    end = None if not ends else (max(ends) if is_backward else min(ends))
    merged: dict[EntryKey, bytes | None] = dict(stored.entries)
    merged.update(changed)
    wanted = sorted(merged, reverse=is_backward)
    if end is not None:
        wanted = [key for key in wanted if (key >= end if is_backward else key <= end)]
    entries = [(key, value) for key in wanted if (value := merged[key]) is not None]
    if len(entries) > limit:
        return FoundEntries(entries[:limit], entries[limit - 1][0])
    return FoundEntries(entries, end)

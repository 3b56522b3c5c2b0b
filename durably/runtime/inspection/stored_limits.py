"""`StoredLimits`: which limit a message waits for, as far as a store tells.

A store keeps who runs on which places, and neither the limits nor who waits for them. So what those of the same handler
run on says which limit it is under, and what they have in common with their keys says which part of the limit is whose:
a limit `per="tenant"` gives each its argument of that name. What is under a limit of which nothing runs cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

import msgspec

from durably.ids import is_storable
from durably.storage.introspection import InspectableStore
from durably.storage.records import InvocationRecord, PlaceKey, PlaceRecord

PLACES_PER_READ: Final = 1_000
LARGEST_BYTES: Final = 64 << 10
"""Of an argument that is looked through for the keys of limits."""
DEEPEST_PART: Final = 4
"""So deep in an argument a part may lie that a limit is `per`."""

Pool: TypeAlias = tuple[str, str]
"""A limit by its name, and the key that this part of it is for."""
Path: TypeAlias = tuple[str | int, ...]
"""Where the key of a limit comes from: a part of the argument, or one of the two below."""
FOR_ALL: Final[Path] = ("for all",)
OWN_KEY: Final[Path] = ("own key",)


class StoredLimits:
    """Answers from a store as it is when it is asked first."""

    def __init__(self, store: InspectableStore) -> None:
        self._store = store
        self._pools: dict[Pool, dict[int, PlaceRecord]] | None = None
        self._of: dict[tuple[str, str], list[tuple[str, set[Path]]]] = {}
        """By service and handler: the names of limits, and where their keys may come from."""

    async def pools(self) -> Mapping[Pool, Mapping[int, PlaceRecord]]:
        """Who keeps each place taken first."""
        if self._pools is None:
            self._pools = await self._read()
        return self._pools

    async def pool_of(self, record: InvocationRecord) -> Pool | None:
        """The limit that it waits for before it starts: one of which places are taken, if only one can be meant."""
        pools = await self.pools()
        found = _parts(record)
        wanted = {
            (name, found[path])
            for name, paths in self._of.get((record.address.service, record.handler), ())
            for path in paths
            if path in found
        }
        taken = [pool for pool in pools if pool in wanted]
        if not wanted:  # Its argument is not JSON: it can be told where the limit has no other part.
            names = {name for name, _ in self._of.get((record.address.service, record.handler), ())}
            taken = [pool for pool in pools if pool[0] in names]
        return taken[0] if len(taken) == 1 else None

    async def _read(self) -> dict[Pool, dict[int, PlaceRecord]]:
        pools: dict[Pool, dict[int, PlaceRecord]] = {}
        after: PlaceKey | None = None
        while page := await self._store.places(PLACES_PER_READ, after=after):
            taken = [place for place in page if place.counts]
            for place in taken:
                pools.setdefault((place.name, place.key), {}).setdefault(place.place, place)
            records = await self._store.find([place.id for place in taken])
            for place in taken:
                if place.id in records:
                    self._learn(place, records[place.id])
            after = page[-1].order
        return pools

    def _learn(self, place: PlaceRecord, holder: InvocationRecord) -> None:
        """Where the key of this limit may come from, by one more that has a place."""
        known = self._of.setdefault((holder.address.service, holder.handler), [])
        paths = {path for path, text in _parts(holder).items() if text == place.key}
        for name, before in known:
            if name == place.name:
                before &= paths
                return
        known.append((place.name, paths))


def _parts(record: InvocationRecord) -> dict[Path, str]:
    """What the key of a limit could be, by where it would come from."""
    plain: dict[Path, str] = {FOR_ALL: "", OWN_KEY: record.address.key}
    if len(record.argument) > LARGEST_BYTES:
        return plain
    try:
        argument: Any = msgspec.json.decode(record.argument)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # It has a Serde of its own.
        return plain
    return plain | dict(_texts((), argument))


def _texts(path: Path, value: Any) -> Iterator[tuple[Path, str]]:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    yield path, text if is_storable(text) else ascii(text)
    if len(path) == DEEPEST_PART:
        return
    if isinstance(value, dict):
        for name, part in cast("dict[str, Any]", value).items():
            yield from _texts((*path, name), part)
    elif isinstance(value, list):
        for place, part in enumerate(cast("list[object]", value)):
            yield from _texts((*path, place), part)

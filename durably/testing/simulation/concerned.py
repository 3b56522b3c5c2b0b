"""Which objects a failure concerns, and so which events of a run an account of it has to tell.

Those are the objects that the error names, and those that the failing condition has read; then what has to do with them
directly: objects that an event names beside one of them, such as a caller. Where no object is known, all are told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from durably.ids import Address
from durably.testing.simulation.trace import Entry

_AN_ID = r"inv_\.\.\.\w+"


def events_of_concern(
    entries: Sequence[Entry], *, named_in: str, read: Iterable[Address], known: Iterable[Address]
) -> Sequence[Entry]:
    """The entries about objects that a failure concerns, and those about none, such as a crash.

    `named_in` is what the error says, `read` are the objects that the failing condition looked at, `known` all objects.
    """
    names = _pattern(known)
    concerned = {*names.findall(named_in), *map(_name, read)}
    if not concerned:
        return entries
    mentioned = [set(names.findall(entry.what)) for entry in entries]
    told = concerned.union(*(some for some in mentioned if some & concerned))
    return [entry for entry, some in zip(entries, mentioned, strict=True) if not some or some & told]


def _pattern(known: Iterable[Address]) -> re.Pattern[str]:
    """Finds the names of objects, the longest first: `Seat/A`, not within `Seat/AB`; and shortened ids."""
    listed = sorted({re.escape(_name(address)) for address in known}, key=lambda name: (-len(name), name))
    return re.compile("|".join([_AN_ID, *(rf"(?<!\w){name}(?=[/:\s,.]|$)" for name in listed)]))


def _name(address: Address) -> str:
    return f"{address.service}/{address.key}"

"""`unique_names`: columns of an answer whose rows are objects, where two columns have one name."""

from __future__ import annotations

from collections.abc import Iterable


def unique_names(names: Iterable[str]) -> list[str]:
    """The names; where one comes again it gets a number, as SQLite does it: `id`, `id:1`, `id:2`."""
    given = list(names)
    found: list[str] = []
    taken = set(given)
    for name in given:
        unique, number = name, 0
        while unique in found or (number and unique in taken):
            number += 1
            unique = f"{name}:{number}"
        found.append(unique)
    return found

"""Keys, ids and names that may come from a request: a bad one is the failure of that request (rule V5)."""

from __future__ import annotations

from durably.actors.values.type_checks import is_text
from durably.errors import InvalidKeyError
from durably.ids import is_storable


def checked_name(name: str, sentence: str, *, may_be_empty: bool = False) -> str:
    """The name, if it is one that a store can keep.

    Raises:
        InvalidKeyError: it is text, but empty, or not to be stored.
        TypeError: it is no text.
    """
    if not is_text(name):
        raise TypeError(sentence)
    if not is_storable(name) or not (name or may_be_empty):
        raise InvalidKeyError(sentence)
    return name

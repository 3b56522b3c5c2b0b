"""Verifying a large list or dict by its parts: only those whose bytes differ from bytes that were verified before.

Decoding a whole collection to see that it can be read again costs several times as much as encoding it. Cutting its
bytes into those of its parts is cheaper, and what was verified once stays readable. Where parts were added at the end,
as nearly always, the bytes begin as they did, and only the new ones are cut.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import compress, islice
from typing import Any, TypeAlias, get_args, get_origin

import msgspec

from durably.actors.values.serde import TypeCodec, codec_for
from durably.actors.values.type_checks import is_mapping, is_sequence, is_text
from durably.errors import DefinitionError, UnencodableError

SMALLEST_BYTES = 4 * 1024
"""Less is verified faster as a whole."""

Split: TypeAlias = Any
"""The bytes of each part: `list[msgspec.Raw]` or `dict[str, msgspec.Raw]`."""
Places: TypeAlias = list[int] | list[str]
"""Where parts stand: positions or keys."""


class Parts:
    """How the values of a `list[T]` or `dict[str, T]` are verified part by part."""

    __slots__ = ("_changed_places", "_item", "_last", "_split", "_whole")

    def __init__(
        self,
        whole: TypeCodec[Any],
        item: TypeCodec[Any],
        split: Callable[[bytes], Split],
        changed: Callable[[Any, Split, Split], Places | None],
        last: Callable[[Any, bytes], list[tuple[Any, msgspec.Raw]] | None],
    ) -> None:
        self._whole = whole
        self._item = item
        self._split = split
        self._changed_places = changed
        self._last = last

    @staticmethod
    def is_longer(data: bytes, verified: bytes) -> bool:
        """`data` are those bytes with further parts at the end."""
        end = len(verified) - 1
        return end > 1 and data[end : end + 1] == b"," and data.startswith(verified[:end])

    def _verify_last(self, value: Any, data: bytes, verified: bytes) -> bool | None:
        """Whether the parts at the end, which are read as they were written, are written so again.

        None: they are not, or only the whole can tell.
        """
        last = self._last(value, data[len(verified) :])
        if last is None:
            return None
        are_canonical = True
        try:
            for part, raw in last:
                encoded, is_canonical = self._item.encode_to_change(part)
                if encoded != bytes(raw):
                    return None
                are_canonical = are_canonical and is_canonical
        except UnencodableError:
            return None
        return are_canonical

    def _are_canonical(self, value: Any, places: Places) -> bool:
        """Whether the parts in these places, each of which is proved, are written as they are read."""
        are_canonical = True
        for place in places:
            are_canonical = self._item.encode_to_change(value[place])[1] and are_canonical
        return are_canonical

    def verify(self, value: Any, data: bytes, verified: Split | bytes) -> tuple[Split | None, bool]:
        """Verify a value that is encoded as `data`, where an earlier one has been verified: its bytes, or its parts.

        Returns:
            The parts of `data`, for the next time, if it was cut; and whether what it decodes to is encoded to it
            again, if that is so of the earlier one.

        Raises:
            UnencodableError: it would not decode again.
        """
        if isinstance(verified, bytes) and self.is_longer(data, verified):
            are_canonical = self._verify_last(value, data, verified)
            if are_canonical is not None:
                return None, are_canonical
        parts = self._split(data)
        changed = self._changed_places(value, parts, self._split(verified) if isinstance(verified, bytes) else verified)
        if changed is None or len(changed) * 2 > len(parts):
            return parts, self._whole.verify(value, data)
        try:
            return parts, self._are_canonical(value, changed)
        except UnencodableError:
            self._whole.verify(value, data)  # It tells where.
            raise


def _changed_positions(value: object, parts: list[msgspec.Raw], before: list[msgspec.Raw]) -> list[int] | None:
    """Where a list differs; what is put in or taken out in one place shifts nothing. None: see the whole."""
    if not is_sequence(value) or len(value) != len(parts):
        return None
    shared = min(len(parts), len(before))
    differing = list(compress(range(shared), map(operator.ne, parts, before)))
    if len(parts) == len(before):
        return differing
    first = differing[0] if differing else shared
    last = len(parts)
    offset = len(before) - last
    while last > first and last + offset > first and parts[last - 1] == before[last + offset - 1]:
        last -= 1
    return list(range(first, last))


def _changed_keys(value: object, parts: dict[str, msgspec.Raw], before: dict[str, msgspec.Raw]) -> list[str] | None:
    """Where a dict differs. None: see the whole, since a key is no string, or became the same as another."""
    if not is_mapping(value) or len(value) != len(parts):
        return None
    changed = [key for key, part in parts.items() if before.get(key) != part]
    return changed if all(key in value for key in changed) else None


def _last_of_list(value: object, data: bytes) -> list[tuple[Any, msgspec.Raw]] | None:
    """The parts that the end of a list's bytes stands for, each with its bytes."""
    raws = _split_list(b"[" + data)
    if not is_sequence(value) or len(value) < len(raws):
        return None
    return list(zip(value[-len(raws) :], raws, strict=True))


def _last_of_dict(value: object, data: bytes) -> list[tuple[Any, msgspec.Raw]] | None:
    raws = _split_dict(b"{" + data)
    if not is_mapping(value) or len(value) < len(raws):
        return None
    keys = [*islice(reversed(value), len(raws))][::-1]
    if keys != [*raws] or data != b",".join(map(_entry, raws.items())) + b"}":  # Two keys may have become one.
        return None
    return [(value[key], raws[key]) for key in keys]


def _last_of_any_dict(value: object, data: bytes) -> list[tuple[Any, msgspec.Raw]] | None:
    """The same where keys are of any type: a new one may be the text of one that was there."""
    return _last_of_dict(value, data) if is_mapping(value) and all(map(is_text, value)) else None


def _entry(item: tuple[str, msgspec.Raw]) -> bytes:
    return msgspec.json.encode(item[0]) + b":" + bytes(item[1])


_split_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_split_dict = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def parts_of(annotation: Any, whole: TypeCodec[Any]) -> Parts | None:
    """For the type of a collection whose parts can be verified by themselves; None for any other type."""
    kind = get_origin(annotation) or annotation  # `list`, `List` and `list[T]` are lists.
    key, item = (Any, Any, *get_args(annotation))[-2:]
    try:
        if kind is list:
            return Parts(whole, codec_for(item), _split_list, _changed_positions, _last_of_list)
        if kind is dict and key in (str, Any):
            last = _last_of_dict if key is str else _last_of_any_dict
            return Parts(whole, codec_for(item), _split_dict, _changed_keys, last)
    except DefinitionError:  # A type that only works inside the collection.
        return None
    return None

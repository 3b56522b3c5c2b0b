"""Whether a value that was read back is the value that was written, part by part (rule V5).

Records are compared by class and by fields, whatever their `__eq__` leaves out; NaN equals NaN. `Any` is read as plain
JSON, and a `Sequence` as a list, so of a type that holds one it is enough that the JSON says the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec

from durably.actors.values.encoding import encode_canonically
from durably.actors.values.models import class_of, dumped, is_model, read_back
from durably.actors.values.records import fields_of, is_record, parts_of
from durably.actors.values.type_checks import is_mapping, is_sequence, is_set

_CERTAIN = (str, int, bool, bytes, type(None))
_UNSET: Any = object()


class Difference(Exception):
    """The first place where two values differ."""

    def __init__(self, path: str, value: Any, read: Any) -> None:
        super().__init__(path)
        self.path = path
        """From the whole value: `.items[0]`, empty for itself."""
        self.value = value
        self.read = read


class IncomparableError(Exception):
    """There is nothing to compare two values by; their bytes have to decide."""


def compare(value: Any, read: Any, *, loose: bool, path: str = "") -> None:
    """See that `read` is `value`. `loose`: where plain JSON was read, `value` need only be written like that.

    Raises:
        Difference: it is not.
        IncomparableError: nothing can tell.
    """
    if value is read or (type(value) in _CERTAIN and type(read) is type(value) and value == read):
        return
    if is_mapping(value) and is_mapping(read):
        _compare_mappings(value, read, loose, path)
    elif is_sequence(value) and is_sequence(read) and (loose or isinstance(value, list) is isinstance(read, list)):
        _compare_items(value, read, loose, path)
    elif is_set(value) and is_set(read):
        if value != read:  # Elements that equal nothing, such as NaN, are paired by their bytes.
            _compare_items(_in_order(value), _in_order(read), loose, path)
    elif loose and is_set(value) and is_sequence(read):
        _compare_items(_in_order(value), read, loose, path)
    elif is_record(value):
        _compare_records(value, read, loose, path)
    elif not (_is_same(value, read) or (loose and _is_written_as(value, read))):
        raise Difference(path, value, read)


def _compare_mappings(value: Mapping[Any, Any], read: Mapping[Any, Any], loose: bool, path: str) -> None:
    """In order, which JSON keeps: a key need not equal itself."""
    if len(value) != len(read):
        raise Difference(path, value, read)
    for (name, part), (name_read, part_read) in zip(value.items(), read.items(), strict=True):
        if not (_is_same(name, name_read) or (loose and _name_of(name) == name_read)):
            raise Difference(path, value, read)
        compare(part, part_read, loose=loose, path=f"{path}.{name}" if isinstance(name, str) else f"{path}[{name!r}]")


def _compare_items(value: Sequence[Any], read: Sequence[Any], loose: bool, path: str) -> None:
    if len(value) != len(read):
        raise Difference(path, value, read)
    for index, (item, item_read) in enumerate(zip(value, read, strict=True)):
        compare(item, item_read, loose=loose, path=f"{path}[{index}]")


def _compare_records(value: Any, read: Any, loose: bool, path: str) -> None:
    if class_of(value) is class_of(read):
        for name in fields_of(value):
            part, part_read = getattr(value, name, _UNSET), getattr(read, name, _UNSET)
            compare(part, part_read, loose=loose, path=f"{path}.{name}")
    elif loose and is_model(value) and is_mapping(read):
        # Its own serializers wrote it, and may have lost something.
        try:
            own = read_back(value)
        except ValueError:  # What they wrote does not fit, and the JSON may say where.
            compare(dumped(value), read, loose=loose, path=path)
            raise
        compare(value, own, loose=loose, path=path)
    elif loose and (is_mapping(read) or is_sequence(read)):
        compare(parts_of(value), read, loose=loose, path=path)
    else:
        raise Difference(path, value, read)


def _is_same(value: Any, read: Any) -> bool:
    """Of values without parts."""
    if value is read:
        return True
    if isinstance(value, bool) is not isinstance(read, bool):
        return False
    if isinstance(value, float) and isinstance(read, float) and math.isnan(value):
        return math.isnan(read)
    if isinstance(value, Decimal) and isinstance(read, Decimal) and value.is_nan():
        return str(value) == str(read)
    if isinstance(value, datetime) and isinstance(read, datetime):
        # Not by `==`, to which a time in the hour that comes twice equals nothing.
        return value.utcoffset() == read.utcoffset() and value.replace(tzinfo=None) == read.replace(tzinfo=None)
    if isinstance(value, time) and isinstance(read, time) and (value.tzinfo is None) is not (read.tzinfo is None):
        return False
    if type(value) is type(read) and _compares_identity(value) and not isinstance(value, Enum):
        raise IncomparableError(f"{type(value).__qualname__} has no __eq__ to compare them by")
    return bool(value == read)


def _compares_identity(value: object) -> bool:
    return getattr(type(value), "__eq__", None) is object.__eq__


def _is_written_as(value: Any, read: Any) -> bool:
    """What JSON has no type for, such as a date, is read as the text that was written."""
    if isinstance(value, float) or not isinstance(read, str | int | float):
        return False
    return encode_canonically(value) == encode_canonically(read)


def _name_of(key: Any) -> Any:
    """A key as JSON writes it."""
    (name,) = msgspec.json.decode(encode_canonically({key: None}))
    return name


def _in_order(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=encode_canonically)

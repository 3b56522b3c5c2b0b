"""Whether a value that was read back is the value that was written, part by part (rule V5).

Records are compared by class and by all fields, also those that their `__eq__` leaves out; NaN equals NaN. `Any` is
read as plain JSON, and a `Sequence` as a list, so of a type that holds one it is enough that the JSON says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Self

import msgspec

from durably.actors.values.encoding import encode_canonically
from durably.actors.values.models import class_of, dumped, is_model, read_back
from durably.actors.values.places import below
from durably.actors.values.records import CACHED_CLASSES, fields_of, has_fields, parts_of
from durably.actors.values.type_checks import is_mapping, is_sequence

_CERTAIN = (str, int, bool, bytes, type(None))
_UNSET: Any = object()


class Difference(Exception):
    """The first place where two values differ."""

    def __init__(self, value: Any, read: Any) -> None:
        super().__init__()
        self.path = ""
        """From the whole value: `.items[0]`, empty for itself. Made on the way up, as most values do not differ."""
        self.value = value
        self.read = read

    def found_in(self, place: str) -> Self:
        """The same, seen from the value that holds what differs in this place."""
        self.path = place + self.path
        return self


class IncomparableError(Exception):
    """There is nothing to compare two values by; their bytes have to decide."""


class ClassDifference(Difference):
    """The two are equal and of different classes."""


def compare_classes(value: Any, read: Any) -> None:
    """See that each part of `read`, which equals `value`, is of the same class too, an int where a float is declared
    excepted.

    Raises:
        ClassDifference: one is not.
    """
    if type(value) in _CERTAIN and type(read) is type(value):
        return
    if class_of(value) is not class_of(read) and not (class_of(value) is int and class_of(read) is float):
        raise ClassDifference(value, read)
    kind = _kind_of(type(value))
    if kind is _Kind.MAPPING:
        for (name, part), (name_read, part_read) in zip(value.items(), read.items(), strict=True):
            compare_classes(name, name_read)
            try:
                compare_classes(part, part_read)
            except ClassDifference as difference:
                raise difference.found_in(below("", name)) from None
    elif kind is _Kind.SEQUENCE:
        for index, (item, item_read) in enumerate(zip(value, read, strict=True)):
            try:
                compare_classes(item, item_read)
            except ClassDifference as difference:
                raise difference.found_in(f"[{index}]") from None
    elif kind is _Kind.SET:
        equal: dict[Any, Any] = {item: item for item in read}
        for item in value:
            if item in equal:  # What equals nothing, such as NaN, has no subclasses that do.
                compare_classes(item, equal[item])
    elif kind is _Kind.RECORD:
        for name in fields_of(value):
            try:
                compare_classes(getattr(value, name, None), getattr(read, name, None))
            except ClassDifference as difference:
                raise difference.found_in(f".{name}") from None


class _Kind(Enum):
    """How values of a class are compared."""

    MAPPING = 1
    SEQUENCE = 2
    SET = 3
    RECORD = 4
    WHOLE = 5


def _kind_of_class(cls: Any) -> _Kind:
    if issubclass(cls, Mapping):
        return _Kind.MAPPING
    if issubclass(cls, list | tuple):
        return _Kind.SEQUENCE
    if issubclass(cls, set | frozenset):
        return _Kind.SET
    return _Kind.RECORD if has_fields(cls) else _Kind.WHOLE


_kind_of: Callable[[Any], _Kind] = lru_cache(maxsize=CACHED_CLASSES)(_kind_of_class)


def compare(value: Any, read: Any, *, loose: bool) -> None:
    """See that `read` is `value`. `loose`: where plain JSON was read, `value` need only be written like that.

    Raises:
        Difference: it is not.
        IncomparableError: nothing can tell.
    """
    if value is read or (type(value) in _CERTAIN and type(read) is type(value) and value == read):
        return
    kind, kind_read = _kind_of(type(value)), _kind_of(type(read))
    if kind is kind_read is _Kind.MAPPING:
        _compare_mappings(value, read, loose)
    elif kind is kind_read is _Kind.SEQUENCE and (loose or isinstance(value, list) is isinstance(read, list)):
        _compare_items(value, read, loose)
    elif kind is kind_read is _Kind.SET:
        _compare_sets(value, read, loose)
    elif loose and kind is _Kind.SET and kind_read is _Kind.SEQUENCE:
        _compare_items(_in_order(value), read, loose)
    elif kind is _Kind.RECORD:
        _compare_records(value, read, loose)
    elif not (_is_same(value, read) or (loose and _is_written_as(value, read))):
        raise Difference(value, read)


def _compare_mappings(value: Mapping[Any, Any], read: Mapping[Any, Any], loose: bool) -> None:
    """In order, which JSON keeps: a key need not equal itself."""
    if len(value) != len(read):
        raise Difference(value, read)
    for (name, part), (name_read, part_read) in zip(value.items(), read.items(), strict=True):
        if type(name) is not str or name != name_read:
            _compare_keys(name, name_read, loose)
        try:
            compare(part, part_read, loose=loose)
        except Difference as difference:
            raise difference.found_in(below("", name)) from None


def _compare_keys(key: Any, read: Any, loose: bool) -> None:
    try:
        compare(key, read, loose=False)
    except Difference:
        is_null = isinstance(key, float) and not math.isfinite(key)  # JSON writes NaN and infinities as null.
        if is_null or loses_fold(key) or not (loose and _name_of(key) == read):
            raise


def _compare_sets(value: Set[Any], read: Set[Any], loose: bool) -> None:
    if value != read:  # Elements that equal nothing, such as NaN, are paired by their bytes.
        _compare_items(_in_order(value), _in_order(read), loose)
        return
    equal = {item: item for item in read}
    for item in value:
        compare(item, equal[item], loose=loose)


def _compare_items(value: Sequence[Any], read: Sequence[Any], loose: bool) -> None:
    if len(value) != len(read):
        raise Difference(value, read)
    for index, (item, item_read) in enumerate(zip(value, read, strict=True)):
        try:
            compare(item, item_read, loose=loose)
        except Difference as difference:
            raise difference.found_in(f"[{index}]") from None


def _compare_records(value: Any, read: Any, loose: bool) -> None:
    if class_of(value) is class_of(read):
        for name in fields_of(value):
            part, part_read = getattr(value, name, _UNSET), getattr(read, name, _UNSET)
            try:
                compare(part, part_read, loose=loose)
            except Difference as difference:
                raise difference.found_in(f".{name}") from None
    elif loose and is_model(value):
        # Its own serializers wrote it, and may have lost something.
        try:
            own = read_back(value)
        except ValueError:  # What they wrote does not fit, and the JSON may say where.
            compare(dumped(value), read, loose=loose)
            raise
        compare(value, own, loose=loose)
    elif loose and (is_mapping(read) or is_sequence(read)):
        compare(parts_of(value), read, loose=loose)
    else:
        raise Difference(value, read)


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
        if loses_zone(value) or (loses_fold(value) and not read.fold):
            return False
        return value.utcoffset() == read.utcoffset() and value.replace(tzinfo=None) == read.replace(tzinfo=None)
    if isinstance(value, time) and isinstance(read, time) and not _have_one_clock(value, read):
        return False
    if type(value) is type(read) and _compares_identity(value) and not isinstance(value, Enum):
        raise IncomparableError(f"{type(value).__qualname__} has no __eq__ to compare them by")
    return bool(value == read)


def _have_one_clock(value: time, read: time) -> bool:
    return (value.tzinfo is None) is (read.tzinfo is None) and (not loses_fold(value) or read.fold == 1)


def loses_zone(value: object) -> bool:
    """Whether it is a datetime in a zone whose offset changes: an offset is all that is written of a zone."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return False
    fixed = value.tzinfo.utcoffset(None)  # None of a zone whose offset depends on the date.
    return fixed is None or fixed != value.utcoffset()


def loses_fold(value: object) -> bool:
    """Whether it names the second of two equal times on the clock: no text of a naive date or time says which."""
    return isinstance(value, datetime | time) and value.fold != 0 and value.tzinfo is None


HOW_TO_KEEP_A_FOLD = (
    "`fold=1` names the second of two equal times on the clock, and a date without a zone is written without it. Give "
    "a moment in UTC, value.replace(tzinfo=zone).astimezone(UTC), or value.replace(fold=0) where it does not matter."
)
HOW_TO_KEEP_A_MOMENT = (
    "Of a time zone only the offset of that moment is kept, and a day later it may be another. Give the moment as "
    "value.astimezone(UTC), and the name of the zone apart if it is needed."
)


def _compares_identity(value: object) -> bool:
    return getattr(type(value), "__eq__", None) is object.__eq__


def how_to_keep(value: object) -> str | None:
    """The way out for a date or time that is not kept as it is; None for any other value."""
    if loses_zone(value):
        return HOW_TO_KEEP_A_MOMENT
    return HOW_TO_KEEP_A_FOLD if loses_fold(value) else None


def _is_written_as(value: Any, read: Any) -> bool:
    """What JSON has no type for, such as a date, is read as the text that was written."""
    if loses_fold(value):
        return False
    if isinstance(value, float) or not isinstance(read, str | int | float):
        return False
    return encode_canonically(value) == encode_canonically(read)


def _name_of(key: Any) -> Any:
    """A key as JSON writes it."""
    (name,) = msgspec.json.decode(encode_canonically({key: None}))
    return name


def _in_order(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=encode_canonically)

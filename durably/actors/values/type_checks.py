"""Which kind a value really is, apart from its annotation: for what users give, and for values of any type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, TypeGuard


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_bytes(value: object) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


def is_number(value: object) -> bool:
    """An int or a float; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int(value: object) -> TypeGuard[int]:
    """A bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_datetime(value: object) -> bool:
    return isinstance(value, datetime)


def is_class(value: object) -> TypeGuard[type[Any]]:
    return isinstance(value, type)


def is_exception_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """A list or tuple: text and bytes are values of their own."""
    return isinstance(value, list | tuple)


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Anything with items; text is a value of its own."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


def is_set(value: object) -> TypeGuard[Set[Any]]:
    return isinstance(value, set | frozenset)

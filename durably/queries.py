"""Queries for stored objects by their fields, as plain values: what is asked, wherever it is evaluated.

A condition names fields and holds values as both are in JSON. `holds` is what it means; a store that answers it in
another way (with an index, in SQL) has to agree with that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

import msgspec

from durably.ids import is_storable

Scalar: TypeAlias = str | int | float | bool | None


class FieldKind(StrEnum):
    """How the values of a field compare."""

    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    """By code points. Names of enumerations and UUIDs are text."""
    BOOLEAN = "boolean"
    DECIMAL = "decimal"
    """Text in JSON; compares as the number that it says, exactly."""
    MOMENT = "moment"
    """Text in JSON; compares as the moment that it says, in any time zone."""
    DAY = "day"
    OTHER = "other"
    """A list, an object: equal or not, and in no order."""


class Operator(StrEnum):
    """How a field compares with a value. Nothing is before or behind None."""

    EQUAL = "eq"
    UNEQUAL = "ne"
    BEFORE = "lt"
    UP_TO = "le"
    BEHIND = "gt"
    FROM = "ge"


class FieldName(msgspec.Struct, frozen=True, array_like=True):
    """A field and how its values compare."""

    name: str
    """In JSON."""
    kind: FieldKind


class Compare(msgspec.Struct, frozen=True, array_like=True, tag="compare"):
    """The value of a field compares so with this one."""

    field: FieldName
    operator: Operator
    value: Any


class OneOf(msgspec.Struct, frozen=True, array_like=True, tag="one-of"):
    """The value of a field is one of these."""

    field: FieldName
    values: tuple[Any, ...]


class AllOf(msgspec.Struct, frozen=True, array_like=True, tag="all"):
    """All of these hold; of none, they do."""

    parts: tuple[Condition, ...]


class AnyOf(msgspec.Struct, frozen=True, array_like=True, tag="any"):
    """One of these holds."""

    parts: tuple[Condition, ...]


class Not(msgspec.Struct, frozen=True, array_like=True, tag="not"):
    """This does not hold."""

    part: Condition


Condition: TypeAlias = Compare | OneOf | AllOf | AnyOf | Not


class TableLayout(msgspec.Struct, frozen=True, array_like=True):
    """The objects of one class, of which one field holds all that there is to ask for, as a JSON object."""

    name: str
    service: str
    field: str
    columns: tuple[FieldName, ...]
    indexed: tuple[str, ...] = ()


class TableQuery(msgspec.Struct, frozen=True, array_like=True):
    """Which objects are asked for, of those in these states."""

    table: TableLayout
    states: tuple[str, ...]
    condition: Condition | None = None
    order: FieldName | None = None
    """By this field, objects without a value first, then by id; None: by id, which is the order of their making."""
    is_descending: bool = False
    after: str | None = None
    """Only those that come behind the object of this id, as it is now."""
    limit: int = 1_000


MOST_PARTS: Final = 500
"""Of a condition, conditions in it included."""
DEEPEST: Final = 50
MOST_VALUES: Final = 100_000
"""That one condition compares with."""
MOST_STATES: Final = 1_000
LARGEST_EXACT: Final = 1 << 53
"""From here on numbers with a decimal point are kept as nearly as floating point keeps them, where a store keeps them
in columns.
"""
LARGEST_INTEGER: Final = 1 << 63
"""From here on whole numbers are, too."""


def check_query(query: TableQuery) -> None:
    """See that a query can be asked of any store.

    Raises:
        ValueError: a value is of another kind than the field, or there is too much of something; says which.
    """
    if len(query.states) > MOST_STATES or not all(map(is_storable, query.states)):
        raise ValueError(f"A query names at most {MOST_STATES:,} states.")
    if query.after is not None and not (isinstance(cast("Any", query.after), str) and is_storable(query.after)):
        raise ValueError(f"after= is the id of an object, not {query.after!r}.")
    if query.order is not None and query.order.kind is FieldKind.OTHER:
        raise ValueError(f"The field {query.order.name!r} has values in no order.")
    waiting: list[tuple[Condition, int]] = [] if query.condition is None else [(query.condition, 1)]
    parts = 0
    while waiting:
        condition, depth = waiting.pop()
        parts += 1
        if parts > MOST_PARTS or depth > DEEPEST:
            raise ValueError(
                f"The condition is too large: it may have {MOST_PARTS} parts, and be {DEEPEST} deep. For many values "
                "write one_of(field, values)."
            )
        match condition:
            case Compare():
                _check_value(condition.field, condition.value, condition.operator)
            case OneOf():
                if len(condition.values) > MOST_VALUES:
                    raise ValueError(f"one_of() takes at most {MOST_VALUES:,} values.")
                for value in condition.values:
                    _check_value(condition.field, value, Operator.EQUAL)
            case AllOf() | AnyOf():
                waiting += [(part, depth + 1) for part in condition.parts]
            case Not():
                waiting.append((condition.part, depth + 1))


def _check_value(field: FieldName, value: Any, operator: Operator) -> None:
    kind = field.kind
    if value is None:
        return
    if kind is FieldKind.OTHER:
        if operator not in (Operator.EQUAL, Operator.UNEQUAL):
            raise ValueError(f"The field {field.name!r} has values in no order: it is equal to one, or not.")
        return
    wanted = _WANTED[kind]
    fits = isinstance(value, wanted) and (kind is FieldKind.BOOLEAN or not isinstance(value, bool))
    if isinstance(value, str):
        fits = fits and is_storable(value)
    if not fits or comparable(kind, value) is None:
        raise ValueError(f"The field {field.name!r} is {kind}, and is compared with {str(value)[:80]!r}.")


_WANTED: Final[Mapping[FieldKind, tuple[type, ...]]] = {
    FieldKind.INTEGER: (int, float),
    FieldKind.NUMBER: (int, float),
    FieldKind.TEXT: (str,),
    FieldKind.BOOLEAN: (bool,),
    FieldKind.DECIMAL: (str, int, float),
    FieldKind.MOMENT: (str,),
    FieldKind.DAY: (str,),
}


def is_exact_in_columns(field: FieldName, value: Any) -> bool:
    """A column of plain values tells exactly how they compare with this one."""
    if field.kind is FieldKind.INTEGER and isinstance(value, int):
        return abs(value) < LARGEST_INTEGER
    return not isinstance(value, int | float) or abs(value) < LARGEST_EXACT


def holds(condition: Condition, version: Mapping[str, Any]) -> bool:
    """Whether a condition holds for an object, as it is in JSON."""
    match condition:
        case Compare():
            return _compares(condition, version.get(condition.field.name))
        case OneOf():
            kind = condition.field.kind
            found = comparable(kind, version.get(condition.field.name))
            return any(found == comparable(kind, value) for value in condition.values)
        case AllOf():
            return all(holds(part, version) for part in condition.parts)
        case AnyOf():
            return any(holds(part, version) for part in condition.parts)
        case Not():
            return not holds(condition.part, version)


def _compares(condition: Compare, found: Any) -> bool:
    kind = condition.field.kind
    left, right = comparable(kind, found), comparable(kind, condition.value)
    match condition.operator:
        case Operator.EQUAL:
            return bool(left == right)
        case Operator.UNEQUAL:
            return bool(left != right)
        case _ if not _are_in_order(left, right):
            return False
        case Operator.BEFORE:
            return bool(left < right)
        case Operator.UP_TO:
            return bool(left <= right)
        case Operator.BEHIND:
            return bool(left > right)
        case Operator.FROM:
            return bool(left >= right)


_NUMBERS: Final = (int, float, bool)
_COMPARED_WITH: Final[Mapping[type, tuple[type, ...]]] = {
    int: _NUMBERS, float: _NUMBERS, bool: _NUMBERS, str: (str,), Decimal: (Decimal,), datetime: (datetime,),
    date: (date,),
}  # fmt: skip


def _are_in_order(left: object, right: object) -> bool:
    kind: type[object] = type(right)
    return type(left) in _COMPARED_WITH.get(kind, ())


def comparable(kind: FieldKind, value: Any) -> Any:
    """A value in JSON as Python compares it. What says no such value compares as None."""
    if value is None:
        return None
    try:
        match kind:
            case FieldKind.DECIMAL:
                number = Decimal(str(value))
                return None if number.is_nan() else number
            case FieldKind.MOMENT:
                moment = datetime.fromisoformat(str(value))
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            case FieldKind.DAY:
                return date.fromisoformat(str(value))
            case FieldKind.INTEGER | FieldKind.NUMBER:
                return None if isinstance(value, float) and math.isnan(value) else value
            case _:
                return value
    except (ValueError, InvalidOperation):
        return None

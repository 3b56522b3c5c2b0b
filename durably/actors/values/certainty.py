"""Tests that tell of a value, without decoding it, that it is read as it was written (rule V5).

`certain(shape)` makes the test of a type, out of the exact classes of its parts. A value that passes needs no other
proof; of one that does not, decoding has to tell. A type has no test where only decoding can tell.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from keyword import iskeyword
from typing import Any, TypeAlias, get_origin
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

Test: TypeAlias = Callable[[Any], bool]
Record: TypeAlias = shapes.StructType | shapes.DataclassType

_CERTAIN_KEYS = frozenset((str, int))


def certain(shape: shapes.Type) -> Test | None:
    """The test of a type; None where only decoding can tell."""
    try:
        return _test(shape, ())
    except _UncertainType:
        return None


class _UncertainType(Exception):
    pass


def _test(shape: shapes.Type, within: tuple[type, ...]) -> Test:
    """`within` are the classes around this one: a class that holds itself may be nested too deep."""
    classes = _exact_classes(shape)
    if classes is not None:
        return _is_one_of(classes)
    match shape:
        case shapes.Metadata():
            return _test(shape.type, within)
        case shapes.FloatType(gt=None, ge=None, lt=None, le=None, multiple_of=None):
            return _is_finite
        case shapes.DecimalType():
            return _is_finite_decimal
        case shapes.DateTimeType(tz=None):
            return _is_plain_datetime
        case shapes.LiteralType():
            return _is_literal(shape.values)
        case shapes.UnionType():
            return _is_any_of([_test(part, within) for part in shape.types])
        case shapes.ListType(min_length=None, max_length=None):
            return _holds(list, shape.item_type, within)
        case shapes.VarTupleType(min_length=None, max_length=None):
            return _holds(tuple, shape.item_type, within)
        case shapes.SetType(min_length=None, max_length=None):
            return _holds(set, shape.item_type, within)
        case shapes.FrozenSetType(min_length=None, max_length=None):
            return _holds(frozenset, shape.item_type, within)
        case shapes.TupleType():
            return _is_tuple(tuple, [_test(part, within) for part in shape.item_types])
        case shapes.NamedTupleType():
            return _is_tuple(shape.cls, [_test(field.type, within) for field in shape.fields])
        case shapes.DictType(min_length=None, max_length=None):
            return _is_dict(shape, within)
        case shapes.StructType() | shapes.DataclassType():
            return _is_record(shape, within)
        case _:
            raise _UncertainType


def _exact_classes(shape: shapes.Type) -> frozenset[type] | None:
    """The classes of which every instance is a certain value of a type, if that is all that there is to test."""
    match shape:
        case shapes.NoneType():
            return frozenset((type(None),))
        case shapes.BoolType():
            return frozenset((bool,))
        case shapes.StrType(min_length=None, max_length=None, pattern=None):
            return frozenset((str,))
        case shapes.IntType(gt=None, ge=None, lt=None, le=None, multiple_of=None):
            return frozenset((int,))
        case shapes.BytesType(min_length=None, max_length=None):
            return frozenset((bytes,))
        case shapes.UUIDType():
            return frozenset((UUID,))
        case shapes.DateType():
            return frozenset((date,))
        case shapes.EnumType():
            return frozenset((shape.cls,))
        case shapes.UnionType():
            parts = [_exact_classes(part) for part in shape.types]
            return None if None in parts else frozenset[type]().union(*(part for part in parts if part is not None))
        case _:
            return None


def _is_one_of(classes: frozenset[type]) -> Test:
    if len(classes) == 1:
        (cls,) = classes
        return lambda value: type(value) is cls
    return lambda value: type(value) in classes


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_finite_decimal(value: Any) -> bool:
    return type(value) is Decimal and value.is_finite()


def _is_plain_datetime(value: Any) -> bool:
    return type(value) is datetime and value.fold == 0 and (value.tzinfo is None or value.tzinfo is UTC)


def _is_literal(values: Iterable[object]) -> Test:
    allowed = frozenset((type(value), value) for value in values)
    classes = frozenset(cls for cls, _ in allowed)
    return lambda value: type(value) in classes and (type(value), value) in allowed


def _is_any_of(tests: list[Test]) -> Test:
    return lambda value: any(test(value) for test in tests)


def _holds(cls: Any, item: shapes.Type, within: tuple[type, ...]) -> Test:
    only = _only_class(item)
    if only is None:
        test_item = _test(item, within)
        return lambda value: type(value) is cls and all(map(test_item, value))

    def test(value: Any) -> bool:
        if type(value) is not cls:
            return False
        for part in value:  # noqa: SIM110 - all() costs more than the few items that there are
            if type(part) is not only:
                return False
        return True

    return test


def _only_class(shape: shapes.Type) -> type | None:
    classes = _exact_classes(shape)
    return next(iter(classes)) if classes is not None and len(classes) == 1 else None


def _is_tuple(cls: Any, tests: list[Test]) -> Test:
    def test(value: Any) -> bool:
        return (
            type(value) is cls
            and len(value) == len(tests)
            and all(of_part(part) for of_part, part in zip(tests, value, strict=True))
        )

    return test


def _is_dict(shape: shapes.DictType, within: tuple[type, ...]) -> Test:
    cls: Any = dict
    only = _only_class(shape.key_type)
    if only not in _CERTAIN_KEYS:
        raise _UncertainType
    test_value = _test(shape.value_type, within)
    return lambda value: (
        type(value) is cls and {only}.issuperset(map(type, value)) and all(map(test_value, value.values()))
    )


def _is_record(shape: Record, within: tuple[type, ...]) -> Test:
    cls: type = get_origin(shape.cls) or shape.cls  # Of `Box[int]`, instances are of `Box`.
    names = [field.name for field in shape.fields]
    if cls in within or not names or not is_plain(cls, names):
        raise _UncertainType
    compared: list[str] = []
    known: dict[str, Any] = {"cls": cls}
    for number, field in enumerate(shape.fields):
        classes = _exact_classes(field.type)
        if classes is None:
            known[f"test{number}"] = _test(field.type, (*within, cls))
            compared.append(f"test{number}(value.{field.name})")
        else:
            known[f"classes{number}"] = next(iter(classes)) if len(classes) == 1 else classes
            compared.append(f"type(value.{field.name}) {'is' if len(classes) == 1 else 'in'} classes{number}")
    # One expression is three times as fast as a loop over the fields, which would cost as much as decoding.
    test: Test = eval(f"lambda value: type(value) is cls and {' and '.join(compared)}", known)
    return test


def is_plain(cls: Any, names: list[str]) -> bool:
    """Decoding makes an instance of nothing but the values of its fields, and these are what its attributes say."""
    if hasattr(cls, "__post_init__") or any(isinstance(getattr(cls, name, None), property) for name in names):
        return False
    if not all(name.isidentifier() and not iskeyword(name) for name in names):
        return False
    if issubclass(cls, msgspec.Struct):
        return cls.__setattr__ is msgspec.Struct.__setattr__ and names == list(cls.__struct_fields__)
    if not dataclasses.is_dataclass(cls) or names != [field.name for field in dataclasses.fields(cls)]:
        return False
    frozen = bool(getattr(cls, "__dataclass_params__").frozen)  # noqa: B009
    return (frozen or cls.__setattr__ is object.__setattr__) and cls.__getattribute__ is object.__getattribute__

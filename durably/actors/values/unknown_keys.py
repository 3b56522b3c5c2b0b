"""Keys in a JSON value from outside that no field of a dataclass stands for, mostly misspelled optional fields.

msgspec passes over them, so a request with a typing error would be accepted with the default instead. Classes that say
themselves what becomes of other keys do so: msgspec Structs, pydantic models and pydantic dataclasses. A TypedDict may
always have further keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import inspect as shapes

from durably.actors.values.descriptions import named
from durably.actors.values.type_checks import is_mapping, is_sequence
from durably.errors import UndecodableError

_OBJECTS = (
    shapes.AnyType, shapes.CustomType, shapes.DataclassType, shapes.DictType, shapes.StructType, shapes.TypedDictType,
)  # fmt: skip
_ARRAYS = (
    shapes.AnyType, shapes.CollectionType, shapes.CustomType, shapes.NamedTupleType, shapes.TupleType,
)  # fmt: skip


class UnknownKeys:
    """What is looked for in the values of one type."""

    def __init__(self, annotation: Any) -> None:
        try:
            self._shape = shapes.type_info(annotation)
        except TypeError:  # Only pydantic knows such a type, and it refuses what the type does not allow.
            self._shape = shapes.AnyType()
        self.may_occur = _holds_dataclass(self._shape, set())
        """False: the type holds no dataclass, so there is nothing to look for."""

    def refuse(self, value: Any, path: str) -> None:
        """Look for one in a decoded JSON value that fits the type; `path` is the place of the value.

        Raises:
            UndecodableError: there is one; names it.
        """
        _refuse(self._shape, value, path)


def _refuse(shape: shapes.Type, value: Any, path: str) -> None:
    match shape:
        case shapes.Metadata():
            _refuse(shape.type, value, path)
        case shapes.UnionType():
            fitting = _fitting(shape, value)
            if fitting is not None:
                _refuse(fitting, value, path)
        case shapes.DataclassType() | shapes.StructType() | shapes.TypedDictType() if is_mapping(value):
            fields = {field.encode_name: field.type for field in shape.fields}
            for key, part in value.items():
                if key in fields:
                    _refuse(fields[key], part, f"{path}.{key}")
                elif isinstance(shape, shapes.DataclassType) and not _decides_itself(shape.cls):
                    raise UndecodableError(_sentence(key, shape.cls, fields), path=path, reason=_reason(key, fields))
        case shapes.DictType() if is_mapping(value):
            for key, part in value.items():
                _refuse(shape.value_type, part, f"{path}.{key}")
        case shapes.CollectionType() if is_sequence(value):
            for index, part in enumerate(value):
                _refuse(shape.item_type, part, f"{path}[{index}]")
        case shapes.TupleType() if is_sequence(value):
            for index, (item, part) in enumerate(zip(shape.item_types, value, strict=False)):
                _refuse(item, part, f"{path}[{index}]")
        case shapes.NamedTupleType() if is_sequence(value):
            for index, (field, part) in enumerate(zip(shape.fields, value, strict=False)):
                _refuse(field.type, part, f"{path}[{index}]")
        case _:
            pass


def _fitting(union: shapes.UnionType, value: Any) -> shapes.Type | None:
    """The one part of a union that the value can be; None where that is none, or more than one."""
    kinds = _OBJECTS if is_mapping(value) else _ARRAYS if is_sequence(value) else ()
    fitting = [part for part in map(_bare, union.types) if isinstance(part, kinds)]
    return fitting[0] if len(fitting) == 1 else None


def _bare(shape: shapes.Type) -> shapes.Type:
    return _bare(shape.type) if isinstance(shape, shapes.Metadata) else shape


def _holds_dataclass(shape: shapes.Type, seen: set[Any]) -> bool:
    match shape:
        case shapes.Metadata():
            return _holds_dataclass(shape.type, seen)
        case shapes.UnionType():
            return any(_holds_dataclass(part, seen) for part in shape.types)
        case shapes.DictType():
            return _holds_dataclass(shape.value_type, seen)
        case shapes.CollectionType():
            return _holds_dataclass(shape.item_type, seen)
        case shapes.TupleType():
            return any(_holds_dataclass(part, seen) for part in shape.item_types)
        case shapes.DataclassType() if not _decides_itself(shape.cls):
            return True
        case shapes.DataclassType() | shapes.StructType() | shapes.TypedDictType() | shapes.NamedTupleType():
            if shape.cls in seen:
                return False
            seen.add(shape.cls)
            return any(_holds_dataclass(field.type, seen) for field in shape.fields)
        case _:
            return False


def _decides_itself(cls: type) -> bool:
    return hasattr(cls, "__pydantic_config__")


def _sentence(key: str, cls: type, fields: Iterable[str]) -> str:
    return f"Of {named(cls)}, {_reason(key, fields)}."


def _reason(key: str, fields: Iterable[str]) -> str:
    return f"the key {key!r} is unknown (there are {', '.join(map(repr, fields)) or 'none'})"

"""Keys in a JSON value from outside that no field of a dataclass stands for, mostly misspelled optional fields.

msgspec passes over them, so a request with a typing error would be accepted with the default instead. Classes that say
themselves what becomes of other keys do so: msgspec Structs, and all that pydantic reads. A TypedDict may always have
further keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import GenericAlias
from typing import Any

import msgspec
from msgspec import inspect as shapes

from durably.actors.values.constraints import declarations_in
from durably.actors.values.descriptions import named
from durably.actors.values.places import below
from durably.actors.values.type_checks import is_mapping, is_sequence
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
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
        self._shape = _shape_for_msgspec(annotation)
        self.may_occur = _holds_dataclass(self._shape, set())
        """False: the type holds no dataclass that msgspec reads, so there is nothing to look for."""
        strict = _strict(self._shape, ()) if self.may_occur else None
        self._read_strictly = None if strict is None else msgspec.json.Decoder(strict).decode

    def are_in(self, data: bytes) -> bool:
        """Whether JSON that fits the type may hold one: a cheap test, which sends few values to `refuse` in vain."""
        if self._read_strictly is None:
            return self.may_occur
        try:
            self._read_strictly(data)
        except msgspec.DecodeError:
            return True
        return False

    def refuse(self, value: Any, path: str) -> None:
        """Look for one in a decoded JSON value that fits the type; `path` is the place of the value.

        Raises:
            UndecodableError: there is one; names it.
        """
        _refuse(self._shape, value, path)


def _shape_for_msgspec(annotation: Any) -> shapes.Type:
    """The shape of a type that msgspec reads. What only pydantic reads has its names and its rule for others there."""
    try:
        return shapes.AnyType() if declarations_in(annotation).foreign is not None else shapes.type_info(annotation)
    except USER_ERRORS as error:  # A union that only pydantic tells apart, for one.
        let_signals_pass(error)
        return shapes.AnyType()


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
                    _refuse(fields[key], part, below(path, key))
                elif isinstance(shape, shapes.DataclassType) and not _decides_itself(shape.cls):
                    raise UndecodableError(_sentence(key, shape.cls, fields), path=path, reason=_reason(key, fields))
        case shapes.DictType() if is_mapping(value):
            for key, part in value.items():
                _refuse(shape.value_type, part, below(path, key))
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


def _strict(shape: shapes.Type, within: tuple[type, ...]) -> Any:
    """A type that reads the same JSON, unless an unknown key is in it; None for shapes that are not so simple."""
    match _bare(shape):
        case shapes.DataclassType() as of if not _decides_itself(of.cls):
            if of.cls in within:
                return None
            parts = {field.encode_name: _strict(field.type, (*within, of.cls)) for field in of.fields}
            if None in parts.values():
                return None
            fields: list[Any] = [(name, part, None) for name, part in parts.items()]
            return msgspec.defstruct(of.cls.__name__, fields, forbid_unknown_fields=True)
        case bare if not _holds_dataclass(bare, set()):
            return msgspec.Raw
        case shapes.ListType() as of:
            part = _strict(of.item_type, within)
            return None if part is None else GenericAlias(list, (part,))
        case shapes.DictType() as of:
            part = _strict(of.value_type, within)
            return None if part is None else GenericAlias(dict, (str, part))
        case _:
            return None


def _decides_itself(cls: type) -> bool:
    return hasattr(cls, "__pydantic_config__")


def _sentence(key: str, cls: type, fields: Iterable[str]) -> str:
    return f"Of {named(cls)}, {_reason(key, fields)}."


def _reason(key: str, fields: Iterable[str]) -> str:
    return f"the key {key!r} is unknown (there are {', '.join(map(repr, fields)) or 'none'})"

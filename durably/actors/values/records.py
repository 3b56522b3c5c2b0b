"""Records: instances of classes that say which fields they have (dataclasses, structs, attrs and pydantic classes)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from durably.actors.values.models import fields_of_model, is_model_class

CACHED_CLASSES = 4_096


def is_record_class(cls: Any) -> bool:
    """Whether instances have declared fields; of pydantic models that is for `is_model` to say."""
    return dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct) or hasattr(cls, "__attrs_attrs__")


def is_record(value: object) -> bool:
    cls: Any = type(value)
    return has_fields(cls)


@lru_cache(maxsize=CACHED_CLASSES)
def has_fields(cls: type) -> bool:
    return is_record_class(cls) or is_model_class(cls)


def fields_of(record: object) -> Sequence[str]:
    """The names of the fields of a record, what a pydantic model holds beside them included."""
    cls: Any = type(record)
    names = _fields_of_class(cls)
    return fields_of_model(record) if names is None else names


@lru_cache(maxsize=CACHED_CLASSES)
def _fields_of_class(cls: Any) -> Sequence[str] | None:
    """None of a pydantic model, each of which may have more."""
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    if is_model_class(cls):
        return None
    attributes: Iterable[Any] = cls.__attrs_attrs__
    return [attribute.name for attribute in attributes]


def parts_of(record: Any) -> Any:
    """One level of a record that is no pydantic model, as msgspec writes it: by the names in the JSON, or as a list."""
    if isinstance(record, msgspec.Struct):
        return _struct_parts(record)
    return {name: getattr(record, name) for name in fields_of(record) if hasattr(record, name)}


def _struct_parts(value: msgspec.Struct) -> Any:
    cls = type(value)
    config = cls.__struct_config__
    values = [getattr(value, name) for name in cls.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    tag = {} if config.tag is None or config.tag_field is None else {config.tag_field: config.tag}
    named = zip(cls.__struct_encode_fields__, values, strict=True)
    return {**tag, **{name: part for name, part in named if part is not msgspec.UNSET}}

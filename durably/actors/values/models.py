"""Pydantic models at their place in a tree of plain types; durably works without pydantic too.

A program that has a model has imported pydantic, so this module only looks for it and never imports it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from durably.actors.values.places import below
from durably.actors.values.type_checks import is_mapping, is_sequence, is_set

if TYPE_CHECKING:
    from pydantic import BaseModel

CACHED_MODELS = 2_048


def is_model_class(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def is_model(value: object) -> bool:
    return is_model_class(type(value))


def class_of(value: object) -> type:
    """The class of a value; of a model whose parameters were left out (`Box` for `Box[int]`), the one that they belong
    to.
    """
    cls: Any = type(value)
    return _origin_of(cls)


@lru_cache(maxsize=CACHED_MODELS)
def _origin_of(cls: type) -> type:
    if not is_model_class(cls):
        return cls
    generic: Any = getattr(cls, "__pydantic_generic_metadata__", {})
    origin: type | None = generic.get("origin")
    return origin or cls


def fields_of_model(model: object) -> Sequence[str]:
    """The names of its fields, and of what it was given beside them where it allows extra ones."""
    one = cast("BaseModel", model)
    cls: Any = type(one)
    names = _field_names(cls)
    return [*names, *one.model_extra] if one.model_extra else names


@lru_cache(maxsize=CACHED_MODELS)
def _field_names(cls: type) -> Sequence[str]:
    return tuple(model_fields(cls))


def model_fields(cls: type) -> dict[str, Any]:
    return dict(cast("type[BaseModel]", cls).model_fields)


def has_sets(model: object) -> bool:
    cls: Any = type(model)
    return features_of_model(cls).has_sets


class ModelFeatures(NamedTuple):
    """What has to be known of a model, or of what its fields hold. In doubt it is so."""

    has_sets: bool
    is_open: bool
    """It may hold anything somewhere."""
    is_recursive: bool
    """It may hold itself somewhere."""
    has_floats: bool
    spelled_keys: bool
    """It holds a dict whose keys have several spellings in JSON."""
    excludes: bool
    """It has fields that are not written."""


_spelled_keys = re.compile(r"'keys_schema': (?!\{'type': '(str|any)'\})")


def features_of_schema(schema: object) -> ModelFeatures:
    words = repr(schema)
    is_open = "'any'" in words or "'extra_fields_behavior': 'allow'" in words or "'extra_behavior': 'allow'" in words
    return ModelFeatures(
        has_sets=is_open or "'set'" in words or "'frozenset'" in words or "'type': 'definitions'" in words,
        is_open=is_open,
        is_recursive="'definition-ref'" in words,
        has_floats=is_open or "'float'" in words,
        excludes="'serialization_exclude': True" in words,
        spelled_keys=_spelled_keys.search(words) is not None,
    )


@lru_cache(maxsize=CACHED_MODELS)
def features_of_model(cls: type) -> ModelFeatures:
    return features_of_schema(cast("type[BaseModel]", cls).__pydantic_core_schema__)


def frozen_model_annotations(cls: type) -> list[Any] | None:
    """The types of the fields of a frozen model; None for one that can change."""
    model = cast("type[BaseModel]", cls)
    if not model.model_config.get("frozen"):
        return None
    return [field.annotation for field in model.model_fields.values()]


def decode_custom(expected: type, value: Any) -> Any:
    """What msgspec does not know: pydantic models, which validate what they are given as the JSON that it was."""
    model = cast("type[BaseModel]", expected)
    try:
        return model.model_validate_json(msgspec.json.encode(value))
    except ValueError as error:
        raise ValueError(_pydantic_reason(error)) from error


def place_and_reason(error: BaseException, depth: int) -> tuple[str, str]:
    """Where a value did not fit, as a path from `$` that leaves out the outermost `depth` steps, and why."""
    details = getattr(error, "errors", None)
    if not isinstance(error, ValueError) or details is None:
        return "$", str(error).rstrip(".") or type(error).__name__
    found = [(one["loc"][depth:], one["msg"]) for one in details()]
    if len(found) == 1:
        steps, reason = found[0]
        is_key = steps[-1:] == ("[key]",)
        place = "$"
        for step in steps[:-1] if is_key else steps:
            place = below(place, step)
        return place, f"{reason} as a key" if is_key else reason
    return "$", _told(found)


def _pydantic_reason(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    return str(error) if details is None else _told([(one["loc"], one["msg"]) for one in details()])


def _told(errors: Iterable[tuple[tuple[object, ...], str]]) -> str:
    return "; ".join(f"{'.'.join(map(str, steps)) or 'the value'}: {reason}" for steps, reason in errors)


def model_json(value: Any) -> bytes:
    """A pydantic model as its own serializers write it, which refuse a value of another type than the declared one."""
    model: BaseModel = value
    return model.model_dump_json(by_alias=True, round_trip=True, warnings="error").encode()


def read_back(value: object) -> Any:
    """The model that its JSON gives when it is read by its class."""
    return decode_custom(type(value), msgspec.json.decode(model_json(value)))


def dumped(value: Any) -> dict[str, Any]:
    """The parts of a model as Python values, by the names in its JSON."""
    model: BaseModel = value
    return model.model_dump(by_alias=True, round_trip=True, warnings=False)


def model_parts(value: Any) -> Any:
    """The same, as plain values with what is a set sorted."""
    return sorted_like(dumped(value), msgspec.json.decode(model_json(value)))


def sorted_like(value: Any, written: Any) -> Any:
    """`written` is the JSON of `value`: sort in it what is a set in `value`."""
    if is_set(value) and is_sequence(written):
        return sorted(written, key=lambda part: msgspec.json.encode(part, order="deterministic"))
    if is_mapping(value) and is_mapping(written) and len(value) == len(written):
        parts = zip(value.values(), written.items(), strict=True)
        return {name: sorted_like(part, part_written) for part, (name, part_written) in parts}
    if is_sequence(value) and is_sequence(written) and len(value) == len(written):
        return [sorted_like(*both) for both in zip(value, written, strict=True)]
    return written

"""Pydantic models at their place in a tree of plain types; durably works without pydantic too.

Whoever has a model has imported pydantic, so it is only looked for, never imported.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from durably.actors.values.type_checks import is_mapping, is_sequence, is_set

if TYPE_CHECKING:
    from pydantic import BaseModel

CACHED_MODELS = 2_048


def is_model_class(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def is_model(value: object) -> bool:
    return is_model_class(type(value))


def has_sets(model: object) -> bool:
    cls: Any = type(model)
    return model_has_sets(cls)


@lru_cache(maxsize=CACHED_MODELS)
def model_has_sets(cls: type) -> bool:
    """A field of this model, or of one in it, may hold a set. In doubt it does."""
    schema = repr(cast("type[BaseModel]", cls).__pydantic_core_schema__)
    return "'set'" in schema or "'frozenset'" in schema or "'any'" in schema or "'type': 'definitions'" in schema


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


def _pydantic_reason(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    if details is None:
        return str(error)
    return "; ".join(f"{'.'.join(str(step) for step in one['loc']) or 'the value'}: {one['msg']}" for one in details())


def model_json(value: Any) -> bytes:
    """A pydantic model as its own serializers write it."""
    model: BaseModel = value
    return model.model_dump_json(by_alias=True, round_trip=True).encode()


def model_parts(value: Any) -> Any:
    """The same, as plain values with what is a set sorted."""
    model: BaseModel = value
    written = msgspec.json.decode(model_json(model))
    return _sorted_like(model.model_dump(by_alias=True, round_trip=True), written)


def _sorted_like(value: Any, written: Any) -> Any:
    """`written` is the JSON of `value`: sort in it what is a set in `value`."""
    if is_set(value):
        return sorted(written, key=lambda part: msgspec.json.encode(part, order="deterministic"))
    if is_mapping(value) and is_mapping(written):
        parts = zip(value.values(), written.items(), strict=True)
        return {name: _sorted_like(part, part_written) for part, (name, part_written) in parts}
    if is_sequence(value) and is_sequence(written):
        return [_sorted_like(*both) for both in zip(value, written, strict=True)]
    return written

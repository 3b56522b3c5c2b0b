"""Annotations of fields that are not loaded with their objects: `Lazy[T]`, `DurableDict[K, V]`, `DurableList[T]`."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args, get_origin

import msgspec.inspect as shapes

from durably.actors.large_state import LARGE_KINDS, DurableDict, DurableList, KeyCodec, Lazy
from durably.actors.state import StateField
from durably.actors.values.descriptions import MISSING, describe
from durably.actors.values.serde import codec_for
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import DefinitionError


class LargeType(NamedTuple):
    """What such an annotation says."""

    kind: type[Lazy[Any]] | type[DurableDict[Any, Any]] | type[DurableList[Any]]
    value: Any
    key: Any
    """None: it has no keys."""


def large_type_of(annotation: Any, field: StateField, where: str) -> LargeType | None:
    """What the annotation of a field says, if it is one of these.

    Raises:
        DefinitionError: it has one of these inside, or a default.
    """
    kind = _kind_of(annotation)
    if kind is None:
        _refuse_inside(annotation, annotation, where)
        return None
    if field.default is not MISSING or field.default_factory is not None:
        raise DefinitionError(
            f"The state {where} has a default, and is not loaded with its object: it begins empty. Leave the default "
            "out, and give one where it is read: `await self.field.get(default)`."
            if kind is not DurableList
            else f"The state {where} has a default, and a DurableList begins empty. Leave the default out."
        )
    arguments = get_args(annotation)
    for argument in arguments:
        _refuse_inside(argument, annotation, where)
    if kind is DurableDict:
        key, value = arguments or (str, MISSING)
        return LargeType(kind, value, key)
    return LargeType(kind, arguments[0] if arguments else MISSING, None)


def value_types(annotation: Any) -> Any:
    """The type of what such a field holds; of any other field, its own."""
    if _kind_of(annotation) is None:
        return annotation
    return (get_args(annotation) or (Any,))[-1]


def key_codec(key: Any) -> KeyCodec[Any]:
    """
    Raises:
        DefinitionError: no text and no integer stands for values of this type.
    """
    codec = codec_for(key)
    try:
        is_key = _is_key(shapes.type_info(key))
    except USER_ERRORS as error:  # msgspec evaluates user classes here.
        let_signals_pass(error)
        is_key = False
    if not is_key:
        raise DefinitionError(
            f"{describe(key)} cannot be the key of a DurableDict: keys are ordered and found as texts or integers. Use "
            "str or int (or an enum of one of them, UUID or date), and put the rest into the value."
        )
    return KeyCodec(codec)


def _kind_of(annotation: Any) -> Any:
    origin = get_origin(annotation) or annotation
    return next((kind for kind in LARGE_KINDS if origin is kind), None)


def _refuse_inside(part: Any, annotation: Any, where: str) -> None:
    inside = _kind_of(part)
    if inside is not None:
        raise DefinitionError(
            f"The state {where} is annotated {describe(annotation)}, and a {inside.__name__} can only be a field by "
            f"itself. Write `field: {inside.__name__}[...] = state()`; for several of them, make each an object of its "
            "own."
        )
    for argument in get_args(part):
        _refuse_inside(argument, annotation, where)


def _is_key(shape: shapes.Type) -> bool:
    match shape:
        case shapes.StrType() | shapes.IntType() | shapes.UUIDType() | shapes.DateType():
            return True
        case shapes.EnumType(cls=cls):
            values = [member.value for member in cls]
            return _are_all(values, str) or _are_all(values, int)
        case shapes.LiteralType(values=values):
            return _are_all(list(values), str) or _are_all(list(values), int)
        case _:
            return False


def _are_all(values: list[Any], kind: type) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)

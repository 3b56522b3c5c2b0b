"""JSON schemas of annotations, as OpenAPI 3.1 takes them: `json_schemas`.

msgspec describes the types that it reads, and pydantic those that are read by pydantic. A type that neither describes
has the schema that everything fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import inspect as shapes

from durably.actors.values.adapters import has_pydantic
from durably.actors.values.constraints import declarations_in
from durably.actors.values.descriptions import MISSING, describe
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

Schema: TypeAlias = dict[str, Any]

COMPONENTS: Final = "#/components/schemas/"


def json_schemas(annotations: Mapping[str, Any], prefix: str) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The schema of each annotation, and the components that they refer to, whose names begin with `prefix`."""
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    schemas: dict[str, Schema] = {}
    for name, annotation in annotations.items():
        if annotation is MISSING:
            schemas[name] = {}
        elif declarations_in(annotation).foreign is None and _is_known_to_msgspec(annotation):
            ours[name] = annotation
        elif has_pydantic() and _is_known_to_pydantic(annotation):
            theirs[name] = annotation
        else:
            schemas[name] = {"description": describe(annotation)}
    components: dict[str, Schema] = {}
    if ours:
        described, named = msgspec.json.schema_components(ours.values(), ref_template=COMPONENTS + prefix + "{name}")
        schemas |= zip(ours, described, strict=True)
        closed = _closed_titles(ours.values())
        components |= {prefix + name: _closed(schema, closed) for name, schema in named.items()}
    if theirs:
        found, named = _by_pydantic(theirs, prefix)
        if components.keys() & {prefix + name for name in named}:  # Two classes of one name.
            prefix += "pydantic."
            found, named = _by_pydantic(theirs, prefix)
        schemas |= found
        components |= {prefix + name: schema for name, schema in named.items()}
    return _without_uniqueness(schemas), _without_uniqueness(components)


def _without_uniqueness(schemas: dict[str, Schema]) -> dict[str, Schema]:
    """Readers take an item of a set that comes twice for one; msgspec and pydantic describe sets as if they did not."""
    return cast("dict[str, Schema]", _plain(schemas))


def _plain(part: object) -> object:
    match part:
        case dict():
            described = cast("Schema", part)
            return {name: _plain(one) for name, one in described.items() if (name, one) != ("uniqueItems", True)}
        case list():
            return [_plain(one) for one in cast("list[object]", part)]
        case _:
            return part


def _closed(schema: Schema, titles: Set[str]) -> Schema:
    is_closed = schema.get("title") in titles and schema.get("type") == "object"
    return {**schema, "additionalProperties": False} if is_closed else schema


def _closed_titles(annotations: Iterable[Any]) -> Set[str]:
    """The names of dataclasses, whose JSON may hold no unknown keys; without those that a Struct has as well."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    seen: set[int] = set()
    waiting: list[object] = list(shapes.multi_type_info(annotations))
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, shapes.DataclassType | shapes.StructType | shapes.TypedDictType):
            found[isinstance(part, shapes.DataclassType)].add(part.cls.__name__)
        if isinstance(part, tuple):
            waiting += cast("tuple[object, ...]", part)
        elif isinstance(part, shapes.Type | shapes.Field):
            waiting += [getattr(part, name) for name in part.__struct_fields__]
    return found[True] - found[False]


def _is_known_to_msgspec(annotation: Any) -> bool:
    try:
        msgspec.json.schema(annotation)
    except USER_ERRORS as error:  # It asks the user's classes.
        let_signals_pass(error)
        return False
    return True


def _is_known_to_pydantic(annotation: Any) -> bool:
    try:
        _by_pydantic({"": annotation}, "")
    except USER_ERRORS as error:  # The same.
        let_signals_pass(error)
        return False
    return True


def _by_pydantic(annotations: Mapping[str, Any], prefix: str) -> tuple[dict[str, Schema], dict[str, Schema]]:
    from pydantic import TypeAdapter

    adapters: list[tuple[str, Literal["validation"], TypeAdapter[Any]]] = [
        (name, "validation", TypeAdapter(annotation)) for name, annotation in annotations.items()
    ]
    found, whole = TypeAdapter.json_schemas(adapters, by_alias=True, ref_template=COMPONENTS + prefix + "{model}")
    return {name: schema for (name, _), schema in found.items()}, whole.get("$defs", {})

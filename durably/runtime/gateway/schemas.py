"""The JSON schemas of what handlers take and give, for OpenAPI documents and other tools."""

from __future__ import annotations

from typing import Any

import msgspec

from durably.actors.definition.arguments import Parameter
from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.values.json_schemas import Schema, json_schemas
from durably.actors.values.serde import JSON, codec_for
from durably.errors import UnencodableError
from durably.runtime.gateway.requests import HandlerSchemas, ServiceSchemas


def schemas_of(actor: BoundActor) -> ServiceSchemas:
    """The schemas of all handlers of a service or virtual object."""
    annotations: dict[str, Any] = {}
    for handler in actor.handlers.values():
        if handler.accepts == JSON:
            annotations |= {f"{handler.name}({one.name})": one.annotation for one in _parameters(handler)}
        if handler.content_type == JSON:
            annotations[handler.name] = handler.signature.types.returned
    schemas, components = json_schemas(annotations, f"{actor.definition.name}.")
    return ServiceSchemas(
        handlers={handler.name: _schemas(handler, schemas) for handler in actor.handlers.values()},
        components=components,
    )


def _schemas(handler: BoundActorHandler, schemas: dict[str, Schema]) -> HandlerSchemas:
    parameters = _parameters(handler)
    required = [one.name for one in parameters if one.required]
    body: Schema | None = None
    if handler.accepts == JSON:
        by_name = {one.name: _with_default(schemas[f"{handler.name}({one.name})"], one) for one in parameters}
        body = by_name[parameters[0].name] if len(parameters) == 1 else _object(by_name, required)
        if len(parameters) > 1 and len(required) == 1:  # Its bare value will do.
            body = {"anyOf": [body, by_name[required[0]]]}
    result = schemas[handler.name] if handler.content_type == JSON else None
    return HandlerSchemas(body=body, is_required=body is not None and bool(required), result=result)


def _parameters(handler: BoundActorHandler) -> tuple[Parameter, ...]:
    return handler.signature.types.parameters


def _object(properties: dict[str, Schema], required: list[str]) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _with_default(schema: Schema, parameter: Parameter) -> Schema:
    if parameter.required:
        return schema
    try:
        default = msgspec.json.decode(codec_for(parameter.annotation).encode(parameter.default))
    except UnencodableError:
        return schema
    return {**schema, "default": default}

"""The OpenAPI 3.1 document of what an ingress serves: `openapi_document`.

Each handler that is public has a path for calls and one for sends. Workflows have the paths to attach and to look at
the output as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from durably.actors.values.serde import JSON
from durably.http_headers import IDEMPOTENCY_KEY, INVOCATION_ID
from durably.ids import RUN
from durably.runtime.gateway.requests import (
    HandlerDescription,
    HandlerSchemas,
    ServiceDescription,
    ServiceSchemas,
)

Json: TypeAlias = dict[str, Any]

OPENAPI_VERSION: Final = "3.1.0"
ERROR: Final = "durably.Error"
ACCEPTANCE: Final = "durably.Acceptance"

_SHARED_SCHEMAS: Final[Json] = {
    ERROR: {
        "type": "object",
        "description": "A failure. `invocation` is what the handler ended with; `ingress` has refused the request.",
        "properties": {
            "code": {"type": "integer"},
            "message": {"type": "string"},
            "source": {"enum": ["invocation", "ingress"]},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["code", "message", "source"],
    },
    ACCEPTANCE: {
        "type": "object",
        "description": "A message that is durable.",
        "properties": {
            "invocationId": {"type": "string"},
            "status": {"enum": ["Accepted", "PreviouslyAccepted"]},
            "executionTime": {"type": "string", "format": "date-time"},
        },
        "required": ["invocationId", "status"],
    },
}
_KEY: Final[Json] = {
    "name": "key", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1},
    "description": "The key of the object, or the id of the workflow.",
}  # fmt: skip
_IDEMPOTENCY_KEY: Final[Json] = {
    "name": IDEMPOTENCY_KEY, "in": "header", "schema": {"type": "string", "minLength": 1},
    "description": "A later request with the same key joins the invocation of the first.",
}  # fmt: skip
_DELAY: Final[Json] = {
    "name": "delay", "in": "query", "schema": {"type": "string"}, "example": "10s",
    "description": "When it is to run: an ISO 8601 duration, or a friendly one.",
}  # fmt: skip
_ANSWERS_OF_ALL: Final[Json] = {
    INVOCATION_ID: {"schema": {"type": "string"}, "description": "The id of the invocation."},
}


def openapi_document(
    services: Iterable[tuple[ServiceDescription, ServiceSchemas]], *, title: str, version: str, server: str
) -> Json:
    """`server` is the address below which the paths are, which may be a path."""
    paths: Json = {}
    schemas: Json = {**_SHARED_SCHEMAS}
    tags: list[Json] = []
    for service, described in services:
        tags.append(_plain({"name": service.name, "description": service.documentation}))
        schemas |= described.components
        for handler in service.handlers:
            if not (service.private or handler.private):
                paths |= _paths_of(service, handler, described.handlers[handler.name])
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": title, "version": version},
        "servers": [{"url": server}],
        "tags": tags,
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _paths_of(service: ServiceDescription, handler: HandlerDescription, schemas: HandlerSchemas) -> Json:
    has_key = service.kind != "service"
    base = f"/{quote(service.name, safe='')}" + ("/{key}" if has_key else "")
    path = f"{base}/{handler.name}"
    # Restate refuses a key where there is an id that means the same.
    keyed = [] if handler.kind == "workflow" else [_IDEMPOTENCY_KEY]
    common: Json = {"tags": [service.name], **_body_of(handler, schemas)}
    in_path = [_KEY] if has_key else []
    paths: Json = {
        path: {
            "post": _plain({
                "operationId": f"{service.name}.{handler.name}",
                "summary": f"Call {service.name}/{handler.name}",
                "description": handler.documentation,
                "parameters": in_path + keyed,
                "responses": {"200": _result_of(handler, schemas), "default": _failure()},
                **common,
            })
        },
        f"{path}/send": {
            "post": _plain({
                "operationId": f"{service.name}.{handler.name}.send",
                "summary": f"Send to {service.name}/{handler.name}, and do not wait for the result",
                "parameters": [*in_path, *keyed, _DELAY],
                "responses": {
                    "202": _answer("It is durable.", JSON, {"$ref": f"#/components/schemas/{ACCEPTANCE}"}),
                    "default": _failure(),
                },
                **common,
            })
        },
    }  # fmt: skip
    if handler.kind == "workflow":
        assert handler.name == RUN
        for verb, meaning in (("attach", "Wait for the result"), ("output", "The result, or 470 if there is none yet")):
            paths[f"/restate/workflow/{quote(service.name, safe='')}/{{key}}/{verb}"] = {
                "get": {
                    "operationId": f"{service.name}.{verb}",
                    "summary": f"{meaning} of {service.name}",
                    "tags": [service.name],
                    "parameters": [_KEY],
                    "responses": {"200": _result_of(handler, schemas), "default": _failure()},
                }
            }
    return paths


def _body_of(handler: HandlerDescription, schemas: HandlerSchemas) -> Json:
    if handler.accepts is None:
        return {}
    media: Json = {} if schemas.body is None else {"schema": schemas.body}
    return {"requestBody": {"required": schemas.is_required, "content": {handler.accepts: media}}}


def _result_of(handler: HandlerDescription, schemas: HandlerSchemas) -> Json:
    description = "What the handler returned."
    if handler.content_type is None:
        return {"description": description, "headers": _ANSWERS_OF_ALL}
    return _answer(description, handler.content_type, schemas.result)


def _failure() -> Json:
    return _answer("It failed, or was refused.", JSON, {"$ref": f"#/components/schemas/{ERROR}"})


def _answer(description: str, content_type: str, schema: Mapping[str, Any] | None) -> Json:
    media = {} if schema is None else {"schema": schema}
    return {"description": description, "headers": _ANSWERS_OF_ALL, "content": {content_type: media}}


def _plain(part: Json) -> Json:
    """Without empty descriptions and lists."""
    return {name: value for name, value in part.items() if value not in ("", [])}

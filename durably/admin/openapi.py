"""The OpenAPI 3.1 document of the admin API: `admin_document`. Services have documents of their own."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec

from durably.actors.values.serde import JSON
from durably.admin.bodies import BatchRequest, QueryRequest, StateEditRequest
from durably.admin.query import ARROW_TYPE
from durably.http_headers import INVOCATION_ID
from durably.ids import InvocationStatus
from durably.runtime.gateway.openapi import OPENAPI_VERSION
from durably.runtime.gateway.schedule_control import Schedule
from durably.runtime.lifecycle.sources import SourceStatus
from durably.runtime.lifecycle.subscriptions import SubscriptionStatus

Json: TypeAlias = dict[str, Any]
Answers: TypeAlias = Mapping[int, Json | None]
"""By status: the schema of the body, or None where there is none."""

COMPONENTS: Final = "#/components/schemas/{name}"
TEXT: Final[Json] = {"type": "string"}
NUMBER: Final[Json] = {"type": "integer"}
TRUTH: Final[Json] = {"type": "boolean"}
MOMENT: Final[Json] = {"type": "string", "format": "date-time"}
ANYTHING: Final[Json] = {"type": "object"}
"""Such as the OpenAPI document of a service."""


def _record(required: Json, optional: Json | None = None) -> Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _of(name: str) -> Json:
    return {"$ref": COMPONENTS.format(name=name)}


_RETRY: Final = _record(
    {
        "initial_interval": TEXT,
        "exponentiation_factor": {"type": "number"},
        "max_attempts": {"type": ["integer", "null"]},
        "max_interval": TEXT,
        "on_max_attempts": {"enum": ["Pause", "Kill"]},
    }
)
_HANDLER: Final = _record(
    {
        "name": TEXT,
        "public": TRUTH,
        "input_description": TEXT,
        "output_description": TEXT,
        "retry_policy": {
            **_RETRY,
            "required": ["max_attempts"],
            "description": "`max_attempts` alone, as null, where that of the service holds.",
        },
    },
    {
        "idempotency_retention": TEXT,
        "workflow_completion_retention": TEXT,
        "journal_retention": TEXT,
        "ty": {"enum": ["Exclusive", "Shared", "Workflow"]},
        "documentation": TEXT,
        "input_json_schema": ANYTHING,
        "output_json_schema": ANYTHING,
    },
)
_SERVICE: Final = _record(
    {
        "name": TEXT,
        "ty": {"enum": ["Service", "VirtualObject", "Workflow"]},
        "handlers": _list(_of("Handler")),
        "deployment_id": TEXT,
        "revision": NUMBER,
        "public": TRUTH,
        "idempotency_retention": TEXT,
        "journal_retention": TEXT,
        "inactivity_timeout": TEXT,
        "abort_timeout": TEXT,
        "enable_lazy_state": TRUTH,
        "retry_policy": _of("RetryPolicy"),
    },
    {"documentation": TEXT, "workflow_completion_retention": TEXT},
)
_PROTOCOL: Final[Json] = {"min_protocol_version": NUMBER, "max_protocol_version": NUMBER, "sdk_version": TEXT}
_DEPLOYMENT: Final[Json] = {
    "id": TEXT, "uri": TEXT, "protocol_type": TEXT, "http_version": TEXT, "created_at": MOMENT, **_PROTOCOL,
}  # fmt: skip
_SCHEMAS: Final[Json] = {
    "Error": _record({"message": TEXT, "restate_code": {"type": ["string", "null"]}}),
    "Version": _record({
        "version": TEXT,
        "min_admin_api_version": NUMBER,
        "max_admin_api_version": NUMBER,
        "ingress_endpoint": {"type": ["string", "null"]},
        "features": ANYTHING,
    }),
    "RetryPolicy": _RETRY,
    "Handler": _HANDLER,
    "Service": _SERVICE,
    "Deployment": _record({**_DEPLOYMENT, "services": _list(_record({"name": TEXT, "revision": NUMBER}))}),
    "DetailedDeployment": _record({**_DEPLOYMENT, "services": _list(_of("Service"))}),
    "RegisteredDeployment": _record({"id": TEXT, "services": _list(_of("Service")), **_PROTOCOL}),
    "Address": _record({"uri": TEXT}),
    "Restarted": _record({"new_invocation_id": TEXT}),
    "Journal": _record({
        "format": NUMBER,
        **dict.fromkeys(("durably", "python", "id", "service", "key", "handler", "status", "seed"), TEXT),
        "accepted_at": NUMBER,
        "deadline": {"type": ["integer", "null"]},
        "idempotency_key": {"type": ["string", "null"]},
        "headers": {"type": "object", "additionalProperties": TEXT},
        "argument": {"description": "JSON, or bytes as `$base64`."},
        "snapshot": ANYTHING,
        "steps": _list(ANYTHING),
        "answers": _list(ANYTHING),
        "versions": _list({}),
        "state_version": NUMBER,
    }),
    "Rows": _record({"rows": _list(ANYTHING)}),
    "Subscription": _record({
        "id": TEXT,
        "name": TEXT,
        "source": TEXT,
        "sink": TEXT,
        "options": ANYTHING,
        "stream": TEXT,
        "events": _list(TEXT),
        "status": {"enum": [str(status) for status in SubscriptionStatus]},
        "behind": NUMBER,
        "in_flight": NUMBER,
        "reason": {"type": ["string", "null"]},
    }),
    "Source": _record(
        {
            "name": TEXT,
            "handler": TEXT,
            "status": {"enum": [str(status) for status in SourceStatus]},
            "positions": {"type": "object", "additionalProperties": NUMBER},
            "behind": {"type": ["integer", "null"]},
            "in_flight": NUMBER,
            "reason": {"type": ["string", "null"]},
            "failure": {"type": ["string", "null"]},
        },
    ),
    "DeadLetter": _record({
        **dict.fromkeys(("id", "subscription", "event", "event_id", "version", "key", "stream"), TEXT),
        "value": {"description": "The event."},
        "published_at": MOMENT,
        "failed_at": MOMENT,
        "code": NUMBER,
        "reason": TEXT,
        "invocation_id": TEXT,
    }),
    "Waiting": _record(
        {
            "id": TEXT,
            "service": TEXT,
            "key": {"type": ["string", "null"]},
            "handler": TEXT,
            "status": _of(InvocationStatus.__name__),
            "waits": _list(_record({"kind": TEXT})),
        }
    ),
    "Batch": _record({
        "succeeded": _list({
            "anyOf": [TEXT, _record({"old_invocation_id": TEXT, "new_invocation_id": TEXT})],
        }),
        "failed": _list(_record({"invocation_id": TEXT, "error": TEXT})),
    }),
}  # fmt: skip
_DESCRIBED: Final = (BatchRequest, QueryRequest, StateEditRequest, Schedule, InvocationStatus)


def _in_path(*names: str) -> list[Json]:
    return [{"name": one, "in": "path", "required": True, "schema": {**TEXT, "minLength": 1}} for one in names]


def _in_query(name: str, schema: Json, meaning: str, *, required: bool = False) -> Json:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": meaning}


def _operation(
    id: str, summary: str, answers: Answers, *, parameters: list[Json] | None = None, body: Json | None = None
) -> Json:
    told: Json = {"operationId": id, "summary": summary}
    if parameters:
        told["parameters"] = parameters
    if body is not None:
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    responses: Json = {str(status): _answer(status, schema) for status, schema in answers.items()}
    responses["default"] = {"description": "It was refused.", "content": {JSON: {"schema": _of("Error")}}}
    return {**told, "responses": responses}


def _answer(status: int, schema: Json | None) -> Json:
    told: Json = {"description": HTTPStatus(status).phrase}
    return told if schema is None else {**told, "content": {JSON: {"schema": schema}}}


_FROM: Final = _in_query("from", {"type": "integer", "minimum": 0}, "The index of the step to restart from.")
_RESUMED_ON: Final = _in_query("deployment", {"enum": ["latest", "keep"]}, "Both are the code that runs.")
_ON_ONE: Final[Mapping[str, tuple[str, Answers, list[Json]]]] = {
    "cancel": ("Cancel it: its handler is told, and may clean up", {200: None, 202: None}, []),
    "kill": ("End it at once, and what it calls", {200: None}, []),
    "pause": ("Let it not go on", {200: None, 202: None}, []),
    "resume": ("Let it go on", {200: None}, [_RESUMED_ON]),
    "restart": ("Begin what is paused anew, under the same id", {200: None}, [_FROM]),
    "restart-as-new": ("Begin what has ended anew, under a new id", {200: _of("Restarted")}, [_FROM, _RESUMED_ON]),
    "purge": ("Forget it, once it has ended", {200: None}, []),
    "purge-journal": ("Forget its journal, once it has ended", {200: None}, []),
}
"""What can be done to an invocation: in words, with which answers, and what it takes."""


def _paths() -> Json:
    return {
        "/health": {"get": _operation("health", "Whether requests are accepted", {200: None})},
        "/ready": {"get": _operation("ready", "Whether a load balancer may send requests here", {200: None})},
        "/metrics": {"get": _metrics()},
        "/version": {"get": _operation("version", "Which versions of this API there are", {200: _of("Version")})},
        "/openapi": {"get": _operation("openapi", "This document", {200: ANYTHING})},
        **_services(),
        **_deployments(),
        **_invocations(),
        **_schedules(),
        "/query": {"post": _query()},
        **_events(),
        **_sources(),
        "/kafka-clusters": {"get": _operation("kafka_clusters", "None", {200: _record({"clusters": _list(ANYTHING)})})},
    }


def _services() -> Json:
    one, handler = _in_path("service"), _in_path("service", "handler")
    edited = _operation(
        "edit_state", "Replace all state of an object", {202: None}, parameters=one, body=_of("StateEditRequest")
    )
    edited["responses"]["202"]["headers"] = {INVOCATION_ID: {"schema": TEXT, "description": "The edit, as a message."}}
    return {
        "/services": {
            "get": _operation("services", "All services", {200: _record({"services": _list(_of("Service"))})})
        },
        "/services/{service}": {
            "get": _operation("service", "One service", {200: _of("Service")}, parameters=one),
            "patch": _operation(
                "modify_service",
                "What its class says may be said again; a change is refused",
                {200: _of("Service")},
                parameters=one,
                body=ANYTHING,
            ),
        },
        "/services/{service}/state": {"post": edited},
        "/services/{service}/openapi": {
            "get": _operation("service_openapi", "How its handlers are called", {200: ANYTHING}, parameters=one)
        },
        "/services/{service}/handlers": {
            "get": _operation(
                "handlers", "Its handlers", {200: _record({"handlers": _list(_of("Handler"))})}, parameters=one
            )
        },
        "/services/{service}/handlers/{handler}": {
            "get": _operation("handler", "One handler", {200: _of("Handler")}, parameters=handler)
        },
        "/objects/{service}/{key}": {
            "delete": _operation(
                "delete_object",
                "Delete an object with its state, behind what waits for it",
                {202: _record({"invocation_id": TEXT})},
                parameters=_in_path("service", "key"),
            )
        },
    }


def _deployments() -> Json:
    one = _in_path("deployment")
    updated = {200: _of("DetailedDeployment")}
    update = "Its address may be said again; another one is refused"
    return {
        "/deployments": {
            "get": _operation(
                "deployments", "The one deployment", {200: _record({"deployments": _list(_of("Deployment"))})}
            ),
            "post": _operation(
                "register", "Register the address of this process", {200: _of("RegisteredDeployment")},
                body=_of("Address"),
            ),
        },
        "/deployments/{deployment}": {
            "get": _operation("deployment", "The one deployment", updated, parameters=one),
            "patch": _operation("update_deployment", update, updated, parameters=one, body=_of("Address")),
            "put": _operation("put_deployment", update, updated, parameters=one, body=_of("Address")),
            "delete": _operation("remove_deployment", "Refused: stop the process", {}, parameters=one),
        },
    }  # fmt: skip


def _invocations() -> Json:
    one = _in_path("id")
    mode = _in_query("mode", {"enum": ["cancel", "kill", "purge"], "default": "cancel"}, "What is done to it.")
    looked = _record({"id": TEXT, "status": _of(InvocationStatus.__name__)})
    paths: Json = {
        "/invocations/{id}": {
            "get": _operation("invocation", "Where it stands", {200: looked}, parameters=one),
            "delete": _operation("end_invocation", "Cancel, kill or purge it", {202: None}, parameters=[*one, mode]),
        }
    }
    paths["/invocations/{id}/why"] = {
        "get": _operation("why", "What it waits for, and what that waits for", {200: _of("Waiting")}, parameters=one)
    }
    journal = _operation(
        "journal",
        "All that a replay of it needs, as `durably export-journals` writes it; encoded where the store is",
        {200: _of("Journal")},
        parameters=one,
    )
    journal["responses"]["200"]["content"]["application/octet-stream"] = {}
    paths["/invocations/{id}/journal"] = {"get": journal}
    for verb, (meaning, answers, parameters) in _ON_ONE.items():
        told = _operation(f"{verb}_invocation", meaning, answers, parameters=[*one, *parameters])
        paths[f"/invocations/{{id}}/{verb}"] = {"patch": told}
        paths[f"/internal/invocations_batch_operations/{verb}"] = {
            "post": _operation(
                f"{verb}_invocations", f"The same for many: {meaning}", {200: _of("Batch")}, body=_of("BatchRequest")
            )
        }
    return paths


def _schedules() -> Json:
    name = _in_query("name", TEXT, "As the list has it, such as `Report/nightly`.", required=True)
    changed = {200: _record({"changed": TRUTH})}
    paths: Json = {
        "/schedules": {
            "get": _operation("schedules", "All schedules", {200: _record({"schedules": _list(_of("Schedule"))})})
        }
    }
    for verb, meaning in (("pause", "Deliver no tick"), ("resume", "Deliver ticks again"), ("cancel", "End it")):
        told = _operation(f"{verb}_schedule", meaning, changed, parameters=[name])
        paths[f"/schedules/{verb}"] = {"patch": told}
    return paths


def _events() -> Json:
    subscriptions = _record({"subscriptions": _list(_of("Subscription"))})
    letters = _record({"dead_letters": _list(_of("DeadLetter"))})
    name = _in_query("name", TEXT, "As the list has it, such as `Mailer/welcome`.", required=True)
    id = _in_query("id", TEXT, "As the list has it.", required=True)
    of_one = _in_query("subscription", TEXT, "Only of this one.")
    changed = {200: _record({"changed": TRUTH})}
    return {
        "/subscriptions": {"get": _operation("subscriptions", "All subscriptions", {200: subscriptions})},
        "/subscriptions/pause": {
            "patch": _operation("pause_subscription", "Deliver no event", changed, parameters=[name])
        },
        "/subscriptions/resume": {
            "patch": _operation("resume_subscription", "Deliver events again", changed, parameters=[name])
        },
        "/subscriptions/pass-over": {
            "patch": _operation(
                "pass_over_subscription",
                "Leave the event out that cannot be read, and deliver events again",
                changed,
                parameters=[name],
            )
        },
        "/dead-letters": {
            "get": _operation(
                "dead_letters", "Events that subscriptions have given up", {200: letters}, parameters=[of_one]
            )
        },
        "/dead-letters/retry": {"patch": _operation("retry_dead_letter", "Deliver it again", changed, parameters=[id])},
        "/dead-letters/drop": {"patch": _operation("drop_dead_letter", "Forget it", changed, parameters=[id])},
    }


def _sources() -> Json:
    name = _in_query("name", TEXT, "As the list has it, such as `payments`.", required=True)
    changed = {200: _record({"changed": TRUTH})}
    paths: Json = {
        "/sources": {"get": _operation("sources", "All sources", {200: _record({"sources": _list(_of("Source"))})})}
    }
    for verb, meaning in (
        ("pause", "Take no record"),
        ("resume", "Take records again"),
        ("pass-over", "Leave the record out that cannot become a message, or begin anew, and take records again"),
    ):
        told = _operation(f"{verb.replace('-', '_')}_source", meaning, changed, parameters=[name])
        paths[f"/sources/{verb}"] = {"patch": told}
    return paths


def _metrics() -> Json:
    told = _operation("metrics", "Counts and times, for Prometheus", {200: None})
    told["responses"]["200"]["content"] = {"text/plain": {"schema": TEXT}}
    return told


def _query() -> Json:
    told = _operation(
        "query",
        "Ask in SQL what is stored: JSON for `accept: application/json`, otherwise a stream of Arrow",
        {200: _of("Rows")},
        body=_of("QueryRequest"),
    )
    told["responses"]["200"]["content"][ARROW_TYPE] = {}
    return told


def admin_document(*, version: str, server: str) -> Json:
    """`server` is the address below which the paths are, which may be a path."""
    _, described = msgspec.json.schema_components(_DESCRIBED, ref_template=COMPONENTS)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "durably: admin API",
            "version": version,
            "description": "For operators. Each path is there below /v1 to /v4, too.",
        },
        "servers": [{"url": server}],
        "paths": _paths(),
        "components": {"schemas": {**_SCHEMAS, **described}},
    }

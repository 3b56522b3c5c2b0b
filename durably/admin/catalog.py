"""What runs here, in the shapes that Restate's tools read: services with their handlers, and the one deployment.

The deployment is this process with its store, so its id stays the same over restarts. Nothing is pinned to other code:
what goes on goes on with the code of today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import FOREVER_US, duration_us
from durably.actors.values.serde import JSON
from durably.ids import BASE62
from durably.runtime.gateway.describe import sdk_version
from durably.runtime.gateway.requests import (
    HandlerDescription,
    HandlerSchemas,
    ServiceDescription,
    ServiceOptions,
    ServiceSchemas,
)

Json: TypeAlias = dict[str, Any]

DEPLOYMENT_PREFIX: Final = "dp_1"
DEPLOYMENT_DIGITS: Final = 22
REVISION: Final = 1
NO_ADDRESS: Final = "http://in-process/"
"""Of the deployment, where the runtime is mounted somewhere and does not know under which address."""
PROTOCOL_VERSIONS: Final = (5, 5)
"""No protocol lies between runtime and handlers. Restate's tools want numbers that they know."""
DAY_US: Final = 86_400_000_000
COMPONENTS: Final = "#/components/schemas/"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_TYPES: Final[Mapping[str, str]] = {"service": "Service", "object": "VirtualObject", "workflow": "Workflow"}
_HANDLER_TYPES: Final[Mapping[str, str]] = {"exclusive": "Exclusive", "shared": "Shared", "workflow": "Workflow"}
_UNITS: Final = (("d", DAY_US), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1))


class CataloguedRuntime(Protocol):
    """The part of a `Runtime` that is described here."""

    @property
    def store(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    def describe(self) -> list[ServiceDescription]: ...
    def describe_schemas(self) -> list[ServiceSchemas]: ...


class Catalog:
    """The services of one runtime and the deployment that it is."""

    def __init__(self, runtime: CataloguedRuntime, ingress_endpoint: str | None) -> None:
        self._runtime = runtime
        self.address = NO_ADDRESS if ingress_endpoint is None else f"{ingress_endpoint.rstrip('/')}/"

    @property
    def deployment_id(self) -> str:
        return deployment_id(self._runtime.store)

    def services(self) -> list[Json]:
        described = zip(self._runtime.describe(), self._runtime.describe_schemas(), strict=True)
        return [service_metadata(service, schemas, self.deployment_id) for service, schemas in described]

    def service(self, name: str) -> Json | None:
        return next((one for one in self.services() if one["name"] == name), None)

    def deployment(self) -> Json:
        """As it stands in a list."""
        services = [{"name": one.name, "revision": REVISION} for one in self._runtime.describe()]
        return self._deployment(services)

    def detailed_deployment(self) -> Json:
        return self._deployment(self.services())

    def registered(self) -> Json:
        """What registering it answers."""
        lowest, highest = PROTOCOL_VERSIONS
        return {
            "id": self.deployment_id,
            "services": self.services(),
            "min_protocol_version": lowest,
            "max_protocol_version": highest,
            "sdk_version": sdk_version(),
        }  # fmt: skip

    def is_here(self, uri: object) -> bool:
        """Whether the address is that of this process, under any name of the machine itself."""
        return isinstance(uri, str) and _place(uri) == _place(self.address)

    def _deployment(self, services: Sequence[Json]) -> Json:
        lowest, highest = PROTOCOL_VERSIONS
        return {
            "id": self.deployment_id,
            "uri": self.address,
            "protocol_type": "BidiStream",
            "http_version": "HTTP/1.1",
            "created_at": self._runtime.started_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "min_protocol_version": lowest,
            "max_protocol_version": highest,
            "sdk_version": sdk_version(),
            "services": services,
        }  # fmt: skip


def deployment_id(store: str) -> str:
    """Of what runs on this store, in the form that Restate's command line parses."""
    number = int.from_bytes(blake2b(store.encode(errors="surrogatepass"), digest_size=16).digest(), "big")
    digits: list[str] = []
    for _ in range(DEPLOYMENT_DIGITS):
        number, digit = divmod(number, len(BASE62))
        digits.append(BASE62[digit])
    return DEPLOYMENT_PREFIX + "".join(reversed(digits))


def _place(uri: str) -> tuple[str | None, int | None] | None:
    try:
        parts = urlsplit(uri if "://" in uri else f"http://{uri}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return ("localhost" if host in LOOPBACK else host), port


# ---------------------------------------------------------------- services and handlers


def service_metadata(service: ServiceDescription, schemas: ServiceSchemas, deployment: str) -> Json:
    """A service as `GET /services` tells it."""
    options = service.options
    retention = friendly_duration(options.retention_us)
    told: Json = {
        "name": service.name,
        "ty": _TYPES[service.kind],
        "handlers": [
            _handler_metadata(handler, schemas.handlers[handler.name], schemas.components)
            for handler in service.handlers
        ],
        "deployment_id": deployment,
        "revision": REVISION,
        "public": not service.private,
        "idempotency_retention": retention,
        "journal_retention": friendly_duration(_journal_retention_us(options)),
        "inactivity_timeout": "0s",
        "abort_timeout": "0s",
        "enable_lazy_state": False,
        "retry_policy": _retry_metadata(options.retry),
    }  # fmt: skip
    if service.kind == "workflow":
        told["workflow_completion_retention"] = retention
    if service.documentation:
        told["documentation"] = service.documentation
    return told


def _journal_retention_us(options: ServiceOptions) -> int:
    return DAY_US if options.journal_retention_us is None else options.journal_retention_us


def _handler_metadata(handler: HandlerDescription, schemas: HandlerSchemas, components: Mapping[str, Json]) -> Json:
    told: Json = {"name": handler.name}
    if handler.kind in _HANDLER_TYPES:
        told["ty"] = _HANDLER_TYPES[handler.kind]
    if handler.documentation:
        told["documentation"] = handler.documentation
    told |= {
        "public": not handler.private,
        "input_description": _in_words(handler.accepts, schemas.body),
        "output_description": _in_words(handler.content_type, schemas.result),
        "retry_policy": {"max_attempts": None} if handler.retry is None else _retry_metadata(handler.retry),
    }
    if handler.retention_us is not None:
        kept = "workflow_completion_retention" if handler.kind == "workflow" else "idempotency_retention"
        told[kept] = friendly_duration(handler.retention_us)
    if handler.journal_retention_us is not None:
        told["journal_retention"] = friendly_duration(handler.journal_retention_us)
    if schemas.body is not None:
        told["input_json_schema"] = _whole(schemas.body, components)
    if schemas.result is not None:
        told["output_json_schema"] = _whole(schemas.result, components)
    return told


def _retry_metadata(policy: RetryPolicy) -> Json:
    return {
        "initial_interval": friendly_duration(duration_us(policy.initial)),
        "exponentiation_factor": policy.factor,
        "max_attempts": policy.max_attempts,
        "max_interval": friendly_duration(duration_us(policy.maximum)),
        "on_max_attempts": "Pause" if policy.then == "pause" else "Kill",
    }


def _in_words(content_type: str | None, schema: Json | None) -> str:
    if content_type is None:
        return "none"
    if content_type != JSON:
        return content_type
    kind = None if schema is None else schema.get("type")
    return f"JSON {kind}" if isinstance(kind, str) else "JSON"


def _whole(schema: Json, components: Mapping[str, Json]) -> Json:
    """A schema that stands by itself: what it refers to comes with it."""
    needed: dict[str, Json] = {}
    _collect(schema, components, needed)
    moved = _moved(schema)
    return {**moved, "$defs": {name: _moved(one) for name, one in needed.items()}} if needed else moved


def _collect(schema: object, components: Mapping[str, Json], needed: dict[str, Json]) -> None:
    for name in _references(schema):
        if name in components and name not in needed:
            needed[name] = components[name]
            _collect(components[name], components, needed)


def _references(schema: object) -> list[str]:
    match schema:
        case {"$ref": str(reference)} if reference.startswith(COMPONENTS):
            return [reference.removeprefix(COMPONENTS)]
        case dict():
            return [name for part in cast("Json", schema).values() for name in _references(part)]
        case list():
            return [name for part in cast("list[object]", schema) for name in _references(part)]
        case _:
            return []


def _moved(schema: Json) -> Json:
    return cast("Json", _moved_part(schema))


def _moved_part(part: object) -> object:
    match part:
        case dict():
            return {name: _moved_part(one) for name, one in cast("Json", part).items()}
        case list():
            return [_moved_part(one) for one in cast("list[object]", part)]
        case str() if part.startswith(COMPONENTS):
            return "#/$defs/" + part.removeprefix(COMPONENTS)
        case _:
            return part


def friendly_duration(span_us: int) -> str:
    """As Restate writes durations: `1d`, `1h 30m`, `500ms`."""
    if span_us >= FOREVER_US:
        span_us = timedelta.max // timedelta(microseconds=1)
    parts: list[str] = []
    for unit, size_us in _UNITS:
        count, span_us = divmod(span_us, size_us)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"

"""Which handler a path names: `Targets.find` answers with a `Target`, or raises what is answered instead.

    /{service}/{handler}[/send]                   /{object or workflow}/{key}/{handler}[/send]
    /restate/{call|send}/{service}/{handler}      /restate/{call|send}/{object or workflow}/{key}/{handler}

Whether a path means the one or the other is decided by what its first segment names. Segments are split before they are
decoded, so a key may contain any character, `/` as `%2F` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from durably.ingress.paths import segment_text
from durably.ingress.refusals import RefusedRequestError as RefusedRequestError
from durably.runtime.gateway.requests import ServiceDescription

BAD_PATH: Final = "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler"
BAD_EXPLICIT_PATH: Final = (
    "bad path, expected /restate/call/:service/:handler, /restate/send/:service/:handler, "
    "/restate/attach/:invocation-id, /restate/output/:invocation-id or /restate/lookup"
)
NO_SCOPES: Final = "scoped invocations are not enabled: there are no scopes here. Leave /scope/:scope out of the path"
CALL: Final = b"call"
SEND: Final = b"send"
SCOPE: Final = b"scope"


class Target(msgspec.Struct, frozen=True, gc=False):
    """What a request addresses, and how."""

    service: str
    key: str | None
    handler: str
    is_send: bool
    accepts: str | None = None
    """The media range of bodies; None where there is nothing to be sent."""

    def __str__(self) -> str:
        return f"{self.service}/{self.handler}"


class _Handler(msgspec.Struct, frozen=True):
    """What the ingress has to know of a handler."""

    name: str
    is_public: bool
    accepts: str | None


class _Service(msgspec.Struct, frozen=True):
    """What the ingress has to know of a service."""

    name: str
    has_key: bool
    handlers: dict[bytes, _Handler]


class Targets:
    """The handlers of one runtime, by path."""

    def __init__(self, services: Iterable[ServiceDescription]) -> None:
        self._services = {service.name.encode(): _service(service) for service in services}

    def find_explicit(self, segments: Sequence[bytes]) -> Target:
        """The target of a path that begins with `call` or `send`, or with a scope before these.

        Raises:
            RefusedRequestError: 400 or 404. A path with a scope has no target.

        """
        if segments[0] == SCOPE:
            if len(segments) < 4 or segments[2] not in (CALL, SEND):
                raise RefusedRequestError(400, BAD_EXPLICIT_PATH)
            self.find(segments[3:], segments[2] == SEND)
            raise RefusedRequestError(400, NO_SCOPES)
        return self.find(segments[1:], segments[0] == SEND)

    def find(self, segments: Sequence[bytes], sends: bool | None = None) -> Target:
        """The target of a path, given as its segments as they came over the wire. `sends` None: its end says so.

        Raises:
            RefusedRequestError: 400 or 404.

        """
        count = len(segments)
        if count < 2 or not segments[0]:
            raise RefusedRequestError(400, BAD_PATH)
        service = self._services.get(segments[0]) or self._service_spelled_otherwise(segments[0])
        key, place = (segment_text(segments[1]), 2) if service.has_key else (None, 1)
        is_suffixed = sends is None and count == place + 2 and segments[-1] == SEND
        if key == "" or not (count == place + 1 or is_suffixed):
            raise RefusedRequestError(400, BAD_PATH)
        handler = service.handlers.get(segments[place])
        if handler is None or not handler.is_public:
            handler = _public_handler(service, segments[place])
        return Target(service.name, key, handler.name, is_suffixed or sends is True, handler.accepts)

    def _service_spelled_otherwise(self, segment: bytes) -> _Service:
        """A service whose name is percent-encoded in the path."""
        name = segment_text(segment)
        service = self._services.get(name.encode())
        if service is None:
            raise RefusedRequestError(
                404, f"service '{name}' not found, make sure to register the service before calling it."
            )
        return service


def _service(service: ServiceDescription) -> _Service:
    return _Service(
        service.name,
        service.kind != "service",
        {
            handler.name.encode(): _Handler(handler.name, not (service.private or handler.private), handler.accepts)
            for handler in service.handlers
        },
    )


def _public_handler(service: _Service, segment: bytes) -> _Handler:
    """A handler whose name may be percent-encoded in the path."""
    found = service.handlers.get(unquote_to_bytes(segment))
    if found is None:
        raise RefusedRequestError(
            404,
            f"the service '{service.name}' exists, but the handler '{segment_text(segment)}' was not found, "
            "check that the handler exists in the latest registered service version.",
        )
    if not found.is_public:
        raise RefusedRequestError(400, "the invoked service is not public")
    return found

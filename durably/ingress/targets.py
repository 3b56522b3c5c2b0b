"""Which handler a path names: `Targets.find` answers with a `Target`, or raises what is answered instead.

    /{service}/{handler}[/send]                   /{object or workflow}/{key}/{handler}[/send]
    /restate/{call|send}/{service}/{handler}      /restate/{call|send}/{object or workflow}/{key}/{handler}

Whether a path means the one or the other is decided by what its first segment names. Segments are split before they are
decoded, so a key may contain any character, `/` as `%2F` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from durably.ingress.refusals import RefusedRequestError as RefusedRequestError
from durably.runtime.gateway.requests import ServiceDescription

BAD_PATH: Final = "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler"
SEND: Final = b"send"


class Target(NamedTuple):
    """What a request addresses, and how."""

    service: str
    key: str | None
    handler: str
    is_send: bool


class _Callable(NamedTuple):
    """What the ingress has to know of a service: its kind, and which of its handlers anyone may call."""

    has_key: bool
    handlers: dict[bytes, tuple[str, bool]]


class Targets:
    """The handlers of one runtime, by path."""

    def __init__(self, services: Iterable[ServiceDescription]) -> None:
        self._services = {service.name: _callable(service) for service in services}

    def find(self, segments: Sequence[bytes]) -> Target:
        """The target of a path, given as its segments as they came over the wire.

        Raises:
            RefusedRequestError: 400 or 404.

        """
        return self._find(segments, None)

    def find_explicit(self, segments: Sequence[bytes]) -> Target:
        """The target of a path that begins with `call` or `send`.

        Raises:
            RefusedRequestError: 400 or 404.

        """
        return self._find(segments[1:], segments[0] == SEND)

    def _find(self, segments: Sequence[bytes], is_send: bool | None) -> Target:
        """`is_send` None: the end of the path says so."""
        if len(segments) < 2 or not segments[0]:
            raise RefusedRequestError(400, BAD_PATH)
        name = _decode(segments[0])
        service = self._services.get(name)
        if service is None:
            raise RefusedRequestError(
                404, f"service '{name}' not found, make sure to register the service before calling it."
            )
        key, rest = (_decode(segments[1]), segments[2:]) if service.has_key else (None, segments[1:])
        longest = 2 if is_send is None else 1
        if not rest or len(rest) > longest or key == "" or (len(rest) == 2 and rest[1] != SEND):
            raise RefusedRequestError(400, BAD_PATH)
        is_send = len(rest) == 2 if is_send is None else is_send
        return Target(name, key, _public_handler(name, service, rest[0]), is_send)


def _callable(service: ServiceDescription) -> _Callable:
    return _Callable(
        has_key=service.kind != "service",
        handlers={
            handler.name.encode(): (handler.name, not (service.private or handler.private))
            for handler in service.handlers
        },
    )


def _public_handler(service_name: str, service: _Callable, segment: bytes) -> str:
    found = service.handlers.get(segment) or service.handlers.get(unquote_to_bytes(segment))
    if found is None:
        raise RefusedRequestError(
            404,
            f"the service '{service_name}' exists, but the handler '{_decode(segment)}' was not found, "
            "check that the handler exists in the latest registered service version.",
        )
    name, is_public = found
    if not is_public:
        raise RefusedRequestError(400, "the invoked service is not public")
    return name


def _decode(segment: bytes) -> str:
    try:
        return (unquote_to_bytes(segment) if b"%" in segment else segment).decode()
    except UnicodeDecodeError:
        raise RefusedRequestError(
            400, f"bad path, a segment is not UTF-8 once it is URL-decoded: {segment.decode('ascii', 'replace')}"
        ) from None

"""What a runtime runs, told to people and tools."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.runtime.gateway.requests import HandlerDescription, ServiceDescription


def describe_actor(actor: BoundActor) -> ServiceDescription:
    """A service or virtual object with its handlers."""
    definition = actor.definition
    return ServiceDescription(
        name=definition.name,
        kind=definition.kind,
        handlers=[_describe_handler(handler) for handler in actor.handlers.values()],
        private=definition.options.private,
        documentation=definition.documentation,
    )


def _describe_handler(handler: BoundActorHandler) -> HandlerDescription:
    return HandlerDescription(
        name=handler.name,
        kind=handler.kind,
        parameters=handler.signature.parameters,
        returns=handler.signature.returns,
        private=handler.private,
        documentation=handler.documentation,
        accepts=handler.accepts,
        content_type=handler.content_type,
    )


def installed_version() -> str:
    """That of the package, or `unknown` where it runs without being installed."""
    try:
        return version("durably")
    except PackageNotFoundError:
        return "unknown"

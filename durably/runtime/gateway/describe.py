"""What a runtime runs, told to people and tools."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.runtime.gateway.requests import HandlerDescription, ServiceDescription, ServiceOptions
from durably.runtime.settings import Settings


def describe_actor(actor: BoundActor, settings: Settings) -> ServiceDescription:
    """A service or virtual object with its handlers."""
    definition = actor.definition
    return ServiceDescription(
        name=definition.name,
        kind=definition.kind,
        handlers=[_describe_handler(handler) for handler in actor.handlers.values()],
        private=definition.options.private,
        documentation=definition.documentation,
        options=_options(actor, settings),
    )


def _options(actor: BoundActor, settings: Settings) -> ServiceOptions:
    """What holds for handlers that say nothing of their own."""
    own = actor.definition.options
    return ServiceOptions(
        retention_us=settings.retention_us if own.retention_us is None else own.retention_us,
        journal_retention_us=(
            settings.journal_retention_us if own.journal_retention_us is None else own.journal_retention_us
        ),
        retry=settings.retry if own.retry is None else own.retry,
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


def sdk_version() -> str:
    """What Restate's tools are told of the program that runs handlers."""
    return f"durably/{installed_version()}"

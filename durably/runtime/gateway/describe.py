"""What a runtime runs, told to people and tools."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.definition.definition import ActorOptions
from durably.runtime.gateway.requests import HandlerDescription, ServiceDescription, ServiceOptions
from durably.runtime.settings import Settings

T = TypeVar("T")


def describe_actor(actor: BoundActor, settings: Settings) -> ServiceDescription:
    """A service or virtual object with its handlers."""
    definition = actor.definition
    return ServiceDescription(
        name=definition.name,
        kind=definition.kind,
        handlers=[_describe_handler(handler, definition.options) for handler in actor.handlers.values()],
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


def _describe_handler(handler: BoundActorHandler, of_all: ActorOptions) -> HandlerDescription:
    return HandlerDescription(
        name=handler.name,
        kind=handler.kind,
        parameters=handler.signature.parameters,
        returns=handler.signature.returns,
        private=handler.private,
        documentation=handler.documentation,
        accepts=handler.accepts,
        content_type=handler.content_type,
        retry=_own(handler.retry, of_all.retry),
        retention_us=_own(handler.retention_us, of_all.retention_us),
        journal_retention_us=_own(handler.journal_retention_us, of_all.journal_retention_us),
    )


def _own(said: T | None, of_all: T | None) -> T | None:
    """What a handler says otherwise than its class."""
    return None if said == of_all else said


@cache
def installed_version() -> str:
    """That of the package, or `unknown` where it runs without being installed. To look takes a millisecond."""
    try:
        return version("durably")
    except PackageNotFoundError:
        return "unknown"


def sdk_version() -> str:
    """What Restate's tools are told of the program that runs handlers."""
    return f"durably/{installed_version()}"

"""`HandlerInfo`: the handler that runs and its class, as middleware, logs and tools see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from durably.actors.actor import Actor
from durably.actors.definition.definition import ActorKind
from durably.actors.event_values import EventClass
from durably.actors.handlers import HandlerKind
from durably.actors.limits import Limit
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """The options of a handler, with those of its class where it has none of its own. None leaves it to the runtime."""

    atomic: bool = False
    private: bool = False
    retry: RetryPolicy | None = None
    timeout: timedelta | None = None
    retention: timedelta | None = None
    journal_retention: timedelta | None = None
    limit: str | Limit | None = None
    """Its own, or the name of one of the runtime's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorInfo:
    """A class of actors."""

    name: str
    """The name on the wire."""
    kind: ActorKind
    actor: type[Actor]
    handlers: Mapping[str, HandlerInfo] = field(repr=False, compare=False)
    """All of its handlers, by name on the wire."""
    middleware: tuple[MiddlewareGiven, ...]
    """What stands around all of them, as it was named: that of the classes that it extends comes first."""
    metadata: Mapping[str, str]
    subscribed_events: Mapping[str, EventClass] = field(
        default_factory=dict[str, EventClass], repr=False, compare=False
    )
    """The classes of events that handlers of the runtime subscribe to, by the name of the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerInfo:
    """The handler that runs, for middleware, logs and tools."""

    service: str
    name: str
    actor: type[Actor]
    kind: HandlerKind
    parameters: Mapping[str, Any]
    """The type of each parameter after `self` and `ctx`."""
    returns: Any
    metadata: Mapping[str, str]
    options: HandlerOptions
    middleware: tuple[MiddlewareGiven, ...]
    """What stands around this handler alone, as it was named."""
    actor_info: ActorInfo
    """Its class, with all of its handlers."""

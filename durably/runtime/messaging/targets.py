"""`Targets`: the handlers that a message can be for."""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.errors import InvalidArgumentError, UnknownTargetError
from durably.ids import is_storable
from durably.runtime.settings import Settings


class Targets:
    """The handlers that this runtime has."""

    def __init__(self, actors: Mapping[str, BoundActor], settings: Settings) -> None:
        self._actors = actors
        self._retention_us = settings.retention_us

    def find(self, service: str, key: str | None, handler: str) -> BoundActorHandler:
        """The handler that a message is for.

        Raises:
            UnknownTargetError: there is none; says what there is.
            InvalidArgumentError: no store can keep the key.
        """
        actor = self._actors.get(service)
        if actor is None:
            known = sorted(self._actors)
            raise UnknownTargetError(
                f"There is no service or object {service!r} here. There are: {', '.join(known)}.", known=known
            )
        bound = actor.handlers.get(handler)
        if bound is None:
            known = sorted(actor.handlers)
            raise UnknownTargetError(f"{service} has no handler {handler!r}. It has: {', '.join(known)}.", known=known)
        if key is not None and not is_storable(key):
            raise InvalidArgumentError(
                f"The key {key!r} of {service} is not Unicode text without NUL, so it cannot be stored."
            )
        if (key is None) != (bound.kind == "service"):
            need = "is a service and takes no key" if key is not None else "is a virtual object and needs a key"
            raise UnknownTargetError(f"{service} {need}.", known=[service])
        return bound

    def retention_us(self, handler: BoundActorHandler) -> int:
        """How long outcomes of a handler are kept."""
        return self._retention_us if handler.retention_us is None else handler.retention_us

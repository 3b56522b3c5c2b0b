"""`Targets`: the handlers that a message can be for."""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.definition.definition import ActorKind
from durably.actors.protocol.commands import MESSAGES, Command, key_scope
from durably.actors.transport import PUBLISHER
from durably.errors import InvalidArgumentError, InvalidKeyError, UnknownTargetError
from durably.ids import RUN, KeyScope, is_storable, run_scope
from durably.runtime.settings import Settings

_NEEDS: Mapping[ActorKind, str] = {
    "service": "is a service and takes no key",
    "object": "is a virtual object and needs a key",
    "workflow": "is a workflow and needs an id",
}


class Targets:
    """The handlers that this runtime has."""

    def __init__(self, actors: Mapping[str, BoundActor], settings: Settings) -> None:
        self._actors = actors
        self._retention_us = settings.retention_us
        self._journal_retention_us = settings.journal_retention_us

    def find(self, service: str, key: str | None, handler: str) -> BoundActorHandler:
        """The handler that a message is for.

        Raises:
            UnknownTargetError: there is none; says what there is.
            InvalidKeyError: the key is empty, or no store can keep it.
        """
        actor = self._actors.get(service)
        if actor is None:
            known = sorted(self._actors.keys() - {PUBLISHER})
            raise UnknownTargetError(
                f"There is no service, object or workflow {service!r} here. There are: {', '.join(known)}.", known=known
            )
        bound = actor.handlers.get(handler)
        if bound is None:
            known = sorted(actor.handlers)
            raise UnknownTargetError(f"{service} has no handler {handler!r}. It has: {', '.join(known)}.", known=known)
        if key is not None and (not key or not is_storable(key)):
            raise _unusable_key(service, key)
        if (key is None) != (bound.kind == "service"):
            raise UnknownTargetError(f"{service} {_NEEDS[actor.definition.kind]}.", known=[service])
        return bound

    def scope(self, handler: BoundActorHandler, key: str | None, idempotency_key: str | None) -> KeyScope | None:
        """What at most one invocation has: an idempotency key, or the id of a workflow for its `run`.

        Raises:
            InvalidArgumentError: a `run` was given an idempotency key.
        """
        if handler.kind == "workflow":
            if idempotency_key is not None:
                raise InvalidArgumentError(
                    f"cannot use an idempotency key with the workflow {handler.service}: its `run` is started once for "
                    "each id, so the id is its idempotency key already."
                )
            return run_scope(handler.service, key or "")
        if idempotency_key is None:
            return None
        return KeyScope(handler.service, key or "", handler.name, idempotency_key)

    def scope_of(self, command: Command) -> KeyScope | None:
        """The same of a message that a handler sends, before it is known whether it can be accepted."""
        if not isinstance(command, MESSAGES):
            return None
        if command.idempotency_key is None:
            if command.handler != RUN or command.key is None:
                return None
            actor = self._actors.get(command.service)
            if actor is None or actor.definition.kind != "workflow":
                return None
        return key_scope(command)

    def check_object(self, service: str, key: str) -> None:
        """
        Raises:
            UnknownTargetError: there is no class of virtual objects of this name.
            InvalidKeyError: the key is empty, or no store can keep it.
        """
        actor = self._actors.get(service)
        if actor is None or actor.deletion is None:
            known = sorted(name for name, one in self._actors.items() if one.deletion is not None)
            raise UnknownTargetError(
                f"There is no virtual object {service!r} here. There are: {', '.join(known) or 'none'}.", known=known
            )
        if not key or not is_storable(key):
            raise _unusable_key(service, key)

    def deletion_of(self, service: str) -> BoundActorHandler:
        """The handler of the message that deletes an object of this class."""
        deletion = self._actors[service].deletion
        assert deletion is not None
        return deletion

    def state_edit_of(self, service: str) -> BoundActorHandler:
        """The handler of the message that replaces the state of an object of this class."""
        edit = self._actors[service].state_edit
        assert edit is not None
        return edit

    def actor(self, service: str) -> BoundActor:
        return self._actors[service]

    def run_retention_us(self, service: str) -> int:
        """How long what a workflow leaves is kept."""
        return self.retention_us(self._actors[service].handlers[RUN])

    def asked_journal_retention_us(self, handler: BoundActorHandler) -> int | None:
        """How long journals of a handler are kept, if anyone has said so; then also those of plain calls."""
        own = handler.journal_retention_us
        return self._journal_retention_us if own is None else own

    def asks_for_journals(self) -> bool:
        """Someone has said that journals of plain calls are kept."""
        handlers = [handler for actor in self._actors.values() for handler in actor.handlers.values()]
        return bool(self._journal_retention_us) or any(handler.journal_retention_us for handler in handlers)

    def retention_us(self, handler: BoundActorHandler) -> int:
        """How long outcomes of a handler are kept."""
        return self._retention_us if handler.retention_us is None else handler.retention_us


def _unusable_key(service: str, key: str) -> InvalidKeyError:
    if not key:
        return InvalidKeyError(f"The key of {service} is a string that is not empty.")
    return InvalidKeyError(f"The key {key!r} of {service} is not Unicode text without NUL, so it cannot be stored.")

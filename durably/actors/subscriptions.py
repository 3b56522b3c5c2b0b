"""`Subscription`: which events become messages to a handler, and to which object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from durably.actors.event_values import Delivery, EventClass
from durably.actors.values.descriptions import shortened
from durably.actors.values.names import checked_name
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass, reason_of
from durably.errors import EventDeliveryError, TerminalError

SubscriptionStart: TypeAlias = Literal["now", "beginning"] | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How published events of classes become messages: which class reads them, and which object gets them."""

    classes: Mapping[str, EventClass]
    """By the name of the event."""
    key: Callable[[Any], str] | None
    """Which object gets an event; None: that of the key that it was published with."""

    def key_of(self, delivery: Delivery) -> str:
        """The object, or the mailbox, that gets an event. One without a key has a mailbox of its own.

        Raises:
            EventDeliveryError: no object can get it.
        """
        if self.key is None:
            return delivery.key or delivery.id
        try:
            key: Any = self.key(self.decode(delivery))
            return checked_name(
                key, f"key= of the subscription gave {shortened(key)}, and a key is Unicode text, and not empty"
            )
        except TerminalError as error:
            raise EventDeliveryError(error.message) from error
        except USER_ERRORS as error:
            let_signals_pass(error)
            raise EventDeliveryError(
                f"key= of the subscription raised for {delivery.name}: {reason_of(error)}"
            ) from error

    def decode(self, delivery: Delivery) -> Any:
        """The event, read by the class of today.

        Raises:
            InvalidArgumentError: it does not fit.
        """
        return self.classes[delivery.name].decode(delivery.version, bytes(delivery.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A handler that gets the events of a stream, each as one message to the object of the event's key."""

    stream: str
    names: frozenset[str]
    """The kinds of events; none: all."""
    start: SubscriptionStart
    """Where a new one begins: with what is published from now on or since a moment, or with the oldest one kept."""
    name: str | None = None
    """What its place is kept under; None: the service and the handler."""
    routing: Routing | None = None
    """How events that are published become messages; None: the value of an event is one, as of a model's transition."""

    def wants(self, name: str) -> bool:
        return not self.names or name in self.names

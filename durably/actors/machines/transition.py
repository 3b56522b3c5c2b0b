"""What a transition leaves: `Transition`, a value, and `Applied`, which a caller gets with the object."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

To_co = TypeVar("To_co", covariant=True)


class Transition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A transition that happened."""

    id: str
    """`tsn_01h4…`"""
    name: str
    """As on the wire: `bookDelivery`."""
    object_id: str
    source: str | None
    """The state that the object was in; None where the transition has made it."""
    target: str
    """The state that it has been in since then."""
    at: datetime
    """Aware, UTC."""
    note: str | None
    """For people, as the caller wrote it."""
    arguments: Mapping[str, Any]
    """What it was called with, as on the wire."""
    invocation_id: str
    """The invocation that it was."""
    triggered_by: str
    """The handler or consumer that called it, as `Orders/BookDelivery`; empty where it was called from outside."""


class Applied(NamedTuple, Generic[To_co]):
    """`order, transition = await orders.pay(...)`"""

    object: To_co
    """The object as the transition left it."""
    transition: Transition

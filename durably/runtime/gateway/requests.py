"""What an ingress says to a runtime and hears from it: requests from outside, as bytes and names.

A request that is refused raises before anything is accepted; what became of an accepted one is in the `Reply`. So an
ingress can always tell the refusal of a request from the failure of an invocation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from durably.actors.retry import RetryPolicy
from durably.errors import TerminalError


class InvocationRequest(msgspec.Struct, kw_only=True):
    """One message from outside. `body` is as it came over the wire: empty, the bare value, or an object by name."""

    service: str
    key: str | None
    handler: str
    body: bytes
    headers: dict[str, str] = {}
    idempotency_key: str | None = None
    delay_us: int | None = None
    """For sends: microseconds until it joins the mailbox; None sends it at once."""
    timeout_us: int | None = None
    """Bounds the whole invocation, from acceptance to outcome."""
    written_by: None = None
    """What a client has written is not known, so it is read before it is accepted."""


class Acceptance(msgspec.Struct, kw_only=True, frozen=True):
    """A send that is durable."""

    id: str
    previously_accepted: bool
    due: int | None
    """When it will join the mailbox, microseconds since 1970 UTC; None where it was not delayed.

    Of a message that was accepted before: its own moment, also when that has passed.
    """


class Reply(msgspec.Struct, kw_only=True, frozen=True):
    """The outcome of a call, durable. `failure` is the handler's, or made in its name; then `body` is empty."""

    id: str
    body: bytes
    content_type: str | None
    """None for a result that is nothing."""
    failure: TerminalError | None
    expires_at: int | None
    """For a repeated keyed request: until when the outcome is kept, microseconds since 1970 UTC."""


class Effect(StrEnum):
    """What came of something that was done to an invocation; durable."""

    DONE = "done"
    APPENDED = "appended"
    """The invocation takes it in as soon as it can."""
    NOTHING = "nothing"
    """It was so already."""


class HandlerDescription(msgspec.Struct, kw_only=True, frozen=True):
    """A handler, for people and for tools. The types are as a programmer would write them."""

    name: str
    kind: Literal["service", "exclusive", "shared", "workflow"]
    parameters: dict[str, str]
    returns: str
    private: bool
    documentation: str
    accepts: str | None = None
    """The media range of bodies from outside; None where there is nothing to be sent."""
    content_type: str | None = None
    """Of the result; None where it is nothing."""
    retry: RetryPolicy | None = None
    """None where its service's holds, as with what follows."""
    retention_us: int | None = None
    journal_retention_us: int | None = None


class HandlerSchemas(msgspec.Struct, kw_only=True, frozen=True):
    """What a body and a result look like, as JSON schemas."""

    body: dict[str, Any] | None
    """None where there is nothing to be sent, or where a body is not JSON."""
    is_required: bool
    """The body may not be left out. False where it is not JSON: what a Serde makes of no bytes is its own business."""
    result: dict[str, Any] | None
    """None where it is nothing, or not JSON."""


class ServiceSchemas(msgspec.Struct, kw_only=True, frozen=True):
    """The JSON schemas of one service."""

    handlers: dict[str, HandlerSchemas]
    components: dict[str, dict[str, Any]]
    """What they refer to, by name."""


class ServiceOptions(msgspec.Struct, kw_only=True, frozen=True):
    """How a service is run, as its class and the runtime say it."""

    retention_us: int
    """How long outcomes are kept, of sends and of what has an idempotency key."""
    journal_retention_us: int | None
    """How long journals are kept after the end; None: a day for those of keyed invocations and of workflows."""
    retry: RetryPolicy


USUAL_OPTIONS = ServiceOptions(retention_us=86_400_000_000, journal_retention_us=None, retry=RetryPolicy())


class ServiceDescription(msgspec.Struct, kw_only=True, frozen=True):
    """A service, virtual object or workflow that a runtime runs."""

    name: str
    kind: Literal["service", "object", "workflow"]
    handlers: list[HandlerDescription]
    private: bool
    documentation: str
    options: ServiceOptions = USUAL_OPTIONS

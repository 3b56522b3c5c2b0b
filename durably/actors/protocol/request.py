"""`Request`: what started an invocation, as its handler sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What started this invocation: the same on every attempt, except `attempt`."""

    id: str
    """Of the invocation."""
    headers: Mapping[str, str]
    """Names in lower case; values of one that came several times are joined by commas."""
    body: bytes
    """The arguments, in the form in which they are stored."""
    idempotency_key: str | None
    deadline: datetime | None
    """When the invocation must have ended; aware, UTC."""
    attempt_headers: Mapping[str, tuple[str, ...]] = {}
    """The same headers, each with all of its values. An embedded runtime has no others for each attempt."""
    attempt: int
    """Counted from 1, since the last progress: an invocation that goes on after a wait begins anew."""

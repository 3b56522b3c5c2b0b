"""Headers of messages on Restate: what handlers see, what their calls carry on, and how a deadline travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from durably.actors.headers import REPEATED, Forwarding
from durably.actors.protocol.commands import Call, Send
from durably.http_headers import IDEMPOTENCY_KEY, TIMEOUT, TYPED_ERRORS
from durably.runtime.gateway.delays import parse_delay

DEADLINE: Final = "x-durably-deadline"
"""When the invocation has to have ended, microseconds since 1970 UTC: a handler of durably's has said it to another."""
_KEPT_BACK: Final = frozenset({"connection", "host", IDEMPOTENCY_KEY, TIMEOUT, TYPED_ERRORS, DEADLINE})
"""Headers about the connection, or for this package; a handler sees all others."""


def incoming_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What a handler sees."""
    return {name.lower(): value for name, value in headers.items() if name.lower() not in _KEPT_BACK}


def deadline_of(headers: Mapping[str, str], timeout_us: int | None, now: Callable[[], int]) -> int | None:
    """When an invocation has to have ended: by what its caller says, and by the limit of its handler.

    `now` is asked where a limit counts from now on.
    """
    limits: list[int] = [] if timeout_us is None else [now() + timeout_us]
    said = {name.lower(): value for name, value in headers.items()}
    if said.get(DEADLINE, "").isdecimal():
        limits.append(int(said[DEADLINE]))
    if TIMEOUT in said:
        with suppress(ValueError):  # It comes from outside, and has been accepted: it is too late to refuse it.
            limits.append(now() + parse_delay(said[TIMEOUT]))
    return min(limits, default=None)


class OutgoingHeaders:
    """The headers of what one invocation sends."""

    def __init__(self, incoming: dict[str, str], forwarding: Forwarding | None, deadline: int | None = None) -> None:
        self._incoming = incoming
        self._forwarding = forwarding
        self.deadline = deadline
        """That of the invocation, which calls inherit."""

    def of(self, command: Call | Send, joins_at: int, *, inherits: bool) -> dict[str, str]:
        """`joins_at` is when the message joins its mailbox; `inherits`: the deadline holds for what is called now."""
        headers = command.headers
        if isinstance(command, Call) and not command.has_all_headers and self._forwarding is not None:
            headers = self._forwarding.add(self._incoming, headers)
        limits: list[int] = [] if command.timeout_us is None else [joins_at + command.timeout_us]
        if inherits and self.deadline is not None and isinstance(command, Call):
            limits.append(self.deadline)
        told = {name: value.replace(REPEATED, ", ") for name, value in headers.items()}
        return {**told, DEADLINE: str(min(limits))} if limits else told

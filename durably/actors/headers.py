"""Headers of messages: what is kept of them, and which of an invocation's go on with the calls that it makes.

A header that came several times is stored as its values, each on a line: no value can hold a line break. Handlers see
them joined as HTTP says (`Request.headers`), or apart (`Request.attempt_headers`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from durably.actors.values.type_checks import is_iterable, is_mapping, is_text
from durably.errors import InvalidHeaderError
from durably.ids import is_storable

NO_HEADERS: dict[str, str] = {}
"""Shared by all messages without headers; no code changes the headers of a message."""

REPEATED: Final = "\n"
"""Between the values of a header that came several times, as it is stored."""

ForwardHeaders: TypeAlias = bool | Iterable[str]
"""Of a class, a runtime or one message: all headers, none, or those of these names."""

OF_ONE_MESSAGE: Final = frozenset({
    "connection", "expect", "host", "idempotency-key", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers about one connection, one message or one span, which mean nothing to the next."""
NONE_NAMED: Final[frozenset[str]] = frozenset()
OF_ONE_MESSAGE_PREFIXES: Final = ("content-", "x-restate-")


def is_of_one_message(name: str) -> bool:
    """Never forwarded: it is about the message that it came with."""
    return name in OF_ONE_MESSAGE or name.startswith(OF_ONE_MESSAGE_PREFIXES)


def named_by_connection(value: str) -> frozenset[str]:
    """The headers that a `Connection` header says are of this connection only (RFC 9110, 7.6.1), in lower case."""
    if not value:
        return NONE_NAMED
    return frozenset(name.strip().lower() for name in value.replace(REPEATED, ",").split(",")) - {""}


def joined(headers: dict[str, str]) -> dict[str, str]:
    """Stored headers as HTTP joins repeated ones: `a, b`."""
    if not headers or not any(REPEATED in value for value in headers.values()):
        return headers
    return {name: value.replace(REPEATED, ", ") for name, value in headers.items()}


def apart(headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Stored headers, each with all of its values."""
    return {name: tuple(value.split(REPEATED)) for name, value in headers.items()} if headers else {}


def plain_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of what a user gave as headers, refused where they are not strings.

    Names are in lower case; two that differ in nothing else are one header that came twice.
    """
    if not headers:
        return NO_HEADERS
    if not is_mapping(headers):
        raise TypeError(f"Headers are a mapping from names to values, not {headers!r}.")
    plain: dict[str, str] = {}
    for name, value in headers.items():
        if not (is_text(name) and is_text(value)):
            raise TypeError(f"Headers are Unicode text without NUL; {name!r}: {value!r} is not.")
        if not (is_storable(name) and is_storable(value)):
            raise InvalidHeaderError(f"Headers are Unicode text without NUL; {name!r}: {value!r} is not.")
        if "\n" in name or "\n" in value or "\r" in name or "\r" in value:
            raise InvalidHeaderError(f"Headers are single lines; {name!r}: {value!r} has a line break.")
        lower = name.lower()
        plain[lower] = f"{plain[lower]}{REPEATED}{value}" if lower in plain else value
    return plain


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Which headers of an invocation its calls carry on. `names` None: all but those of one message."""

    names: frozenset[str] | None

    def add(self, incoming: Mapping[str, str], explicit: dict[str, str]) -> dict[str, str]:
        """The headers of an outgoing message: those that are forwarded, under those that were given for it."""
        if not incoming:
            return explicit
        of_the_hop = named_by_connection(incoming.get("connection", ""))
        forwarded = {name: value for name, value in incoming.items() if self._includes(name) and name not in of_the_hop}
        return {**forwarded, **explicit} if forwarded else explicit

    def _includes(self, name: str) -> bool:
        return name in self.names if self.names is not None else not is_of_one_message(name)


def forwarding(given: Any, where: str) -> Forwarding | None:
    """What `forward_headers=` says; None: nothing, so that another may say it.

    Raises:
        TypeError, ValueError: it names what is no header, or one that is about a single message.
    """
    if given is None:
        return None
    if given is True:
        return Forwarding(None)
    if given is False:
        return Forwarding(frozenset())
    if not is_iterable(given):
        raise TypeError(f"{where} is True, False or a list of header names, not {given!r}.")
    names: set[str] = set()
    for name in given:
        if not is_text(name) or not name:
            raise TypeError(f"{where} lists names of headers; {name!r} is none.")
        if is_of_one_message(name.lower()):
            raise ValueError(f"{where} lists {name!r}, which is about one message or connection and never forwarded.")
        names.add(name.lower())
    return Forwarding(frozenset(names))

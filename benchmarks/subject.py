"""What a subject is, and which there are: the seam where peers come in.

A subject is a module of `benchmarks.subjects` with a `subject` in it: something that runs in the measuring process, or
a server that is sent requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from benchmarks.load import Operation
from benchmarks.measurement import Counts

KEYS: Final = 1_000
"""How many objects there are; operation n goes to object n modulo this."""
CHAIN_CALLS: Final = 10
LANES: Final = 100
"""Chains that do not get in each other's way; operation n takes lane n modulo this."""
SIZES_MB: Final = (1, 10, 30)
FIELD_BYTES: Final = 10_000_000
"""How large a field of another object is in the workload `call-beside-field`."""
BURN_SECONDS: Final = 0.0002
"""How long a handler of the workload `burning` keeps the processor busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A subject at work: what to call, and what it says of itself."""

    operation: Operation
    counts: Callable[[], Counts | None]
    prepared: int | None = None
    """How many operations go before everything else, where this workload needs another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """Runs in the event loop that measures. `open` takes a folder for its files and the name of the workload."""

    open: Callable[[Path, str], AbstractAsyncContextManager[Running]]
    prepared: int = KEYS
    """How many operations go before everything else, so that each object has been there once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Runs in a process of its own, which prints `Listening on http://127.0.0.1:<port>` when it is ready."""

    command: Callable[[Path], list[str]]
    requests: Mapping[str, Callable[[int], bytes]]
    """By workload, how operation n is asked for: one whole HTTP/1.1 request."""
    streams: Mapping[str, Callable[[int], bytes]] = field(default_factory=dict[str, Callable[[int], bytes]])
    """By workload of events, how reader n opens its stream; the requests are then those that publish."""
    counts_request: bytes | None = None
    """What it answers to this is JSON of `Counts`, or null."""


Subject: TypeAlias = InProcess | Served

SUBJECTS: Final = MappingProxyType(
    {
        "durably": "durably_in_process",
        "mailbox": "mailbox_on_sqlite",
        "memory": "mailbox_in_memory",
        "commit": "aiosqlite_commit",
        "decode": "decode_and_insert",
        "durably-http": "durably_over_http",
        "durably-granian": "durably_over_granian",
        "asgi": "asgi_hello",
        "asgi-events": "asgi_events",
    }
)
"""Modules of `benchmarks.subjects` by the names that plans use."""

TITLES: Final = MappingProxyType(
    {
        "durably": "durably",
        "mailbox": "mailbox on SQLite",
        "memory": "mailbox in memory",
        "commit": "aiosqlite commit",
        "decode": "msgspec and an insert",
        "durably-http": "durably serve, uvicorn",
        "durably-granian": "durably serve, granian",
        "asgi": "uvicorn, bare ASGI",
        "asgi-events": "uvicorn, queues in memory",
    }
)


def subject_named(name: str) -> Subject:
    """Import a subject."""
    module = import_module(f"benchmarks.subjects.{SUBJECTS[name]}")
    subject = module.subject
    assert isinstance(subject, InProcess | Served), f"{module.__name__} has no subject"
    return subject


def large_body(size_mb: int) -> bytes:
    """A list of small objects as JSON."""
    item = b'{"name":"abcdefgh","price":12.5,"count":3}'
    return b"[" + b",".join([item] * (size_mb * 1_000_000 // (len(item) + 1))) + b"]"


EVENTS_AT_ONCE: Final = 100
"""How many events a request publishes in the workloads of events."""


def publication(number: int) -> bytes:
    """A request that publishes events, each with one of so many keys."""
    events = (
        b'{"name":"Moved","key":"k%d","value":{"lift":"k%d","floor":%d}}' % (key, key, number)
        for key in (((number * EVENTS_AT_ONCE + offset) * 7919) % KEYS for offset in range(EVENTS_AT_ONCE))
    )
    return http_request("/events", b"[" + b",".join(events) + b"]")


def stream_of_all(number: int) -> bytes:
    """How a reader of all events asks."""
    return b"GET /events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def stream_of_one(number: int) -> bytes:
    """How a reader asks that wants the events of one key."""
    return b"GET /events?key=k%d HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % (number % KEYS)


EVENT_STREAMS: Final = MappingProxyType({"events-all": stream_of_all, "events-own": stream_of_one})


def http_request(path: str, body: bytes) -> bytes:
    """A POST as clients send it."""
    lines = (
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body

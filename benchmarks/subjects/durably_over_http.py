"""durably, served: `durably serve` on a SQLite file, called over HTTP, behind uvicorn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.subject import EVENT_STREAMS, KEYS, Served, http_request, publication

_CALLS = [http_request(f"/Counter/counter-{number}/add", b"1") for number in range(KEYS)]


def behind(server: str) -> Served:
    """`durably serve` behind one of its HTTP servers."""
    return Served(
        command=_command(server),
        requests={
            "call": lambda number: _CALLS[number % KEYS],
            **dict.fromkeys(EVENT_STREAMS, publication),
        },
        streams=EVENT_STREAMS,
        counts_request=http_request("/Inside/counts", b""),
    )


def _command(server: str) -> Callable[[Path], list[str]]:
    serve = [sys.executable, "-m", "durably.cli", "serve", "benchmarks.served:runtime", "--port", "0"]
    options = ["--server", server, "--log-level", "warning"]
    return lambda folder: [*serve, *options, "--store", f"sqlite:///{folder / 'durably.db'}"]


subject = behind("uvicorn")

"""durably, served: `durably serve` on a SQLite file, called over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.subject import KEYS, Served, http_request

_CALLS = [http_request(f"/Counter/counter-{number}/add", b"1") for number in range(KEYS)]


def _command(folder: Path) -> list[str]:
    serve = [sys.executable, "-m", "durably.cli", "serve", "benchmarks.served:runtime", "--port", "0"]
    return [*serve, "--store", f"sqlite:///{folder / 'durably.db'}", "--log-level", "warning"]


subject = Served(
    command=_command,
    requests={"call": lambda number: _CALLS[number % KEYS]},
    counts_request=http_request("/Inside/counts", b""),
)

"""What the command does first: it says in a sentence if the extras are missing, else it hands over to the commands."""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec

from _durably_command import leave_quietly_on_signals
from durably.cli.failures import EXTRAS_MISSING

NEEDED = ("typer", "rich", "starlette", "uvicorn", "httpx", "sqlglot", "yaml", "jsonpatch")


def main() -> None:
    """Run the `durably` command."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(EXTRAS_MISSING.format(missing=", ".join(missing)), file=sys.stderr)
        raise SystemExit(1)
    leave_quietly_on_signals()
    from durably.cli.commands import run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()

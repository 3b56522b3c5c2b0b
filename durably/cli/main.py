"""The entry point: says in a sentence if the extras are missing, and hands over to the commands otherwise."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from durably.cli.failures import EXTRAS_MISSING

NEEDED = ("typer", "rich", "starlette", "uvicorn", "httpx")


def main() -> None:
    """Run the `durably` command."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(EXTRAS_MISSING.format(missing=", ".join(missing)), file=sys.stderr)
        raise SystemExit(1)
    from durably.cli.commands import run

    run()

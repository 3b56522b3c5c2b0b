"""The entry point: says in a sentence if the extras are missing, and hands over to the command otherwise."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

NEEDED: Final = ("typer", "rich", "uvicorn", "httptools")


def main() -> None:
    """Run the suite."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"The benchmarks need {', '.join(missing)}: pip install 'durably[bench]'", file=sys.stderr)
        raise SystemExit(1)
    from benchmarks.command import application

    application(prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()

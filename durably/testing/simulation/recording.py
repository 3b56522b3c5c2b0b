"""`record`: writes what happened in each run to a file that the environment names, to compare processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from durably.testing.simulation.trace import Trace

TRACES_VARIABLE = "DURABLY_TRACES"

Recorded = tuple[int, list[str]]
"""The seed of a run, and what happened in it, a line each."""


def record(seed: int, trace: Trace) -> None:
    """Append a run to the file, if one is named."""
    path = os.environ.get(TRACES_VARIABLE)
    if path:
        line = json.dumps((seed, [str(tuple(entry)) for entry in trace.entries]))
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def recorded(path: Path) -> list[Recorded]:
    """The runs in such a file, in order."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").splitlines()
    return [(seed, told) for seed, told in map(json.loads, lines)]

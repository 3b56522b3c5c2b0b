"""How many instructions a call takes, counted by callgrind: a figure that does not drift with the machine as time does.

It is the same from run to run within a percent or two, on any machine with the same Python and libraries, however busy.
So it is kept beside the code (`instructions.json`), and a change that makes a call dearer is named. It says nothing of
waiting, of caches, or of what the kernel does: the benchmarks with a clock do.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.table import Table

from benchmarks.counted import MARK, PARTS
from benchmarks.suite import ROOT

KEPT: Final = Path(__file__).with_name("instructions.json")
NAMED_RISE: Final = 0.03
"""A rise beyond this share is named."""
SECONDS_AT_MOST: Final = 1_200
TOTAL: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class CountingError(Exception):
    """Nothing could be counted; the message says why."""


class Instructions(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has counted."""

    python: str
    per_call: dict[str, int]


def why_not() -> str | None:
    """Why nothing can be counted here, if nothing can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (apt install valgrind), so no instructions were counted."
    return None


def count_instructions(names: Sequence[str], folder: Path) -> Instructions:
    """Run these parts under callgrind, with all files in `folder`.

    Raises:
        CountingError: it failed.
    """
    with tempfile.TemporaryDirectory(dir=folder) as own:
        counts = Path(own) / "counts"
        callgrind = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={counts}"]
        program = [sys.executable, "-m", "benchmarks.counted", own, *names]
        try:
            ended = subprocess.run(
                [*callgrind, *program],
                cwd=ROOT,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
                capture_output=True,
                text=True,
                timeout=SECONDS_AT_MOST,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CountingError(f"callgrind took more than {SECONDS_AT_MOST} seconds.") from error
        if ended.returncode != 0:
            raise CountingError(f"callgrind ended with status {ended.returncode}:\n{ended.stderr.strip()}")
        # The files count from 1; each part has two, and the second one is what it did between its marks.
        totals = [_total(counts.with_name(f"counts.{2 * place}")) for place in range(1, len(names) + 1)]
    per_call = {name: round(total / PARTS[name].calls) for name, total in zip(names, totals, strict=True)}
    return Instructions(python=platform.python_version(), per_call=per_call)


def _total(path: Path) -> int:
    found = TOTAL.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise CountingError(f"{path.name} of callgrind has no total.")
    return int(found[1])


def kept(path: Path = KEPT) -> Instructions | None:
    """What the last change kept."""
    return msgspec.json.decode(path.read_bytes(), type=Instructions) if path.exists() else None


def keep(counted: Instructions, path: Path = KEPT) -> None:
    """Keep figures for the comparisons to come; those that were not counted stay."""
    before = kept(path)
    per_call = {**(before.per_call if before is not None else {}), **counted.per_call}
    ordered = {name: per_call[name] for name in PARTS if name in per_call}
    text = msgspec.json.format(msgspec.json.encode(Instructions(python=counted.python, per_call=ordered)), indent=2)
    path.write_bytes(text + b"\n")


def rises(counted: Instructions, before: Instructions | None) -> list[str]:
    """A sentence for each figure that has risen by more than 3 %."""
    if before is None:
        return []
    changes = _changes(counted.per_call, before.per_call)
    python = "" if counted.python == before.python else f" (kept from Python {before.python}, not {counted.python})"
    return [
        f"{PARTS[name].title}: {counted.per_call[name]:,} instructions, {change:+.1%} against what is kept{python}."
        for name, change in changes.items()
        if change > NAMED_RISE
    ]


def instructions_table(counted: Instructions, before: Instructions | None) -> Table:
    """Now, then and the change, a line for each part."""
    table = Table("what", "instructions per call", "kept", "change", title=f"CPython {counted.python}, callgrind")
    then = {} if before is None else before.per_call
    changes = _changes(counted.per_call, then)
    for name, number in counted.per_call.items():
        known = f"{then[name]:,}" if name in then else "-"
        change = f"{changes[name]:+.1%}" if name in changes else "-"
        table.add_row(PARTS[name].title, f"{number:,}", known, change)
    return table


def _changes(now: Mapping[str, int], then: Mapping[str, int]) -> dict[str, float]:
    return {name: now[name] / then[name] - 1 for name in now if name in then}

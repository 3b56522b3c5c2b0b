"""What failed before: a folder that keeps the seeds of failing runs, which come first next time, and their traces.

The plugin for pytest names a folder `.durably` beside pytest's configuration. Without it, or with an empty name,
nothing is kept. Give it only to people who may see what your programs ask and answer, and leave it out of version
control: `simulate(..., seed=7)` in a test is how a failure is kept for good.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "DURABLY_FAILURES"
MOST_SEEDS = 10


class Failures:
    """What is kept of one program."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def of(cls, program: Callable[..., Any], name: str) -> Failures:
        """Of this program, in the folder that the environment names."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            return cls(None)
        title = f"{getattr(program, '__module__', '')}.{name}"
        return cls(Path(folder) / "failures" / re.sub(r"[^\w.-]+", "_", title))

    def seeds(self) -> list[int]:
        """The seeds of the runs that failed, the last one first."""
        if self._folder is None or not self._folder.is_dir():
            return []
        found = [path for path in self._folder.glob("*.trace") if path.stem.isdecimal()]
        return [int(path.stem) for path in sorted(found, key=lambda path: -path.stat().st_mtime_ns)][:MOST_SEEDS]

    def keep(self, seed: int, trace: str) -> Path | None:
        """Keep a seed, and all that happened; where it stands."""
        if self._folder is None:
            return None
        path = self._folder / f"{seed}.trace"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(trace, "utf-8")
        except OSError:  # A folder that cannot be written to must not hide what failed.
            return None
        return path

    def forget(self, seed: int) -> None:
        """It does not fail any more."""
        if self._folder is not None:
            (self._folder / f"{seed}.trace").unlink(missing_ok=True)

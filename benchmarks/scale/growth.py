"""Runs each case at a tenth of its size and at all of it, and says which curves are flat or linear as they must be."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from rich.table import Table

from benchmarks.scale.cases import Case
from benchmarks.scale.meter import STEADY_MIB, Phase
from benchmarks.suite import run_program

TIMES: Final = 10
"""How much larger the full size is."""
LIFE_SECONDS: Final = 3_600.0
MOST: Final = 2.0
"""So many times what it should be is still no other curve: the machine is not always equally fast."""
NOTHING_SECONDS: Final = 0.2
"""What such short times differ by is no curve."""
HEADINGS: Final = (
    "what", "must be", "size", "s", "µs each", "MiB", "size", "s", "µs each", "MiB", "times as long", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A phase at both sizes."""

    small_size: int
    small: Phase
    full_size: int
    full: Phase

    @property
    def times(self) -> float:
        return self.full.seconds / self.small.seconds

    @property
    def is_as_it_must_be(self) -> bool:
        """Time: flat, or as the size. Memory: flat, unless it holds all that there is."""
        fair = 1.0 if self.full.shape == "flat" else self.full_size / self.small_size
        in_time = self.times <= MOST * fair or self.full.seconds - fair * self.small.seconds <= NOTHING_SECONDS
        return in_time and (self.full.holds_all or self.full.grown_mib - self.small.grown_mib <= STEADY_MIB)

    @property
    def cells(self) -> Sequence[str]:
        return (
            self.full.title,
            self.full.shape,
            *_figures(self.small, self.small_size),
            *_figures(self.full, self.full_size),
            f"{self.times:.1f}",
            "✓" if self.is_as_it_must_be else "✗",
        )


def _figures(phase: Phase, size: int) -> Sequence[str]:
    each = f"{phase.seconds / phase.operations * 1e6:,.0f}" if phase.operations > 1 else ""
    return f"{size:,}", f"{phase.seconds:.2f}", each, f"{phase.grown_mib:.0f}"


def measure_growth(
    cases: Sequence[Case], folder: Path, share: float, tell: Callable[[str], object]
) -> Iterator[Growth]:
    """Each case, in processes of its own; `share` is how much of the full size there is."""
    for case in cases:
        full_size = max(TIMES, int(case.full * share))
        small_size = full_size // TIMES
        tell(f"{case.name}, {small_size:,}")
        small = _phases(case, folder, small_size)
        tell(f"{case.name}, {full_size:,}")
        full = _phases(case, folder, full_size)
        for one, other in zip(small, full, strict=True):
            yield Growth(small_size=small_size, small=one, full_size=full_size, full=other)


def _phases(case: Case, folder: Path, size: int) -> Sequence[Phase]:
    """All lives of a case, on one store.

    Raises:
        MeasurementError: one failed, or took too long.
    """
    phases: list[Phase] = []
    with tempfile.TemporaryDirectory(dir=folder) as own:
        for life in range(len(case.lives)):
            command = [sys.executable, "-m", "benchmarks.scale.child", case.name, str(life), str(size), own]
            phases += msgspec.json.decode(run_program(command, LIFE_SECONDS), type=list[Phase])
    return phases


def growth_markdown(growths: Sequence[Growth]) -> str:
    """The table, for a document."""
    rows = [HEADINGS, ["---", "---", *["--:"] * 9, "---"], *(growth.cells for growth in growths)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def growth_table(growths: Sequence[Growth]) -> Table:
    """The same, for a terminal."""
    table = Table(title="how time and memory grow with how much there is")
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if 2 <= place <= 10 else "left", no_wrap=2 <= place <= 10)
    for growth in growths:
        table.add_row(*growth.cells)
    return table

"""`Report`: how much was simulated; and the totals of this process, which the summary of a test run shows."""

from __future__ import annotations

from dataclasses import dataclass, fields

_SECONDS = 1_000_000
_UNITS = (("years", 365 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one or many simulated runs did."""

    runs: int = 0
    crashes: int = 0
    """Processes killed."""
    commits: int = 0
    actions: int = 0
    """Attempts of side effects."""
    virtual_us: int = 0
    """Virtual time that passed, in microseconds."""

    def __add__(self, other: Report) -> Report:
        return Report(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    def __str__(self) -> str:
        """As the summary says it: `2,000 simulated runs, 3,141 crashes, 12.4 years of virtual time`."""
        runs = "1 simulated run" if self.runs == 1 else f"{self.runs:,} simulated runs"
        crashes = "1 crash" if self.crashes == 1 else f"{self.crashes:,} crashes"
        return f"{runs}, {crashes}, {_spoken(self.virtual_us / _SECONDS)} of virtual time"


def _spoken(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{seconds / size:,.1f} {unit}"


class Totals:
    """What has been simulated in this process."""

    def __init__(self) -> None:
        self.report = Report()

    def add(self, report: Report) -> None:
        self.report += report


TOTALS = Totals()

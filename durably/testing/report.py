"""What simulations did, in numbers: of one, and of all that this process has run."""

from __future__ import annotations

from dataclasses import dataclass

_UNITS_US = {
    "years": 365 * 86_400_000_000,
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one simulation did, all its runs together."""

    runs: int
    crashes: int
    commits: int
    actions: int
    """Attempts of actions of `ctx.run`."""
    virtual_us: int
    """Virtual time that passed, microseconds."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """What many simulations did; its text is for the summary of a test session."""

    runs: int = 0
    crashes: int = 0
    virtual_us: int = 0

    def add(self, more: Report | Totals) -> None:
        self.runs += more.runs
        self.crashes += more.crashes
        self.virtual_us += more.virtual_us

    def __str__(self) -> str:
        runs = "1 simulated run" if self.runs == 1 else f"{self.runs:,} simulated runs"
        crashes = "1 crash" if self.crashes == 1 else f"{self.crashes:,} crashes"
        return f"{runs}, {crashes}, {_describe(self.virtual_us)} of virtual time"


def _describe(time_us: int) -> str:
    """In the largest unit of which there is one at least."""
    unit, length_us = next((one for one in _UNITS_US.items() if time_us >= one[1]), ("seconds", 1_000_000))
    return f"{time_us / length_us:,.1f} {unit}"


TOTALS = Totals()
"""Of all simulations of this process."""

"""What simulations did, in numbers: of one, and of all that this process has run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

_UNITS_US = {
    "years": 365 * 86_400_000_000,
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one or many simulated runs did. Reports add up."""

    runs: int = 0
    crashes: int = 0
    """Processes killed."""
    commits: int = 0
    actions: int = 0
    """Attempts of actions of `ctx.run`."""
    virtual_us: int = 0
    """Virtual time that passed, microseconds."""
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each kind of fault happened."""
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each handler ended in each way: with a result, or with an error by its name."""

    def __add__(self, other: Report) -> Report:
        return Report(
            **{field.name: _sum(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        )

    def __str__(self) -> str:
        """`2,000 simulated runs, 3,141 crashes, 12.4 years of virtual time`."""
        runs = "1 simulated run" if self.runs == 1 else f"{self.runs:,} simulated runs"
        crashes = "1 crash" if self.crashes == 1 else f"{self.crashes:,} crashes"
        return f"{runs}, {crashes}, {_describe(self.virtual_us)} of virtual time"


def _sum(left: Any, right: Any) -> Any:
    if isinstance(left, int):
        return left + right
    return dict(sorted((Counter(left) + Counter(right)).items()))


def _describe(time_us: int) -> str:
    """In the largest unit of which there is one at least."""
    unit, length_us = next((one for one in _UNITS_US.items() if time_us >= one[1]), ("seconds", 1_000_000))
    return f"{time_us / length_us:,.1f} {unit}"


class Totals:
    """What many simulations did together."""

    def __init__(self) -> None:
        self.report = Report()

    def add(self, more: Report) -> None:
        self.report += more


TOTALS = Totals()
"""Of all simulations of this process; pytest's summary shows it."""

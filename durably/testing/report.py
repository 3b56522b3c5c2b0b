"""What simulations did, in numbers: of one, and of all that this process has run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

MOST_LISTED = 20

_UNITS_US = {
    "years": 365 * 86_400_000_000,
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
}


def _nothing() -> dict[str, int]:
    return {}


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
    faults: Mapping[str, int] = field(default_factory=_nothing)
    """How often each kind of fault happened."""
    outcomes: Mapping[str, int] = field(default_factory=_nothing)
    """How often each handler ended in each way: `Seat.reserve -> result`, or the name of an error."""
    sometimes: Mapping[str, int] = field(default_factory=_nothing)
    """In how many runs each condition of `Simulation.sometimes` was true."""
    largest_bytes: Mapping[str, int] = field(default_factory=_nothing)
    """The largest durable state of an object, by class."""
    globals_changed: Mapping[str, int] = field(default_factory=_nothing)
    """In how many runs handlers changed a global, by its name: it does not survive a crash of the process."""

    def __add__(self, other: Report) -> Report:
        names = [field.name for field in fields(self)]
        return Report(**{name: _together(name, getattr(self, name), getattr(other, name)) for name in names})

    def __str__(self) -> str:
        """`2,000 simulated runs, 3,141 crashes, 12.4 years of virtual time`."""
        runs = "1 simulated run" if self.runs == 1 else f"{self.runs:,} simulated runs"
        crashes = "1 crash" if self.crashes == 1 else f"{self.crashes:,} crashes"
        return f"{runs}, {crashes}, {_describe(self.virtual_us)} of virtual time"

    def details(self) -> Iterator[str]:
        """What was seen and what was not, a line each."""
        if self.runs > 1 and not self.crashes:
            yield "no run saw a crash"
        if self.faults:
            yield f"faults: {_counted(self.faults)}"
        if self.outcomes:
            yield f"outcomes: {_counted(self.outcomes)}"
        if never := [name for name, runs in self.sometimes.items() if not runs]:
            yield f"never happened: {', '.join(never)}"
        if self.largest_bytes:
            yield f"largest state in bytes: {_counted(self.largest_bytes)}"
        if self.globals_changed:
            yield f"globals that handlers changed, which no crash survives: {', '.join(self.globals_changed)}"


def _counted(numbers: Mapping[str, int]) -> str:
    listed = [f"{name} {number:,}" for name, number in numbers.items()]
    left_out = len(listed) - MOST_LISTED
    return ", ".join(listed if left_out <= 0 else [*listed[:MOST_LISTED], f"and {left_out} more"])


def _together(name: str, left: Any, right: Any) -> Any:
    if isinstance(left, int):
        return left + right
    names = sorted({*left, *right})
    if name == "largest_bytes":
        return {one: max(left.get(one, 0), right.get(one, 0)) for one in names}
    return {one: left.get(one, 0) + right.get(one, 0) for one in names}


def _describe(time_us: int) -> str:
    """In the largest unit of which there is one at least."""
    unit, length_us = next((one for one in _UNITS_US.items() if time_us >= one[1]), ("seconds", 1_000_000))
    return f"{time_us / length_us:,.1f} {unit}"


class Totals:
    """What many simulations did together."""

    def __init__(self) -> None:
        self.report = Report()
        self.without_crash: list[str] = []
        """Tests of many runs, none of which saw a crash."""

    def add(self, more: Report) -> None:
        self.report += more

    def details(self) -> Iterator[str]:
        """What was seen and what was not, a line each."""
        yield from self.report.details()
        if self.without_crash and self.report.crashes:
            listed = ", ".join(self.without_crash[:MOST_LISTED])
            left_out = len(self.without_crash) - MOST_LISTED
            more = f", and {left_out} more tests" if left_out > 0 else ""
            yield f"no run saw a crash in {listed}{more}"


TOTALS = Totals()
"""Of all simulations of this process; pytest's summary shows it."""

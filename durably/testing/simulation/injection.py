"""`Injection`: decides at each opportunity of a run whether a fault happens there, and remembers those that did.

What it decides comes from dice of its own, and what a fault then does (how long, durable or not) from dice that its
kind and its point seed. So the faults that happened, given again as points, make the same run; and one of them left out
changes nothing before its point. That is what lets a failure be shrunk to the fewest faults.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import NamedTuple

from durably.testing.simulation.faults import LATER_CALLBACKS, Extent, Fault, Faults, Kind, Place, Point


class Strike(NamedTuple):
    """A fault that happens now. `dice` say what it does."""

    fault: Fault
    point: Point
    dice: Random

    @property
    def lasts_us(self) -> int:
        """How long it lasts, in microseconds, up to what the fault says."""
        return self.dice.randrange(self.fault.for_us) if self.fault.for_us else 0


class Injection:
    """The faults of one run."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.happened: list[Fault] = []
        """The faults that did happen, each at its point, in order."""
        self.times: Counter[str] = Counter()
        """How often each kind happened."""
        self._seed = seed
        self._dice = Random(f"{seed} faults")
        self._passed: Counter[Place] = Counter()
        self._faults = faults
        self._by_place: dict[tuple[Kind, Place], list[Fault]] = {}
        self.faults = faults

    @property
    def faults(self) -> Faults:
        """What may happen from now on."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._by_place = {}
        for fault in faults.kinds:
            for place in fault.places if fault.at is None else (fault.at.place,):
                self._by_place.setdefault((fault.kind, place), []).append(fault)

    @property
    def extent(self) -> Extent:
        """How many opportunities there were so far."""
        passed = self._passed
        return Extent(
            commits=passed["before_commit"],
            reads=passed["read"],
            messages=passed["message"],
            replies=passed["reply"],
            actions=passed["before_action"],
        )

    def roll_anew(self, text: str) -> None:
        """From here on, chance depends on this text."""
        self._dice.seed(text)

    def passes(self, place: Place, number: int | None = None) -> None:
        """The run comes by a place, for the `number`-th time."""
        self._passed[place] = self._passed[place] + 1 if number is None else number

    def strikes(self, kind: Kind, place: Place) -> Strike | None:
        """Whether a fault of this kind happens here and now."""
        faults = self._by_place.get((kind, place))
        if faults is None:
            return None
        number = self._passed[place]
        for fault in faults:
            if fault.at is not None:
                if fault.at.number == number:
                    return self._happens(fault, fault.at)
            elif self._dice.random() < (fault.rate or 0.0) * (0.5 if kind == "crash" else 1.0):
                later = self._dice.randrange(1, LATER_CALLBACKS) if self._is_later(kind) else 0
                return self._happens(fault, Point(place, number, later))
        return None

    def _is_later(self, kind: Kind) -> bool:
        return kind == "crash" and self._dice.random() < 0.5

    def _happens(self, fault: Fault, point: Point) -> Strike:
        happened = replace(fault, rate=None, at=point, is_drawn=False)
        if happened not in self.happened:
            self.happened.append(happened)
        self.times[fault.kind] += 1
        return Strike(fault, point, Random(f"{self._seed} {fault.kind} {point}"))

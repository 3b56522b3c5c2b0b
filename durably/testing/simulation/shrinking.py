"""Shrinking: of a run that failed, the plainest that still fails like it: the fewest faults, and the plainest order.

A few runs without any faults, first in, first out, are tried first: what fails there needs nothing else. Otherwise the
run of the seed that failed is made plainer. The faults that happened are given again as points, one less each time;
then the order is first in, first out, but for as few shuffles as it takes. What counts is that the same kind of error
comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from durably.testing.harness.conditions import InvariantError
from durably.testing.simulation.faults import Faults
from durably.testing.simulation.guarantees import GuaranteeError
from durably.testing.simulation.schedule import order_but
from durably.testing.simulation.simulation import Simulation

T = TypeVar("T")

MOST_TRIES = 80
"""How many runs it may take."""
PLAIN_SEEDS = range(6)
"""Seeds whose plain runs are tried besides that of the seed that failed."""
LONGEST_CALLBACKS = 100_000
"""A run that is longer than this is told as it is."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One run, and how it ended."""

    seed: int
    faults: Faults
    """What it ran with."""
    asked: Faults
    """What gives these faults again, if asked for with the seed."""
    order: str | None
    simulation: Simulation
    error: Exception | None

    @property
    def kind(self) -> object:
        """What went wrong, without what differs from run to run."""
        error = self.error
        if isinstance(error, GuaranteeError):
            return type(error), error.number
        if isinstance(error, InvariantError):
            return type(error), str(error).partition(" does not hold")[0].partition(" bytes")[0][:30]
        return type(error)

    def fails_like(self, other: Attempt) -> bool:
        """Whether the error is of the same kind, and comes from the same line if it is of the program."""
        return self.error is not None and self.kind == other.kind and self._raised_at == other._raised_at

    @property
    def _raised_at(self) -> object:
        """The line of an error that no condition or guarantee names."""
        trace = None if self.error is None or isinstance(self.kind, tuple) else self.error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        return None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)


Try = Callable[[int, Faults, str | None], Attempt]


class _Search:
    """Tries runs until there were too many."""

    def __init__(self, failed: Attempt, attempt: Try) -> None:
        self.best = failed
        self._attempt = attempt
        self._left = MOST_TRIES

    def fails(self, faults: Faults, order: str | None) -> bool:
        """Whether the run fails in the same way; then it is the best so far."""
        if self._left == 0:
            return False
        self._left -= 1
        tried = self._attempt(self.best.seed, faults, order)
        if tried.error is None or tried.kind != self.best.kind:
            return False
        self.best = tried
        return True


def plainest(failed: Attempt, attempt: Try) -> Attempt:
    """The plainest run that fails like this one; itself, if none was found."""
    if failed.simulation.loop.callbacks > LONGEST_CALLBACKS:
        return failed
    plain = _plain(failed, attempt)
    if plain is not None:
        return plain
    search = _Search(failed, attempt)
    happened = failed.simulation.injection.happened
    order = failed.order
    if search.fails(Faults(tuple(happened)), order):
        _fewest(happened, lambda fewer: search.fails(Faults(tuple(fewer)), order))
        _one_alone(search, order)
    faults = search.best.faults
    if failed.order is None and not search.fails(faults, order_but([])):
        made = search.best.simulation.shuffles.made
        if made and search.fails(faults, order_but(made)):
            _fewest(made, lambda fewer: search.fails(faults, order_but([*fewer])))
    return search.best


def _plain(failed: Attempt, attempt: Try) -> Attempt | None:
    """A run without faults, in the order that was asked for or first in, first out, that fails like this one."""
    order = order_but([]) if failed.order is None else failed.order
    for seed in dict.fromkeys((failed.seed, *PLAIN_SEEDS)):
        tried = attempt(seed, Faults.none(), order)
        if tried.fails_like(failed):
            return tried
    return None


def _one_alone(search: _Search, order: str | None) -> None:
    """Try each fault that is left alone and earlier: without the others, its point may never come."""
    left = search.best.faults.kinds
    if len(left) < 2:
        return
    for fault in reversed(left):
        at = fault.at
        if at is None:
            continue
        for number in range(at.number, 0, -1):
            if search.fails(Faults((replace(fault, at=replace(at, number=number)),)), order):
                return


def _fewest(all_of_them: Sequence[T], still_fails: Callable[[Sequence[T]], bool]) -> None:
    """Leave out halves, quarters and so on, as long as it still fails (delta debugging; Zeller, 1999)."""
    kept = [*all_of_them]
    if still_fails([]):
        return
    size = max(len(kept) // 2, 1)
    while kept:
        place, removed = 0, False
        while place < len(kept):
            fewer = kept[:place] + kept[place + size :]
            if fewer != kept and still_fails(fewer):
                kept, removed = fewer, True
            else:
                place += size
        if size == 1 and not removed:
            return
        size = max(size // 2, 1)

"""The kit finds what is broken: each of these runtimes and actors within some runs, as what it is; and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from durably.errors import PausedInvocationError, UnknownTargetError
from durably.testing import (
    GuaranteeError,
    InvariantError,
    SimulationFailedError,
    SimulationStuckError,
    Workload,
)
from durably.testing.simulation import loop
from durably.testing.simulation.guarantees import MachineError
from tests.levels import level
from tests.simulation.broken import EVERYTHING, MUTANTS, Mutant, Patch
from workloads import program_parts

RUNS = 200
"""How many are tried, at most, until a mutant is found."""


def kind_of(error: BaseException | None) -> str:
    """What found it."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return kind_of(group.exceptions[0])
    match error:
        case GuaranteeError(number=number):
            return f"guarantee {number}"
        case MachineError():
            return "machine"
        case InvariantError():
            return "invariant"
        case SimulationStuckError():
            return "stuck"
        case PausedInvocationError():
            return "paused"
        case AssertionError() | UnknownTargetError():  # The program asks for what it was promised, and misses it.
            return "check"
        case _:
            return repr(error)


def first_failure(where: Sequence[Workload], runs: range) -> SimulationFailedError | None:
    """The workloads take turns until a run of one of them fails."""
    fresh = [replace(workload, shrink=False) for workload in where]
    for number in runs:
        try:
            fresh[number % len(fresh)].run(number // len(fresh))
        except SimulationFailedError as error:
            return error
    return None


@pytest.fixture(autouse=True)
def _patience_with_broken_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_CALLBACKS", 150_000)
    monkeypatch.setattr(program_parts, "PATIENCE", 500)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_takes_what_the_method_takes_that_it_breaks(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.breaks(Patch(monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_what_is_broken_is_found(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.breaks(Patch(monkeypatch))
    failure = first_failure(mutant.where, range(0 if level().is_search else mutant.first_run, RUNS))
    assert failure is not None, f"{RUNS} runs found nothing"
    found = kind_of(failure.__cause__)
    assert found in mutant.found_as, f"seed {failure.seed}: {failure}"


def test_what_is_not_broken_passes() -> None:
    failure = first_failure(EVERYTHING, range(min(level().runs, RUNS)))
    assert failure is None, failure

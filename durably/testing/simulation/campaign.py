"""`simulate` and `for_each_crash_point`: many runs of one program, and the account of the first that fails."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias, cast

from durably.actors.actor import Actor
from durably.actors.durations import Duration
from durably.actors.retry import RetryPolicy
from durably.testing.harness import ONE_ATTEMPT
from durably.testing.report import TOTALS, Report
from durably.testing.simulation.faults import Faults
from durably.testing.simulation.simulation import TEN_YEARS, Simulation

Program: TypeAlias = Callable[[Simulation], Coroutine[Any, Any, object]]
"""What happens in the world outside: a coroutine function that asks, waits, and asserts."""

Dependencies: TypeAlias = Mapping[Any, Any] | Callable[[], Mapping[Any, Any]]


class SimulationFailedError(AssertionError):
    """A run failed. The message tells its seed, what happened last, and the line that repeats it."""

    def __init__(self, message: str, seed: int, simulation: Simulation) -> None:
        super().__init__(message)
        self.seed = seed
        self.simulation = simulation
        """The run, for those who want to look into it: its trace, disk and history."""


def simulate(
    program: Program,
    *actors: type[Actor],
    runs: int = 200,
    seed: int | None = None,
    faults: Faults | None = None,
    dependencies: Dependencies | None = None,
    retry: RetryPolicy = ONE_ATTEMPT,
    suspend_after: Duration | None = None,
    longest: Duration = TEN_YEARS,
) -> Report:
    """Run a program many times, each time with other interleavings, other delays, and other faults.

    Each run has a seed: 0 to `runs - 1`, so that a test tries the same each time; `seed` makes it that one run only.
    Without `faults`, `Faults.any()`: each seed chooses what goes wrong. `dependencies` should be a function that makes
    them, unless they remember nothing. See `Simulation` for what is checked while it runs.

    Raises:
        SimulationFailedError: a run failed; says how to repeat it. Its cause is the error itself.
    """
    wanted = Faults.any() if faults is None else faults
    total = Report()
    for number in range(runs) if seed is None else (seed,):
        simulation = Simulation(
            *actors,
            seed=number,
            faults=wanted,
            dependencies=dependencies,
            retry=retry,
            suspend_after=suspend_after,
            longest=longest,
        )
        total += _run(simulation, program, actors, wanted)
    return total


def for_each_crash_point(
    program: Program,
    *actors: type[Actor],
    seed: int = 0,
    faults: Faults | None = None,
    dependencies: Dependencies | None = None,
    retry: RetryPolicy = ONE_ATTEMPT,
    suspend_after: Duration | None = None,
    longest: Duration = TEN_YEARS,
) -> Report:
    """Run a program that makes n commits n + 1 times: undisturbed, then killed before its commit 1, 2, 3 and so on.

    The program asserts what has to be true at its end, whatever happened. If it returns something else than None, that
    has to be the same in every run. `faults` are had besides.

    Raises:
        SimulationFailedError: a run failed; says how to repeat it.
    """
    besides = Faults.none() if faults is None else faults
    expected: list[object] = []

    async def same(simulation: Simulation) -> None:
        result = await program(simulation)
        expected.append(result)
        if result != expected[0]:
            raise AssertionError(f"The program returned {expected[0]!r} undisturbed, and {result!r} after the crash.")

    same.__qualname__ = _name(program)

    def run(wanted: Faults) -> Report:
        simulation = Simulation(
            *actors,
            seed=seed,
            faults=wanted,
            dependencies=dependencies,
            retry=retry,
            suspend_after=suspend_after,
            longest=longest,
        )
        return _run(simulation, same, actors, wanted)

    total = undisturbed = run(besides)
    for number in range(1, undisturbed.commits + 1):
        total += run(besides | Faults.crash(at=f"before_commit:{number}", down=0))
    return total


def _run(simulation: Simulation, program: Program, actors: tuple[type[Actor], ...], wanted: Faults) -> Report:
    with simulation:
        try:
            simulation.run(program(simulation))
            simulation.finish()
        except Exception as error:
            raise SimulationFailedError(
                _account(simulation, program, actors, wanted, error), simulation.seed, simulation
            ) from error
        finally:
            TOTALS.add(simulation.report())
        return simulation.report()


def _account(
    simulation: Simulation, program: Program, actors: tuple[type[Actor], ...], wanted: Faults, error: BaseException
) -> str:
    names = "".join(f", {actor.__name__}" for actor in actors)
    faults = "" if wanted == Faults.any() else f", faults={wanted!r}"
    told = _leaf(error)
    return (
        f"The run with seed {simulation.seed} failed: {type(told).__name__}: {told}\n\n"
        f"What happened last, after {simulation.crashes} crashes, with {simulation.faults!r}:\n"
        f"{simulation.account()}\n\n"
        f"Repeat it with: simulate({_name(program)}{names}, seed={simulation.seed}{faults})"
    )


def _leaf(error: BaseException) -> BaseException:
    """The error in a group of one, as a TaskGroup makes them."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _leaf(group.exceptions[0]) if len(group.exceptions) == 1 else group


def _name(program: Program) -> str:
    name: str = getattr(program, "__qualname__", None) or repr(program)
    return name.rpartition("<locals>.")[2]

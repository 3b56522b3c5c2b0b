"""`simulate` and `for_each_crash_point`: many runs of one program, and the account of the first that fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from durably.actors.actor import Actor
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.testing import report as reports
from durably.testing.report import Report
from durably.testing.simulation.accounts import describe
from durably.testing.simulation.faults import Extent, Faults
from durably.testing.simulation.process_memory import ProcessMemory
from durably.testing.simulation.simulation import Simulation

Program: TypeAlias = Callable[[Simulation], Coroutine[Any, Any, object]]
"""What happens in the world outside: a coroutine function that asks, waits, and asserts."""

Dependencies: TypeAlias = Mapping[Any, Any] | Callable[[], Mapping[Any, Any]]


class NeverHappenedError(AssertionError):
    """What `Simulation.sometimes` names has to happen in one run of a campaign at least, and did not."""


UNDISTURBED_SEED = 0
"""The run that tells how long a program is, if seeds place the faults."""


class SimulationFailedError(AssertionError):
    """A run failed. The message tells its seed, what happened last, and how to repeat it."""

    def __init__(self, message: str, seed: int, simulation: Simulation) -> None:
        super().__init__(message)
        self.seed = seed
        self.simulation = simulation
        """The run, for those who want to look into it: its `trace`, `disk` and `history`."""


class Options(TypedDict, total=False):
    """How simulations are made, besides their seeds; see `Simulation`."""

    dependencies: Dependencies | None
    """Should be a function that makes them, unless they remember nothing."""
    retry: RetryPolicy
    suspend_after: Duration | None
    longest: Duration
    """Virtual time after which a program that has not ended is given up."""
    allow: Collection[str]
    """Modules that may read clocks and roll dice in handlers."""


def simulate(
    program: Program,
    *actors: type[Actor],
    runs: int = 200,
    seed: int | None = None,
    faults: Faults | None = None,
    **options: Unpack[Options],
) -> Report:
    """Run a program many times, each time with other interleavings, other delays, and other faults.

    Each run has a seed: 0 to `runs - 1`, so that a test tries the same each time; `seed` makes it that one run only.
    The module `random` is seeded, too, for the program and for actions. Without `faults`, `Faults.any()`: each seed
    chooses what goes wrong, among the commits, messages and actions that the program has. To count them, the run with
    seed 0 has no faults, unless their rates or points are given. `dependencies` should be a function that makes them,
    unless they remember nothing. See `Simulation` for the other options and for what is checked.

    Raises:
        SimulationFailedError: a run failed; says how to repeat it. Its cause is the error itself.
        NeverHappenedError: what `sometimes` names happened in no run.
        TypeError, ValueError: an argument cannot work.
    """
    __tracebackhide__ = True
    _check(program, actors, runs, faults)
    campaign = Campaign("simulate", program, actors, options)
    chosen = Faults.any() if faults is None else faults
    if seed is not None:
        return campaign.run(seed, chosen)
    total = campaign.run_all(range(runs), chosen)
    check_sometimes(total)
    return total


def for_each_crash_point(
    program: Program,
    *actors: type[Actor],
    seed: int = 0,
    place: Literal["before_commit", "after_commit"] = "before_commit",
    faults: Faults | None = None,
    **options: Unpack[Options],
) -> Report:
    """Run a program that makes n commits n + 1 times: undisturbed, then killed at its commit 1, 2, 3 and so on.

    `place` says whether right before the commit is durable, or right after it. What is committed after the program has
    ended counts, too. The program asserts what has to be true at its end, whatever happened; if it returns something
    else than None, that has to be the same in every run. `faults` are had besides; by default there are none. An action
    that was under way when the process died is run again.

    Raises:
        SimulationFailedError: a run failed; says how to repeat it.
        TypeError: an argument cannot work.
    """
    __tracebackhide__ = True
    _check(program, actors, 1, faults)
    besides = Faults.none() if faults is None else faults
    expected: list[object] = []

    async def same(simulation: Simulation) -> None:
        result = await program(simulation)
        expected.append(result)
        if result != expected[0]:
            raise AssertionError(f"The program returned {expected[0]!r} undisturbed, and {result!r} after the crash.")

    campaign = Campaign("for_each_crash_point", same, actors, options, name=_name(program))
    total = undisturbed = campaign.run(seed, besides)
    for number in range(1, undisturbed.commits + 1):
        total += campaign.run(seed, besides | Faults.crash(at=f"{place}:{number}", down=0))
    return total


def check_sometimes(report: Report) -> None:
    """See that everything happened that has to happen at times.

    Raises:
        NeverHappenedError: something did not.
    """
    never = [repr(name) for name, runs in report.sometimes.items() if not runs]
    if never:
        raise NeverHappenedError(
            f"{', '.join(never)} did not happen in any of {report.runs} runs, so they show nothing about it. The "
            "program may not get there, or the condition may be wrong; otherwise make more runs."
        )


class Campaign:
    """Runs of one program, and what is said of the one that fails."""

    def __init__(
        self, how: str, program: Program, actors: tuple[type[Actor], ...], options: Options, *, name: str | None = None
    ) -> None:
        self._how = how
        self._program = program
        self._actors = actors
        self._options = options
        self._name = _name(program) if name is None else name
        self._extent: Extent | None = None
        self._memory: ProcessMemory | None = None

    def run_all(self, seeds: Iterable[int], faults: Faults) -> Report:
        """Run each of these seeds, until one fails."""
        __tracebackhide__ = True
        total = Report()
        for seed in seeds:
            total += self.run(seed, faults)
        return total

    def run(self, seed: int, faults: Faults) -> Report:
        """One run.

        Raises:
            SimulationFailedError: it failed, or the undisturbed one did that tells how long the program is.
        """
        __tracebackhide__ = True
        if not faults.is_placed_by_seeds:
            return self._run(seed, faults)
        if seed == UNDISTURBED_SEED:
            return self._run(seed, Faults.none())
        if self._extent is None:
            self._run(UNDISTURBED_SEED, Faults.none())
        return self._run(seed, faults)

    def _run(self, seed: int, faults: Faults) -> Report:
        __tracebackhide__ = True
        if self._memory is None:
            given = self._options.get("dependencies")
            made_by = () if given is None or isinstance(given, Mapping) else (given,)
            self._memory = ProcessMemory(
                self._actors, (self._program, *made_by), given if isinstance(given, Mapping) else None
            )
        with Simulation(
            *self._actors, seed=seed, faults=faults, extent=self._extent, memory=self._memory, **self._options
        ) as simulation:
            try:
                simulation.run(self._program(simulation))
                if seed == UNDISTURBED_SEED and faults == Faults.none():
                    self._extent = simulation.injection.extent
                simulation.finish()
            except Exception as error:
                raise SimulationFailedError(self._account(simulation, faults, error), seed, simulation) from error
            except BaseException as error:  # Such as pytest.fail.
                error.add_note(self._account(simulation, faults, error))
                raise
            finally:
                reports.TOTALS.add(simulation.report())
            return simulation.report()

    def _account(self, simulation: Simulation, faults: Faults, error: BaseException) -> str:
        seed = simulation.seed
        return (
            f"The run with seed {seed} failed: {describe(error)}\n\n"
            f"{simulation.account()}\n\n"
            f"Repeat it with: {self._repeat(seed, faults)}"
        )

    def _repeat(self, seed: int, faults: Faults) -> str:
        """The call that does the same again, as far as it can be written down."""
        said = [self._name, *(actor.__name__ for actor in self._actors), f"seed={seed}"]
        said += [f"{name}={_written(value)}" for name, value in self._options.items() if value is not None]
        if self._how == "simulate":
            said += [] if faults == Faults.any() else [f"faults={faults!r}"]
            return f"simulate({', '.join(said)})"
        return f"{self._how}({', '.join(said)}), whose run with {faults!r} it is"


def _written(value: object) -> str:
    """An option as one would write it; what has no name is as it was before."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str) and "<" not in name:
        return name
    return "..." if callable(value) or isinstance(value, Mapping) else repr(value)


def _check(program: Program, actors: tuple[type[Actor], ...], runs: int, faults: Faults | None) -> None:
    inner: Any = program
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.iscoroutinefunction(inner) and not inspect.iscoroutinefunction(getattr(inner, "__call__", None)):  # noqa: B004
        raise TypeError(f"A program is a coroutine function, `async def program(sim): ...`; {program!r} is not.")
    if not actors:
        raise TypeError("There is nothing to simulate: give the classes of actors after the program.")
    if not isinstance(faults, Faults | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"faults= takes a value such as Faults.crash() | Faults.slow(), not {faults!r}.")
    if runs < 1:
        raise ValueError(f"A simulation has at least one run, not {runs}.")


def _name(program: Any) -> str:
    if isinstance(program, partial):
        return f"partial({_name(program.func)}, ...)"
    name: str = getattr(program, "__qualname__", None) or type(program).__name__
    return name.rpartition("<locals>.")[2]

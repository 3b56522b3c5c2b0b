"""`simulate` and `for_each_crash_point`: many runs of one program, and the account of the first that fails."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, Unpack

from durably.actors.actor import Actor
from durably.actors.values.type_checks import is_mapping
from durably.testing import report as reports
from durably.testing.harness.accounts import describe
from durably.testing.report import Report
from durably.testing.simulation.failures import Failures
from durably.testing.simulation.faults import PLACES, Extent, Faults, Place
from durably.testing.simulation.options import Known, Options, check_count, check_options
from durably.testing.simulation.parallel import Share, can_run_in_parallel, run_in_parallel
from durably.testing.simulation.process_memory import ProcessMemory
from durably.testing.simulation.recording import record
from durably.testing.simulation.shrinking import Attempt, plainest
from durably.testing.simulation.simulation import Simulation

Program: TypeAlias = Callable[[Simulation], Coroutine[Any, Any, object]]
"""What happens in the world outside: a coroutine function that asks, waits, and asserts."""

UNDISTURBED_SEED = 0
"""The run that tells how long a program is, if seeds place the faults."""


class SimulationFailedError(AssertionError):
    """A run failed. The message tells its seed, what happened, and how to repeat it."""

    def __init__(self, message: str, seed: int, simulation: Simulation) -> None:
        super().__init__(message)
        self.seed = seed
        self.simulation = simulation
        """The run that is told, for those who want to look into it: its `trace`, `disk` and `history`."""


class NeverHappenedError(AssertionError):
    """What `Simulation.sometimes` names has to happen in one run of a campaign at least, and did not."""


def simulate(
    program: Program,
    *actors: type[Actor],
    runs: int = 200,
    seed: int | None = None,
    faults: Faults | None = None,
    order: str | None = None,
    jobs: int | None = 1,
    part: tuple[int, int] | None = None,
    shrink: bool = True,
    **options: Unpack[Options],
) -> Report:
    """Run a program many times, each time with other interleavings, other delays, and other faults.

    Each run has a seed: 0 to `runs - 1`, so that a test tries the same each time; `seed` makes it that one run only.
    The module `random` is seeded, too, for the program and for actions. Without `faults`, `Faults.any()`: each seed
    chooses what goes wrong, among the commits, messages and actions that the program has. To count them, the run with
    seed 0 has no faults, unless their rates or points are given. `dependencies` should be a function that makes them,
    unless they remember nothing. See `Simulation` for the other options and for what is checked.

    `jobs` is how many processes share the runs, None for one a processor; `part=(0, 4)` makes the first quarter of them
    here, and leaves the others to other machines. Of a run that fails, the plainest is told
    that fails like it; `shrink=False` tells it as it was. In pytest, seeds that failed are kept, and come first.

    Raises:
        SimulationFailedError: a run failed; says how to repeat it. Its cause is the error itself.
        NeverHappenedError: what `sometimes` names happened in no run.
        TypeError, ValueError: an argument cannot work.
    """
    __tracebackhide__ = True
    check_program(program, actors, runs, faults)
    if jobs is not None:
        check_count("jobs", jobs)
    if part is not None:
        check_part(part)
    check_options(options)
    campaign = Campaign("simulate", program, actors, options, order=order, shrink=shrink)
    chosen = Faults.any() if faults is None else faults
    if seed is not None:
        return campaign.run(seed, chosen)
    first, step = (0, 1) if part is None else part
    total = campaign.run_all(range(first, runs, step), chosen, jobs=jobs, kept=first == 0)
    if part is None:  # A part alone may not see everything.
        check_sometimes(total)
    return total


def for_each_crash_point(
    program: Program,
    *actors: type[Actor],
    seed: int = 0,
    place: Place | Sequence[Place] = "before_commit",
    pairs: bool = False,
    faults: Faults | None = None,
    **options: Unpack[Options],
) -> Report:
    """Run a program that makes n commits n + 1 times: undisturbed, then killed at its commit 1, 2, 3 and so on.

    `place` says whether right before the commit is durable, or right after it; or before or after each action; several
    are tried one after the other. `pairs` kills each of these runs a second time, at each later point in turn. What is
    committed after the program has ended counts, too. The program asserts what has to be true at its end in every run;
    if it returns something else than None, that has to be the same in every run. `faults` are had besides; by default
    there are none. An action that was under way when the process died is run again.

    Raises:
        SimulationFailedError: a run failed; says how to repeat it.
        TypeError, ValueError: an argument cannot work.
    """
    __tracebackhide__ = True
    check_program(program, actors, 1, faults)
    places = (place,) if isinstance(place, str) else tuple(place)
    for one in places:
        if one not in PLACES:
            raise ValueError(f"place= is one or several of {', '.join(PLACES)}, not {one!r}.")
    besides = Faults.none() if faults is None else faults
    expected: list[object] = []

    async def same(simulation: Simulation) -> None:
        result = await program(simulation)
        expected.append(result)
        if result != expected[0]:
            raise AssertionError(f"The program returned {expected[0]!r} undisturbed, and {result!r} after the crash.")

    campaign = Campaign("for_each_crash_point", same, actors, options, name=_name(program), shrink=False)
    first = campaign.attempt(seed, besides)
    total = campaign.passed(first)
    for one in places:
        for number in range(1, first.simulation.injection.extent.at(one) + 1):
            crash = besides | Faults.crash(at=f"{one}:{number}", down=0)
            killed = campaign.attempt(seed, crash)
            total += campaign.passed(killed)
            later = range(number + 1, killed.simulation.injection.extent.at(one) + 1) if pairs else ()
            for second in later:
                total += campaign.run(seed, crash | Faults.crash(at=f"{one}:{second}", down=0))
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
    """Runs of one program, and the report of the one that fails."""

    def __init__(
        self,
        how: str,
        program: Program,
        actors: tuple[type[Actor], ...],
        options: Options,
        *,
        name: str | None = None,
        order: str | None = None,
        shrink: bool = True,
    ) -> None:
        self._how = how
        self._program = program
        self._actors = actors
        self._options = options
        self._name = _name(program) if name is None else name
        self._order = order
        self._shrink = shrink
        self._extent: Extent | None = None
        self._memory: ProcessMemory | None = None
        self._failures = Failures.of(program, self._name)

    def run_all(self, seeds: Sequence[int], faults: Faults, *, jobs: int | None = 1, kept: bool = True) -> Report:
        """Run each of these seeds, until one fails; those that failed before come first, if `kept`."""
        __tracebackhide__ = True
        total = Report()
        for seed in self._failures.seeds() if kept else ():
            total += self.run(seed, faults)
            self._failures.forget(seed)
        jobs = (os.cpu_count() or 1) if jobs is None else jobs
        if jobs > 1 and can_run_in_parallel():
            return total + self._run_in_parallel(seeds, faults, jobs)
        for seed in seeds:
            total += self.run(seed, faults)
        return total

    def run(self, seed: int, faults: Faults) -> Report:
        """One run.

        Raises:
            SimulationFailedError: it failed, or the undisturbed one did that tells how long the program is.
        """
        __tracebackhide__ = True
        if faults.is_placed_by_seeds and self._extent is None and seed != UNDISTURBED_SEED:
            self.passed(self.attempt_seed(UNDISTURBED_SEED, faults))
        return self.passed(self.attempt_seed(seed, faults))

    def attempt_seed(self, seed: int, faults: Faults) -> Attempt:
        """Make the run that a seed and these faults mean, whether it fails or not."""
        if faults.is_placed_by_seeds and seed == UNDISTURBED_SEED:
            return self.attempt(seed, Faults.none(), asked=faults)
        return self.attempt(seed, faults)

    def attempt(self, seed: int, faults: Faults, order: str | None = None, *, asked: Faults | None = None) -> Attempt:
        """Make a run, whether it fails or not."""
        __tracebackhide__ = True
        asked = faults if asked is None else asked
        order = self._order if order is None else order
        error: Exception | None = None
        with self._simulation(seed, faults, order) as simulation:
            try:
                simulation.run(self._program(simulation))
                if seed == UNDISTURBED_SEED and faults == Faults.none() and order == self._order:
                    self._extent = simulation.injection.extent
                simulation.finish()
            except Exception as raised:
                error = raised
            except BaseException as raised:  # Such as pytest.fail.
                made = Attempt(seed=seed, faults=faults, asked=asked, order=order, simulation=simulation, error=None)
                raised.add_note(self._account(made, made, raised))
                raise
            finally:
                reports.TOTALS.add(simulation.report())
                record(seed, simulation.trace)
        return Attempt(seed=seed, faults=faults, asked=asked, order=order, simulation=simulation, error=error)

    def passed(self, attempt: Attempt) -> Report:
        """What a run did.

        Raises:
            SimulationFailedError: it failed.
        """
        __tracebackhide__ = True
        if attempt.error is None:
            return attempt.simulation.report()
        told = attempt
        if self._shrink:
            told = plainest(attempt, self.attempt)
        assert told.error is not None
        message = self._account(attempt, told, told.error)
        raise SimulationFailedError(message, attempt.seed, told.simulation) from told.error

    def _simulation(self, seed: int, faults: Faults, order: str | None) -> Simulation:
        if self._memory is None:
            given: Any = self._options.get("dependencies")
            made_by: tuple[Any, ...] = () if given is None or is_mapping(given) else (given,)
            self._memory = ProcessMemory(
                self._actors, (self._program, *made_by), None if made_by else given, self._options.get("middleware", ())
            )
        return Simulation(
            *self._actors,
            seed=seed,
            faults=faults,
            order=order,
            known=Known(extent=self._extent, memory=self._memory),
            **self._options,
        )

    def _run_in_parallel(self, seeds: Sequence[int], faults: Faults, jobs: int) -> Report:
        __tracebackhide__ = True
        if faults.is_placed_by_seeds and self._extent is None:
            self.run(UNDISTURBED_SEED, faults)
        share = run_in_parallel(seeds, jobs, lambda some: self._share(some, faults))
        reports.TOTALS.add(share.report)
        if share.failed_seed is not None:
            self.run(share.failed_seed, faults)
            raise AssertionError(
                f"The run with seed {share.failed_seed} failed in another process, and does not in this one: it "
                "depends on what ran before it, or on the process."
            )
        return share.report

    def _share(self, seeds: Iterable[int], faults: Faults) -> Share:
        """In another process: run these seeds until one fails."""
        total = Report()
        for seed in seeds:
            attempt = self.attempt_seed(seed, faults)
            total += attempt.simulation.report()
            if attempt.error is not None:
                return Share(total, seed)
        return Share(total, None)

    def _account(self, failed: Attempt, told: Attempt, error: BaseException) -> str:
        header = f"The run with seed {failed.seed} failed: {describe(error)}"
        lines: list[str] = []
        if told is not failed:
            lines.append(f"This is the plainest run that fails like it: {self._repeat(told)}")
        repeat = f"Repeat it with: {self._repeat(failed)}"
        trace = "\n".join(map(str, told.simulation.trace.entries))
        path = self._failures.keep(failed.seed, "\n".join((header, *lines, repeat, trace, "")))
        if path is not None:
            lines.append(f"All that happened stands in {path}; this seed comes first the next time.")
        return "\n\n".join(
            [
                header,
                told.simulation.account(error),
                "\n".join([*lines, repeat]),
            ]
        )

    def _repeat(self, attempt: Attempt) -> str:
        """The call that does the same again, as far as it can be written down."""
        said = [self._name, *(actor.__name__ for actor in self._actors), f"seed={attempt.seed}"]
        said += [f"{name}={_written(value)}" for name, value in self._options.items() if value is not None]
        if self._how == "simulate":
            said += [] if attempt.asked == Faults.any() else [f"faults={attempt.asked!r}"]
            said += [] if attempt.order is None else [f'order="{attempt.order}"']
            return f"simulate({', '.join(said)})"
        return f"{self._how}({', '.join(said)}), whose run with {attempt.faults!r} it is"


def _written(value: object) -> str:
    """An option as one would write it; what has no name is as it was before."""
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str) and "<" not in name:
        return name
    return "..." if callable(value) or isinstance(value, Mapping) else repr(value)


def check_program(program: Program, actors: tuple[type[Actor], ...], runs: int, faults: Faults | None) -> None:
    """See that this can be simulated.

    Raises:
        TypeError, ValueError: it cannot.
    """
    inner: Any = program
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.iscoroutinefunction(inner) and not inspect.iscoroutinefunction(getattr(inner, "__call__", None)):  # noqa: B004
        raise TypeError(f"A program is a coroutine function, `async def program(sim): ...`; {program!r} is not.")
    if not actors:
        raise TypeError(
            "There is nothing to simulate: give the classes of actors after the program, or to pytest's mark."
        )
    if not isinstance(faults, Faults | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"faults= takes a value such as Faults.crash() | Faults.slow(), not {faults!r}.")
    check_count("runs", runs)


def check_part(part: tuple[int, int]) -> None:
    """See that this is a part of the runs.

    Raises:
        TypeError, ValueError: it is none.
    """
    number, of = part
    check_count("The second number of part", of)
    check_count("The first number of part", number, 0)
    if number >= of:
        raise ValueError(f"part={part!r} names no part of {of}: they count from 0 to {of - 1}.")


def _name(program: Any) -> str:
    if isinstance(program, partial):
        return f"partial({_name(program.func)}, ...)"
    name: str = getattr(program, "__qualname__", None) or type(program).__name__
    return name.rpartition("<locals>.")[2]

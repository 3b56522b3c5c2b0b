"""durably's plugin for pytest: the fixture `durable`, simulated tests, and a line about them in the summary.

    async def test_a_seat_is_reserved_once(durable: Durable) -> None:
        app = await durable(Seat, Cart)

works under every plugin that runs async tests in asyncio: pytest-asyncio, anyio.

    @pytest.mark.simulate(Seat, Cart, runs=200)
    async def test_whatever_crashes_a_seat_is_reserved_once(simulation) -> None: ...

runs under `durably.testing.simulation.simulate`, as its program, and needs none; fixtures besides `simulation` are made
once for all the runs. `--simulate=N` makes it N runs, `--seed=N` repeats exactly the run of this seed, and both
together make it so many runs from this seed on. `--simulate-jobs=N` shares the runs out among N processes; the workers
of pytest-xdist share them too, each with a part of the seeds. `--simulate-hash-seeds` makes the first runs of each test
in two processes with other hash seeds, too, and compares them. Seeds that fail are kept in the folder `.durably`.

pytest loads this file in every test session on a machine that has durably, so it stands outside the package and imports
it only when a test uses it.
"""

from __future__ import annotations

import inspect
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Coroutine, Generator
from dataclasses import asdict
from functools import partial, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from durably.testing import Durable

Body: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]

__tracebackhide__ = True
"""pytest shows no frames of this module: a failure is about the code under test."""

_REPORT = "durably.testing.report"
_OUTPUT_OF_A_WORKER = "durably"
_USUAL_RUNS, _FEWEST_RUNS = 200, 25
"""How many runs a marked test makes, and how many at least are worth a part of their own."""
_STARTED = pytest.StashKey["Durable"]()
_RUNS, _SEED, _JOBS = "durably_simulate", "durably_seed", "durably_jobs"
_HASH_SEEDS, _RUNS_PER_HASH_SEED = "durably_hash_seeds", 20
_FAILURES, _FOLDER = "DURABLY_FAILURES", ".durably"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("durably")
    group.addoption(
        "--simulate",
        dest=_RUNS,
        metavar="N",
        type=_at_least_one,
        help="run each test that is marked with `simulate` N times, whatever its mark says",
    )
    group.addoption(
        "--simulate-jobs",
        dest=_JOBS,
        metavar="N",
        type=_at_least_one,
        help="share the runs of each test that is marked with `simulate` out among N processes",
    )
    group.addoption(
        "--simulate-hash-seeds",
        dest=_HASH_SEEDS,
        action="store_true",
        help="compare the first runs of each test that is marked with `simulate` in processes with other hash seeds",
    )
    group.addoption("--simulate-seed", dest=_SEED, metavar="N", type=_a_seed, help="the same as --seed")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, object, object]:
    """`--seed` is a common name: where a conftest has it already, it stays theirs."""
    result = yield
    if not hasattr(parser.parse_known_args([]), "seed"):
        parser.getgroup("durably").addoption(
            "--seed",
            dest=_SEED,
            metavar="N",
            type=_a_seed,
            help="run each test that is marked with `simulate` once, with this seed: to repeat a run that failed; "
            "with --simulate, so many times from this seed on",
        )
    return result


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"--simulate takes how many runs it shall be, at least 1, not {text!r}.")
    return int(text)


def _a_seed(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"--seed takes the seed of a run, a whole number from 0 on, not {text!r}.")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault(_FAILURES, str(config.rootpath / _FOLDER))
    config.addinivalue_line(
        "markers",
        "simulate(*actors, runs=200, **options): run this async test many times with faults, as the program of "
        "durably.testing.simulation.simulate, whose arguments these are; it is given the parameter `simulation`.",
    )


# ---------------------------------------------------------------------- fixtures


@pytest.fixture
def durable(request: pytest.FixtureRequest) -> Durable:
    """Starts harnesses that are closed after the test: `app = await durable(Seat, dependencies={...})`."""
    if request.node.get_closest_marker("simulate") is not None:
        pytest.fail("A simulated test has its runtime already: use `simulation` instead of `durable`.", pytrace=False)
    if _body_of(request.node) is None:
        pytest.fail("The fixture `durable` is for async tests: write `async def` before the test.", pytrace=False)
    from durably.testing import Durable

    started = request.node.stash[_STARTED] = Durable()
    return started


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> None:
    """Stands for what each run of a test marked with `simulate` is given."""
    if request.node.get_closest_marker("simulate") is None:
        pytest.fail(
            "`simulation` is what a simulated test is given: write `@pytest.mark.simulate(...)`, with your actor "
            "classes, before the test.",
            pytrace=False,
        )


# ---------------------------------------------------------------------- tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With pytest-xdist, each worker makes a part of the runs: one test becomes one for each worker."""
    marker = metafunc.definition.get_closest_marker("simulate")
    workers: int = getattr(metafunc.config, "workerinput", {}).get("workercount", 1)
    if marker is None or workers < 2 or metafunc.config.getoption(_SEED) is not None or "seed" in marker.kwargs:
        return
    runs = metafunc.config.getoption(_RUNS) or marker.kwargs.get("runs", _USUAL_RUNS)
    parts = min(workers, max(runs // _FEWEST_RUNS, 1))
    if parts > 1 and "simulation" in metafunc.fixturenames:
        names = [f"part {number + 1} of {parts}" for number in range(parts)]
        metafunc.parametrize("simulation", [(number, parts) for number in range(parts)], ids=names, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    marker = item.get_closest_marker("simulate")
    started = item.stash.get(_STARTED, None)
    place = _body_of(item)
    with pytest.MonkeyPatch.context() as patch:
        if marker is not None and isinstance(item, pytest.Function):
            # Whoever would run the coroutine, and complain that it is none of theirs, is not asked.
            patch.setattr(item, "runtest", partial(_simulate, item, marker))
        elif started is not None and place is not None:
            patch.setattr(*place, _closing(started, getattr(*place)))
        return (yield)


def _body_of(item: Any) -> tuple[Any, str] | None:
    """Where the coroutine function of an async test is kept; None if the test is not async."""
    test = getattr(item, "obj", None)
    for owner, name in ((item, "obj"), (getattr(test, "hypothesis", None), "inner_test")):
        if inspect.iscoroutinefunction(getattr(owner, name, None)):
            return owner, name
    return None


def _closing(started: Durable, body: Body) -> Body:
    """The body of a test, which ends when its harnesses are closed: in its own loop, however it runs."""

    @wraps(body)
    async def run(*arguments: Any, **fixtures: Any) -> Any:
        async with started.started:
            return await body(*arguments, **fixtures)

    return run


def _simulate(item: pytest.Function, marker: pytest.Mark) -> None:
    body = item.obj
    parameters = inspect.signature(body).parameters
    if not inspect.iscoroutinefunction(body) or "simulation" not in parameters:
        pytest.fail("A simulated test is an `async def` with a parameter `simulation`.", pytrace=False)
    fixtures = {name: item.funcargs[name] for name in parameters if name != "simulation" and name in item.funcargs}

    async def program(simulation: Any, /) -> None:
        await body(simulation=simulation, **fixtures)

    options = dict(marker.kwargs)
    runs, seed = item.config.getoption(_RUNS), item.config.getoption(_SEED)
    several = [options]
    if seed is not None:
        several = [{**options, "runs": 1, "seed": number} for number in range(seed, seed + (runs or 1))]
    elif runs is not None:
        options.update(runs=runs)
    program.__qualname__ = body.__qualname__
    program.__module__ = body.__module__
    jobs = item.config.getoption(_JOBS)
    if jobs is not None:
        options.update(jobs=jobs)
    part = getattr(getattr(item, "callspec", None), "params", {}).get("simulation")
    if part is not None:
        options.update(part=part)
    try:
        simulate = import_module("durably.testing.simulation").simulate
        reports = [simulate(program, *marker.args, **given) for given in several]
        _note_crashes(item, sum(report.runs for report in reports), sum(report.crashes for report in reports))
    except (TypeError, ValueError) as error:
        if not _is_of_an_argument(error):
            raise
        pytest.fail(f"@pytest.mark.simulate(...) of this test cannot work: {error}", pytrace=False)
    except AssertionError as error:
        if type(error).__name__ == "NeverHappenedError":
            pytest.fail(f"NeverHappenedError: {error}", pytrace=False)
        failed: int | None = getattr(error, "seed", None)
        if failed is not None:
            error.add_note(f"As a test: pytest {_without_part(item, part)} --seed={failed}")
        raise
    if item.config.getoption(_HASH_SEEDS) and not (part or (0, 0))[0]:
        _compare_hash_seeds(item, min(options.get("runs", _USUAL_RUNS), _RUNS_PER_HASH_SEED))


def _is_of_an_argument(error: BaseException) -> bool:
    """The kit itself has raised it: what a program raises is a `SimulationFailedError`; other code has frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("durably.")


def _note_crashes(item: pytest.Function, runs: int, crashes: int) -> None:
    """The summary names each test that shows nothing about crashes: others in the session may have seen some."""
    if runs > 1 and not crashes:
        import_module(_REPORT).TOTALS.without_crash.append(item.nodeid)


def _compare_hash_seeds(item: pytest.Function, runs: int) -> None:
    """Repeat the test in sessions of its own."""
    part = getattr(getattr(item, "callspec", None), "params", {}).get("simulation")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--simulate={runs}"]
    compare = import_module("durably.testing.simulation.hash_seeds").compare_hash_seeds_of_command
    compare([*command, _without_part(item, part)], item.config.rootpath)


def _without_part(item: pytest.Function, part: object) -> str:
    return item.nodeid if part is None else item.nodeid.partition("[")[0]


# ---------------------------------------------------------------------- reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the code under test: no word about frames that we hide, and the real error in the summary."""
    report = yield
    errors = sys.modules.get("durably.errors")
    if errors is None or call.excinfo is None:
        return report
    for trace, _, _ in getattr(report.longrepr, "chain", ()):
        if str(trace.extraline).startswith("All traceback entries are hidden"):
            trace.extraline = None
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = _summary(call.excinfo.value, errors) or crash.message
    return report


def _summary(error: BaseException, errors: Any) -> str | None:
    """The real error in one line, where ours stands for it; None for every other one."""
    seed: int | None = getattr(error, "seed", None) if isinstance(error, AssertionError) else None
    if seed is not None and error.__cause__ is not None:
        cause = error.__cause__
        return f"{_summary(cause, errors) or _one_line(cause)} (seed {seed})"
    if isinstance(error, errors.PausedInvocationError):
        cause = error.__cause__
        reason = getattr(error, "reason", "") if cause is None else _one_line(cause)
        return f"{reason} (the invocation is paused)"
    return None


def _one_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---------------------------------------------------------------------- the summary


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells its controller."""
    output: Any = getattr(session.config, "workeroutput", None)
    report = sys.modules.get(_REPORT)
    if output is not None and report is not None:
        output[_OUTPUT_OF_A_WORKER] = asdict(report.TOTALS.report), report.TOTALS.without_crash


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {}).get(_OUTPUT_OF_A_WORKER)
    if output is not None:
        report = import_module(_REPORT)
        report.TOTALS.add(report.Report(**output[0]))
        report.TOTALS.without_crash += output[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    report = sys.modules.get(_REPORT)
    if report is not None and report.TOTALS.report.runs:
        terminalreporter.write_line(f"durably: {report.TOTALS.report}")
        for line in report.TOTALS.details():
            terminalreporter.write_line(f"  {line}")

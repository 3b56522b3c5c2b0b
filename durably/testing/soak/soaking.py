"""The soak itself: portions of a plan go to processes, and their results come back, until it is time to stop."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context

from durably.testing.report import Report
from durably.testing.simulation.campaign import SimulationFailedError
from durably.testing.soak.plan import Plan, Runs, load_workload

TASKS_AHEAD = 2
"""For each process, so that none waits for the next."""
LOOKS_PER_SECOND = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A run that failed."""

    workload: str
    seed: int
    account: str

    @property
    def command(self) -> str:
        """What repeats exactly this run."""
        return f"python -m durably.testing soak --workload {self.workload} --seed {self.seed} --runs 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What some runs did; a portion ends with its first failure."""

    report: Report
    failure: Failure | None = None


@dataclass
class Total:
    """What came of it so far."""

    report: Report = field(default_factory=Report)
    failures: list[Failure] = field(default_factory=list[Failure])

    def add(self, result: Result) -> None:
        self.report += result.report
        if result.failure is not None:
            self.failures.append(result.failure)


def run(runs: Runs) -> Result:
    """Run one portion."""
    workload = load_workload(runs.workload)
    report = Report()
    for seed in runs.seeds:
        try:
            report += workload.run(seed)
        except SimulationFailedError as error:
            report += error.simulation.report()
            return Result(report=report, failure=Failure(workload=runs.workload, seed=seed, account=str(error)))
    gc.collect()  # Each run leaves circles behind.
    return Result(report=report)


def soak(plan: Plan, jobs: int, goes_on: Callable[[], bool], progress: Callable[[Total], None]) -> Total:
    """Run a plan until it is done, a run fails, or `goes_on` says no."""
    total = Total()
    results = _results_here(plan) if jobs == 1 else _results_of_processes(plan, jobs)
    with closing(results):
        for result in results:
            if result is not None:
                total.add(result)
            progress(total)
            if total.failures or not goes_on():
                break
    return total


def _results_here(plan: Plan) -> Generator[Result | None, None, None]:
    for task in plan.tasks():
        for seed in task.seeds:
            yield run(Runs(workload=task.workload, seeds=(seed,)))


def _results_of_processes(plan: Plan, jobs: int) -> Generator[Result | None, None, None]:
    """Results as they come; None where there is none for a while."""
    tasks = plan.tasks()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent) as pool:
        pending: set[Future[Result]] = set()
        try:
            while True:
                while len(pending) < jobs * TASKS_AHEAD and (task := next(tasks, None)) is not None:
                    pending.add(pool.submit(run, task))
                if not pending:
                    return
                done, pending = wait(pending, timeout=1 / LOOKS_PER_SECOND, return_when=FIRST_COMPLETED)
                if not done:
                    yield None
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

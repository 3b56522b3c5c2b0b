"""Parallel campaigns: the seeds of one program, shared out among processes that are copies of this one.

A copy (`fork`) has the program and its actors, wherever they were defined. Each makes some of the runs and tells what
they did; the parent runs the first seed that failed again, so that the error and the run are there to be seen.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from durably.testing.report import Report


class Share(NamedTuple):
    """What came of the runs of one process."""

    report: Report
    failed_seed: int | None


Run = Callable[[Sequence[int]], Share]


def can_run_in_parallel() -> bool:
    """Processes can be copied on this system."""
    return "fork" in multiprocessing.get_all_start_methods()


def run_in_parallel(seeds: Sequence[int], jobs: int, run: Run) -> Share:
    """Share the seeds out, run them all, and add up what was done. The lowest seed that failed counts."""
    context = multiprocessing.get_context("fork")
    receivers: list[Connection] = []
    processes: list[BaseProcess] = []
    for number in range(min(jobs, len(seeds))):
        receiver, sender = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(target=_work, args=(run, seeds[number::jobs], sender), daemon=True)
        process.start()
        sender.close()
        receivers.append(receiver)
        processes.append(process)
    total, failed = Report(), list[int]()
    for receiver, process in zip(receivers, processes, strict=True):
        try:
            share: Share = receiver.recv()
        except EOFError:
            raise RuntimeError("A process that made simulated runs has died. Try with jobs=1 to see why.") from None
        finally:
            process.join()
            receiver.close()
        total += share.report
        if share.failed_seed is not None:
            failed.append(share.failed_seed)
    return Share(total, min(failed, default=None))


def _work(run: Run, seeds: Sequence[int], sender: Connection) -> None:
    sender.send(run(seeds))
    sender.close()

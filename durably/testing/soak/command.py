"""The command: `python -m durably.testing soak`. Ends with a summary, and with the command that repeats a failure."""

from __future__ import annotations

import json
import os
import secrets
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from time import perf_counter

from durably.testing.soak.interrupts import Interrupts
from durably.testing.soak.plan import Plan, UnknownWorkloadError, default_workloads, load_workload
from durably.testing.soak.progress import shown
from durably.testing.soak.soaking import Total, soak

US_PER_SECOND = 1_000_000
SECONDS_PER_MINUTE = 60
LARGEST_FIRST_SEED = 1_000_000_000
BAD_INPUT = 2


def main(arguments: Sequence[str]) -> int:
    """Run the command; 0 is success, 1 a run that failed, 2 bad input."""
    asked = _parser().parse_args(arguments)
    try:
        names: list[str] = asked.workload or [*default_workloads()]
        for name in names:
            load_workload(name)
    except UnknownWorkloadError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    seed = secrets.randbelow(LARGEST_FIRST_SEED) if asked.seed is None else asked.seed
    return _soak(asked, Plan(workloads=names, first_seed=seed, runs=asked.runs))


def _soak(asked: Namespace, plan: Plan) -> int:
    began = perf_counter()
    minutes: float | None = asked.minutes
    if minutes is None and asked.runs is None:
        minutes = 1.0
    until = None if minutes is None else began + minutes * SECONDS_PER_MINUTE

    interrupts = Interrupts()

    def goes_on() -> bool:
        return not interrupts.asked and (until is None or perf_counter() < until)

    jobs = min(asked.jobs, asked.runs or asked.jobs)
    with interrupts, shown(quiet=asked.json, on_terminal=sys.stdout.isatty()) as show:
        if not asked.json:
            print(f"Workloads {', '.join(plan.workloads)}, from seed {plan.first_seed}, {jobs} at a time.", flush=True)
        total = soak(plan, jobs, goes_on, show)
    _tell(total, perf_counter() - began, as_json=asked.json)
    return 1 if total.failures else 0


def _tell(total: Total, seconds: float, *, as_json: bool) -> None:
    failure = min(total.failures, key=lambda failure: (failure.seed, failure.workload), default=None)
    if as_json:
        report = total.report
        told = {
            "runs": report.runs,
            "crashes": report.crashes,
            "commits": report.commits,
            "actions": report.actions,
            "virtual_seconds": report.virtual_us / US_PER_SECOND,
            "seconds": round(seconds, 1),
            "failure": None
            if failure is None
            else {
                "workload": failure.workload,
                "seed": failure.seed,
                "command": failure.command,
                "account": failure.account,
            },
        }
        print(json.dumps(told))
        return
    if failure is not None:
        print(f"\n{failure.account}\n\nOr with: {failure.command}\n")
    print(f"{total.report}, in {seconds:.1f} s: {'nothing failed' if failure is None else 'a run failed'}.")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m durably.testing", description="Tools for testing actors.")
    commands = parser.add_subparsers(required=True, metavar="command")
    soak = commands.add_parser(
        "soak",
        help="simulate workloads with random seeds for as long as asked",
        description="Simulate workloads with random seeds, with crashes and other faults, until time is up or a run "
        "fails. Exits with 1 and the command that repeats the run if one does. Ctrl-C ends it.",
    )
    soak.add_argument("--minutes", type=_number(float, "minutes"), help="for how long (1, unless --runs says how many)")
    soak.add_argument("--runs", type=_number(int, "runs"), help="how many runs in all")
    soak.add_argument(
        "--jobs", type=_number(int, "jobs"), default=os.cpu_count() or 1, help="parallel processes (one a processor)"
    )
    soak.add_argument("--seed", type=_seed, help="the first seed (random); each workload goes on from there")
    soak.add_argument(
        "--workload",
        action="append",
        help="module:attribute of a durably.testing.Workload, or in a checkout of durably the name of one of its own; "
        "may be given several times (in a checkout, all of its own)",
    )
    soak.add_argument("--json", action="store_true", help="only the summary, as one line of JSON")
    return parser


def _number(kind: type[int] | type[float], what: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            raise ArgumentTypeError(
                f"the number of {what} is {'whole and ' if issubclass(kind, int) else ''}positive, not {text!r}"
            )
        return number

    return parse


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"a seed is a whole number from 0, not {text!r}")
    return int(text)

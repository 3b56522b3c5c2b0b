"""Run as a program: which planted bugs are found, in how many runs and seconds, and that the correct apps pass.

python -m tests.trust.survey [--runs 500] [--correct 1000] [app ...]
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

from durably.testing import NeverHappenedError, Report, SimulationFailedError, simulate
from durably.testing.harness.accounts import describe
from tests.trust.bank import APP as BANK
from tests.trust.box_office import APP as BOX_OFFICE
from tests.trust.chat import APP as CHAT
from tests.trust.payments import APP as PAYMENTS
from tests.trust.planting import App, plant
from tests.trust.subscriptions import APP as SUBSCRIPTIONS
from tests.trust.warehouse import APP as WAREHOUSE

APPS = (BOX_OFFICE, PAYMENTS, BANK, WAREHOUSE, CHAT, SUBSCRIPTIONS)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of one planted bug."""

    app: App
    bug: str
    runs: int | None
    """In how many it was found; None: it was not."""
    seconds: float
    told: str = ""


def run(app: App, runs: int) -> Report:
    return simulate(app.program, *app.actors, runs=runs, dependencies=app.dependencies, faults=app.faults)


def look_for(app: App, bug: str, runs: int) -> Finding:
    """Plant a bug, and see whether it is found."""
    plant(bug)
    began = perf_counter()
    found: int | None = None
    told = ""
    try:
        run(app, runs)
    except SimulationFailedError as error:
        found, told = error.seed + 1, describe(error.__cause__ or error)
    except NeverHappenedError as error:
        found, told = runs, str(error)
    finally:
        plant("")
    return Finding(app=app, bug=bug, runs=found, seconds=perf_counter() - began, told=told)


def findings(apps: tuple[App, ...], runs: int) -> Iterator[Finding]:
    for app in apps:
        for bug in app.bugs:
            yield look_for(app, bug, runs)


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--correct", type=int, default=1_000)
    parser.add_argument("--told", action="store_true")
    parser.add_argument("app", nargs="*")
    asked = parser.parse_args()
    apps = tuple(app for app in APPS if not asked.app or app.name in asked.app)
    print("| app | planted bug | kind | found in runs | seconds |\n| --- | --- | --- | --- | --- |")
    for finding in findings(apps, asked.runs):
        found = "not found" if finding.runs is None else str(finding.runs)
        kind = finding.app.bugs[finding.bug]
        print(f"| {finding.app.name} | {finding.bug} | {kind} | {found} | {finding.seconds:.1f} |", flush=True)
        if asked.told:
            print(f"    {finding.told[:300]}")
    for app in apps if asked.correct else ():
        began = perf_counter()
        report = run(app, asked.correct)
        print(f"{app.name}, correct: {report}, in {perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()

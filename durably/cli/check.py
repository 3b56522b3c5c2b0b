"""`durably check`: whether a store can be gone on with by this code, before it is deployed.

The process ends with 0 if nothing would break, with 3 if something would, and with 1 if that could not be found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from durably.cli.failures import CommandError
from durably.cli.loading import load_runtime
from durably.cli.operators.output import NOTHING, Format, print_result
from durably.cli.reading import store_file
from durably.cli.tables import print_table
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.runtime.lifecycle.subscriptions import DETACHED_US
from durably.runtime.runtime import Runtime
from durably.runtime.supervision.contained_codec import contained_codec
from durably.storage.codec_marker import refuse_encoded
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.sqlite import SqliteStore
from durably.testing.replaying.checking import CheckReport, Problem, check_store
from durably.testing.replaying.stand_ins import stand_in_for
from durably.testing.replaying.unhandled import Unhandled

WOULD_BREAK: Final = 3
"""The exit status if something would break."""
DAY_US: Final = 86_400_000_000
SHOWN_PROBLEMS: Final = 50
"""How many problems are told to a person; `--json` tells all."""
_WAYS_OF_JOURNALS: Final = (
    "let the old code finish them, and deploy then",
    "let the new code ask ctx.patched(...) for what has changed",
    "deploy, and restart what pauses: `durably invocations restart ID` begins it anew, and does what it did once more",
)
_WAYS_OF_STATE: Final = (
    "let the type accept the old form, or give the field another name=",
    "migrate the state: class ...(state_version=...) and @migrate",
)
_WAYS_OF_ROWS: Final = ("give the codec its key back, or restore them from a backup",)


class BreakingCodeError(CommandError):
    """Something would break. What that is has been told."""

    status = WOULD_BREAK


def check(target: str, url: str, *, format: Format) -> None:
    """Check a store with the code of a runtime.

    Raises:
        CommandError: something would break, or the code or the store cannot be had.

    """
    runtime = load_runtime(target)
    try:
        store = store_file(url)
        report = asyncio.run(_checked(store, runtime))
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    print_result(
        {"ok": not report.problems, **asdict(report), "ways": ways(report.problems)}, format,
        names=(one.invocation or one.target for one in report.problems),
        tell=lambda: _tell(report, store, runtime),
    )  # fmt: skip
    if report.problems:
        raise BreakingCodeError(_summary(report))


async def _checked(store: SqliteStore, runtime: Runtime) -> CheckReport:
    await store.open_read_only()
    try:
        inspected: InspectableStore = store
        if runtime.codec is None:
            await refuse_encoded(store, "Runtime(codec=...)")
        else:
            encoded = EncodedStore(store, contained_codec(runtime.codec))
            await encoded.recognise_read_only()
            inspected = encoded
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("Reading the store", total=None)

            def tell(report: CheckReport) -> None:
                progress.update(bar, description=_looked_at(report))

            runtime.use_stand_ins(stand_in_for)
            return await check_store(inspected, runtime.actors, version=runtime.version, on_checked=tell)
    finally:
        await store.close()


def ways(problems: Sequence[Problem]) -> list[str]:
    """What can be done about problems of these kinds."""
    kinds = {problem.kind for problem in problems}
    of_kind = {"journal": _WAYS_OF_JOURNALS, "state": _WAYS_OF_STATE, "row": _WAYS_OF_ROWS}
    return [way for kind, several in of_kind.items() if kind in kinds for way in several]


def _tell(report: CheckReport, store: SqliteStore, runtime: Runtime) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if report.problems:
        shown = report.problems[:SHOWN_PROBLEMS]
        print_table(["WHAT", "WHERE", "STATUS", "STEP", "FOUND"], [_row(problem) for problem in shown])
        console.print()
    for name in report.detached:
        console.print(
            f"No class declares the subscription {name} any more. What is published is not delivered to it, and its "
            f"place is kept for {DETACHED_US // DAY_US} days. If its method was renamed, give it its old name back.\n",
            markup=False,
        )
    for one in report.unhandled:
        console.print(f"{_unhandled(one)}\n", markup=False)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        console.print(_account(problem), markup=False)
    if len(report.problems) > SHOWN_PROBLEMS:
        console.print(f"... and {len(report.problems) - SHOWN_PROBLEMS:,} more; --json tells all of them.\n")
    if report.problems:
        console.print("Ways on:\n" + "\n".join(f"  - {way}" for way in ways(report.problems)), markup=False)
        return
    migrated = f" The state of {_count(report.migrated, 'object')} will be migrated." if report.migrated else ""
    name = "This code" if runtime.version is None else f"Version {runtime.version}"
    told = f"{name} goes on with all of {store.describe()}: {_looked_at(report)}.{migrated}"
    console.print(told, markup=False)


def _unhandled(one: Unhandled) -> str:
    if one.published_by is not None:
        return (
            f"{one.published_by} publishes {one.event}, and no handler subscribes to it. Readers over HTTP and "
            "functions that have subscribed hear of it, if there are any."
        )
    if "/" in (one.stream or ""):
        return (
            f"{_count(one.waiting, 'event')} {one.event} of the stream {one.stream} will be passed over: no handler "
            "subscribes to them. If their class was renamed, name it as it was: @event(...)."
        )
    return (
        f"{_count(one.waiting, 'transition')} {one.event} of {one.stream} will be passed over by its consumers: it has "
        "no such transition any more. If it was renamed, let consumers come to the end of the history first "
        "(runtime.subscriptions() tells how far behind they are)."
    )


def _row(problem: Problem) -> tuple[str, ...]:
    where = problem.target if problem.invocation is None else f"{problem.target} ({problem.invocation})"
    step = NOTHING if problem.step is None else str(problem.step)
    return problem.kind, where, problem.status or NOTHING, step, problem.reason.partition("\n")[0]


def _account(problem: Problem) -> str:
    which = [one for one in (problem.invocation, problem.status) if one is not None]
    if problem.step is not None:
        which.append(f"step {problem.step}")
    behind = f" ({', '.join(which)})" if which else ""
    return f"{problem.target}{behind}:\n{problem.reason}\n"


def _summary(report: CheckReport) -> str:
    journals = sum(problem.kind != "state" for problem in report.problems)
    states = len(report.problems) - journals
    broken = [
        *([f"{_count(journals, 'invocation')} would not go on"] if journals else []),
        *([f"the state of {_count(states, 'object')} would not be read"] if states else []),
    ]
    return f"With this code {' and '.join(broken)}. Looked at: {_looked_at(report)}. The store is as it was."


def _looked_at(report: CheckReport) -> str:
    journals, objects = _count(report.journals, "journal"), _count(report.objects, "object")
    return f"{journals} of {_count(report.steps, 'step')} and {objects}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

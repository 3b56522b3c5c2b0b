"""`durably doctor`: whether a store is sound and nothing in it is stuck, as a table for people or as data."""

from __future__ import annotations

import asyncio
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from durably.cli.failures import CommandError
from durably.cli.operators.output import Format, print_result
from durably.cli.reading import opened_to_read, store_file
from durably.cli.tables import print_table
from durably.doctor import Report, Severity, examine
from durably.doctor.doctor import UNREADABLE_ROWS
from durably.errors import DefinitionError, StoreInUseError, StoreUnavailableError
from durably.storage.sqlite import SqliteStore

PROBLEMS_FOUND: Final = 3
"""What the process ends with if something is wrong with the store."""
_WORDS: Final = {Severity.PROBLEM: "problem", Severity.NOTE: "note"}


def doctor(url: str, *, codec: str | None, format: Format) -> None:
    """Examine the store of this URL and tell what was found.

    Raises:
        CommandError: it cannot be examined.
        typer.Exit: something is wrong with it.
    """
    try:
        report = asyncio.run(_examined(url, codec))
    except (StoreInUseError, StoreUnavailableError, DefinitionError) as error:
        raise CommandError(str(error)) from error
    names = (one.id or one.subject for one in report.findings)
    print_result(report.data(), format, names=names, tell=lambda: _show(report), is_long=True)
    if not report.is_sound:
        raise typer.Exit(PROBLEMS_FOUND)


async def _examined(url: str, codec: str | None) -> Report:
    file = store_file(url)
    try:
        return await _examined_whole(file, codec)
    except StoreUnavailableError:
        # Where tables are missing, what says which codec the store has cannot be read either: the report says so.
        await file.open_read_only()
        try:
            report = await examine(file)
        finally:
            await file.close()
        if not any(one.code in UNREADABLE_ROWS for one in report.problems):
            raise
        return report


async def _examined_whole(file: SqliteStore, codec: str | None) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with opened_to_read(file, codec) as store:
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("Opening the store", total=None)

            def progressed(stage: str, done: int, total: int | None) -> None:
                bar.update(task, description=stage, completed=done, total=total)

            return await examine(file, store, progressed)


def _show(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if report.findings:
        rows = [(_WORDS[one.severity], one.code, one.subject, one.sentence) for one in report.findings]
        print_table(["", "WHAT", "WHERE", "FOUND"], rows)
    for finding in report.findings:
        if finding.severity is Severity.PROBLEM:
            console.print(f"{finding.subject}: {finding.advice}", markup=False)
    if report.left_out:
        console.print(f"{report.left_out:,} more were found at least, of the same kinds.", markup=False)
    looked_at = f"{report.invocations:,} invocations and {report.objects:,} objects in the store {report.store}"
    count = len(report.problems)
    verdict = f"{count} problem{'' if count == 1 else 's'}." if count else "nothing is wrong."
    console.print(f"Looked at {looked_at}: {verdict}", markup=False, style="bold red" if count else "bold green")

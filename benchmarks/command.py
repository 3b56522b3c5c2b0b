"""`python -m benchmarks`: options, progress, and the table or the JSON at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.counted import PARTS
from benchmarks.instructions import CountingError, count_instructions, instructions_table, keep, kept, rises, why_not
from benchmarks.machine import look_at_machine
from benchmarks.measurement import Sample, Spec
from benchmarks.plan import BENCHMARKS, Benchmark
from benchmarks.results import FORMAT, Report
from benchmarks.scale.cases import CASES
from benchmarks.scale.growth import Growth, growth_markdown, growth_table, measure_growth
from benchmarks.suite import MeasurementError, Settings, Suite, measurements, run_in_child
from benchmarks.table import comparison_table, machine_line, report_markdown, report_table

DISK: Final = Path("/var/tmp")
"""A folder for temporary files that is on a disk by convention; /tmp often is not."""
QUICK: Final = Settings(seconds=1.0, rounds=1, warm_up_seconds=0.5)
QUICK_SHARE: Final = 0.001
"""Of the full size with --scale: to see that all works."""
WARM_UP_SECONDS: Final = 1.0
FILE_COLUMNS: Final = 180
"""How wide the table is where no terminal says how wide it may be."""

application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@application.command()
def benchmark(
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this benchmark; may be given more than once.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.05, help="How long each measurement takes, behind its warm-up.")
    ] = 3.0,
    repeat: Annotated[int, typer.Option(min=1, help="How many rounds there are; figures are their medians.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="One round of a second each, to see that all works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; the table goes to standard error.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table for a document.")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Compare with an earlier run, printed with --json."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Where the databases go; a disk, not memory.")
    ] = None,
    instructions: Annotated[
        bool,
        typer.Option("--instructions", help="Count instructions per call with callgrind, beside those that are kept."),
    ] = False,
    keep_counts: Annotated[
        bool, typer.Option("--keep", help="With --instructions: keep the figures in benchmarks/instructions.json.")
    ] = False,
    scale: Annotated[
        bool,
        typer.Option(
            "--scale", help="How time and memory grow up to a million invocations; with --quick to a thousandth."
        ),
    ] = False,
    names: Annotated[bool, typer.Option("--list", help="Print the names of the benchmarks and stop.")] = False,
) -> None:
    """Measure durable calls beside the bare limits of what they are made of."""
    if names:
        for one in BENCHMARKS:
            typer.echo(f"{one.name:14} {one.title}")
        return
    if scale:
        _measure_growth(only or [], folder or _disk(), share=QUICK_SHARE if quick else 1.0, as_markdown=as_markdown)
        return
    if instructions:
        _count(only or [], folder or _disk(), keeps=keep_counts)
        return
    chosen = _chosen(only or [])
    earlier = None if compare is None else _read(compare)
    settings = QUICK if quick else Settings(seconds=seconds, rounds=repeat, warm_up_seconds=WARM_UP_SECONDS)
    if as_json and as_markdown:
        raise typer.BadParameter("--json and --markdown exclude each other.")
    console = Console(stderr=as_json, soft_wrap=False)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    with tempfile.TemporaryDirectory(prefix="durably-benchmarks-", dir=folder or _disk()) as databases:
        report = _run(chosen, settings, Path(databases))
    if as_markdown:
        typer.echo(report_markdown(report))
    else:
        console.print(report_table(report))
    if earlier is not None:
        console.print(comparison_table(report, earlier))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode())


def _count(names: list[str], folder: Path | None, *, keeps: bool) -> None:
    """What has risen is named and is no failure; where nothing can be counted, the reason is."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise typer.BadParameter(
            f"Instructions of {unknown[0]!r} are not counted. There are: {', '.join(PARTS)}.", param_hint="--only"
        )
    reason = why_not()
    if reason is not None:
        typer.echo(reason)
        return
    with tempfile.TemporaryDirectory(prefix="durably-instructions-", dir=folder) as files:
        try:
            counted = count_instructions(names or [*PARTS], Path(files))
        except CountingError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
    before = kept()
    Console(width=FILE_COLUMNS).print(instructions_table(counted, before))
    for sentence in rises(counted, before):
        typer.echo(f"Dearer than before. {sentence}")
    if keeps:
        keep(counted)


def _measure_growth(names: list[str], folder: Path | None, *, share: float, as_markdown: bool) -> None:
    known = {case.name: case for case in CASES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"There is no case {unknown[0]!r} of --scale. There are: {', '.join(known)}.", param_hint="--only"
        )
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="durably-scale-", dir=folder) as files:
        chosen = [case for case in CASES if not names or case.name in names]
        growths: list[Growth] = []
        try:
            for growth in measure_growth(chosen, Path(files), share, lambda what: progress.print(f"... {what}")):
                growths.append(growth)
                progress.print("  ".join(growth.cells))  # An interrupt after half an hour loses nothing.
        except MeasurementError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error
        machine = machine_line(look_at_machine(Path(files)))
    if as_markdown:
        typer.echo(f"{machine.plain}\n\n{growth_markdown(growths)}")
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=FILE_COLUMNS)
        console.print(Group(machine, growth_table(growths)))
    if not all(growth.is_as_it_must_be for growth in growths):
        raise typer.Exit(1)


def _run(chosen: list[Benchmark], settings: Settings, folder: Path) -> Report:
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("the machine", total=measurements(chosen, settings.rounds))

        def run(spec: Spec) -> Sample:
            try:
                return run_in_child(spec, folder)
            finally:
                progress.advance(task)

        suite = Suite(settings, run, lambda what: progress.update(task, description=what))
        return suite.report(chosen, look_at_machine(folder))


def _chosen(names: list[str]) -> list[Benchmark]:
    known = {one.name: one for one in BENCHMARKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"There is no benchmark {unknown[0]!r}. There are: {', '.join(known)}.", param_hint="--only"
        )
    return [one for one in BENCHMARKS if not names or one.name in names]


def _read(path: Path) -> Report:
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.MsgspecError as error:
        raise typer.BadParameter(f"{path} is no result of --json: {error}", param_hint="--compare") from error
    if report.format != FORMAT:
        raise typer.BadParameter(
            f"{path} has the format {report.format}; this suite reads {FORMAT}.", param_hint="--compare"
        )
    return report


def _disk() -> Path | None:
    return DISK if DISK.is_dir() else None

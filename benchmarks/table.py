"""Tables for people: a run, and a run beside an earlier one."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.machine import Machine
from benchmarks.results import BenchmarkResult, Ratio, Report, SubjectResult, Verdict

NOTHING = "-"
HEADINGS = (
    "benchmark", "subject", "per second", "p50 ms", "p90 ms", "p99 ms", "CPU µs", "calls/commit", "held ms", "MiB",
    "by", "durably / it", "must reach",
)  # fmt: skip
FIGURES = range(2, 12)
"""The columns of numbers among them."""
MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def report_table(report: Report) -> RenderableType:
    """The whole run."""
    table = Table(title=f"durably beside bare limits, {_rounds(report)} of {report.seconds:g} s")
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if place in FIGURES else "left", no_wrap=place in FIGURES)
    for result in report.benchmarks:
        for place, subject in enumerate(result.subjects):
            *cells, _ = _cells(result, subject, is_ours=place == 0)
            verdicts = _verdicts(result.verdicts) if place == 0 else Text()
            table.add_row(*map(Text, cells), verdicts, end_section=place == len(result.subjects) - 1)
    return Group(machine_line(report.machine), table, *_errors(report))


def report_markdown(report: Report) -> str:
    """The whole run, for a document."""
    lines = [machine_line(report.machine).plain, "", f"{_rounds(report).capitalize()} of {report.seconds:g} s.", ""]
    lines += [
        _markdown_row(HEADINGS),
        _markdown_row("--:" if place in FIGURES else "---" for place in range(len(HEADINGS))),
    ]
    for result in report.benchmarks:
        for place, subject in enumerate(result.subjects):
            lines.append(_markdown_row(_cells(result, subject, is_ours=place == 0)))
    return "\n".join([*lines, *(error.plain for error in _errors(report))])


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: BenchmarkResult, subject: SubjectResult, *, is_ours: bool) -> list[str]:
    return [
        _title(result) if is_ours else "",
        subject.title,
        *_figures(subject),
        *_ratio(result, subject, is_ours=is_ours),
        _verdicts(result.verdicts).plain if is_ours else "",
    ]


def comparison_table(report: Report, earlier: Report) -> RenderableType:
    """Ratios to the bare limit then and now: the only figures of two runs that can be compared."""
    table = Table(title="durably by its bare limit, then and now")
    table.add_column("benchmark")
    table.add_column("judged by")
    for heading in ("then", "now", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    before = {result.name: result for result in earlier.benchmarks}
    for result in report.benchmarks:
        then = before[result.name].ratio if result.name in before else None
        table.add_row(
            result.title, result.measure, _spread(then), _spread(result.ratio), _change(result, then, result.ratio)
        )
    return Group(Text.assemble("Then: ", machine_line(earlier.machine)), table)


def machine_line(machine: Machine) -> Text:
    return Text(
        f"{machine.system}, {machine.cores} cores, {machine.python}, SQLite {machine.sqlite}, "
        f"uvloop {machine.uvloop or NOTHING}, {machine.file_system}, fsync {machine.fsync_us / 1000:.2f} ms, "
        f"a million loops {machine.python_loop_ms:.0f} ms"
    )


def _rounds(report: Report) -> str:
    return "one round" if report.rounds == 1 else f"medians of {report.rounds} rounds"


def _title(result: BenchmarkResult) -> str:
    if result.rate_per_second is None:
        return result.title
    return f"{result.title} ({result.rate_per_second:,.0f}/s)"


def _figures(subject: SubjectResult) -> list[str]:
    latency = subject.latency
    milliseconds = (None, None, None) if latency is None else (latency.p50_us, latency.p90_us, latency.p99_us)
    return [
        _number(subject.rate_per_second, 0),
        *(_number(None if value is None else value / 1000, 2) for value in milliseconds),
        _number(subject.cpu_us_per_operation, 0),
        _number(subject.operations_per_commit, 2 if (subject.operations_per_commit or 0) < 10 else 0),
        _number(None if subject.longest_hold_us is None else subject.longest_hold_us / 1000, 0),
        _number(subject.grown_mib, 0),
    ]


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def _ratio(result: BenchmarkResult, subject: SubjectResult, *, is_ours: bool) -> tuple[str, str]:
    if is_ours:
        return "", ""
    return ("rate" if result.measure == "rate" else "p50"), _spread(result.ratio_to(subject))


def _spread(ratio: Ratio | None) -> str:
    if ratio is None:
        return NOTHING
    if ratio.lowest == ratio.highest:
        return f"{ratio.median:.2f}"
    return f"{ratio.median:.2f} ({ratio.lowest:.2f}-{ratio.highest:.2f})"


def _change(result: BenchmarkResult, then: Ratio | None, now: Ratio | None) -> Text:
    if then is None or now is None:
        return Text(NOTHING)
    change = now.median / then.median - 1
    overlap = now.lowest <= then.highest and then.lowest <= now.highest
    better = change > 0 if result.measure == "rate" else change < 0
    style = "dim" if overlap else "green" if better else "red"
    return Text(f"{change:+.0%}" + (" (within the spread)" if overlap else ""), style=style)


def _verdicts(verdicts: list[Verdict]) -> Text:
    text = Text()
    for verdict in verdicts:
        mark, style = MARKS[verdict.met]
        text.append(f"{mark} {verdict.text}", style=style)
    return text


def _errors(report: Report) -> list[Text]:
    lines: list[Text] = []
    for result in report.benchmarks:
        for subject in result.subjects:
            if subject.error is not None:
                lines.append(Text(f"{result.title}, {subject.title}: {subject.error}", style="red"))
            if subject.unfinished:
                lines.append(Text(f"{result.title}, {subject.title}: {subject.unfinished:,} had no answer in the end."))
    return lines

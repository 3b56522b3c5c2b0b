"""Every benchmark, run for a moment in this process. Nothing is said about how fast it is."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, RenderableType

from benchmarks.machine import Machine, file_system_of, look_at_machine
from benchmarks.measure import measure
from benchmarks.measurement import Counts, Latency, Sample, Spec
from benchmarks.plan import BENCHMARKS, Benchmark, benchmark_named
from benchmarks.results import FORMAT, BenchmarkResult, Report
from benchmarks.subject import SUBJECTS, TITLES, InProcess, subject_named
from benchmarks.suite import MeasurementError, Settings, Suite, measurements, run_in_child
from benchmarks.table import comparison_table, report_markdown, report_table

MOMENT = Settings(seconds=0.05, rounds=1, warm_up_seconds=0.01)
FEW_CALLERS = 8
FEW_ARRIVALS_PER_SECOND = 200.0
FEW_PREPARED = 16


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return look_at_machine(tmp_path_factory.mktemp("machine"))


def run_here(spec: Spec) -> Sample:
    """What the children do, with fewer callers."""
    few = msgspec.structs.replace(spec, callers=min(spec.callers, FEW_CALLERS))
    if spec.rate_per_second is not None:
        few = msgspec.structs.replace(few, rate_per_second=FEW_ARRIVALS_PER_SECOND)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(few, Path(folder), prepared_at_most=FEW_PREPARED))


def quiet(what: str) -> None:
    del what


def sample(rate: float, p50_us: float = 100.0, per_commit: int = 10, cpu_us: float = 12.0) -> Sample:
    latency = Latency(p50_us=p50_us, p90_us=2 * p50_us, p99_us=3 * p50_us, highest_us=4 * p50_us)
    """Per commit 0: two commits for each."""
    operations = int(rate)
    return Sample(
        seconds=1.0,
        operations=operations,
        unfinished=0,
        latency=latency,
        cpu_us_per_operation=cpu_us,
        counts=Counts(commits=operations // per_commit if per_commit else 2 * operations),
    )


def shown(renderable: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def is_in_process(benchmark: Benchmark) -> bool:
    return all(isinstance(subject_named(subject), InProcess) for subject in benchmark.subjects)


def check_shape(benchmark: Benchmark, result: BenchmarkResult) -> None:
    assert [subject.subject for subject in result.subjects] == list(benchmark.subjects)
    for subject in result.subjects:
        assert subject.error is None
        assert [one.seconds for one in subject.samples] == [pytest.approx(MOMENT.seconds)]
    assert [verdict.text for verdict in result.verdicts] == [target.text for target in benchmark.targets]


IN_PROCESS = [
    pytest.param(one, marks=[pytest.mark.slow] if one.name in ("sizes-10", "sizes-30") else [], id=one.name)
    for one in BENCHMARKS
    if is_in_process(one)
]


@pytest.mark.parametrize("benchmark_", IN_PROCESS)
def test_every_benchmark_in_process_runs_and_fits_into_the_report(benchmark_: Benchmark, machine: Machine) -> None:
    report = Suite(MOMENT, run_here, quiet).report([benchmark_], machine)
    check_shape(benchmark_, report.benchmarks[0])
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    table = shown(report_table(report))
    assert benchmark_.title in table
    document = report_markdown(report).splitlines()
    for subject in benchmark_.subjects:
        assert TITLES[subject] in table
        assert any(f"| {TITLES[subject]} |" in line for line in document)
    assert len({line.count("|") for line in document if line.startswith("|")}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("benchmark_", [one for one in BENCHMARKS if not is_in_process(one)], ids=lambda one: one.name)
def test_every_benchmark_of_servers_runs(benchmark_: Benchmark) -> None:
    result = Suite(MOMENT, run_here, quiet).measure(benchmark_)
    check_shape(benchmark_, result)
    if benchmark_.name.startswith("events-") and Path("/proc/self/status").exists():
        assert all((one.grown_mib or 0.0) > 0.0 for one in result.subjects), "what readers cost in memory is told"


@pytest.mark.slow
def test_a_child_measures_in_a_fresh_interpreter(tmp_path: Path) -> None:
    spec = Spec(subject="memory", workload="call", warm_up_seconds=0.0, seconds=0.05)
    assert run_in_child(spec, tmp_path).operations > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    spec = Spec(subject="commit", workload="steps", warm_up_seconds=0.0, seconds=0.05)
    with pytest.raises(MeasurementError, match="it does nothing else"):
        run_in_child(spec, tmp_path)


def test_rounds_interleave_and_every_other_one_goes_backwards() -> None:
    asked: list[str] = []

    def run(spec: Spec) -> Sample:
        asked.append(spec.subject)
        return sample(1000)

    settings = Settings(seconds=1.0, rounds=2, warm_up_seconds=0.0)
    Suite(settings, run, quiet).measure(benchmark_named("calls-1024"))
    assert asked == ["durably", "mailbox", "memory", "memory", "mailbox", "durably"]


def test_an_open_loop_asks_for_its_share_of_the_peak_which_is_measured_once() -> None:
    asked: list[float | None] = []

    def run(spec: Spec) -> Sample:
        asked.append(spec.rate_per_second)
        return sample(1000)

    suite = Suite(Settings(seconds=1.0, rounds=1, warm_up_seconds=0.0), run, quiet)
    benchmarks = [benchmark_named("open-50"), benchmark_named("open-90")]
    results = [suite.measure(one) for one in benchmarks]
    assert [result.rate_per_second for result in results] == [500, 900]
    assert asked == [None, 500, 500, 900, 900]
    assert measurements(benchmarks, rounds=1) == len(asked)


def test_a_subject_that_fails_leaves_the_others_their_results() -> None:
    def run(spec: Spec) -> Sample:
        if spec.subject == "durably":
            raise MeasurementError("It broke.")
        return sample(1000)

    result = Suite(MOMENT, run, quiet).measure(benchmark_named("calls-1024"))
    assert result.ours.error == "It broke."
    assert [len(subject.samples) for subject in result.subjects] == [0, 1, 1]
    assert result.ratio is None
    assert [verdict.met for verdict in result.verdicts] == [None]


@pytest.mark.parametrize(
    ("name", "ours", "limit", "met"),
    [
        ("calls-1024", sample(25_000), sample(50_000), True),
        ("calls-1024", sample(24_999), sample(50_000), False),
        ("calls-1", sample(1000, p50_us=150), sample(2000, p50_us=100), True),
        ("calls-1", sample(1000, p50_us=151), sample(2000, p50_us=100), False),
        ("chain-1", sample(1000, per_commit=1), sample(1000), True),
        ("chain-1", sample(1000, per_commit=0), sample(1000), False),
    ],
)
def test_targets_are_judged(name: str, ours: Sample, limit: Sample, met: bool) -> None:
    result = Suite(MOMENT, lambda spec: ours if spec.subject == "durably" else limit, quiet).measure(
        benchmark_named(name)
    )
    assert [verdict.met for verdict in result.verdicts] == [met]


def test_a_cost_is_judged_by_the_benchmark_that_it_refers_to() -> None:
    cpu_us = {"call": 50.0, "chain": 1000.0}
    suite = Suite(MOMENT, lambda spec: sample(1000, cpu_us=cpu_us[spec.workload]), quiet)
    assert [verdict.met for verdict in suite.measure(benchmark_named("chain-100")).verdicts] == [None]
    suite.measure(benchmark_named("calls-1024"))
    assert [verdict.met for verdict in suite.measure(benchmark_named("chain-100")).verdicts] == [True]
    cpu_us["chain"] = 1001.0
    assert [verdict.met for verdict in suite.measure(benchmark_named("chain-100")).verdicts] == [False]


def test_a_comparison_shows_ratios_then_and_now(machine: Machine) -> None:
    def report(ours: float) -> Report:
        suite = Suite(MOMENT, lambda spec: sample(ours if spec.subject == "durably" else 1000), quiet)
        return suite.report([benchmark_named("calls-64")], machine)

    table = shown(comparison_table(report(600), report(500)))
    assert "0.50" in table
    assert "0.60" in table
    assert "+20%" in table


def test_every_benchmark_names_subjects_that_exist_and_a_peak_that_comes_before_it() -> None:
    names = [benchmark.name for benchmark in BENCHMARKS]
    assert len(names) == len(set(names))
    assert set(SUBJECTS) == set(TITLES)
    for benchmark in BENCHMARKS:
        assert set(benchmark.subjects) <= set(SUBJECTS)
        assert len(benchmark.subjects) >= 2
        if benchmark.load.share is not None:
            assert names.index(benchmark.load.peak_of) < names.index(benchmark.name)


def test_the_machine_is_described(machine: Machine, tmp_path: Path) -> None:
    assert machine.cores >= 1
    assert machine.fsync_us > 0
    assert file_system_of(tmp_path)
    assert FORMAT == 1

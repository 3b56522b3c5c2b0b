"""`Suite`: runs benchmarks in rounds. Within a round every subject has its turn, so that noise hits all of them.

Every other round goes backwards: what grows warmer or fuller favours nobody.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

import msgspec

from benchmarks.machine import Machine
from benchmarks.measurement import Sample, Spec
from benchmarks.plan import (
    Benchmark,
    CostAtMost,
    HoldAtMost,
    OneCommitEach,
    RateAtLeast,
    RatioAtMost,
    Target,
    benchmark_named,
)
from benchmarks.results import FORMAT, BenchmarkResult, Report, SubjectResult, Verdict
from benchmarks.subject import TITLES

ROOT: Final = Path(__file__).parents[1]
CHILD_SECONDS: Final = 60
"""How much longer than its window a measuring process may take."""
ONE_COMMIT: Final = 0.98
"""Operations per commit that count as one commit each: the window's edges cut a few."""


class MeasurementError(Exception):
    """A measuring process failed; the message is its last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long and how often."""

    seconds: float
    rounds: int
    warm_up_seconds: float


Run = Callable[[Spec], Sample]
Tell = Callable[[str], None]


class Suite:
    """Benchmarks of one run; later ones may build on what earlier ones found."""

    def __init__(self, settings: Settings, run: Run, tell: Tell) -> None:
        self._settings = settings
        self._run = run
        self._tell = tell
        self._results: dict[str, BenchmarkResult] = {}
        self._peaks: dict[str, float] = {}

    def report(self, benchmarks: Sequence[Benchmark], machine: Machine) -> Report:
        """Run them all, in order."""
        return Report(
            format=FORMAT,
            machine=machine,
            seconds=self._settings.seconds,
            rounds=self._settings.rounds,
            benchmarks=[self.measure(benchmark) for benchmark in benchmarks],
        )

    def measure(self, benchmark: Benchmark) -> BenchmarkResult:
        """All rounds of one benchmark."""
        rate = self._rate(benchmark)
        results = {
            subject: SubjectResult(subject=subject, title=TITLES[subject], samples=[]) for subject in benchmark.subjects
        }
        for number in range(self._settings.rounds):
            for subject in benchmark.subjects if number % 2 == 0 else reversed(benchmark.subjects):
                if results[subject].error is None:
                    results[subject] = self._one_more(benchmark, results[subject], rate)
        result = BenchmarkResult(
            name=benchmark.name,
            title=benchmark.title,
            measure=benchmark.measure,
            rate_per_second=rate,
            subjects=list(results.values()),
            verdicts=[],
        )
        verdicts = [Verdict(text=target.text, met=self._is_met(target, result)) for target in benchmark.targets]
        result = self._results[benchmark.name] = msgspec.structs.replace(result, verdicts=verdicts)
        return result

    def _one_more(self, benchmark: Benchmark, so_far: SubjectResult, rate: float | None) -> SubjectResult:
        self._tell(f"{benchmark.title}: {so_far.title}")
        try:
            sample = self._run(self._spec(benchmark, so_far.subject, rate))
        except MeasurementError as error:
            return msgspec.structs.replace(so_far, error=str(error))
        return msgspec.structs.replace(so_far, samples=[*so_far.samples, sample])

    def _spec(self, benchmark: Benchmark, subject: str, rate: float | None) -> Spec:
        return Spec(
            subject=subject,
            workload=benchmark.workload,
            callers=benchmark.load.callers,
            rate_per_second=rate,
            beside_burner=benchmark.load.beside_burner,
            watches_loop=benchmark.load.watches_loop,
            warm_up_seconds=self._settings.warm_up_seconds,
            seconds=self._settings.seconds,
        )

    def _rate(self, benchmark: Benchmark) -> float | None:
        share = benchmark.load.share
        return None if share is None else share * self._peak(benchmark.load.peak_of)

    def _peak(self, name: str) -> float:
        """Our rate in another benchmark, measured once for this if it has not been run."""
        result = self._results.get(name)
        found = None if result is None else result.ours.rate_per_second
        if found is None:
            found = self._peaks.get(name)
        if found is None:
            peak = benchmark_named(name)
            self._tell(f"{peak.title}: the peak")
            try:
                found = self._run(self._spec(peak, peak.subjects[0], None)).rate_per_second
            except MeasurementError:
                found = 0.0
            self._peaks[name] = found
        return max(found, 1.0)

    def _is_met(self, target: Target, result: BenchmarkResult) -> bool | None:
        rate = result.ours.rate_per_second
        match target:
            case RateAtLeast():
                return None if rate is None else rate >= target.per_second
            case RatioAtMost():
                return None if result.ratio is None else result.ratio.median <= target.times
            case OneCommitEach():
                each = result.ours.operations_per_commit
                return None if each is None else each >= ONE_COMMIT
            case CostAtMost():
                other = self._results.get(target.of)
                unit = None if other is None else other.ours.cpu_us_per_operation
                cost = result.ours.cpu_us_per_operation
                return None if unit is None or cost is None else cost <= target.times * unit
            case HoldAtMost():
                held_us = result.ours.longest_hold_us
                return None if held_us is None else held_us <= target.milliseconds * 1000
            case _:
                assert_never(target)


def measurements(benchmarks: Sequence[Benchmark], rounds: int) -> int:
    """How many there will be, those of peaks that nobody asked for included."""
    chosen = {benchmark.name for benchmark in benchmarks}
    peaks = {benchmark.load.peak_of for benchmark in benchmarks if benchmark.load.share is not None} - chosen
    return rounds * sum(len(benchmark.subjects) for benchmark in benchmarks) + len(peaks)


def run_in_child(spec: Spec, folder: Path) -> Sample:
    """Measure in a fresh interpreter, with a fresh folder inside `folder`.

    Raises:
        MeasurementError: it failed, or took too long.
    """
    with tempfile.TemporaryDirectory(dir=folder) as own:
        command = [sys.executable, "-m", "benchmarks.child", msgspec.json.encode(spec).decode(), own]
        output = run_program(command, spec.warm_up_seconds + spec.seconds + CHILD_SECONDS)
    return msgspec.json.decode(output, type=Sample)


def run_program(command: Sequence[str], seconds: float) -> str:
    """What it prints.

    Raises:
        MeasurementError: it failed, or took too long.
    """
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MeasurementError("It took too long.") from None
    finally:
        _end(process)
    if process.returncode != 0:
        raise MeasurementError((errors.strip() or f"Its status was {process.returncode}.").splitlines()[-1])
    return output


def _end(process: subprocess.Popen[str]) -> None:
    """Whatever still runs of it, a server that it began included."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()

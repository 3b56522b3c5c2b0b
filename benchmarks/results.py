"""Results: samples by benchmark and subject, medians, ratios, verdicts. What `--json` prints and `--compare` reads."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.machine import Machine
from benchmarks.measurement import Latency, Sample
from benchmarks.plan import Measure

FORMAT = 1
"""Of the JSON. A change that older readers would misread makes it another number."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Ours by the bare limit, round by round. Above 1 is faster for rates, and slower for latencies."""

    median: float
    lowest: float
    highest: float


class SubjectResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the rounds of one subject saw."""

    subject: str
    title: str
    samples: list[Sample]
    error: str | None = None
    """Why there are not as many samples as rounds."""

    @property
    def rate_per_second(self) -> float | None:
        return _median([sample.rate_per_second for sample in self.samples])

    @property
    def latency(self) -> Latency | None:
        seen = [sample.latency for sample in self.samples if sample.latency is not None]
        if not seen:
            return None
        return Latency(
            p50_us=median(latency.p50_us for latency in seen),
            p90_us=median(latency.p90_us for latency in seen),
            p99_us=median(latency.p99_us for latency in seen),
            highest_us=max(latency.highest_us for latency in seen),
        )

    @property
    def cpu_us_per_operation(self) -> float | None:
        return _median([sample.cpu_us_per_operation for sample in self.samples])

    @property
    def operations_per_commit(self) -> float | None:
        return _median([sample.operations_per_commit for sample in self.samples])

    @property
    def longest_hold_us(self) -> float | None:
        return _median([sample.longest_hold_us for sample in self.samples])

    @property
    def grown_mib(self) -> float | None:
        return _median([sample.grown_mib for sample in self.samples])

    @property
    def unfinished(self) -> int:
        return sum(sample.unfinished for sample in self.samples)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that must be reached, and whether it was."""

    text: str
    met: bool | None
    """None: this run cannot tell."""


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark: ours first, then the bare limit, then others."""

    name: str
    title: str
    measure: Measure
    rate_per_second: float | None
    """Of an open loop: how much was asked for."""
    subjects: list[SubjectResult]
    verdicts: list[Verdict]

    @property
    def ours(self) -> SubjectResult:
        return self.subjects[0]

    def ratio_to(self, other: SubjectResult) -> Ratio | None:
        """Ours by another subject; None if a pair of rounds is missing or has nothing to divide."""
        pairs = zip(self.ours.samples, other.samples, strict=False)
        ratios = [ratio for ours, theirs in pairs if (ratio := self._ratio(ours, theirs)) is not None]
        if not ratios:
            return None
        return Ratio(median=median(ratios), lowest=min(ratios), highest=max(ratios))

    @property
    def ratio(self) -> Ratio | None:
        """Ours by the bare limit: the figure that can be compared between machines and days."""
        return self.ratio_to(self.subjects[1])

    def _ratio(self, ours: Sample, theirs: Sample) -> float | None:
        if self.measure == "rate":
            return ours.rate_per_second / theirs.rate_per_second if theirs.operations else None
        if ours.latency is None or theirs.latency is None:
            return None
        return ours.latency.p50_us / theirs.latency.p50_us


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite."""

    format: int
    machine: Machine
    seconds: float
    rounds: int
    benchmarks: list[BenchmarkResult]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None

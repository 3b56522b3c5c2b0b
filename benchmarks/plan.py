"""The plan: which comparisons there are, what each is judged by, and the figures that durably must reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from benchmarks.subject import SIZES_MB

Measure: TypeAlias = Literal["rate", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateAtLeast:
    """So many operations in a second."""

    per_second: int

    @property
    def text(self) -> str:
        return f"≥ {self.per_second:,}/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioAtMost:
    """At most so many times the latency of the bare limit."""

    times: float

    @property
    def text(self) -> str:
        return f"≤ {self.times:g} times the limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCommitEach:
    """A lone operation is one commit."""

    @property
    def text(self) -> str:
        return "1 commit each"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAtMost:
    """At most so many times the processor time of an operation of another benchmark."""

    times: float
    of: str

    @property
    def text(self) -> str:
        return f"≤ {self.times:g} times {self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldAtMost:
    """The event loop is held up for no longer than this: `slow_advance_ms`."""

    milliseconds: int

    @property
    def text(self) -> str:
        return f"holds the loop ≤ {self.milliseconds} ms"


Target: TypeAlias = RateAtLeast | RatioAtMost | OneCommitEach | CostAtMost | HoldAtMost


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """By whom a subject is asked."""

    callers: int = 1
    share: float | None = None
    """Of an open loop: the share of a peak that arrives."""
    peak_of: str = ""
    """The benchmark whose rate is that peak."""
    beside_burner: bool = False
    watches_loop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One workload under one load, for several subjects: ours, the bare limit that it is compared with, and others."""

    name: str
    title: str
    workload: str
    load: Load
    subjects: tuple[str, ...]
    """Ours is the first, the bare limit the second."""
    measure: Measure = "rate"
    targets: tuple[Target, ...] = ()


BENCHMARKS: Final = (
    Benchmark(
        name="calls-1",
        title="one call, one caller",
        workload="call",
        load=Load(callers=1),
        subjects=("durably", "commit"),
        measure="latency",
        targets=(RatioAtMost(times=1.5),),
    ),
    Benchmark(
        name="calls-64",
        title="calls, 64 callers",
        workload="call",
        load=Load(callers=64),
        subjects=("durably", "mailbox", "memory"),
    ),
    Benchmark(
        name="calls-1024",
        title="calls, 1,024 callers",
        workload="call",
        load=Load(callers=1024),
        subjects=("durably", "mailbox", "memory"),
        targets=(RateAtLeast(per_second=25_000),),
    ),
    Benchmark(
        name="steps-1024",
        title="three steps, 1,024 callers",
        workload="steps",
        load=Load(callers=1024),
        subjects=("durably", "mailbox", "memory"),
        targets=(RateAtLeast(per_second=6_000),),
    ),
    Benchmark(
        name="chain-1",
        title="chain of ten, one caller",
        workload="chain",
        load=Load(callers=1),
        subjects=("durably", "mailbox"),
        measure="latency",
        targets=(OneCommitEach(),),
    ),
    Benchmark(
        name="chain-100",
        title="chain of ten, 100 callers",
        workload="chain",
        load=Load(callers=100),
        subjects=("durably", "mailbox", "memory"),
        targets=(CostAtMost(times=20, of="calls-1024"),),
    ),
    Benchmark(
        name="burner-calls",
        title="calls beside a burner, 256 callers",
        workload="call",
        load=Load(callers=256, beside_burner=True),
        subjects=("durably", "memory", "mailbox"),
        targets=(RateAtLeast(per_second=4_000),),
    ),
    Benchmark(
        name="burner-steps",
        title="three steps beside a burner, 256 callers",
        workload="steps",
        load=Load(callers=256, beside_burner=True),
        subjects=("durably", "memory", "mailbox"),
    ),
    Benchmark(
        name="burning-256",
        title="handlers that burn 0.2 ms, 256 callers",
        workload="burning",
        load=Load(callers=256),
        subjects=("durably", "mailbox"),
    ),
    Benchmark(
        name="burning-open",
        title="the same, open loop at 90 %",
        workload="burning",
        load=Load(share=0.9, peak_of="burning-256"),
        subjects=("durably", "mailbox"),
        measure="latency",
    ),
    Benchmark(
        name="open-50",
        title="calls, open loop at 50 %",
        workload="call",
        load=Load(share=0.5, peak_of="calls-1024"),
        subjects=("durably", "mailbox"),
        measure="latency",
    ),
    Benchmark(
        name="open-90",
        title="calls, open loop at 90 %",
        workload="call",
        load=Load(share=0.9, peak_of="calls-1024"),
        subjects=("durably", "mailbox"),
        measure="latency",
    ),
    *(
        Benchmark(
            name=f"sizes-{size_mb}",
            title=f"a call with {size_mb} MB of objects",
            workload=f"size-{size_mb}",
            load=Load(callers=1, watches_loop=True),
            subjects=("durably", "decode"),
            measure="latency",
            targets=(HoldAtMost(milliseconds=100),),
        )
        for size_mb in SIZES_MB
    ),
    Benchmark(
        name="sizes-field",
        title="one call, beside a field of 10 MB",
        workload="call-beside-field",
        load=Load(callers=1),
        subjects=("durably", "commit"),
        measure="latency",
        targets=(RatioAtMost(times=1.5),),
    ),
    Benchmark(
        name="http-64",
        title="calls over HTTP, 64 connections",
        workload="call",
        load=Load(callers=64),
        subjects=("durably-http", "asgi", "durably-granian"),
        targets=(RateAtLeast(per_second=8_000),),
    ),
    Benchmark(
        name="events-own",
        title="events, 1,000 readers of one key each",
        workload="events-own",
        load=Load(callers=1_000),
        subjects=("durably-http", "asgi-events", "durably-granian"),
        targets=(RateAtLeast(per_second=10_000),),
    ),
    Benchmark(
        name="events-all",
        title="events, 1,000 readers of all",
        workload="events-all",
        load=Load(callers=1_000),
        subjects=("durably-http", "asgi-events", "durably-granian"),
    ),
)


def benchmark_named(name: str) -> Benchmark:
    return next(benchmark for benchmark in BENCHMARKS if benchmark.name == name)

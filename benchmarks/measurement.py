"""What is measured and what comes out: the whole language between the suite and the processes that measure for it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

NANOSECONDS = 1_000_000_000


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: a subject, what it is asked to do, and by whom."""

    subject: str
    workload: str
    callers: int = 1
    """Of a closed loop: each asks again when it has been answered. Connections, where the subject is a server."""
    rate_per_second: float | None = None
    """Of an open loop, instead of the callers: how many arrive in a second, whether or not the others were answered."""
    beside_burner: bool = False
    """A host task that never lets the event loop idle runs beside (rule X8)."""
    watches_loop: bool = False
    """A ticker runs beside, which sees how long the event loop is held up."""
    warm_up_seconds: float
    seconds: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers took, in microseconds."""

    p50_us: float
    p90_us: float
    p99_us: float
    highest_us: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What a durable subject has done since it was started."""

    commits: int
    transitions: int = 0
    pauses: int = 0
    """How often the loop stood still for the threads that it waited for."""

    def since(self, earlier: Counts) -> Counts:
        return Counts(
            commits=self.commits - earlier.commits,
            transitions=self.transitions - earlier.transitions,
            pauses=self.pauses - earlier.pauses,
        )


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one measurement saw in its window, behind the warm-up."""

    seconds: float
    operations: int
    """Those that ended in the window."""
    unfinished: int
    """Those that had no answer long after the window's end."""
    latency: Latency | None
    """None: nothing ended."""
    cpu_us_per_operation: float | None
    """Processor time of the measuring process, its threads included. None where the subject is a server."""
    counts: Counts | None
    """Within the window; None where the subject cannot tell."""
    longest_hold_us: float | None = None
    """How long the event loop gave no turn to others, at most; None where nothing watched."""
    grown_mib: float | None = None
    """What a server took up in memory at most, beyond what it did before its readers came; None: not looked at."""

    @property
    def rate_per_second(self) -> float:
        return self.operations / self.seconds

    @property
    def operations_per_commit(self) -> float | None:
        if self.counts is None or self.counts.commits == 0:
            return None
        return self.operations / self.counts.commits


def latency_of(latencies_ns: Sequence[int]) -> Latency | None:
    """The distribution of these times."""
    if not latencies_ns:
        return None
    ordered = sorted(latencies_ns)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000

    return Latency(p50_us=at(0.5), p90_us=at(0.9), p99_us=at(0.99), highest_us=ordered[-1] / 1000)

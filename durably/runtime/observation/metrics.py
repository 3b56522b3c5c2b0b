"""`Metrics`: counts what happens in a runtime, for monitoring; and the numbers of one moment, `RuntimeMetrics`.

Nothing here knows how the numbers are written. Counting costs a dictionary or two for each invocation, where it is
asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from durably.runtime.clock import Clock
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer

LATENCY_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0,
)  # fmt: skip
COMMIT_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
BATCH_TRANSITIONS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0)


class HandlerKey(NamedTuple):
    """Of what is counted for each handler."""

    service: str
    handler: str


class Histogram:
    """How often a value was at most each bound; the last count is of those beyond all of them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Ended:
    """Invocations of one handler that have ended."""

    completed: int = 0
    failed: int = 0
    seconds: Histogram = field(default_factory=lambda: Histogram(LATENCY_SECONDS))
    """From the acceptance, or from when a delayed message was due, to the outcome."""


class Counts:
    """What has happened since the runtime was started."""

    def __init__(self) -> None:
        self.ended: defaultdict[HandlerKey, Ended] = defaultdict(Ended)
        self.retries: defaultdict[HandlerKey, int] = defaultdict(int)
        """Attempts that failed and are tried again."""
        self.action_retries: defaultdict[HandlerKey, int] = defaultdict(int)
        self.pauses: defaultdict[HandlerKey, int] = defaultdict(int)
        self.batch_transitions = Histogram(BATCH_TRANSITIONS)
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.store_failures = 0


class Metrics(Observer):
    """Hears of everything that is counted."""

    detailed = True

    def __init__(self, clock: Clock) -> None:
        self.counts = Counts()
        self._clock = clock

    def ended(self, invocation: InvocationRun) -> None:
        ended = self.counts.ended[_key(invocation)]
        assert invocation.outcome is not None
        if invocation.outcome.failed:
            ended.failed += 1
        else:
            ended.completed += 1
        began_us = invocation.accepted_at if invocation.due is None else max(invocation.accepted_at, invocation.due)
        ended.seconds.observe(max(0, self._clock.now() - began_us) / 1_000_000)

    def retries(self, invocation: InvocationRun, error: BaseException, delay_us: int, due: int) -> None:
        self.counts.retries[_key(invocation)] += 1

    def action_retries(self, invocation: InvocationRun, action: str, fields: dict[str, Any]) -> None:
        self.counts.action_retries[_key(invocation)] += 1

    def paused(self, invocation: InvocationRun, error: BaseException) -> None:
        self.counts.pauses[_key(invocation)] += 1

    def batch_written(self, transitions: int, took_us: int) -> None:
        self.counts.batch_transitions.observe(transitions)
        self.counts.commit_seconds.observe(took_us / 1_000_000)

    def incarnation_failed(self, error: BaseException) -> None:
        self.counts.store_failures += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeMetrics:
    """A runtime in numbers, as it is now."""

    accepts_requests: bool
    counts: Counts | None
    """None: it was not told to count, with `Runtime(metrics=True)`."""
    active_objects: Mapping[str, int]
    """Objects and invocations of services in memory, by service."""
    mailbox_messages: Mapping[str, int]
    """Messages that wait for objects in memory, by service."""
    waiting_requests: int
    """Requests from outside that have not been accepted."""
    waiting_attempts: int
    """Attempts that wait in memory."""
    running_actions: int
    timers_due_soon: int
    """Timers in memory. Those that are due later are in the store only."""
    undurable_bytes: int
    """What is ahead of the disk, about."""
    paused_invocations: int | None
    """1,000 are 1,000 or more. None: the store is away."""
    subscription_lags: Mapping[str, int]
    """By subscription, how many events have not become messages; 1,000 are 1,000 or more."""
    source_lags: Mapping[str, int]
    """By source, how many records have not become messages. Sources that do not tell are missing."""


def _key(invocation: InvocationRun) -> HandlerKey:
    return HandlerKey(invocation.address.service, invocation.handler.name)

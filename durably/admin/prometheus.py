"""The numbers of a runtime as Prometheus reads them, written by its own library. Needs the extra `metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from durably.runtime.observation.metrics import Counts, HandlerKey, Histogram, RuntimeMetrics

CONTENT_TYPE = CONTENT_TYPE_LATEST
HANDLER = ("service", "handler")


def as_prometheus(metrics: RuntimeMetrics) -> bytes:
    """The page that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: RuntimeMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        yield from _moment(self._metrics)
        if self._metrics.counts is not None:
            yield from _history(self._metrics.counts)


def _moment(metrics: RuntimeMetrics) -> Iterator[Metric]:
    yield _gauge("accepts_requests", "1 if requests are accepted, 0 while the store is away.", metrics.accepts_requests)
    yield _by("active_objects", "Objects, and invocations of services, in memory.", "service", metrics.active_objects)
    yield _by("mailbox_messages", "Messages that wait for objects.", "service", metrics.mailbox_messages)
    yield _gauge("waiting_requests", "Requests from outside that are not accepted yet.", metrics.waiting_requests)
    yield _gauge("waiting_attempts", "Attempts that wait in memory.", metrics.waiting_attempts)
    yield _gauge("running_actions", "Actions of ctx.run that run.", metrics.running_actions)
    yield _gauge("timers", "Timers in memory: those that are due soon.", metrics.timers_due_soon)
    yield _gauge("undurable_bytes", "What is ahead of the disk, about.", metrics.undurable_bytes)
    if metrics.paused_invocations is not None:
        yield _gauge("paused_invocations", "Paused invocations, up to 1000.", metrics.paused_invocations)
    lag = "Events that have not become messages of a subscription, up to 1000."
    yield _by("subscription_lag_events", lag, "subscription", metrics.subscription_lags)
    lag = "Records that have not become messages, as far as the source knows."
    yield _by("source_lag_records", lag, "source", metrics.source_lags)


def _history(counts: Counts) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "durably_invocations", "Invocations that have ended, by outcome.", labels=[*HANDLER, "outcome"]
    )
    seconds = HistogramMetricFamily(
        "durably_invocation_seconds", "From the acceptance, or the due time, to the outcome.", labels=HANDLER
    )
    for key, one in counts.ended.items():
        ended.add_metric([*key, "completed"], one.completed)
        ended.add_metric([*key, "failed"], one.failed)
        seconds.add_metric(key, *_buckets(one.seconds))
    yield ended
    yield seconds
    yield _counted("retries", "Attempts that failed and are tried again.", counts.retries)
    yield _counted("action_retries", "Attempts of actions that failed and are tried again.", counts.action_retries)
    yield _counted("pauses", "How often invocations were paused.", counts.pauses)
    yield _histogram("batch_transitions", "Transitions in one commit.", counts.batch_transitions)
    yield _histogram("commit_seconds", "How long commits took.", counts.commit_seconds)
    failures = CounterMetricFamily("durably_store_failures", "How often the store failed and was opened again.")
    failures.add_metric((), counts.store_failures)
    yield failures


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"durably_{name}", help, value=float(value))


def _by(name: str, help: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"durably_{name}", help, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _counted(name: str, help: str, counts: Mapping[HandlerKey, int]) -> Metric:
    family = CounterMetricFamily(f"durably_{name}", help, labels=HANDLER)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family


def _histogram(name: str, help: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(f"durably_{name}", help, labels=())
    family.add_metric((), *_buckets(histogram))
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Each with those below it, as the format wants them, and the sum."""
    below, buckets = 0, list[tuple[str, float]]()
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), below))
    return buckets, histogram.total

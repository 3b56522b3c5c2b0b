"""Traces in simulated worlds: they change no run, and whatever crashes, no span is told twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from durably.runtime.environment import Environment
from durably.runtime.observation.observer import Observers
from durably.runtime.observation.tracing.spans import Span, SpanObserver
from durably.runtime.observation.tracing.trace_context import Parent, TraceHeaders
from durably.testing import Faults, Simulation
from durably.testing.simulation import process
from workloads import WORKLOADS

SEEDS = {"counters": 1, "identities": 3, "retentions": 7}
"""Runs of workloads in which what a crash took back would be told twice, if it was told before it is on disk."""


def always(trace_id: int, parent: Parent | None) -> bool:
    return parent is None or bool(parent.flags)


def environment_telling(tell: Callable[[Span], None]) -> Callable[..., Environment]:
    """Makes the environment of a simulated process, with an observer that tells of spans."""
    numbers = count(1)

    def enter(*_: object) -> dict[str, Any]:
        return {}

    def environment(**given: Any) -> Environment:
        made = Environment(**given)
        spans = SpanObserver(
            clock=made.clock, sampler=always, tell=tell, enter=enter, new_span_id=lambda: next(numbers)
        )
        settings = replace(made.settings, trace_headers=TraceHeaders(always))
        return replace(made, observer=Observers([made.observer, spans]), settings=settings)

    return environment


def digest(name: str, seed: int, faults: Faults) -> str:
    workload = WORKLOADS[name]
    with Simulation(*workload.actors, seed=seed, faults=faults, **workload.options) as sim:
        sim.run(workload.program(sim))
        sim.finish()
        return sim.trace.digest()


def told_by(name: str, seed: int, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[Span]]:
    spans: list[Span] = []
    with monkeypatch.context() as patch:
        patch.setattr(process, "Environment", environment_telling(spans.append))
        return digest(name, seed, faults), spans


def kinds(spans: list[Span], kind: str) -> list[Span]:
    return [span for span in spans if span.attributes["durably.span"] == kind]


@pytest.mark.parametrize("name", SEEDS)
def test_a_run_with_tracing_is_the_run_without_and_no_span_is_told_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, spans = told_by(name, SEEDS[name], Faults.any(), monkeypatch)
    assert found == digest(name, SEEDS[name], Faults.any())
    assert max(Counter(span.span_id for span in spans).values()) == 1
    assert max(Counter(span.attributes["durably.invocation.id"] for span in kinds(spans, "invocation")).values()) == 1


@pytest.mark.parametrize("name", ["trees", "onions"])
def test_where_nothing_crashes_each_span_has_its_parent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, spans = told_by(name, 1, Faults.none(), monkeypatch)
    ids = {(span.trace_id, span.span_id) for span in spans}
    ended = {span.attributes["durably.invocation.id"] for span in kinds(spans, "invocation")}
    assert len({span.trace_id for span in spans}) < len(ended)  # What handlers call is in the trace of the caller.
    for span in spans:
        if span.attributes["durably.invocation.id"] in ended and span.parent_id is not None:
            assert (span.trace_id, span.parent_id) in ids


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("seed", range(3))
def test_no_workload_is_changed_by_tracing(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found, spans = told_by(name, seed, Faults.any(), monkeypatch)
    assert found == digest(name, seed, Faults.any())
    assert max(Counter(span.span_id for span in spans).values(), default=1) == 1

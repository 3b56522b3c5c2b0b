"""A trace through a kill -9 and a suspension, at real receivers: everything has a span, and nothing has two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.otlp import COLLECTORS
from tests.processes import eventually, serving

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TARGET = "tests.crashes.tour:runtime"
OFTEN = {"OTEL_BSP_SCHEDULE_DELAY": "20"}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("protocol", "by_variable"), [("grpc", False), ("http/protobuf", True)])
def test_a_killed_tour_is_one_trace_with_one_span_for_everything(
    protocol: str, by_variable: bool, tmp_path: Path
) -> None:
    with COLLECTORS[protocol]() as collector:
        variables = {**OFTEN, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol}
        options = ["--suspend-after", "0", *([] if by_variable else ["--tracing-endpoint", collector.endpoint])]
        if by_variable:
            variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        with serving(TARGET, *options, cwd=tmp_path, environment=variables) as server:
            answer = httpx.post(
                f"{server.url}/Tour/buy/send", json="go", headers={"traceparent": PARENT}, trust_env=False
            )
            id = answer.json()["invocationId"]
            assert eventually(lambda: bool(collector.of("command", "run charge")))
            server.kill()
        with serving(TARGET, *options, cwd=tmp_path, environment=variables) as server:
            httpx.post(f"{server.url}/restate/invocations/{id}/signals/go", json="yes", trust_env=False)
            result = httpx.get(f"{server.url}/restate/invocation/{id}/attach", trust_env=False)
            assert result.json() == "yes"
            assert server.stop() == 0
    assert {span.trace_id for span in collector.spans} == {PARENT[3:35]}
    assert max(Counter(span.span_id for span in collector.spans).values()) == 1
    assert Counter((span.what, span.name) for span in collector.spans if span.what != "attempt") == {
        ("invocation", "durably.invocation Tour/buy"): 1,
        ("invocation", "durably.invocation Seat/reserve"): 2,
        ("command", "durably.call Seat/reserve"): 2,
        ("command", "durably.run charge"): 1,
        ("command", "durably.signal"): 1,
    }
    attempts = [span for span in collector.of("attempt") if span.attributes["durably.invocation.id"] == id]
    attempts.sort(key=lambda span: span.began_ns)
    results = [span.attributes["durably.attempt.result"] for span in attempts]
    assert results.count("interrupted") == 1
    assert results[-1] == "completed"
    assert set(results[:-1]) == {"suspended", "interrupted"}
    assert attempts[-1].attributes["durably.attempt.replayed_steps"] >= 3
    ids = {span.span_id for span in collector.spans} | {PARENT[36:52]}
    assert all(span.parent_id in ids for span in collector.spans)

"""docs/observability.md names every metric and every attribute of spans, and nothing that is not there."""

from __future__ import annotations

import re

from durably.admin.prometheus import as_prometheus
from durably.runtime.observation.metrics import Counts, RuntimeMetrics
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "observability.md").read_text("utf-8")
SPANS = (ROOT / "durably" / "runtime" / "observation" / "tracing" / "spans.py").read_text("utf-8")


def test_the_page_names_the_metrics_that_there_are() -> None:
    empty = RuntimeMetrics(
        accepts_requests=True, counts=Counts(), active_objects={}, mailbox_messages={}, waiting_requests=0,
        waiting_attempts=0, running_actions=0, timers_due_soon=0, undurable_bytes=0, paused_invocations=0,
        subscription_lags={}, source_lags={},
    )  # fmt: skip
    told = re.findall(r"^# TYPE (\S+) (\w+)", as_prometheus(empty).decode(), re.MULTILINE)
    assert sorted(told) == sorted(re.findall(r"^\| `(durably_\w+)` \| (\w+) ", PAGE, re.MULTILINE))


def test_the_page_names_the_attributes_of_spans() -> None:
    written = {*re.findall(r'"(durably\.[a-z_.]+)"', SPANS)} - {"durably.attempt", "durably.argument", "durably.result"}
    assert written
    assert [name for name in sorted(written) if f"`{name}`" not in PAGE] == []

"""The one place where the suite looks into a running runtime. What it does not find there it does not tell."""

from __future__ import annotations

from typing import Any

from benchmarks.measurement import Counts
from durably.runtime.runtime import Runtime


def counts_of(runtime: Runtime) -> Counts | None:
    """Commits, transitions and pauses since the runtime was started."""
    inside: Any = runtime
    try:
        supervisor = inside._supervisor
        log = supervisor.engine.parts.committer
        return Counts(commits=log.commits, transitions=log.position, pauses=supervisor._thread_yielding.pauses)
    except AttributeError:
        return None


async def until_idle(runtime: Runtime) -> None:
    """Wait until nothing is under way that could go on by itself, and all is durable."""
    inside: Any = runtime
    await inside._supervisor.engine.parts.idleness.until_idle()

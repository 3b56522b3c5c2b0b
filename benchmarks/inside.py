"""The one place where the suite looks into a running runtime. What it does not find there it does not tell."""

from __future__ import annotations

from typing import Any

from benchmarks.measurement import Counts
from durably.runtime.runtime import Runtime


def counts_of(runtime: Runtime) -> Counts | None:
    """Commits, transitions and pauses since the runtime was started."""
    inside: Any = runtime
    try:
        engine = inside._supervisor.engine
        return Counts(
            commits=engine.committer.commits, transitions=engine.committer.position, pauses=engine.give_way.pauses
        )
    except AttributeError:
        return None

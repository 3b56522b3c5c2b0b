"""What of the signals that wait for an invocation belongs to one execution of it."""

from __future__ import annotations

from durably.ids import AWAKEABLE_PREFIX
from durably.storage.records import SignalRecord


def outlives(signal: SignalRecord) -> bool:
    """Whether the next execution takes it, too. A value for an awakeable does not: its execution is over (rule W1)."""
    return not signal.name.startswith(AWAKEABLE_PREFIX)

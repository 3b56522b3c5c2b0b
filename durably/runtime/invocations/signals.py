"""What of the signals that wait for an invocation belongs to one execution of it."""

from __future__ import annotations

from durably.ids import AWAKEABLE_PREFIX
from durably.storage.records import SignalRecord


def outlives(signal: SignalRecord) -> bool:
    """The next execution takes it, too: values for awakeables of the old one find nobody (rule W1)."""
    return not signal.name.startswith(AWAKEABLE_PREFIX)

"""What a process that only serves a runtime sets for itself. An embedded runtime leaves all of it to its host."""

from __future__ import annotations

import sys

from durably.runtime.supervision.garbage_collection import tune_garbage_collection

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the loop may keep the interpreter lock while a committing thread waits; a tenth of the default."""


def tune_for_serving() -> None:
    """Let commits have their turn, and the garbage collector look at requests in bulk, not at the program again."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    tune_garbage_collection()

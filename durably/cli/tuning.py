"""What a process that only serves a runtime sets for itself. An embedded runtime leaves all of it to its host."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the loop may keep the interpreter lock while a committing thread waits; a tenth of the default."""
YOUNG_OBJECTS = 50_000
"""How many new containers there may be before the garbage collector looks; the default, 700, is a few requests."""
OLDER_GENERATIONS = 10


def tune_for_serving() -> None:
    """Let commits have their turn, and the garbage collector look at requests in bulk, not at the program again."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, OLDER_GENERATIONS, OLDER_GENERATIONS)

"""Which moves between the statuses of an invocation are legal. Every move goes through `check_move`.

    scheduled ──> pending ──> running <──> suspended
        │            │          │  ^           │
        │            │          v  │           │
        │            │     backing-off, paused <
        └────────────┴──────────┴───> completed (final)

An exclusive invocation is `pending` in the log until its first step, its first failure or its end, even while its code
runs for the first time: what has left no record has not happened.
"""

from __future__ import annotations

from collections.abc import Mapping

from durably.ids import InvocationStatus as Status

_STARTED = frozenset({Status.RUNNING, Status.SUSPENDED, Status.BACKING_OFF, Status.PAUSED, Status.COMPLETED})

LEGAL_MOVES: Mapping[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.PENDING, Status.RUNNING, Status.COMPLETED}),
    Status.PENDING: _STARTED,
    Status.RUNNING: _STARTED,
    Status.SUSPENDED: frozenset({Status.RUNNING, Status.SUSPENDED, Status.PAUSED, Status.COMPLETED}),
    Status.BACKING_OFF: frozenset({Status.RUNNING, Status.PAUSED, Status.COMPLETED}),
    Status.PAUSED: frozenset({Status.RUNNING, Status.COMPLETED}),
    Status.COMPLETED: frozenset(),
}


def check_move(before: Status, after: Status) -> None:
    """Fail loudly on a move that the table does not have: that is a mistake of the machine, never of a user."""
    assert after in LEGAL_MOVES[before], f"an invocation cannot move from {before} to {after}"

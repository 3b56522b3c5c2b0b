"""Which moves between the statuses of an invocation are legal. `Transition` makes every move, and asserts this table.

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


def illegal_move(invocation: object, after: Status) -> str:
    """What the assertion says when the machine makes a mistake; a user never causes one."""
    return f"{invocation!r} cannot move to {after}"

"""`ReadyQueue`: what the pump can do now, and its next turn: invocations to advance, and requests to accept.

Every part that makes an invocation ready pushes it here, and every part that appends to the log asks for a turn, in
which the pump also sees whether a batch can be cut.

A request from outside is accepted when the pump reaches it, not when it arrives. Until then it is nothing but itself:
it has no number and no row, so what cannot begin yet costs the disk nothing. If the runtime ends first, nothing was
accepted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durably.runtime.invocations.invocation import InvocationRun


class ReadyQueue:
    """Invocations first in, first out, each at most once; requests in the order in which they came."""

    __slots__ = ("_host", "_is_scheduled", "arrived_bytes", "in_turn", "invocations", "requests", "turn")

    def __init__(self, invocations: deque[InvocationRun] | None = None) -> None:
        self.turn: Callable[[], None] = _no_turn
        """The pump, once it is there."""
        self.in_turn = False
        """The pump is at work, and looks at everything when it ends."""
        self._host = asyncio.get_running_loop()
        self.invocations: deque[InvocationRun] = deque() if invocations is None else invocations
        """For the pump, which takes from the left."""
        self.requests: deque[Callable[[], None]] = deque()
        """Requests that have arrived; each is called when it is reached."""
        self.arrived_bytes = 0
        """What they take in memory, roughly."""
        self._is_scheduled = False

    def push(self, invocation: InvocationRun) -> None:
        """The invocation is ready to be advanced."""
        if not invocation.is_queued:
            invocation.is_queued = True
            self.invocations.append(invocation)
            if not self._is_scheduled:
                self.schedule()

    def arrive(self, accept: Callable[[], None]) -> None:
        """A request has come from outside: `accept` is called when the pump reaches it."""
        self.requests.append(accept)
        if not self._is_scheduled:
            self.schedule()

    def schedule(self) -> None:
        """Something is ready or was appended: give the pump a turn, in a callback of its own (rule S1)."""
        if not self._is_scheduled and not self.in_turn:
            self._is_scheduled = True
            self._host.call_soon(self._take_turn)

    def is_quiet(self) -> bool:
        """No advance, delivery or mailbox start is ready: a good moment to cut a batch (rule X2)."""
        return not self.invocations and not self.in_turn

    def is_idle(self) -> bool:
        """Nothing is ready, no request waits, and no turn is due."""
        return not (self.invocations or self.requests or self._is_scheduled)

    def clear(self) -> None:
        self.invocations.clear()
        self.requests.clear()

    def _take_turn(self) -> None:
        self._is_scheduled = False
        self.turn()


def _no_turn() -> None:
    return None

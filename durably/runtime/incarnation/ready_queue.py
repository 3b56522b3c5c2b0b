"""`ReadyQueue`: the invocations that can be advanced now, in order, and the pump's next turn.

Every part that makes an invocation ready pushes it here, and every part that appends to the log asks for a turn, in
which the pump also sees whether a batch can be cut.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durably.runtime.invocations.invocation import InvocationRun


class ReadyQueue:
    """First in, first out; an invocation is in it at most once."""

    __slots__ = ("_host", "_is_scheduled", "in_turn", "invocations", "turn")

    def __init__(self, invocations: deque[InvocationRun] | None = None) -> None:
        self.turn: Callable[[], None] = _no_turn
        """The pump, once it is there."""
        self.in_turn = False
        """The pump is at work, and looks at everything when it ends."""
        self._host = asyncio.get_running_loop()
        self.invocations: deque[InvocationRun] = deque() if invocations is None else invocations
        """For the pump, which takes from the left."""
        self._is_scheduled = False

    def push(self, invocation: InvocationRun) -> None:
        """The invocation is ready to be advanced."""
        if not invocation.is_queued:
            invocation.is_queued = True
            self.invocations.append(invocation)
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
        """Nothing is ready and no turn is due."""
        return not self.invocations and not self._is_scheduled

    def clear(self) -> None:
        self.invocations.clear()

    def _take_turn(self) -> None:
        self._is_scheduled = False
        self.turn()


def _no_turn() -> None:
    return None

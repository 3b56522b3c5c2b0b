"""`ReadyQueue`: what the pump can do now, and its next turn: invocations to advance, and requests to accept.

Every part that makes an invocation ready pushes it here, and every part that appends to the log asks for a turn, in
which the pump also sees whether a batch can be cut.

A request from outside is accepted when the pump reaches it, not when it arrives. Until then it is nothing but itself:
it has no number and no row, so what cannot begin yet costs the disk nothing. If the runtime ends first, nothing was
accepted.

When many are ready, those beyond a few wait in lanes, and the lanes take turns: thousands of calls of one service, or
of the shared handlers of one object, do not keep the others waiting.

A call goes on where it stands: its callee, and then its caller with the answer, come before all others. So chains of
calls end one after the other. If they went on by turns, all of them would be half done whenever a batch is cut, and
each invocation of theirs would be a row that is written, changed and removed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from durably.ids import Address
from durably.runtime.settings import READY_AT_ONCE

if TYPE_CHECKING:
    from durably.runtime.invocations.invocation import InvocationRun


MOST_IN_SUCCESSION = 64
"""So often one goes on before the others: calls without end must not keep them waiting."""

Lane: TypeAlias = str | Address
"""What takes turns: a service or a class of objects; of shared handlers, each object."""


class ReadyQueue:
    """Invocations first in, first out in each lane, each at most once; requests in the order in which they came."""

    __slots__ = (
        "_host", "_is_scheduled", "_most", "arrived_bytes", "in_turn", "invocations", "lanes", "requests", "succession",
        "successor", "turn",
    )  # fmt: skip

    def __init__(self, invocations: deque[InvocationRun] | None = None, *, most: int = READY_AT_ONCE) -> None:
        """`most`: how many are ready without lanes."""
        self.turn: Callable[[], None] = _no_turn
        """The pump, once it is there."""
        self.in_turn = False
        """The pump is at work, and looks at everything when it ends."""
        self._host = asyncio.get_running_loop()
        self.invocations: deque[InvocationRun] = deque() if invocations is None else invocations
        """For the pump, which takes from the left, and calls `refill` if there are lanes. Empty only if there are none.
        """
        self.lanes: dict[Lane, deque[InvocationRun]] = {}
        """Those beyond the first. The lane whose turn comes next stands first."""
        self._most = most
        self.requests: deque[Callable[[], None]] = deque()
        """Requests that have arrived; each is called when it is reached."""
        self.arrived_bytes = 0
        """What they take in memory, roughly."""
        self._is_scheduled = False
        self.successor: InvocationRun | None = None
        """What the one that is being advanced has put before all others. None, when the pump begins to advance one."""
        self.succession = 0
        """How often in a row one has gone on before the others."""

    def push(self, invocation: InvocationRun) -> None:
        """The invocation is ready to be advanced."""
        if not invocation.is_queued:
            invocation.is_queued = True
            if len(self.invocations) < self._most:
                self.invocations.append(invocation)
            else:
                self.lanes.setdefault(_lane_of(invocation), deque()).append(invocation)
            if not self._is_scheduled:
                self.schedule()

    def push_next(self, invocation: InvocationRun) -> None:
        """The one that is being advanced has called or answered it, and it comes before all others that are ready.

        Only the first one does: of many callees the others wait like everything else.
        """
        if (
            self.successor is not None
            or invocation.is_queued
            or not self.in_turn
            or self.succession == MOST_IN_SUCCESSION
        ):
            self.push(invocation)
        else:
            self.succession += 1
            invocation.is_queued = True
            self.invocations.appendleft(invocation)
            self.successor = invocation

    def refill(self) -> None:
        """The pump has taken one: the next one of the lane whose turn it is comes, if there is room for it."""
        if len(self.invocations) >= self._most:
            return
        which = next(iter(self.lanes))
        lane = self.lanes.pop(which)
        self.invocations.append(lane.popleft())
        if lane:
            self.lanes[which] = lane

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
        self.lanes.clear()
        self.requests.clear()

    def _take_turn(self) -> None:
        self._is_scheduled = False
        self.turn()


def _lane_of(invocation: InvocationRun) -> Lane:
    address = invocation.address
    return address if invocation.handler.kind == "shared" else address.service


def _no_turn() -> None:
    return None

"""`Obedience`: recorded orders are carried out, those of earlier lives too (rules E1, E2)."""

from __future__ import annotations

from functools import partial

from durably.ids import InvocationStatus
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.reach import Reach
from durably.storage.records import OrderRecord


class Obedience:
    """Brings those into memory for whom there are orders."""

    def __init__(self, *, cancellation: Cancellation, committer: Committer, reach: Reach, ready: ReadyQueue) -> None:
        self._cancellation = cancellation
        self._committer = committer
        self._reach = reach
        self._ready = ready

    def look_up(self, order: OrderRecord) -> None:
        """Carry out a recorded order, in one transition with the end of its record."""
        self._reach.by_id(order.id, partial(self._reached, order))

    def _reached(self, order: OrderRecord, found: Found) -> None:
        is_elsewhere = not isinstance(found, InvocationRun | None) and found.status is not InvocationStatus.COMPLETED
        if is_elsewhere:
            return  # Its class is gone; the order waits until that is back.
        transition = self._committer.begin()
        transition.order_done(order.position)
        if isinstance(found, InvocationRun) and found.outcome is None:
            self._cancellation.carry_out(transition, order, found)
        self._ready.schedule()

"""`Orders`: what one invocation does to another: it cancels it, or takes it along when it is killed (rules E1, E2).

An order is part of the transition that gives it. If the other invocation is in memory it is carried out in that
transition too, and leaves no record; otherwise it is a record until the other one has been brought into memory, so that
no crash comes between an order and what it does. Orders that follow from orders are carried out in turn, not nested: a
killed tree may be deep.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import CallerRecord, OrderKind, OrderRecord


class Orders:
    """The orders of one incarnation. What they do is in `lifecycle/obedience`."""

    def __init__(self, *, registry: InvocationRegistry) -> None:
        self.carry_out: Callable[[Transition, OrderRecord, InvocationRun], None] = _nobody_obeys
        """Does what an order says, to an invocation in memory."""
        self.look_up: Callable[[OrderRecord], None] = _nobody_looks
        """Brings the invocation into memory for which a recorded order is, and has it carried out."""
        self._host = asyncio.get_running_loop()
        self._is_at_work = False
        self._registry = registry
        self._waiting: deque[tuple[str, OrderKind, CallerRecord | None]] = deque()

    def give(self, transition: Transition, id: str, kind: OrderKind, caller: CallerRecord | None = None) -> None:
        """Give an order to the invocation `id`; `caller` is the command that waits for it, if it does."""
        self._waiting.append((id, kind, caller))
        if self._is_at_work:
            return
        self._is_at_work = True
        try:
            while self._waiting:
                self._begin(transition, *self._waiting.popleft())
        finally:
            self._is_at_work = False

    def _begin(self, transition: Transition, id: str, kind: OrderKind, caller: CallerRecord | None) -> None:
        order = OrderRecord(transition.next_position(), id, kind, caller)
        target = self._registry.live.get(id)
        if target is None or target.activation.loading:
            transition.order(order)
            self._host.call_soon(self.look_up, order)  # Not at once: a transition is being made.
        elif target.outcome is None:
            self.carry_out(transition, order, target)


def _nobody_obeys(transition: Transition, order: OrderRecord, target: InvocationRun) -> None:
    raise AssertionError("an order was given before the machine was put together")


def _nobody_looks(order: OrderRecord) -> None:
    raise AssertionError("an order was given before the machine was put together")

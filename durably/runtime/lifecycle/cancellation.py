"""`Cancellation`: cancel and kill, of one invocation and of what it has called (rules E1, E2).

A cancel of an invocation that has recorded nothing ends it. Any other takes it in like an answer, before all answers
that wait: the handler gets `asyncio.CancelledError` and may clean up. A kill ends an invocation without its handler.
"""

from __future__ import annotations

from durably.errors import CancelledInvocationError, TerminalError
from durably.ids import InvocationStatus
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.waiters import Waiters
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import OrderKind, OrderRecord, TimerKind

GIVEN_UP = Outcome(True, b"")
"""The answer to a call that is not waited for any longer; its value is never looked at."""


class Cancellation:
    """Cancels and kills in one incarnation."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        completions: Completions,
        endings: Endings,
        observer: Observer,
        reach: Reach,
        ready: ReadyQueue,
        timers: TimerService,
        waiters: Waiters,
    ) -> None:
        self._attempts = attempts
        self._completions = completions
        self._endings = endings
        self._observer = observer
        self._reach = reach
        self._ready = ready
        self._timers = timers
        self._waiters = waiters

    def cancel(self, transition: Transition, invocation: InvocationRun) -> None:
        """Cancel an unfinished invocation. One without a recorded step ends at once (rule E1).

        A deletion that is under way goes on to its end: its object would be half there.
        """
        if invocation.is_deletion_under_way:
            return
        if invocation.journal is None:
            self.end(transition, invocation, CancelledInvocationError("The invocation was cancelled before it began."))
        else:
            self.deliver(transition, invocation)

    def end(self, transition: Transition, invocation: InvocationRun, error: TerminalError) -> None:
        """End an invocation that has recorded nothing, wherever it waits."""
        self._reach.take_out(invocation)
        self._endings.fail(transition, invocation, error)

    def deliver(self, transition: Transition, invocation: InvocationRun, failure: bytes = b"") -> None:
        """Record a cancel, and let the handler take it in; one that is paused or backs off gets an attempt for it.

        `failure` is what it ends with if the cancel leaves the handler, instead of `CancelledInvocationError`.
        """
        journal = invocation.journal
        assert journal is not None
        cancel = journal.cancel(failure)
        transition.answer(invocation, cancel.command, cancel.failed, cancel.value)
        if invocation.status in (InvocationStatus.PAUSED, InvocationStatus.BACKING_OFF):
            self._timers.drop(transition, invocation.number, TimerKind.RETRY)
            invocation.paused_error = None
            transition.move(invocation, InvocationStatus.RUNNING)
            self._ready.push(invocation)
        else:
            self._attempts.wake(transition, invocation)

    def kill(self, transition: Transition, invocation: InvocationRun) -> None:
        """End an invocation without its handler, and all callees that it has started and waits for (rule E2).

        A deletion that is under way goes on to its end, as after a cancel.
        """
        if invocation.is_deletion_under_way:
            return
        if self._observer.detailed:
            self._observer.killed(invocation)
        self._reach.take_out(invocation)
        error = CancelledInvocationError("The invocation was killed.")
        self._endings.fail(transition, invocation, error, OrderKind.KILL_OWN)

    def carry_out(self, transition: Transition, order: OrderRecord, target: InvocationRun) -> None:
        """Do what another invocation orders."""
        is_joined = target.id != order.id
        if order.kind is OrderKind.CANCEL:
            self.cancel(transition, target)
        elif is_joined or (order.kind is OrderKind.CANCEL_OWN and self._others_wait(target)):
            if order.caller is not None:  # Rule E1 (c): what joined another one is given up.
                self._completions.answer(transition, order.caller, GIVEN_UP)
        elif order.kind is OrderKind.KILL_OWN:
            self.kill(transition, target)
        elif target.fixed is None:  # Otherwise its own deadline has told it.
            self.cancel(transition, target)

    def _others_wait(self, target: InvocationRun) -> bool:
        """Other callers have joined it with its idempotency key: they shall not lose their answer."""
        if target.scope is None:
            return False
        own = None if target.caller is None else target.caller.number
        return self._waiters.has(target.number) or any(caller.number != own for caller in target.attachments)

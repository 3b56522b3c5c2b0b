"""`Deadlines`: at its deadline an invocation fails for everybody who waits for it, then or later (rule E7).

One that has recorded nothing ends. The code of any other gets a cancel and may clean up: its object stays held until it
has ended, and nothing that it does changes the outcome.
"""

from __future__ import annotations

from durably.actors.values.error_envelopes import encode_failure
from durably.errors import DeadlineExceededError
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.messaging.attachments import Attachments
from durably.storage.records import TimerKind, TimerRecord


class Deadlines:
    """The deadlines of one incarnation."""

    def __init__(
        self,
        *,
        attachments: Attachments,
        cancellation: Cancellation,
        clock: Clock,
        committer: Committer,
        endings: Endings,
        reach: Reach,
        ready: ReadyQueue,
    ) -> None:
        self._attachments = attachments
        self._cancellation = cancellation
        self._clock = clock
        self._committer = committer
        self._endings = endings
        self._reach = reach
        self._ready = ready

    def prevents_start(self, invocation: InvocationRun) -> bool:
        """Whether its deadline passed before it could start: then it ends here, and never starts."""
        if invocation.deadline is None or invocation.deadline > self._clock.now():
            return False
        self._endings.fail(self._committer.begin(), invocation, _deadline_error())
        return True

    def has_come(self, timer: TimerRecord) -> None:
        """The time is there; how far the invocation is now decides what that means."""
        self._reach.by_number(timer.address, timer.number, self._reached)

    def _reached(self, found: Found) -> None:
        if not isinstance(found, InvocationRun) or found.known_outcome is not None:
            return
        transition = self._committer.begin()
        transition.clear_timer(found.number, TimerKind.DEADLINE)
        if found.journal is None:
            self._cancellation.end(transition, found, _deadline_error())
        else:
            self._fix(transition, found)
        self._ready.schedule()

    def _fix(self, transition: Transition, invocation: InvocationRun) -> None:
        outcome = Outcome(True, encode_failure(_deadline_error()))
        transition.fix(invocation, outcome, expires_at=self._endings.keep_until(invocation))
        self._attachments.answer_all(transition, invocation, outcome)
        if not _is_told(invocation):
            self._cancellation.deliver(transition, invocation)


def _is_told(invocation: InvocationRun) -> bool:
    """Its caller, which has the same deadline, has cancelled it; a second cancel would break off its cleaning up."""
    journal, deadline = invocation.journal, invocation.deadline
    assert journal is not None
    assert deadline is not None
    return journal.takes_cancel or any(
        step.at >= deadline and min(step.deliveries, default=0) < 0 for step in journal.steps
    )


def _deadline_error() -> DeadlineExceededError:
    return DeadlineExceededError("The deadline passed before the invocation had ended.")

"""`Deadlines`: what happens when the deadline of an invocation has passed.

One that has not started never starts. For one under way, those who wait are answered, and it goes on.
"""

from __future__ import annotations

from functools import partial

from durably.actors.values.error_envelopes import encode_failure
from durably.errors import DeadlineExceededError
from durably.ids import InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Outcome
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, from_stored
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import StoredInvocation, TimerKind, TimerRecord


class Deadlines:
    """The deadlines of one incarnation."""

    def __init__(
        self,
        *,
        activations: Activations,
        attachments: Attachments,
        clock: Clock,
        committer: Committer,
        endings: Endings,
        ready: ReadyQueue,
        scheduled: ScheduledMessages,
        timers: TimerService,
    ) -> None:
        self._activations = activations
        self._attachments = attachments
        self._clock = clock
        self._committer = committer
        self._endings = endings
        self._ready = ready
        self._scheduled = scheduled
        self._timers = timers

    def prevents_start(self, invocation: InvocationRun) -> bool:
        """Whether its deadline passed before it could start: then it ends here, and never starts."""
        if invocation.deadline is None or invocation.deadline > self._clock.now():
            return False
        self._endings.fail(self._committer.begin(), invocation, _deadline_error())
        return True

    def has_come(self, timer: TimerRecord) -> None:
        """The time is there; where the invocation is now decides what that means."""
        scheduled = self._scheduled.take(timer.number)
        if scheduled is None:
            self._activations.with_loaded(timer.address, partial(self._has_passed, timer.number))
            return
        self._timers.forget(timer.number, TimerKind.START)
        self._endings.fail(self._committer.begin(), scheduled, _deadline_error())

    def _has_passed(self, number: int, activation: Activation) -> None:
        transition = self._committer.begin()
        transition.clear_timer(number, TimerKind.DEADLINE)
        waiting, started = activation.find_waiting(number), activation.find(number)
        if waiting is not None:
            activation.mailbox.remove(waiting)
            self._endings.fail(transition, waiting, _deadline_error())
        elif started is not None:
            self._attachments.answer_all(transition, started, Outcome(True, encode_failure(_deadline_error())))
        else:  # Far back in a mailbox, or scheduled: in the store only.
            self._scheduled.look_at(number, partial(self._has_passed_in_store, activation))
        self._ready.schedule()

    def _has_passed_in_store(self, activation: Activation, stored: StoredInvocation | None) -> None:
        if stored is None or activation.load_buffer is not None:
            return  # If it is on its way, its deadline is looked at again when it would start.
        record = stored.record
        is_waiting = record.status in (InvocationStatus.PENDING, InvocationStatus.SCHEDULED)
        if not is_waiting or self._is_in_hand(activation, record.number):
            return
        handler = activation.actor.handler_or_missing(record.handler, shared=record.mailbox_position is None)
        invocation = from_stored(stored, self._activations.detached(record.address), handler)
        if record.status is InvocationStatus.SCHEDULED:
            self._endings.fail(self._committer.begin(), invocation, _deadline_error())
        else:  # Those who wait are answered now; it ends when its turn comes, since what was read may be old by then.
            failure = Outcome(True, encode_failure(_deadline_error()))
            self._attachments.answer_all(self._committer.begin(), invocation, failure)
        self._ready.schedule()

    def _is_in_hand(self, activation: Activation, number: int) -> bool:
        """It is in memory, or about to be: its row is old, and its start looks at the deadline."""
        in_object = activation.find(number) is not None or activation.find_waiting(number) is not None
        return in_object or self._scheduled.keeps(number) or self._scheduled.is_coming(number)


def _deadline_error() -> DeadlineExceededError:
    return DeadlineExceededError("The deadline passed before the invocation had ended.")

"""`TimerDispatch`: what happens when a time has come.

A sleep is answered, a delayed message joins its mailbox, a backoff ends, a deadline passes. Each wake-up is a
transition of its own; one that comes for something that is not there any more changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from durably.actors.definition.binding import BoundActor
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import DeadlineExceededError
from durably.ids import InvocationStatus
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun, from_stored
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import Messages
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import (
    CallerRecord,
    StoredInvocation,
    TimerKind,
    TimerRecord,
)

SLEEP_ANSWER = Outcome(False, b"null")


class TimerDispatchOwner(Protocol):
    """The incarnation."""

    dead: bool

    def schedule(self) -> None: ...


class TimerDispatch:
    """Does what each kind of timer is for."""

    def __init__(
        self,
        owner: TimerDispatchOwner,
        *,
        actors: Mapping[str, BoundActor],
        timers: TimerService,
        clock: Clock,
        committer: Committer,
        completions: Completions,
        scheduled: ScheduledMessages,
        log: RuntimeLogger,
        messages: Messages,
        endings: Endings,
        activations: Activations,
        retries: Retries,
    ) -> None:
        self._owner = owner
        self._actors = actors
        self._timers = timers
        self._clock = clock
        self._committer = committer
        self._completions = completions
        self._scheduled = scheduled
        self._log = log
        self._messages = messages
        self._endings = endings
        self._activations = activations
        self._retries = retries
        self._by_kind: Mapping[TimerKind, Callable[[TimerRecord], None]] = {
            TimerKind.SLEEP: self._answer_sleep,
            TimerKind.START: self._start,
            TimerKind.RETRY: self._load_and_retry,
            TimerKind.DEADLINE: self._deadline_has_come,
        }

    def time_has_come(self, timer: TimerRecord) -> None:
        """A timer is due."""
        if timer.address.service not in self._actors:
            self._log.nobody_home(timer.address)
        else:
            self._by_kind[timer.kind](timer)

    def never_start(self, activation: Activation, invocation: InvocationRun) -> None:
        """Its turn in the mailbox came too late."""
        if not self._owner.dead and invocation.outcome is None:
            self._endings.fail(activation, invocation, _deadline_error())
            self._owner.schedule()

    # ------------------------------------------------------------------ sleeps, delayed messages, backoffs

    def _answer_sleep(self, timer: TimerRecord) -> None:
        self._committer.next_position()
        self._committer.batch.clear_timer(timer.number, TimerKind.SLEEP, timer.command)
        self._completions.answer(CallerRecord(timer.address, timer.number, timer.command), SLEEP_ANSWER)

    def _start(self, timer: TimerRecord) -> None:
        scheduled = self._scheduled.take(timer.number)
        if scheduled is not None:
            self._messages.join_mailbox(scheduled)
        else:
            self._scheduled.bring(timer.number, self._brought)

    def _brought(self, stored: StoredInvocation | None, attached: list[CallerRecord]) -> None:
        if stored is None or stored.record.status is not InvocationStatus.SCHEDULED:
            return
        actor = self._actors[stored.record.address.service]
        invocation = from_stored(stored, actor.handler_or_missing(stored.record.handler, shared=False))
        invocation.attachments += tuple(caller for caller in attached if caller not in invocation.attachments)
        if invocation.deadline is not None and invocation.deadline <= self._clock.now():
            self._committer.next_position()
            self._committer.batch.clear_timer(invocation.number, TimerKind.START)
            self._endings.fail(self._activations.detached(invocation.address), invocation, _deadline_error())
            return
        self._messages.join_mailbox(invocation)

    def _load_and_retry(self, timer: TimerRecord) -> None:
        self._activations.with_loaded(timer.address, partial(self._retry, timer.number))

    def _retry(self, number: int, activation: Activation) -> None:
        self._retries.try_again(number, activation)
        self._owner.schedule()

    # ------------------------------------------------------------------ deadlines

    def _deadline_has_come(self, timer: TimerRecord) -> None:
        scheduled = self._scheduled.take(timer.number)
        if scheduled is None:
            self._activations.with_loaded(timer.address, partial(self._deadline_passed, timer.number))
            return
        self._timers.forget(timer.number, TimerKind.START)
        self._endings.fail(self._activations.detached(timer.address), scheduled, _deadline_error())

    def _deadline_passed(self, number: int, activation: Activation) -> None:
        """Not started: it never will. Under way: those who wait are told, and it goes on."""
        self._committer.next_position()
        self._committer.batch.clear_timer(number, TimerKind.DEADLINE)
        waiting, started = activation.find_waiting(number), activation.find(number)
        if waiting is not None:
            activation.mailbox.remove(waiting)
            self._endings.fail(activation, waiting, _deadline_error())
        elif started is not None:
            self._completions.tell_everybody(started, Outcome(True, encode_failure(_deadline_error())))
        else:  # Far back in a mailbox, or delayed: in the store only.
            self._scheduled.look_at(number, partial(self._deadline_of_stored, activation))
        self._owner.schedule()

    def _deadline_of_stored(self, activation: Activation, stored: StoredInvocation | None) -> None:
        if stored is None or activation.load_buffer is not None:
            return  # If it is on its way, its deadline is looked at again when it would start.
        record = stored.record
        is_waiting = record.status in (InvocationStatus.PENDING, InvocationStatus.SCHEDULED)
        if not is_waiting or self._is_in_hand(activation, record.number):
            return
        handler = activation.actor.handler_or_missing(record.handler, shared=record.mailbox_position is None)
        invocation = from_stored(stored, handler)
        if record.status is InvocationStatus.SCHEDULED:
            self._endings.fail(self._activations.detached(record.address), invocation, _deadline_error())
        else:  # Those who wait are told now; it ends when its turn comes, since what was read may be old by then.
            self._committer.next_position()
            self._completions.tell_everybody(invocation, Outcome(True, encode_failure(_deadline_error())))
        self._owner.schedule()

    def _is_in_hand(self, activation: Activation, number: int) -> bool:
        """It is in memory, or about to be: what the store says of it is old, and its start looks at the deadline."""
        in_object = activation.find(number) is not None or activation.find_waiting(number) is not None
        return in_object or self._scheduled.keeps(number) or self._scheduled.is_coming(number)


def _deadline_error() -> DeadlineExceededError:
    return DeadlineExceededError("The deadline passed before the invocation had ended.")

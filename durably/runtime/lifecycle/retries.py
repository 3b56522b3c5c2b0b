"""`Retries`: what becomes of an invocation whose attempt failed. It is tried again, it fails, or it waits for a person.

A failed attempt is no step: its commands and changes are dropped unacted, its answers stay undelivered, and only the
failure is recorded (rule S2). The next attempt replays the journal and advances again.
"""

from __future__ import annotations

from durably.actors.values.error_envelopes import encode_failure
from durably.errors import CancelledInvocationError, TerminalError, find_mistake
from durably.ids import InvocationStatus
from durably.runtime.actions.action_attempt import retry_delay
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.execution.step import Outcome, Undoing
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import OrderKind, TimerKind


class Retries:
    """Failed attempts."""

    def __init__(
        self,
        *,
        cancellation: Cancellation,
        clock: Clock,
        committer: Committer,
        endings: Endings,
        observer: Observer,
        pauses: Pauses,
        payloads: PayloadCheck,
        ready: ReadyQueue,
        settings: Settings,
        timers: TimerService,
    ) -> None:
        self._cancellation = cancellation
        self._payloads = payloads
        self._clock = clock
        self._committer = committer
        self._endings = endings
        self._observer = observer
        self._pauses = pauses
        self._ready = ready
        self._settings = settings
        self._timers = timers

    def attempt_failed(self, invocation: InvocationRun, error: BaseException) -> None:
        """An attempt ended in an error that is no outcome."""
        throw_away(invocation)
        if invocation.journal is not None and invocation.journal.ends_if_it_fails:
            self._fail_cancelled(invocation, error)
            return
        if find_mistake(error) is not None:
            self.give_up(invocation, error)
            return
        policy = self._settings.retry_policy(invocation.handler)
        now = self._clock.now()
        if invocation.failing_since is None or invocation.failing_since > now:  # The clock was ahead then.
            invocation.failing_since = now
        invocation.attempts += 1
        gives_up = policy.gives_up_on(error)
        delay_us = retry_delay(policy, invocation.attempts, error)
        if not gives_up and not policy.exhausted(invocation.attempts, now - invocation.failing_since, delay_us):
            self._back_off(invocation, error, now, delay_us)
        elif not gives_up and policy.then != "fail":
            self.give_up(invocation, error)
        elif invocation.journal is None or not invocation.journal.undoing:
            self._fail(invocation, error)
        elif invocation.journal.undoing is Undoing.OPEN and not invocation.journal.hears_of_cancel:
            self._undo_and_fail(invocation, error)
        else:
            self.give_up(invocation, error)

    def try_again(self, number: int, activation: Activation) -> None:
        """The backoff is over."""
        invocation = activation.find(number)
        transition = self._committer.begin()
        transition.clear_timer(number, TimerKind.RETRY)
        if invocation is not None and invocation.status is InvocationStatus.BACKING_OFF:
            transition.move(invocation, InvocationStatus.RUNNING)
            self._ready.push(invocation)
        self._ready.schedule()

    def give_up(self, invocation: InvocationRun, error: BaseException) -> None:
        """No further attempt helps. A shared handler that has recorded nothing has nothing that a person could save."""
        if invocation.handler.kind == "shared" and invocation.journal is None:
            self._fail(invocation, error)
        else:
            self._pauses.pause(invocation, error)

    def _fail(self, invocation: InvocationRun, error: BaseException) -> None:
        self._observer.gave_up(invocation, error)
        invocation.failed_with = error
        self._endings.fail(self._committer.begin(), invocation, TerminalError(describe_failure(error)))

    def _undo_and_fail(self, invocation: InvocationRun, error: BaseException) -> None:
        """Its code takes in a cancel, undoes what was done, and the error is its outcome (rule E1)."""
        self._observer.gave_up(invocation, error)
        invocation.attempts, invocation.failing_since, invocation.failure = 0, None, None
        outcome = self._payloads.outcome(Outcome(True, encode_failure(TerminalError(describe_failure(error)))))
        self._cancellation.deliver(self._committer.begin(), invocation, outcome.value)

    def _fail_cancelled(self, invocation: InvocationRun, error: BaseException) -> None:
        """Rule E1 (e): an invocation can be cancelled even if its code fails."""
        self._observer.gave_up(invocation, error)
        invocation.failed_with = error
        told = CancelledInvocationError(
            f"The invocation was cancelled, and its handler failed as it was told: {describe_failure(error)}"
        )
        self._endings.fail(self._committer.begin(), invocation, told, OrderKind.CANCEL_OWN)

    def _back_off(self, invocation: InvocationRun, error: BaseException, now: int, delay_us: int) -> None:
        transition = self._committer.begin()
        invocation.failure = self._payloads.failure(error, invocation.failing_since)
        transition.move(invocation, InvocationStatus.BACKING_OFF)
        self._timers.set(transition, invocation, TimerKind.RETRY, now + delay_us)
        self._observer.retries(invocation, error, delay_us, now + delay_us)

"""`Retries`: what becomes of an invocation whose attempt failed. It is tried again, it fails, or it waits for a person.

A failed attempt is no step: its commands and changes are dropped unacted, its answers stay undelivered, and only the
failure is recorded (rule S2). The next attempt replays the journal and advances again.
"""

from __future__ import annotations

from typing import Protocol

from durably.actors.retry import RetryPolicy
from durably.errors import TerminalError, find_mistake
from durably.ids import InvocationStatus
from durably.runtime.actions.action_attempt import retry_delay
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.observation.failure_text import describe_failure, encode_attempt_failure
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.settings import Settings
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import RETRY_TIMER


class RetriesOwner(Protocol):
    """Who advances what is tried again."""

    def queue(self, invocation: InvocationRun, /) -> None: ...


class Retries:
    """Failed attempts."""

    def __init__(
        self,
        owner: RetriesOwner,
        *,
        timers: TimerService,
        attempts: Attempts,
        clock: Clock,
        committer: Committer,
        log: RuntimeLogger,
        endings: Endings,
        pauses: Pauses,
        settings: Settings,
    ) -> None:
        self._owner = owner
        self._timers = timers
        self._attempts = attempts
        self._clock = clock
        self._committer = committer
        self._log = log
        self._endings = endings
        self._pauses = pauses
        self._settings = settings

    def policy(self, invocation: InvocationRun) -> RetryPolicy:
        """How this invocation is tried again."""
        return self._settings.retry if invocation.handler.retry is None else invocation.handler.retry

    def attempt_failed(self, activation: Activation, invocation: InvocationRun, error: BaseException) -> None:
        """An attempt ended in an error that is no outcome."""
        self._attempts.throw_away(invocation)
        if find_mistake(error) is not None:
            self._pauses.pause(activation, invocation, error)
            return
        policy = self.policy(invocation)
        now = self._clock.now()
        if invocation.failing_since is None or invocation.failing_since > now:  # The clock was ahead then.
            invocation.failing_since = now
        invocation.attempts += 1
        gives_up = policy.gives_up_on(error)
        if not gives_up and not policy.exhausted(invocation.attempts, now - invocation.failing_since):
            self._back_off(activation, invocation, error, now, retry_delay(policy, invocation.attempts, error))
        elif gives_up or policy.then == "fail":
            self._endings.fail(activation, invocation, TerminalError(describe_failure(error)))
        else:
            self._pauses.pause(activation, invocation, error)

    def try_again(self, number: int, activation: Activation) -> None:
        """The backoff is over."""
        invocation = activation.find(number)
        self._committer.next_position()
        self._committer.batch.clear_timer(number, RETRY_TIMER)
        if invocation is not None and invocation.status is InvocationStatus.BACKING_OFF:
            invocation.status = InvocationStatus.RUNNING
            self._committer.batch.change(invocation)
            self._owner.queue(invocation)

    def _back_off(
        self, activation: Activation, invocation: InvocationRun, error: BaseException, now: int, delay_us: int
    ) -> None:
        invocation.position = activation.changed_at = self._committer.next_position()
        invocation.failure = encode_attempt_failure(error, invocation.failing_since)
        invocation.status = InvocationStatus.BACKING_OFF
        self._committer.batch.change(invocation)
        self._timers.set(invocation, RETRY_TIMER, now + delay_us)
        self._log.retries(invocation, error, delay_us)

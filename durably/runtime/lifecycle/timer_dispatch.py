"""`TimerDispatch`: what each kind of timer is for.

A sleep is answered, a scheduled message joins its mailbox, a backoff ends, a deadline passes. Each wake-up is a
transition of its own; one that comes for something that is not there any more changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from durably.actors.definition.binding import BoundActor
from durably.ids import InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import from_stored
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.messaging.acceptance import Acceptance
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.observer import Observer
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import CallerRecord, StoredInvocation, TimerKind, TimerRecord

SLEEP_ANSWER = Outcome(False, b"null")


class TimerDispatch:
    """One table: the kind of a timer, and what is done when it is due."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        activations: Activations,
        actors: Mapping[str, BoundActor],
        committer: Committer,
        completions: Completions,
        deadlines: Deadlines,
        observer: Observer,
        retries: Retries,
        scheduled: ScheduledMessages,
    ) -> None:
        self._acceptance = acceptance
        self._activations = activations
        self._actors = actors
        self._committer = committer
        self._completions = completions
        self._deadlines = deadlines
        self._observer = observer
        self._retries = retries
        self._scheduled = scheduled
        self._by_kind: Mapping[TimerKind, Callable[[TimerRecord], None]] = {
            TimerKind.SLEEP: self._answer_sleep,
            TimerKind.START: self._start,
            TimerKind.RETRY: self._load_and_retry,
            TimerKind.DEADLINE: deadlines.has_come,
        }

    def time_has_come(self, timer: TimerRecord) -> None:
        """A timer is due."""
        if timer.address.service not in self._actors:
            self._observer.nobody_home(timer.address)
        else:
            self._by_kind[timer.kind](timer)

    def _answer_sleep(self, timer: TimerRecord) -> None:
        transition = self._committer.begin()
        transition.clear_timer(timer.number, TimerKind.SLEEP, timer.command)
        self._completions.answer(transition, CallerRecord(timer.address, timer.number, timer.command), SLEEP_ANSWER)

    def _load_and_retry(self, timer: TimerRecord) -> None:
        self._activations.with_loaded(timer.address, partial(self._retries.try_again, timer.number))

    def _start(self, timer: TimerRecord) -> None:
        scheduled = self._scheduled.take(timer.number)
        if scheduled is not None:
            self._acceptance.join_mailbox(self._committer.begin(), scheduled)
        else:
            self._scheduled.bring(timer.number, self._start_brought)

    def _start_brought(
        self, stored: StoredInvocation | None, attached: list[CallerRecord], is_still_there: bool
    ) -> bool:
        """Its timer may ring twice, if it was read ahead while it rang."""
        if stored is None or not is_still_there or stored.record.status is not InvocationStatus.SCHEDULED:
            return False
        actor = self._actors[stored.record.address.service]
        handler = actor.handler_or_missing(stored.record.handler, shared=False)
        invocation = from_stored(stored, self._activations.detached(stored.record.address), handler)
        invocation.attachments += tuple(caller for caller in attached if caller not in invocation.attachments)
        if not self._deadlines.prevents_start(invocation):
            self._acceptance.join_mailbox(self._committer.begin(), invocation)
        return True

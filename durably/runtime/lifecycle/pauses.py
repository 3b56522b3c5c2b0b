"""`Pauses`: invocations that wait for a person, because a retry cannot mend what is wrong with them."""

from __future__ import annotations

from functools import partial

from durably.actors.protocol.commands import AwaitResume
from durably.errors import (
    CompensationFailedError,
    LoadLimitError,
    NonDeterminismError,
    UndecodableError,
    UnreadableRecordError,
)
from durably.ids import InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.failure_text import known_attempt_failure
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun, PausedByHandError, drop_held_step, throw_away
from durably.runtime.lifecycle.pause_errors import pause_error
from durably.runtime.lifecycle.pause_notices import PauseNotices
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.observer import Observer
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import CallerRecord, TimerKind

CAUSES_IN_THE_STORE = frozenset(
    cause.__name__ for cause in (LoadLimitError, NonDeterminismError, UndecodableError, UnreadableRecordError)
)


class Pauses:
    """Pausing and resuming."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        completions: Completions,
        notices: PauseNotices,
        observer: Observer,
        payloads: PayloadCheck,
        ready: ReadyQueue,
        timers: TimerService,
    ) -> None:
        self._payloads = payloads
        self._activations = activations
        self._committer = committer
        self._completions = completions
        self._notices = notices
        self._observer = observer
        self._ready = ready
        self._timers = timers

    def pause(self, invocation: InvocationRun, error: BaseException) -> None:
        """Wait for a person, and refuse those outside who wait."""
        self._pause(self._committer.begin(), invocation, error)

    def pause_as_asked(self, transition: Transition, invocation: InvocationRun, number: int) -> None:
        """A step has asked for a person, and its invocation waits for one in the same transition."""
        assert invocation.journal is not None
        command = invocation.journal.pending[number]
        assert isinstance(command, AwaitResume)
        self._pause(transition, invocation, CompensationFailedError(command.reason))

    def _pause(self, transition: Transition, invocation: InvocationRun, error: BaseException) -> None:
        throw_away(invocation)
        drop_held_step(invocation)
        invocation.failure = self._payloads.failure(error)
        invocation.paused_error = error
        self._timers.drop(transition, invocation.number, TimerKind.RETRY)  # An action of it may end while it backs off.
        transition.move(invocation, InvocationStatus.PAUSED)
        self._observer.paused(invocation, error)
        self._notices.spread(invocation, pause_error(invocation), partial(self._noticed, invocation, error))

    def pause_asker(self, caller: CallerRecord, error: UnreadableRecordError) -> None:
        """A command cannot be answered, because what it asks for cannot be read; it is asked again after a resume."""
        activation = self._activations.by_address.get(caller.address)
        invocation = None if activation is None else activation.find(caller.number)
        is_asking = (
            invocation is not None
            and invocation.outcome is None
            and invocation.journal is not None
            and caller.command in invocation.journal.pending
        )
        if invocation is not None and is_asking and invocation.status is not InvocationStatus.PAUSED:
            self.pause(invocation, error)
            self._ready.schedule()

    def pause_by_hand(self, invocation: InvocationRun) -> None:
        """A person says: stop. What runs outside goes on, and its result is kept; nothing more is begun."""
        self._timers.drop(transition := self._committer.begin(), invocation.number, TimerKind.RETRY)
        throw_away(invocation)
        drop_held_step(invocation)
        error = PausedByHandError("somebody paused it")
        invocation.failure, invocation.paused_error = self._payloads.failure(error), error
        transition.move(invocation, InvocationStatus.PAUSED)
        self._observer.paused(invocation, error)
        self._notices.spread(invocation, pause_error(invocation), _nobody_is_told)

    def resume(self, invocation: InvocationRun) -> bool:
        """A person says: try again, from the journal. Returns whether it was paused."""
        if invocation.status is not InvocationStatus.PAUSED:
            return False
        invocation.attempts, invocation.failing_since, invocation.paused_error = 0, None, None
        transition = self._committer.begin()
        transition.move(invocation, InvocationStatus.RUNNING)
        if invocation.journal is not None and invocation.journal.awaits_resume is not None:
            self._completions.complete(transition, invocation, invocation.journal.awaits_resume, False, b"null")
        self._ready.push(invocation)
        return True

    def _noticed(self, invocation: InvocationRun, error: BaseException, heard: bool) -> None:
        self._committer.when_answerable(self._tell_durable, (invocation, error, heard))  # Rule X1

    def _tell_durable(self, told: tuple[InvocationRun, BaseException, bool]) -> None:
        self._observer.pause_durable(*told)


def is_paused_by_what_is_stored(invocation: InvocationRun) -> bool:
    """It waits for a person, because something could not be read that the store may give in another form by now."""
    return invocation.status is InvocationStatus.PAUSED and (
        invocation.load_error is not None
        or invocation.activation.load_error is not None
        or known_attempt_failure(invocation.failure).type in CAUSES_IN_THE_STORE
    )


def _nobody_is_told(heard: bool) -> None:
    """Who pauses something by hand knows of it."""

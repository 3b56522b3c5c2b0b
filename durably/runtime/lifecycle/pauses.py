"""`Pauses`: invocations that wait for a person, because a retry cannot mend what is wrong with them.

Nobody outside hangs meanwhile: whoever waits for a paused invocation, or for one that waits for it however indirectly,
is told why, once the pause is durable. Callers inside go on waiting (rule E6).
"""

from __future__ import annotations

from functools import partial

from durably.errors import PausedInvocationError
from durably.ids import InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.failure_text import decode_attempt_failure, describe_failure, encode_attempt_failure
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.waiters import Waiter, Waiters
from durably.storage.records import CallerRecord, InvocationRecord


class PauseNotice:
    """That an invocation is paused, on its way to everybody outside who waits for it."""

    __slots__ = ("error", "invocation", "on_their_way", "reached", "refusal", "told")

    def __init__(self, invocation: InvocationRun, error: BaseException) -> None:
        self.invocation = invocation
        self.error = error
        self.refusal = paused_error(invocation, error)
        self.told = False
        """Somebody outside waited, and hears of it."""
        self.reached: set[int] = set()
        """The invocations whose waiters have been told: calls may go in circles."""
        self.on_their_way = 1
        """Ways that the news still goes; counts down to zero once."""


class Pauses:
    """Pausing, telling, resuming."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        observer: Observer,
        ready: ReadyQueue,
        waiters: Waiters,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._observer = observer
        self._ready = ready
        self._waiters = waiters

    def pause(self, invocation: InvocationRun, error: BaseException) -> None:
        """Wait for a person, and tell those outside who wait."""
        throw_away(invocation)
        invocation.held_step = None
        invocation.failure = encode_attempt_failure(error)
        invocation.paused_error = error
        self._committer.begin().move(invocation, InvocationStatus.PAUSED)
        self._observer.paused(invocation, error)
        notice = PauseNotice(invocation, error)
        self._spread(notice, invocation)
        self._has_arrived(notice)

    def resume(self, invocation: InvocationRun) -> None:
        """A person says: try again, from the journal."""
        if invocation.status is not InvocationStatus.PAUSED:
            return
        invocation.attempts, invocation.failing_since, invocation.paused_error = 0, None, None
        self._committer.begin().move(invocation, InvocationStatus.RUNNING)
        self._ready.push(invocation)

    def _spread(self, notice: PauseNotice, waiting: InvocationRun) -> None:
        """Tell who waits outside for this invocation, then its callers, which may be in the store only."""
        notice.reached.add(waiting.number)
        self._tell_waiters(notice, waiting.number)
        callers = waiting.attachments if waiting.caller is None else (waiting.caller, *waiting.attachments)
        for caller in callers:
            if caller.number in notice.reached or not self._waiters or not self._activations.hosts(caller.address):
                continue
            notice.reached.add(caller.number)
            notice.on_their_way += 1
            self._activations.with_loaded(caller.address, partial(self._spread_to_caller, notice, caller))

    def _tell_waiters(self, notice: PauseNotice, number: int) -> None:
        waiting = self._waiters.take(number)
        if waiting is not None:
            notice.told = True
            self._committer.when_answerable(_refuse_all, (waiting, notice.refusal))  # Rule X1

    def _spread_to_caller(self, notice: PauseNotice, caller: CallerRecord, activation: Activation) -> None:
        waiting = activation.find(caller.number)
        if waiting is not None and waiting.journal is not None and caller.command in waiting.journal.pending:
            self._spread(notice, waiting)
        self._has_arrived(notice)

    def _has_arrived(self, notice: PauseNotice) -> None:
        notice.on_their_way -= 1
        if notice.on_their_way == 0:
            self._committer.when_answerable(self._tell_durable, notice)  # Rule X1

    def _tell_durable(self, notice: PauseNotice) -> None:
        self._observer.pause_durable(notice.invocation, notice.error, notice.told)


def paused_error(invocation: InvocationRun, error: BaseException) -> PausedInvocationError:
    """What callers outside hear of a paused invocation, with the handler's error as its cause."""
    told = PausedInvocationError(invocation.id, describe_failure(error))
    told.__cause__ = error
    return told


def pause_of(found: InvocationRun | InvocationRecord) -> PausedInvocationError:
    """Why an invocation is paused."""
    if isinstance(found, InvocationRun) and found.paused_error is not None:
        return paused_error(found, found.paused_error)
    return PausedInvocationError(found.id, _recorded_reason(found.failure))


def _recorded_reason(failure: bytes | None) -> str:
    if failure is None:
        return "nothing is recorded"
    known = decode_attempt_failure(failure)
    return f"{known.type}: {known.message}"


def _refuse_all(told: tuple[list[Waiter], BaseException]) -> None:
    waiters, error = told
    for waiter in waiters:
        waiter.refuse(error)

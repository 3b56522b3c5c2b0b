"""`Pauses`: invocations that wait for a person, because a retry cannot mend what is wrong with them.

Nobody outside hangs meanwhile: whoever waits for a paused invocation, or for one that waits for it however indirectly,
is told why, once the pause is durable. Callers inside go on waiting (rule E6).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from durably.errors import PausedInvocationError
from durably.ids import InvocationStatus
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.failure_text import decode_attempt_failure, describe_failure, encode_attempt_failure
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.registry import InvocationRegistry, Waiter
from durably.storage.records import CallerRecord, InvocationRecord

PauseListener: TypeAlias = Callable[[InvocationRun, BaseException, bool], None]
"""Hears of a pause when it is durable, and whether somebody outside was told."""


class PausesOwner(Protocol):
    """Who advances what goes on again."""

    def queue(self, invocation: InvocationRun, /) -> None: ...


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
        owner: PausesOwner,
        *,
        attempts: Attempts,
        committer: Committer,
        registry: InvocationRegistry,
        listener: PauseListener,
        log: RuntimeLogger,
        activations: Activations,
    ) -> None:
        self._owner = owner
        self._attempts = attempts
        self._committer = committer
        self._registry = registry
        self._listener = listener
        self._log = log
        self._activations = activations

    def pause(self, activation: Activation, invocation: InvocationRun, error: BaseException) -> None:
        """Wait for a person, and tell those outside who wait."""
        self._attempts.throw_away(invocation)
        invocation.is_held = False
        invocation.position = activation.changed_at = self._committer.next_position()
        invocation.failure = encode_attempt_failure(error)
        invocation.status = InvocationStatus.PAUSED
        invocation.paused_error = error
        self._committer.batch.change(invocation)
        self._log.paused(invocation, error)
        notice = PauseNotice(invocation, error)
        self._spread(notice, invocation)
        self._has_arrived(notice)

    def tell_stored(self, record: InvocationRecord) -> None:
        """Somebody outside waits for an invocation that is paused, and is in the store only."""
        waiters = self._registry.waiters.pop(record.number, [])
        self._committer.when_answerable(_refuse_all, (waiters, stored_pause_of(record)))

    def resume(self, invocation: InvocationRun) -> None:
        """A person says: try again, from the journal."""
        if invocation.status is not InvocationStatus.PAUSED:
            return
        self._committer.next_position()
        invocation.status = InvocationStatus.RUNNING
        invocation.attempts, invocation.failing_since, invocation.paused_error = 0, None, None
        self._committer.batch.change(invocation)
        self._owner.queue(invocation)

    def _spread(self, notice: PauseNotice, waiting: InvocationRun) -> None:
        """Tell who waits outside for this invocation, then its callers, which may be in the store only."""
        notice.reached.add(waiting.number)
        self._tell_waiters(notice, waiting.number)
        callers = waiting.attachments if waiting.caller is None else (waiting.caller, *waiting.attachments)
        for caller in callers:
            if (
                caller.number in notice.reached
                or not self._registry.waiters
                or not self._activations.hosts(caller.address)
            ):
                continue
            notice.reached.add(caller.number)
            notice.on_their_way += 1
            self._activations.with_loaded(caller.address, partial(self._spread_to_caller, notice, caller))

    def _tell_waiters(self, notice: PauseNotice, number: int) -> None:
        waiters = self._registry.waiters.pop(number, None)
        if waiters is not None:
            notice.told = True
            self._committer.when_answerable(_refuse_all, (waiters, notice.refusal))  # Rule X1

    def _spread_to_caller(self, notice: PauseNotice, caller: CallerRecord, activation: Activation) -> None:
        waiting = activation.find(caller.number)
        if waiting is not None and waiting.journal is not None and caller.command in waiting.journal.pending:
            self._spread(notice, waiting)
        self._has_arrived(notice)

    def _has_arrived(self, notice: PauseNotice) -> None:
        notice.on_their_way -= 1
        if notice.on_their_way == 0:
            self._committer.when_answerable(self._tell_listener, notice)  # Rule X1

    def _tell_listener(self, notice: PauseNotice) -> None:
        self._listener(notice.invocation, notice.error, notice.told)


def paused_error(invocation: InvocationRun, error: BaseException) -> PausedInvocationError:
    """What callers outside hear of a paused invocation, with the handler's error as its cause."""
    told = PausedInvocationError(invocation.id, describe_failure(error))
    told.__cause__ = error
    return told


def pause_of(invocation: InvocationRun) -> PausedInvocationError:
    """Why an invocation in memory is paused."""
    if invocation.paused_error is not None:
        return paused_error(invocation, invocation.paused_error)
    return PausedInvocationError(invocation.id, _recorded_reason(invocation.failure))


def stored_pause_of(record: InvocationRecord) -> PausedInvocationError:
    """Why an invocation in the store is paused."""
    return PausedInvocationError(record.id, _recorded_reason(record.failure))


def _recorded_reason(failure: bytes | None) -> str:
    if failure is None:
        return "nothing is recorded"
    known = decode_attempt_failure(failure)
    return f"{known.type}: {known.message}"


def _refuse_all(told: tuple[list[Waiter], BaseException]) -> None:
    waiters, error = told
    for waiter in waiters:
        waiter.refuse(error)

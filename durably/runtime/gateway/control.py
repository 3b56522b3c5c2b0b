"""`Control`: what a person may do to an invocation."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias

from durably.errors import DurablyError, InvocationStatusError, UnknownTargetError
from durably.ids import InvocationStatus, is_storable
from durably.runtime.commit.committer import Committer
from durably.runtime.gateway.admission import Admission
from durably.runtime.gateway.pending_requests import PendingRequest, QuestionOperation
from durably.runtime.gateway.queries import Queries
from durably.runtime.gateway.requests import Effect
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.continuations import Continuations
from durably.runtime.lifecycle.ended_journals import EndedJournals
from durably.runtime.lifecycle.pauses import Pauses, is_paused_by_what_is_stored
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.lifecycle.restarts_as_new import NOT_STARTED, TOO_EARLY, RestartsAsNew
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.registry.registry import InvocationRegistry
from durably.storage.records import InvocationRecord, StoredInvocation


class Verb(StrEnum):
    """What can be done to one invocation."""

    CANCEL = "cancel"
    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"
    """Begin what is paused anew, in place: same id, empty journal."""
    PURGE = "purge"
    PURGE_JOURNAL = "purge-journal"
    """Forget the journal of what has ended, and keep its outcome."""


Does: TypeAlias = Callable[[InvocationRun], Effect]


class Control:
    """Orders from outside, for one incarnation; done, or refused, when that is durable (rule X1)."""

    def __init__(
        self,
        *,
        admission: Admission,
        cancellation: Cancellation,
        committer: Committer,
        continuations: Continuations,
        ended_journals: EndedJournals,
        pauses: Pauses,
        queries: Queries,
        reach: Reach,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        restarts_as_new: RestartsAsNew,
        workflows: WorkflowRetention,
    ) -> None:
        self._admission = admission
        self._cancellation = cancellation
        self._committer = committer
        self._continuations = continuations
        self._ended_journals = ended_journals
        self._pauses = pauses
        self._queries = queries
        self._reach = reach
        self._ready = ready
        self._registry = registry
        self._restarts_as_new = restarts_as_new
        self._workflows = workflows
        self._does: dict[Verb, Does] = {
            Verb.CANCEL: self._cancel,
            Verb.KILL: self._kill,
            Verb.PAUSE: self._pause,
            Verb.RESUME: self._resume,
            Verb.RESTART: partial(self._restart_in_place, from_step=0),
        }

    def restart(self, operation: QuestionOperation[Effect], id: str, from_step: int) -> None:
        """Begin a paused invocation anew from a step (rule W2)."""
        self._act(operation, Verb.RESTART, id, partial(self._restart_in_place, from_step=from_step))

    def act(self, operation: QuestionOperation[Effect], verb: Verb, id: str) -> None:
        """Do something to one invocation.

        The operation ends with what came of it, or with `UnknownTargetError` or `InvocationStatusError`.
        """
        self._act(operation, verb, id, self._does.get(verb))

    def restart_as_new(self, operation: QuestionOperation[str], id: str, from_step: int) -> None:
        """Begin what has ended once more, as a new invocation, whose id is the answer (rule W2)."""

        def reached(found: Found) -> None:
            if found is None:
                self._queries.refuse_unknown(operation, id)
                return
            operation.id = found.id
            self._restarts_as_new.begin(found, from_step, self._admission.check_room, begun)

        def begun(new_id: str | DurablyError) -> None:
            if isinstance(new_id, str):
                self._committer.when_answerable(operation.finish, new_id)
            else:
                self._committer.when_answerable(operation.refuse, new_id)
            self._ready.schedule()

        self._reach_or_refuse(operation, id, reached)

    # ------------------------------------------------------------------ inside

    def _act(self, operation: QuestionOperation[Effect], verb: Verb, id: str, does: Does | None) -> None:
        """`does` is for unfinished ones; None: the verb is about those that have ended."""

        short: int | None = None
        """The number of an execution whose journal fits into one transition."""

        def read_when_short(number: int) -> None:
            nonlocal short
            short = number
            self._reach.by_id(id, reached)

        def read_again(found: Found) -> None:
            goes_on = verb in (Verb.RESUME, Verb.RESTART)
            if goes_on and isinstance(found, InvocationRun) and is_paused_by_what_is_stored(found):
                self._reach.read_again(found, reached)  # Rule L5
            else:
                reached(found)

        def reached(found: Found) -> None:
            if found is None:
                self._queries.refuse_unknown(operation, id)
                return
            if verb is Verb.PURGE and found.status is InvocationStatus.COMPLETED and found.number != short:
                self._ended_journals.when_short(found.number, partial(read_when_short, found.number))
                self._ready.schedule()
                return
            if verb is Verb.PURGE and _is_run_that_has_ended(found):
                self._purge_workflow(operation, found)
                return
            if verb is Verb.PURGE_JOURNAL and found.status is InvocationStatus.COMPLETED:
                self._purge_journal(operation, found)
                return
            try:
                effect = self._purge(found) if does is None else does(self._unfinished(found))
            except (InvocationStatusError, UnknownTargetError) as error:
                self._committer.when_answerable(operation.refuse, error)
            else:
                self._committer.when_answerable(operation.finish, effect)
            self._ready.schedule()

        self._reach_or_refuse(operation, id, read_again)

    def _reach_or_refuse(self, operation: PendingRequest[Any], id: str, reached: Callable[[Found], None]) -> None:
        if is_storable(id):
            self._reach.by_id(id, reached)
        else:
            self._queries.refuse_unknown(operation, id)

    def _unfinished(self, found: InvocationRun | InvocationRecord) -> InvocationRun:
        if found.status is InvocationStatus.COMPLETED:
            raise InvocationStatusError(f"The invocation '{found.id}' was already completed.")
        if isinstance(found, InvocationRun):
            return found
        raise UnknownTargetError(
            f"This runtime does not have {found.address.service}, so nothing can be done here to {found.id}."
        )

    def _cancel(self, invocation: InvocationRun) -> Effect:
        _refuse_deletion_under_way(invocation)
        self._cancellation.cancel(self._committer.begin(), invocation)
        return Effect.APPENDED if invocation.outcome is None else Effect.DONE

    def _kill(self, invocation: InvocationRun) -> Effect:
        _refuse_deletion_under_way(invocation)
        self._cancellation.kill(self._committer.begin(), invocation)
        return Effect.DONE

    def _pause(self, invocation: InvocationRun) -> Effect:
        if invocation.status is InvocationStatus.PAUSED:
            return Effect.NOTHING
        _refuse_deletion_under_way(invocation)
        if invocation.status in NOT_STARTED:
            raise InvocationStatusError(f"The invocation '{invocation.id}' is not running: it has not started.")
        if invocation.journal is not None and invocation.journal.takes_cancel:
            raise InvocationStatusError(f"The invocation '{invocation.id}' is being cancelled.")
        self._pauses.pause_by_hand(invocation)
        return Effect.APPENDED

    def _resume(self, invocation: InvocationRun) -> Effect:
        if invocation.status in NOT_STARTED:
            raise InvocationStatusError(f"The invocation '{invocation.id}' has not started.", code=TOO_EARLY)
        return Effect.DONE if self._pauses.resume(invocation) else Effect.NOTHING

    def _restart_in_place(self, invocation: InvocationRun, from_step: int) -> Effect:
        if invocation.status is not InvocationStatus.PAUSED:
            raise InvocationStatusError(
                f"The invocation '{invocation.id}' is {invocation.status}, not paused. Pause it, then restart it."
            )
        if invocation.fixed is not None:
            raise InvocationStatusError(f"The deadline of '{invocation.id}' has passed: its outcome is fixed. Kill it.")
        too_large = invocation.load_error or invocation.activation.load_error
        if too_large is not None:
            raise InvocationStatusError(f"The invocation '{invocation.id}' cannot be restarted: {too_large}")
        refusal = self._continuations.refusal(invocation.id, invocation.handler, invocation.journal, from_step)
        if refusal is not None:
            raise refusal
        self._continuations.restart(invocation, from_step)
        return Effect.DONE

    def _purge(self, found: InvocationRun | InvocationRecord) -> Effect:
        if found.status is not InvocationStatus.COMPLETED:
            raise InvocationStatusError(f"The invocation '{found.id}' is not yet completed.")
        if found.expires_at is None:
            return Effect.NOTHING
        self._registry.forget_outcome(found)
        return Effect.DONE

    def _purge_journal(self, operation: QuestionOperation[Effect], found: InvocationRun | InvocationRecord) -> None:
        def was_read(stored: StoredInvocation | None) -> None:
            has_journal = stored is not None and bool(stored.steps or stored.completions or stored.left_out_bytes)
            if has_journal:
                self._ended_journals.when_short(found.number, goes)
            else:
                self._committer.when_answerable(operation.finish, Effect.NOTHING)
                self._ready.schedule()

        def goes() -> None:
            self._ended_journals.forget(found.number)
            self._committer.when_answerable(operation.finish, Effect.DONE)
            self._ready.schedule()

        self._ended_journals.read(found.number, was_read)
        self._ready.schedule()

    def _purge_workflow(self, operation: QuestionOperation[Effect], run: InvocationRun | InvocationRecord) -> None:
        """All that a workflow leaves goes together: now, or as soon as no handler of it is in flight (rule W3)."""

        def purged() -> None:
            self._committer.when_answerable(operation.finish, Effect.DONE)
            self._ready.schedule()

        if isinstance(run, InvocationRecord):
            self._workflows.expire(run, purged)
        else:  # When it is durable, it leaves memory.
            self._committer.when_durable(lambda _: self.act(operation, Verb.PURGE, run.id), None)
            self._ready.schedule()


def _refuse_deletion_under_way(invocation: InvocationRun) -> None:
    if invocation.is_deletion_under_way:
        raise InvocationStatusError(
            f"The invocation '{invocation.id}' deletes {'/'.join(invocation.address)}, and some of that may "
            "have gone: it goes on to its end. Wait for that."
        )


def _is_run_that_has_ended(found: InvocationRun | InvocationRecord) -> bool:
    is_run = found.scope is not None and found.scope.is_workflow_id
    return is_run and found.status is InvocationStatus.COMPLETED

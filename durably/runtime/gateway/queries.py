"""`Queries`: questions from outside about invocations: how one ended, where it stands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from durably.actors.protocol.commands import Question
from durably.errors import InvalidArgumentError, NotReadyError, UnknownTargetError, UnreadableRecordError
from durably.ids import InvocationStatus, KeyScope, is_storable
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Outcome
from durably.runtime.gateway.pending_requests import (
    DecodedOperation,
    OutcomeOperation,
    PendingRequest,
    QuestionOperation,
)
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found, InvocationRun, known_outcome
from durably.runtime.lifecycle.pause_errors import pause_error
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.runtime.messaging.attachments import name_of_scope, not_ready
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.store_questions import Answer, StoreQuestions
from durably.runtime.registry.waiters import Waiters
from durably.storage.records import InvocationRecord

A = TypeVar("A")

NO_OUTPUT = (
    "cannot get output for the given invocation. You can get output only for invocations created with an idempotency "
    "key, or for workflow methods."
)


class Queries:
    """Answers for one incarnation; every answer is an exit (rule X1)."""

    def __init__(
        self,
        *,
        committer: Committer,
        pause_search: PauseSearch,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        store_questions: StoreQuestions,
        waiters: Waiters,
    ) -> None:
        self._committer = committer
        self._pause_search = pause_search
        self._ready = ready
        self._registry = registry
        self._store_questions = store_questions
        self._waiters = waiters

    def result(self, operation: OutcomeOperation[Any], which: str | KeyScope) -> None:
        """Wait for the outcome of the invocation with this id, idempotency key or workflow id."""
        self.with_invocation(operation, which, partial(operation.found, self))

    def output(self, operation: OutcomeOperation[Any], which: str | KeyScope, *, keyed_only: bool) -> None:
        """The outcome as it is now; `keyed_only`: of nothing but workflows and requests with an idempotency key."""

        def answer(found: InvocationRun | InvocationRecord) -> None:
            try:
                if keyed_only and found.scope is None:
                    raise InvalidArgumentError(NO_OUTPUT)
                outcome = known_outcome(found)
                if outcome is None:
                    raise not_ready(found)
            except (InvalidArgumentError, NotReadyError, UnreadableRecordError) as error:
                self._committer.when_answerable(operation.refuse, error)
            else:
                self._committer.when_answerable(_answer_as, (operation, found, outcome))
            self._ready.schedule()

        self.with_invocation(operation, which, answer)

    def lookup(self, operation: QuestionOperation[str], which: str | KeyScope) -> None:
        """The id of an invocation."""

        def answer(found: InvocationRun | InvocationRecord) -> None:
            self._committer.when_answerable(operation.finish, found.id)
            self._ready.schedule()

        self.with_invocation(operation, which, answer)

    def status(self, operation: QuestionOperation[InvocationStatus], id: str) -> None:
        """Where an invocation stands, once that is durable."""

        def answer(found: InvocationRun | InvocationRecord) -> None:
            self._committer.when_answerable(operation.finish, found.status)
            self._ready.schedule()

        self.with_invocation(operation, id, answer)

    def ask(self, operation: DecodedOperation[Any], question: Question) -> None:
        """A question to the store about objects or events, behind the requests that came before."""

        def answer(found: Answer) -> None:
            if isinstance(found, bytes):
                self._committer.when_answerable(operation.answer, found)
            else:
                self._committer.when_answerable(operation.refuse, found)

        self._ready.arrive(lambda: self._store_questions.ask(question, answer))

    def recover(self, operation: PendingRequest[Any]) -> None:
        """The store is back after a failure: find out how things stand for this request."""
        if operation.id:
            self._registry.by_id(operation.id, partial(operation.found_again, self))
        else:  # Nothing had been accepted for it.
            operation.found_again(self, None)

    def with_invocation(
        self,
        operation: PendingRequest[Any],
        which: str | KeyScope,
        then: Callable[[InvocationRun | InvocationRecord], None],
    ) -> None:
        """Look an invocation up and go on with it, or refuse the operation."""
        name = which if isinstance(which, str) else name_of_scope(which)

        def found(one: Found) -> None:
            if one is None:
                self.refuse_unknown(operation, name)
            else:
                then(one)

        if isinstance(which, str):
            if is_storable(which):
                self._registry.by_id(which, found)
                return
        elif all(map(is_storable, which)):
            self._registry.by_key(which, found)
            return
        operation.refuse(_unknown(name))

    def refuse_unknown(self, operation: PendingRequest[Any], name: str) -> None:
        """There is no such invocation. Told once that is durable (rule X1): it may have expired a moment ago."""
        self._committer.when_answerable(operation.refuse, _unknown(name))
        self._ready.schedule()

    # ------------------------------------------------------------------ Recoverer

    def when_answerable(self, callback: Callable[[A], object], argument: A, /) -> None:
        self._committer.when_answerable(callback, argument)

    def wait_for(self, request: OutcomeOperation[Any], found: InvocationRun | InvocationRecord, /) -> None:
        """Answer if it has ended, refuse if it is paused or waits for what is; otherwise wait."""
        try:
            outcome = known_outcome(found)
        except UnreadableRecordError as error:  # Rule L5
            self._committer.when_answerable(request.refuse, error)
            return
        if outcome is not None:
            self._committer.when_answerable(_answer, (request, outcome, found.expires_at))
        elif found.status is InvocationStatus.PAUSED:
            self._committer.when_answerable(request.refuse, pause_error(found))
        else:
            self._waiters.add(found.number, request)
            self._pause_search.begin(found, request.refuse)


def _unknown(name: str) -> UnknownTargetError:
    return UnknownTargetError(f"There is no invocation {name}, or its outcome is no longer kept.")


def _answer_as(told: tuple[OutcomeOperation[Any], InvocationRun | InvocationRecord, Outcome]) -> None:
    """Not before: until it is answered, the operation has nothing of its own in the store (see `recover`)."""
    request, found, outcome = told
    request.id = found.id
    request.comes_from(found)
    request.answer(outcome, found.expires_at)


def _answer(told: tuple[OutcomeOperation[Any], Outcome, int | None]) -> None:
    request, outcome, expires_at = told
    request.answer(outcome, expires_at)

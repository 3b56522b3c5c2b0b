"""`Gateway`: the way in for everybody who is not a handler, across incarnations.

Requests go to the incarnation of the moment. When it ends, those who wait find their invocations in the next one, or
hear that the outcome is unknown (rule X3). What is accepted is acknowledged only when it is durable (rule X1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durably.actors.protocol.commands import Question, SendSignal
from durably.actors.transport import Delay
from durably.ids import Address, Entropy, InvocationStatus, KeyScope
from durably.runtime.engine.engine import Engine
from durably.runtime.gateway.admission import Admission, OutsideMessage
from durably.runtime.gateway.control import Control, Verb
from durably.runtime.gateway.deletions import Deletions
from durably.runtime.gateway.deliveries import Deliveries
from durably.runtime.gateway.intake import Intake
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    CompletionOperation,
    DecodedOperation,
    IdentificationOperation,
    OutcomeOperation,
    PendingRequest,
    PendingRequests,
    QuestionOperation,
    unknown_outcome,
)
from durably.runtime.gateway.queries import Queries
from durably.runtime.gateway.requests import Effect
from durably.runtime.gateway.state_edits import EditDesk
from durably.runtime.lifecycle.state_edits import StateEdit


class Desks:
    """What answers requests in one incarnation."""

    __slots__ = ("control", "deletions", "deliveries", "intake", "queries", "state_edits")

    def __init__(self, engine: Engine, entropy: Entropy) -> None:
        parts = engine.parts
        self.queries = Queries(
            committer=parts.committer,
            pause_search=parts.pause_search,
            ready=parts.ready,
            registry=parts.registry,
            store_questions=parts.store_questions,
            waiters=parts.waiters,
        )
        admission = Admission(
            activations=parts.activations,
            event_retention=parts.event_retention,
            named_limits=parts.named_limits,
            payloads=parts.payloads,
            settings=engine.settings,
            targets=parts.targets,
        )
        self.intake = Intake(
            acceptance=parts.acceptance,
            admission=admission,
            clock=engine.clock,
            committer=parts.committer,
            entropy=entropy,
            queries=self.queries,
            ready=parts.ready,
            registry=parts.registry,
            slice_bytes=engine.settings.slice_bytes,
            sliced_work=parts.sliced_work,
            targets=parts.targets,
            waiters=parts.waiters,
        )
        self.control = Control(
            admission=admission,
            cancellation=parts.cancellation,
            committer=parts.committer,
            continuations=parts.continuations,
            ended_journals=parts.ended_journals,
            pauses=parts.pauses,
            queries=self.queries,
            reach=parts.reach,
            ready=parts.ready,
            registry=parts.registry,
            restarts_as_new=parts.restarts_as_new,
            workflows=parts.workflows,
        )
        self.deletions = Deletions(
            activations=parts.activations,
            committer=parts.committer,
            mailbox_messages=engine.settings.mailbox_messages,
            object_deletion=parts.object_deletion,
            pause_search=parts.pause_search,
            ready=parts.ready,
            targets=parts.targets,
            waiters=parts.waiters,
        )
        self.state_edits = EditDesk(
            committer=parts.committer,
            payloads=parts.payloads,
            ready=parts.ready,
            settings=engine.settings,
            state_edits=parts.state_edits,
            targets=parts.targets,
        )
        self.deliveries = Deliveries(
            committer=parts.committer,
            payloads=parts.payloads,
            reach=parts.reach,
            ready=parts.ready,
            registry=parts.registry,
            settings=engine.settings,
            signals=parts.signals,
        )


class Gateway:
    """The door. Every refusal goes through the operation that asked."""

    def __init__(self, refusal: Callable[[], BaseException], entropy: Entropy, slice_bytes: int) -> None:
        """`refusal` says why no request is served while the gateway is closed."""
        self.pending = PendingRequests(slice_bytes)
        self._refusal = refusal
        self._entropy = entropy
        self._desks: Desks | None = None

    def open(self, engine: Engine) -> None:
        """From now on this incarnation answers."""
        self._desks = Desks(engine, self._entropy)

    def close(self) -> None:
        """From now on requests are refused."""
        self._desks = None

    def refuse_unaccepted(self) -> None:
        """The incarnation is over: those whose request had not been accepted can ask again."""
        for request in self.pending:
            if not request.id:
                request.refuse(unknown_outcome(self.pending.failure, request.id))

    @property
    def is_open(self) -> bool:
        """Requests are served."""
        return self._desks is not None

    def reattach(self) -> None:
        """Those who have waited since before find their invocations in this incarnation."""
        assert self._desks is not None
        for request in self.pending:
            if isinstance(request, CompletionOperation):
                self._desks.deliveries.complete(request)
            else:
                self._desks.queries.recover(request)

    # ------------------------------------------------------------------ requests

    def call(self, operation: OutcomeOperation[Any], request: OutsideMessage, body: bytes, *, wire: bool) -> None:
        """Accept a call, or join the one with the same idempotency key."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.intake.call(operation, request, body, wire=wire)

    def send(
        self, operation: AcceptanceOperation[Any], request: OutsideMessage, body: bytes, delay: Delay, *, wire: bool
    ) -> None:
        """Accept a message, or find the one with the same idempotency key."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.intake.send(operation, request, body, delay, wire=wire)

    def identify(self, operation: IdentificationOperation[Any]) -> None:
        """The invocation that a call has started or joined."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.intake.identify(operation)

    def result(self, operation: OutcomeOperation[Any], which: str | KeyScope) -> None:
        """Wait for the outcome of the invocation with this id, idempotency key or workflow id."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.intake.attach(operation, which)

    def output(self, operation: OutcomeOperation[Any], which: str | KeyScope, *, keyed_only: bool = False) -> None:
        """The outcome of such an invocation as it is now."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.queries.output(operation, which, keyed_only=keyed_only)

    def lookup(self, operation: QuestionOperation[str], which: str | KeyScope) -> None:
        """The id of such an invocation."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.queries.lookup(operation, which)

    def status(self, operation: QuestionOperation[InvocationStatus], id: str) -> None:
        """Where an invocation stands."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.queries.status(operation, id)

    def ask(self, operation: DecodedOperation[Any], question: Question) -> None:
        """Put a question to the store."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.queries.ask(operation, question)

    def complete(self, operation: CompletionOperation) -> None:
        """Resolve or reject an awakeable."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.deliveries.complete(operation)

    def signal(self, operation: QuestionOperation[None], command: SendSignal) -> None:
        """Send a signal to an invocation."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.deliveries.signal(operation, command)

    def act(self, operation: QuestionOperation[Effect], verb: Verb, id: str) -> None:
        """Do something to an invocation: cancel it, kill it, and so on."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.control.act(operation, verb, id)

    def restart(self, operation: QuestionOperation[Effect], id: str, from_step: int) -> None:
        """Begin a paused invocation anew, from a step."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.control.restart(operation, id, from_step)

    def restart_as_new(self, operation: QuestionOperation[str], id: str, from_step: int = 0) -> None:
        """Begin what has ended once more, as a new invocation."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.control.restart_as_new(operation, id, from_step)

    def delete(self, operation: OutcomeOperation[Any], address: Address) -> None:
        """Delete an object, and wait for it."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.deletions.call(operation, address)

    def send_deletion(self, operation: AcceptanceOperation[Any], address: Address) -> None:
        """Delete an object in its turn."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.deletions.send(operation, address)

    def edit_state(self, operation: AcceptanceOperation[Any], address: Address, edit: StateEdit) -> None:
        """Replace the state of an object in its turn."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.state_edits.send(operation, address, edit)

    def _refuse(self, operation: PendingRequest[Any]) -> None:
        operation.refuse(self._refusal())

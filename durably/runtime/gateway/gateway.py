"""`Gateway`: the way in for everybody who is not a handler, across incarnations.

Requests go to the incarnation of the moment. When it ends, those who wait find their invocations in the next one, or
hear that the outcome is unknown (rule X3). What is accepted is acknowledged only when it is durable (rule X1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durably.actors.protocol.commands import SendSignal
from durably.actors.transport import Delay
from durably.ids import Entropy, InvocationStatus, KeyScope
from durably.runtime.engine.engine import Engine
from durably.runtime.gateway.admission import Admission, OutsideMessage
from durably.runtime.gateway.control import Control, Verb
from durably.runtime.gateway.deliveries import Deliveries
from durably.runtime.gateway.intake import Intake
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    CompletionOperation,
    IdentificationOperation,
    OutcomeOperation,
    PendingRequest,
    PendingRequests,
    QuestionOperation,
    unknown_outcome,
)
from durably.runtime.gateway.queries import Queries
from durably.runtime.gateway.requests import Effect


class Desks:
    """What answers requests in one incarnation."""

    __slots__ = ("control", "deliveries", "intake", "queries")

    def __init__(self, engine: Engine, entropy: Entropy) -> None:
        parts = engine.parts
        self.queries = Queries(
            committer=parts.committer,
            pause_search=parts.pause_search,
            ready=parts.ready,
            registry=parts.registry,
            waiters=parts.waiters,
        )
        admission = Admission(activations=parts.activations, settings=engine.settings, targets=parts.targets)
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
            acceptance=parts.acceptance,
            cancellation=parts.cancellation,
            committer=parts.committer,
            continuations=parts.continuations,
            entropy=entropy,
            pauses=parts.pauses,
            queries=self.queries,
            reach=parts.reach,
            ready=parts.ready,
            registry=parts.registry,
            targets=parts.targets,
            workflows=parts.workflows,
        )
        self.deliveries = Deliveries(
            committer=parts.committer,
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

    def restart_as_new(self, operation: QuestionOperation[str], id: str) -> None:
        """Begin what has ended once more, as a new invocation."""
        if self._desks is None:
            self._refuse(operation)
        else:
            self._desks.control.restart_as_new(operation, id)

    def _refuse(self, operation: PendingRequest[Any]) -> None:
        operation.refuse(self._refusal())

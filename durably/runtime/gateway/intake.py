"""`Intake`: calls and sends from outside become invocations, or find the one with the same idempotency key.

A request that arrives waits until the pump reaches it (`ReadyQueue.arrive`), with or without a key, so requests are
accepted in the order in which they came. What is checked is checked then, and the time of the acceptance is that time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.transport import Delay
from durably.actors.values.user_errors import USER_ERRORS, is_from_signal
from durably.errors import OverloadedError
from durably.ids import Entropy, KeyScope, new_identity
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.gateway.admission import OVERLOAD_RETRY_SECONDS, Admission, Admitted, OutsideMessage
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    IdentificationOperation,
    OutcomeOperation,
    PendingRequest,
)
from durably.runtime.gateway.queries import Queries
from durably.runtime.gateway.requests import Acceptance as Accepted
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.messages import already_started
from durably.runtime.messaging.targets import Targets
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiters
from durably.storage.records import InvocationRecord

REQUEST_BYTES = 512
"""What a request that waits takes besides its body, roughly; for the limit only."""


class Intake:
    """The way into the mailboxes of one incarnation. Refusals go through the operation, never past it."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        admission: Admission,
        clock: Clock,
        committer: Committer,
        entropy: Entropy,
        queries: Queries,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        slice_bytes: int,
        sliced_work: SlicedWork,
        targets: Targets,
        waiters: Waiters,
    ) -> None:
        self._acceptance = acceptance
        self._admission = admission
        self._clock = clock
        self._committer = committer
        self._entropy = entropy
        self._queries = queries
        self._ready = ready
        self._registry = registry
        self._slice_bytes = slice_bytes
        self._sliced_work = sliced_work
        self._targets = targets
        self._waiters = waiters
        self._unidentified: dict[OutcomeOperation[Any], list[IdentificationOperation[Any]]] = {}
        """Who wants to know the invocations of calls that have none yet."""

    def _arrive(self, operation: PendingRequest[Any], body: bytes, reached: Callable[[], None]) -> None:
        """Let a request wait for its turn, unless too many do."""
        reason = self._committer.refusal()
        if reason is None:
            self._ready.arrived_bytes += REQUEST_BYTES + len(body)
            self._ready.arrive(reached)
        else:
            operation.refuse(OverloadedError(reason, retry_after=OVERLOAD_RETRY_SECONDS))

    def _not_admitted(
        self, operation: PendingRequest[Any], error: BaseException, body: bytes, again: Callable[[], None]
    ) -> None:
        """The request is refused; or it waits anew, because a signal came in between, which is raised."""
        if is_from_signal(error):
            self._ready.arrived_bytes += REQUEST_BYTES + len(body)
            self._ready.arrive(again)
            raise error
        operation.refuse(error)

    def _has_room(self, operation: PendingRequest[Any], request: OutsideMessage) -> bool:
        """Whether one with a key may be accepted, which has turned out to be new; else it is refused."""
        try:
            self._admission.check_new(request)
        except OverloadedError as error:
            operation.refuse(error)
            return False
        return True

    # ------------------------------------------------------------------ calls

    def call(self, operation: OutcomeOperation[Any], request: OutsideMessage, body: bytes, *, wire: bool) -> None:
        """Accept a call in its turn, or join the one with the same idempotency key."""
        self._arrive(operation, body, partial(self._call, operation, request, body, wire))

    def _call(self, operation: OutcomeOperation[Any], request: OutsideMessage, body: bytes, wire: bool) -> None:
        self._ready.arrived_bytes -= REQUEST_BYTES + len(body)
        if len(body) > self._slice_bytes:
            self._admit_in_slices(operation, request, body, partial(self._call_admitted, operation, request), wire=wire)
            return
        try:
            admitted = self._admission.admit(request, body, wire=wire)
        except USER_ERRORS as error:  # Validators and Serdes of the user's run here.
            self._not_admitted(operation, error, body, partial(self._call, operation, request, body, wire))
        else:
            self._call_admitted(operation, request, admitted)

    def _call_admitted(self, operation: OutcomeOperation[Any], request: OutsideMessage, admitted: Admitted) -> None:
        handler, argument = admitted
        if request.idempotency_key is None and handler.kind != "workflow":  # What most calls are.
            self._accept_call(operation, handler, argument, request, None)
            return
        scope = self._targets.scope(handler, request.key, request.idempotency_key)
        if scope is None:
            self._accept_call(operation, handler, argument, request, None)
        else:
            self._registry.by_key(scope, partial(self._call_keyed, operation, handler, argument, request, scope))

    def _call_keyed(
        self,
        operation: OutcomeOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: OutsideMessage,
        scope: KeyScope,
        found: Found,
    ) -> None:
        if found is None:
            if self._has_room(operation, request):
                self._accept_call(operation, handler, argument, request, scope)
        elif scope.is_workflow_id:
            self._committer.when_answerable(_refuse_second_start, (operation, found))
            self._ready.schedule()
        else:
            operation.found(self._queries, found)
            self._identified(operation)

    def _accept_call(
        self,
        operation: OutcomeOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: OutsideMessage,
        scope: KeyScope | None,
    ) -> None:
        id, seed = new_identity(self._entropy, request.service, request.key)
        operation.id, operation.known_to = id, self._queries
        keep_us = None if scope is None else self._targets.retention_us(handler)
        message = Message(
            handler, request.key, argument, id, seed, request.headers, request.timeout_us, scope, None, keep_us
        )
        invocation = self._acceptance.accept(self._committer.begin(), message)
        self._waiters.add_first(invocation.number, operation)
        if self._unidentified:
            self._identified(operation)

    # ------------------------------------------------------------------ sends

    def send(
        self, operation: AcceptanceOperation[Any], request: OutsideMessage, body: bytes, delay: Delay, *, wire: bool
    ) -> None:
        """Accept a message in its turn, or find the one with the same idempotency key; acknowledged when durable."""
        self._arrive(operation, body, partial(self._send, operation, request, body, delay, wire))

    def _send(
        self, operation: AcceptanceOperation[Any], request: OutsideMessage, body: bytes, delay: Delay, wire: bool
    ) -> None:
        self._ready.arrived_bytes -= REQUEST_BYTES + len(body)
        if len(body) > self._slice_bytes:
            then = partial(self._send_admitted, operation, request, delay)
            self._admit_in_slices(operation, request, body, then, wire=wire)
            return
        try:
            admitted = self._admission.admit(request, body, wire=wire)
        except USER_ERRORS as error:  # Validators and Serdes of the user's run here.
            self._not_admitted(operation, error, body, partial(self._send, operation, request, body, delay, wire))
        else:
            self._send_admitted(operation, request, delay, admitted)

    def _send_admitted(
        self, operation: AcceptanceOperation[Any], request: OutsideMessage, delay: Delay, admitted: Admitted
    ) -> None:
        handler, argument = admitted
        scope = self._targets.scope(handler, request.key, request.idempotency_key)
        if scope is None:
            self._accept_send(operation, handler, argument, request, delay, None, None)
        else:
            self._registry.by_key(scope, partial(self._send_keyed, operation, handler, argument, request, delay, scope))

    def _send_keyed(
        self,
        operation: AcceptanceOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: OutsideMessage,
        delay: Delay,
        scope: KeyScope,
        found: Found,
    ) -> None:
        if found is not None or self._has_room(operation, request):
            self._accept_send(operation, handler, argument, request, delay, scope, found)

    def _accept_send(
        self,
        operation: AcceptanceOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: OutsideMessage,
        delay: Delay,
        scope: KeyScope | None,
        found: Found,
    ) -> None:
        if found is None:
            due = delay.at_us if delay.after_us is None else self._clock.now() + delay.after_us
            id, seed = new_identity(self._entropy, request.service, request.key)
            operation.id = id
            keep_us = self._targets.retention_us(handler)
            message = Message(
                handler, request.key, argument, id, seed, request.headers, request.timeout_us, scope, due, keep_us
            )
            self._acceptance.accept(self._committer.begin(), message)
        else:
            operation.joins(found.id)
            due = found.due
        accepted = Accepted(id=operation.id, previously_accepted=found is not None, due=due)
        self._committer.when_answerable(operation.accepted, accepted)

    # ------------------------------------------------------------------ which invocation a call has

    def identify(self, operation: IdentificationOperation[Any]) -> None:
        """Tell which invocation a call has, when it has one, durably; or why it has none."""
        self._ready.arrive(partial(self._identify, operation))

    def _identify(self, operation: IdentificationOperation[Any]) -> None:
        """The call has arrived before: it has an id, or is being looked up or checked, or was refused."""
        call = operation.call
        if call.id and (call.known_to is self._queries or call.is_certain()):
            self._tell_identity(operation)
        elif call.id:  # It was accepted before the store failed, and may be lost.
            operation.id = call.id
            self._queries.recover(operation)
        elif not call.done():
            self._unidentified.setdefault(call, []).append(operation)
            call.add_done_callback(lambda _: self._has_ended(call))
        else:
            operation.ends_as(call)

    def _identified(self, call: OutcomeOperation[Any]) -> None:
        for operation in self._unidentified.pop(call, ()):
            self._tell_identity(operation)

    def _tell_identity(self, operation: IdentificationOperation[Any]) -> None:
        operation.id = operation.call.id
        self._committer.when_answerable(operation.identified, operation.call)
        self._ready.schedule()

    def _has_ended(self, call: OutcomeOperation[Any]) -> None:
        for operation in self._unidentified.pop(call, ()):
            operation.ends_as(call)

    # ------------------------------------------------------------------ questions about what has been asked for

    def attach(self, operation: OutcomeOperation[Any], which: str | KeyScope) -> None:
        """Wait for an invocation, by id or by idempotency key, which may have arrived just before."""
        self._ready.arrive(partial(self._queries.result, operation, which))

    # ------------------------------------------------------------------ large bodies

    def _admit_in_slices(
        self,
        operation: PendingRequest[Any],
        request: OutsideMessage,
        body: bytes,
        then: Callable[[Admitted], None],
        *,
        wire: bool,
    ) -> None:
        """Check a large body without holding the loop up. What comes meanwhile may be accepted before it."""

        def accept(admitted: Admitted) -> None:
            then(admitted)
            self._ready.schedule()

        self._sliced_work.begin(self._admission.admit_in_slices(request, body, wire=wire), accept, operation.refuse)


def _refuse_second_start(told: tuple[OutcomeOperation[Any], InvocationRun | InvocationRecord]) -> None:
    """A workflow that was started before, durably. The operation has nothing of its own in the store."""
    operation, first = told
    operation.refuse_second_start(first.id, already_started(first))

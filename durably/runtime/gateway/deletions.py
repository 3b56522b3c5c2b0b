"""`Deletions`: objects that are deleted from outside.

A deletion is accepted although the mailbox of its object is full: what fills it may be why somebody deletes. It does
not make a full one longer and longer, because further deletions join one that waits at its end already.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from durably.errors import DurablyError, OverloadedError
from durably.ids import Address
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.gateway.admission import OVERLOAD_RETRY_SECONDS
from durably.runtime.gateway.pending_requests import AcceptanceOperation, OutcomeOperation, PendingRequest
from durably.runtime.gateway.requests import Acceptance as Accepted
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.object_deletion import ObjectDeletion
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.runtime.messaging.targets import Targets
from durably.runtime.registry.waiters import Waiters


class Deletions:
    """Of one incarnation. Like calls and sends, they are accepted in the order in which they came."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        mailbox_messages: int,
        object_deletion: ObjectDeletion,
        pause_search: PauseSearch,
        ready: ReadyQueue,
        targets: Targets,
        waiters: Waiters,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._mailbox_messages = mailbox_messages
        self._object_deletion = object_deletion
        self._pause_search = pause_search
        self._ready = ready
        self._targets = targets
        self._waiters = waiters

    def call(self, operation: OutcomeOperation[Any], address: Address) -> None:
        """Delete an object; the operation ends when that is done."""
        self._arrive(operation, address, partial(self._call, operation))

    def send(self, operation: AcceptanceOperation[Any], address: Address) -> None:
        """Delete an object in its turn; the operation ends when that is durable."""
        self._arrive(operation, address, partial(self._send, operation))

    def _arrive(self, operation: PendingRequest[Any], address: Address, accept: Callable[[Address], None]) -> None:
        reason = self._committer.refusal()
        if reason is not None:
            operation.refuse(OverloadedError(reason, retry_after=OVERLOAD_RETRY_SECONDS))
        else:
            self._ready.arrive(partial(self._check, operation, address, accept))

    def _check(self, operation: PendingRequest[Any], address: Address, accept: Callable[[Address], None]) -> None:
        try:
            self._targets.check_object(address.service, address.key)
        except DurablyError as error:
            operation.refuse(error)
        else:
            accept(address)

    def _call(self, operation: OutcomeOperation[Any], address: Address) -> None:
        waiting = self._waiting_at_the_end(address)
        if waiting is not None:
            operation.id = waiting.id
            self._waiters.add(waiting.number, operation)
            self._pause_search.begin(waiting, operation.refuse)
            return
        invocation = self._object_deletion.send(address, keeps_outcome=False)
        operation.id = invocation.id
        self._waiters.add_first(invocation.number, operation)

    def _send(self, operation: AcceptanceOperation[Any], address: Address) -> None:
        waiting = self._waiting_at_the_end(address)
        if waiting is None or waiting.keep_outcome_us is None:  # Its outcome would go with the reply to the first.
            waiting = None
        operation.id = (waiting or self._object_deletion.send(address, keeps_outcome=True)).id
        accepted = Accepted(id=operation.id, previously_accepted=waiting is not None, due=None)
        self._committer.when_answerable(operation.accepted, accepted)

    def _waiting_at_the_end(self, address: Address) -> InvocationRun | None:
        """The deletion behind everything in a full mailbox."""
        activation = self._activations.by_address.get(address)
        if activation is None or activation.waiting() < self._mailbox_messages:
            return None
        return activation.last_deletion()

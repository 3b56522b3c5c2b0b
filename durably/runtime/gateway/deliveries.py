"""`Deliveries`: what is sent from outside to invocations under way: values for awakeables, and signals."""

from __future__ import annotations

from functools import partial

from durably.actors.protocol.commands import CompleteAwakeable, SendSignal
from durably.errors import CodecError, InvalidArgumentError, OverloadedError, UnencodableError
from durably.ids import AwakeableId, is_storable, parse_awakeable_id
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.execution.step import Outcome
from durably.runtime.gateway.admission import OVERLOAD_RETRY_SECONDS
from durably.runtime.gateway.pending_requests import CompletionOperation, PendingRequest, QuestionOperation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.lifecycle.reach import Reach
from durably.runtime.messaging.signals import Signals
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings


class Deliveries:
    """The way in to invocations of one incarnation; done when it is durable (rule X1)."""

    def __init__(
        self,
        *,
        committer: Committer,
        payloads: PayloadCheck,
        reach: Reach,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        settings: Settings,
        signals: Signals,
    ) -> None:
        self._payloads = payloads
        self._committer = committer
        self._reach = reach
        self._ready = ready
        self._registry = registry
        self._settings = settings
        self._signals = signals

    def complete(self, operation: CompletionOperation) -> None:
        """Resolve or reject an awakeable. The caller does not learn whether it came first (rule E5).

        So it may be done again after a failure of the store.
        """
        command = operation.command
        awakeable = parse_awakeable_id(command.id)
        assert awakeable is not None  # The code that made the command has checked it.
        if self._is_refused(operation, f"The value for {command.id}", command):
            return
        completed = partial(self._completed, operation, awakeable)
        self._ready.arrive(partial(self._registry.by_id, awakeable.invocation_id, completed))

    def signal(self, operation: QuestionOperation[None], command: SendSignal) -> None:
        """Send a signal; refused where nothing can take it."""
        if self._is_refused(operation, f"The signal {command.name!r}", command):
            return
        if is_storable(command.invocation_id):
            signalled = partial(self._signalled, operation, command)
            self._ready.arrive(partial(self._reach.by_id, command.invocation_id, signalled))
        else:
            self._signalled(operation, command, None)

    def _completed(self, operation: CompletionOperation, awakeable: AwakeableId, found: Found) -> None:
        command = operation.command
        operation.id = awakeable.invocation_id  # From now on it has been done, or may have been.
        transition = self._committer.begin()
        self._signals.complete(transition, awakeable, found, Outcome(command.failed, command.value))
        self._committer.when_answerable(operation.finish, None)
        self._ready.schedule()

    def _signalled(self, operation: QuestionOperation[None], command: SendSignal, found: Found) -> None:
        if isinstance(found, InvocationRun) and len(found.signals) >= self._settings.mailbox_messages:
            operation.refuse(  # Rule C8
                OverloadedError(
                    f"{found.target} has {len(found.signals)} signals that it has not taken, which is its limit "
                    "(Limits(mailbox_messages=...)). Try again later.",
                    retry_after=OVERLOAD_RETRY_SECONDS,
                    held_up_by=found.id,
                )
            )
            return
        operation.id = command.invocation_id
        transition = self._committer.begin()
        outcome = Outcome(command.failed, command.value)
        error = self._signals.send(transition, command.invocation_id, found, command.name, outcome)
        if error is None:
            self._committer.when_answerable(operation.finish, None)
        else:
            self._committer.when_answerable(operation.refuse, error)
        self._ready.schedule()

    def _is_refused(
        self,
        operation: PendingRequest[None],
        what: str,
        command: CompleteAwakeable | SendSignal,
    ) -> bool:
        reason = self._committer.refusal()
        if reason is not None:
            operation.refuse(OverloadedError(reason, retry_after=OVERLOAD_RETRY_SECONDS))
        elif len(command.value) > self._settings.payload_bytes:
            operation.refuse(
                InvalidArgumentError(
                    f"{what} has {len(command.value)} bytes; at most {self._settings.payload_bytes} are allowed. Keep "
                    "large things elsewhere and send their name."
                )
            )
        else:
            try:
                self._payloads.value(what, command.value)
            except UnencodableError as error:
                operation.refuse(InvalidArgumentError(error.message))
            except CodecError as error:
                operation.refuse(error)
            else:
                return False
        return True

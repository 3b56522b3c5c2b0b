"""`Completions`: the answers to commands, from callees, from other invocations, and from look-ups.

An answer is a record of the one who asked, made in the same transition as what it follows from (rule C2), whether the
asker is in memory, on its way there, or in the store only. The first answer counts; what nobody waits for is ignored
(rule C3).
"""

from __future__ import annotations

import asyncio
from functools import partial

from durably.actors.protocol.commands import Attach, Command, GetStatus
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import UnknownTargetError
from durably.ids import InvocationStatus, KeyScope
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.answers import encode_status
from durably.runtime.execution.step import Delivery, Outcome
from durably.runtime.invocations.invocation import InvocationRun, decode_outcome
from durably.runtime.registry.registry import InvocationRegistry, Waiter
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import CallerRecord, CompletionRecord, InvocationRecord


class Completions:
    """Whatever answers a command."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        committer: Committer,
        scheduled: ScheduledMessages,
        registry: InvocationRegistry,
        activations: Activations,
    ) -> None:
        self._attempts = attempts
        self._committer = committer
        self._scheduled = scheduled
        self._registry = registry
        self._host = asyncio.get_running_loop()
        self._activations = activations

    # ------------------------------------------------------------------ answers

    def answer(self, caller: CallerRecord, outcome: Outcome) -> None:
        """Answer a command of an invocation, wherever that is. Part of the transition that the answer follows from."""
        if not self._activations.hosts(caller.address):  # Its class is gone; whoever brings it back finds the answer.
            self._record(caller, outcome)
            return
        activation = self._activations.activation(caller.address)
        if activation.load_buffer is None:
            invocation = activation.find(caller.number)
            if invocation is not None and invocation.load_error is not None:
                # Rule L5: its journal is in the store only.
                activation.changed_at = self._record(caller, outcome)
            elif invocation is not None:
                self.complete(activation, invocation, caller.command, outcome.failed, outcome.value)
            return
        activation.changed_at = self._record(caller, outcome)
        activation.load_buffer.answers.append((caller.number, Delivery(caller.command, outcome.failed, outcome.value)))

    def _record(self, caller: CallerRecord, outcome: Outcome) -> int:
        """Keep an answer for an invocation that is in the store only."""
        position = self._committer.next_position()
        batch = self._committer.batch
        batch.complete(CompletionRecord(caller.number, caller.command, position, outcome.failed, outcome.value))
        batch.wake(caller.number)
        return position

    def complete(
        self, activation: Activation, invocation: InvocationRun, command: int, failed: bool, value: bytes
    ) -> None:
        """Answer a command of an invocation that is in memory."""
        journal = invocation.journal
        if journal is None or not journal.answer(Delivery(command, failed, value)):  # Rule C3
            return
        position = activation.changed_at = self._committer.next_position()
        self._committer.batch.complete(CompletionRecord(invocation.number, command, position, failed, value))
        self._attempts.wake(invocation)

    def tell_everybody(self, invocation: InvocationRun, outcome: Outcome) -> None:
        """Answer all who wait for this invocation, inside and (once it is durable) outside."""
        if invocation.caller is not None:
            self.answer(invocation.caller, outcome)
        for caller in invocation.attachments:
            self.answer(caller, outcome)
        waiters = self._registry.waiters.pop(invocation.number, None)
        if waiters is not None:
            self._committer.when_durable(_tell_outcome, (waiters, outcome, invocation.expires_at))  # Rule X1

    # ------------------------------------------------------------------ questions about other invocations

    def ask_for(self, invocation: InvocationRun, number: int, command: Command) -> None:
        """Let a command be answered that asks about another invocation, from memory or the store (rule S4)."""
        caller = CallerRecord(invocation.address, invocation.number, number)
        if isinstance(command, GetStatus):
            self._registry.by_id(command.invocation_id, partial(self._looked, caller, command.invocation_id))
        elif isinstance(command, Attach) and command.invocation_id is not None:
            self._registry.by_id(command.invocation_id, partial(self._found, caller, command.invocation_id))
        elif isinstance(command, Attach):
            scope = KeyScope(
                command.service or "", command.key or "", command.handler or "", command.idempotency_key or ""
            )
            name = f"of {scope.service}/{scope.handler} with the idempotency key {scope.idempotency_key!r}"
            # Not at once: whoever asks is in the middle of a transition.
            self._host.call_soon(self._registry.by_key, scope, partial(self._found, caller, name))

    def _looked(
        self, caller: CallerRecord, id: str, known: InvocationRun | None, record: InvocationRecord | None
    ) -> None:
        self._committer.next_position()
        found = known if known is not None else record
        self.answer(caller, _no_such_invocation(id) if found is None else Outcome(False, encode_status(found.status)))

    def _found(
        self, caller: CallerRecord, name: str, known: InvocationRun | None, record: InvocationRecord | None
    ) -> None:
        self._committer.next_position()
        if known is not None:
            self.attach_to_known(caller, known)
        elif record is not None:
            self.attach_to_stored(caller, record)
        else:
            self.answer(caller, _no_such_invocation(name))

    # ------------------------------------------------------------------ attaching

    def attach_to_known(self, caller: CallerRecord, first: InvocationRun) -> None:
        """Let a command be answered by the outcome of an invocation that is in memory."""
        if first.outcome is not None:
            self.answer(caller, first.outcome)
            return
        if caller not in first.attachments:
            first.attachments += (caller,)
            self._committer.batch.attach(first.number, caller)
        self._is_attached(caller)

    def attach_to_stored(self, caller: CallerRecord, record: InvocationRecord) -> None:
        """Let a command be answered by the outcome of an invocation that is in the store, or on its way from it."""
        if record.outcome is not None:
            self.answer(caller, decode_outcome(record.outcome))
            return
        self._committer.batch.attach(record.number, caller)
        if not self._scheduled.attach(record.number, caller):
            activation = self._activations.by_address.get(record.address)
            if activation is not None and activation.load_buffer is not None:
                activation.load_buffer.attachments.append((record.number, caller))
        self._is_attached(caller)

    def _is_attached(self, caller: CallerRecord) -> None:
        """From now on the target wakes the caller: it need not stay running for that."""
        activation = self._activations.by_address.get(caller.address)
        invocation = None if activation is None else activation.find(caller.number)
        if invocation is None or invocation.journal is None:
            return
        if caller.command in invocation.journal.unanswered:
            invocation.journal.unanswered.discard(caller.command)
            if not invocation.is_queued and invocation.status is InvocationStatus.RUNNING:
                self._attempts.park(invocation, invocation.journal)


def _no_such_invocation(name: str) -> Outcome:
    """The answer to whoever asks for an invocation that is not there."""
    error = UnknownTargetError(f"There is no invocation {name}, or its outcome is no longer kept.")
    return Outcome(True, encode_failure(error))


def _tell_outcome(told: tuple[list[Waiter], Outcome, int | None]) -> None:
    waiters, outcome, expires_at = told
    for waiter in waiters:
        waiter.answer(outcome, expires_at)

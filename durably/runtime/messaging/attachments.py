"""`Attachments`: who waits for the outcome of an invocation besides its caller, and how all of them are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from durably.actors.protocol.commands import (
    Attach,
    GetOutput,
    GetStatus,
    IdentifyCall,
    IdentifyRun,
    Send,
    SendAnswer,
    key_scope,
)
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import NotReadyError, UnknownTargetError, UnreadableRecordError
from durably.ids import InvocationStatus, KeyScope, derived_invocation_id, run_scope
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.answers import encode_send_answer, encode_status
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import Found, InvocationRun, known_outcome
from durably.runtime.invocations.journal import Journal
from durably.runtime.messaging.completions import Completions
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiter, Waiters
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import CallerRecord, InvocationRecord


class Attachments:
    """Commands and callers outside that wait for the outcome, or ask for the status, of another invocation."""

    def __init__(
        self,
        *,
        activations: Activations,
        attempts: Attempts,
        committer: Committer,
        completions: Completions,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
        waiters: Waiters,
    ) -> None:
        self.on_attached: list[Callable[[CallerRecord, InvocationRun | InvocationRecord], None]] = []
        """Hear that a command waits for the outcome of an invocation from now on."""
        self.on_unreadable: Callable[[CallerRecord, UnreadableRecordError], None] = _no_one_pauses
        """Hears that a command asks for an outcome that cannot be read: its invocation waits for a person (rule L5)."""
        self._activations = activations
        self._attempts = attempts
        self._committer = committer
        self._completions = completions
        self._host = asyncio.get_running_loop()
        self._registry = registry
        self._scheduled = scheduled
        self._waiters = waiters

    # ------------------------------------------------------------------ an outcome

    def answer_all(self, transition: Transition, invocation: InvocationRun, outcome: Outcome) -> None:
        """Answer all who wait for this invocation, inside and (once it is durable) outside."""
        if invocation.caller is not None:
            self._completions.answer(transition, invocation.caller, outcome)
        for caller in invocation.attachments:
            self._completions.answer(transition, caller, outcome)
        invocation.attachments = ()
        waiting = self._waiters.take(invocation.number)
        if waiting is not None:
            self._committer.when_answerable(
                _answer_outside, (waiting, outcome, invocation.expires_at, invocation.failed_with)
            )  # Rule X1

    def attach(self, transition: Transition, caller: CallerRecord, target: InvocationRun | InvocationRecord) -> None:
        """Let a command be answered by the outcome of an invocation that exists."""
        try:
            outcome = known_outcome(target)
        except UnreadableRecordError as error:
            self._host.call_soon(self.on_unreadable, caller, error)  # Not at once: a transition is being made.
            return
        if outcome is not None:
            self._completions.answer(transition, caller, outcome)
        elif isinstance(target, InvocationRun):
            self._attach_to_live(transition, caller, target)
        else:
            self._attach_to_stored(transition, caller, target)
        if outcome is None:
            self._host.call_soon(self._tell_attached, caller, target)  # Not at once: a transition is being made.

    def _tell_attached(self, caller: CallerRecord, target: InvocationRun | InvocationRecord) -> None:
        for hear in self.on_attached:
            hear(caller, target)

    def _attach_to_live(self, transition: Transition, caller: CallerRecord, target: InvocationRun) -> None:
        if caller not in target.attachments:
            target.attachments += (caller,)
            transition.attach(target.number, caller)
        self._is_attached(transition, caller)

    def _attach_to_stored(self, transition: Transition, caller: CallerRecord, target: InvocationRecord) -> None:
        transition.attach(target.number, caller)
        if not self._scheduled.attach(target.number, caller):
            activation = self._activations.by_address.get(target.address)
            if activation is not None and activation.load_buffer is not None:
                activation.load_buffer.attachments.append((target.number, caller))
        self._is_attached(transition, caller)

    def _is_attached(self, transition: Transition, caller: CallerRecord) -> None:
        """From now on the target wakes the caller, which need not stay running for that."""
        activation = self._activations.by_address.get(caller.address)
        invocation = None if activation is None else activation.find(caller.number)
        if invocation is None or invocation.journal is None or caller.command not in invocation.journal.unanswered:
            return
        invocation.journal.unanswered.discard(caller.command)
        if not invocation.is_queued and invocation.status is InvocationStatus.RUNNING:
            self._attempts.park(transition, invocation, invocation.journal)

    # ------------------------------------------------------------------ commands that ask (rule S4)

    def ask_status(self, caller: CallerRecord, command: GetStatus) -> None:
        """Answer with where the invocation stands, from memory or from the store."""
        self._registry.by_id(command.invocation_id, partial(self._answer_status, caller, command.invocation_id))

    def ask_identity(self, caller: CallerRecord, command: IdentifyCall) -> None:
        """Answer with the invocation that a call of the asking one leads to."""
        self._registry.by_id(command.derived_id, partial(self._answer_identity, caller, command.derived_id))

    def ask_run(self, caller: CallerRecord, command: IdentifyRun) -> None:
        """Answer with the invocation that runs the workflow, also if it has not begun."""
        scope = run_scope(command.service, command.key)
        then = partial(self._answer_run, caller, name_of_scope(scope))
        self._host.call_soon(self._registry.by_key, scope, then)  # Not at once: a transition is being made.

    def ask_outcome(self, caller: CallerRecord, command: Attach) -> None:
        """Attach to the invocation, if it exists."""
        self._find(command, partial(self._attach_found, caller))

    def ask_output(self, caller: CallerRecord, command: GetOutput) -> None:
        """Answer with the outcome of the invocation, if it exists and has one."""
        self._find(command, partial(self._answer_output, caller))

    def _find(self, command: Attach | GetOutput, then: Callable[[str, Found], None]) -> None:
        """Look up what is asked for; `then` also gets its name, for sentences."""
        if command.invocation_id is not None:
            self._registry.by_id(command.invocation_id, partial(then, command.invocation_id))
            return
        scope = key_scope(command)
        # Not at once: a transition is being made.
        self._host.call_soon(self._registry.by_key, scope, partial(then, name_of_scope(scope)))

    def _answer_status(self, caller: CallerRecord, id: str, found: Found) -> None:
        outcome = self._not_found(caller, id) if found is None else Outcome(False, encode_status(found.status))
        self._completions.answer(self._committer.begin(), caller, outcome)

    def _answer_identity(self, caller: CallerRecord, derived_id: str, found: Found) -> None:
        if found is None:
            outcome = _no_such_invocation(derived_id)
        else:
            outcome = Outcome(False, encode_send_answer(SendAnswer(found.id, found.id != derived_id)))
        self._completions.answer(self._committer.begin(), caller, outcome)

    def _answer_run(self, caller: CallerRecord, name: str, found: Found) -> None:
        if found is None:
            outcome = _no_such_invocation(name)
        else:
            outcome = Outcome(False, encode_send_answer(SendAnswer(found.id, True)))
        self._completions.answer(self._committer.begin(), caller, outcome)

    def _answer_output(self, caller: CallerRecord, name: str, found: Found) -> None:
        try:
            if found is None:
                outcome = self._not_found(caller, name)
            else:
                outcome = known_outcome(found) or Outcome(True, encode_failure(not_ready(found)))
        except UnreadableRecordError as error:
            self._host.call_soon(self.on_unreadable, caller, error)
            return
        self._completions.answer(self._committer.begin(), caller, outcome)

    def _attach_found(self, caller: CallerRecord, name: str, found: Found) -> None:
        transition = self._committer.begin()
        if found is None:
            self._completions.answer(transition, caller, self._not_found(caller, name))
        else:
            self.attach(transition, caller, found)

    def _not_found(self, caller: CallerRecord, id: str) -> Outcome:
        """The answer to a command that asks for an invocation that is not there, or not yet (rule V6)."""
        activation = self._activations.by_address.get(caller.address)
        asker = None if activation is None else activation.find(caller.number)
        if asker is None or asker.journal is None or id not in _held_messages(asker, asker.journal):
            return _no_such_invocation(id)
        error = UnknownTargetError(
            f"The message {id} has not been sent: an atomic handler sends with its outcome. So it cannot ask for what "
            "it sends. Call it instead, which acts at once, or ask for it elsewhere."
        )
        return Outcome(True, encode_failure(error))


def name_of_scope(scope: KeyScope) -> str:
    """What was asked for, for sentences that say that it is not there."""
    if scope.is_workflow_id:
        return f"of the workflow {scope.service}/{scope.key}"
    return f"of {scope.service}/{scope.handler} with the idempotency key {scope.idempotency_key!r}"


def not_ready(found: InvocationRun | InvocationRecord) -> NotReadyError:
    """The error for a request that asks for the outcome of an invocation that has none yet."""
    return NotReadyError(f"the invocation exists but has not completed yet: {found.id} is {found.status}.")


def _held_messages(invocation: InvocationRun, journal: Journal) -> list[str]:
    """The ids of the messages that an atomic handler holds back."""
    id, seed = invocation.id, invocation.seed
    return [
        derived_invocation_id(id, seed, number, one.service, one.key)
        for number, one in journal.held_back
        if isinstance(one, Send)
    ]


def _no_such_invocation(name: str) -> Outcome:
    """The answer to a command that asks for an invocation that is not there."""
    error = UnknownTargetError(f"There is no invocation {name}, or its outcome is no longer kept.")
    return Outcome(True, encode_failure(error))


def _answer_outside(told: tuple[list[Waiter], Outcome, int | None, BaseException | None]) -> None:
    waiting, outcome, expires_at, cause = told
    for waiter in waiting:
        waiter.answer(outcome, expires_at, cause)


def _no_one_pauses(caller: CallerRecord, error: UnreadableRecordError) -> None:
    raise AssertionError("an outcome could not be read before the machine was put together")

"""`Outcomes`: how invocations end.

State, messages of the last step, answers, the outcome and the next in the mailbox are one transition: whoever sees one
of them sees all of them, after a crash too.
"""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.protocol.commands import Call, Command, Run, Send, Sleep
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import TerminalError
from durably.ids import InvocationStatus
from durably.runtime.actions.actions import Actions
from durably.runtime.activations.activation import Activation, apply_changes
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.invocation import InvocationRun, Journal
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import NO_KEYS, KeysFound, Messages
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import TimerKind


class Endings:
    """The ends of invocations."""

    def __init__(
        self,
        *,
        actions: Actions,
        timers: TimerService,
        attempts: Attempts,
        clock: Clock,
        committer: Committer,
        completions: Completions,
        registry: InvocationRegistry,
        log: RuntimeLogger,
        messages: Messages,
        activations: Activations,
    ) -> None:
        self._actions = actions
        self._timers = timers
        self._attempts = attempts
        self._clock = clock
        self._committer = committer
        self._completions = completions
        self._registry = registry
        self._log = log
        self._messages = messages
        self._activations = activations

    def finish(
        self, activation: Activation, invocation: InvocationRun, last: Step | None, outcome: Outcome, found: KeysFound
    ) -> None:
        """An invocation ends, with its last step or (`last` is None) without its handler."""
        journal = invocation.journal
        if last is not None:
            if last.commands or (journal is not None and journal.held_sends):
                self._issue_last(invocation, last, outcome, found)
            execution = invocation.execution
            if execution is not None and execution.made_tasks:
                self._warn_leftovers(execution)
        self._attempts.throw_away(invocation)
        if invocation.handler.kind == "exclusive":
            self._keep_changes(activation, invocation, last, outcome)
        if journal is not None:
            self._cancel_pending(invocation, journal)
        if invocation.deadline is not None:
            self._timers.forget(invocation.number, TimerKind.DEADLINE)
        invocation.outcome = outcome
        invocation.status = InvocationStatus.COMPLETED
        keep_us = self._keep_outcome_us(invocation)
        if keep_us is not None:
            invocation.expires_at = self._clock.now() + keep_us
        self._committer.batch.end(invocation, keep=keep_us is not None)
        if self._log.debug:
            self._log.ended(invocation)
        self._completions.tell_everybody(invocation, outcome)
        self._registry.note_end(invocation.number)
        if keep_us is None and invocation.scope is None:
            self._registry.forget(invocation)
        else:
            self._committer.when_durable(self._registry.forget, invocation)
        if activation.current is invocation:
            activation.current = None
            self._activations.start_next(activation)
        else:
            activation.shared.pop(invocation.number, None)
        self._activations.mark_idle(activation)

    def fail(self, activation: Activation, invocation: InvocationRun, error: TerminalError) -> None:
        """End an invocation without its handler."""
        activation.changed_at = self._committer.next_position()
        self.finish(activation, invocation, None, Outcome(True, encode_failure(error)), NO_KEYS)

    def _issue_last(self, invocation: InvocationRun, last: Step, outcome: Outcome, found: KeysFound) -> None:
        """Calls and sends of the last step stand; nobody waits for the answers of the calls (rule S6)."""
        journal = invocation.journal
        first = 0 if journal is None else journal.next_command
        messages: list[tuple[int, Command]] = [] if journal is None else list(journal.held_sends)
        messages += [(first + offset, command) for offset, command in enumerate(last.commands)]
        drop_sends = outcome.failed and invocation.handler.atomic  # Rule V6
        for number, command in messages:
            if isinstance(command, Call):
                self._messages.send(invocation, number, command, None, None, found)
            elif isinstance(command, Send) and not drop_sends:
                self._messages.send(invocation, number, command, None, command.due, found)

    def _warn_leftovers(self, execution: Execution) -> None:
        leftovers = execution.leftover_tasks()
        if leftovers:  # Rule S6
            self._log.warned(
                execution, f"the handler ended and left tasks behind, which are thrown away: {', '.join(leftovers)}"
            )

    def _keep_changes(
        self, activation: Activation, invocation: InvocationRun, last: Step | None, outcome: Outcome
    ) -> None:
        if outcome.failed and invocation.handler.atomic:  # Rule V6
            return
        if invocation.journal is not None:
            self._change_state(activation, invocation.journal.changes)
        if last is not None and last.changes is not None:
            self._change_state(activation, last.changes)

    def _change_state(self, activation: Activation, changes: Mapping[str, bytes | None]) -> None:
        apply_changes(activation.snapshot, changes)
        for name, value in changes.items():
            self._committer.batch.set_state(activation.address, name, value)

    def _cancel_pending(self, invocation: InvocationRun, journal: Journal) -> None:
        for number, command in journal.pending.items():
            if isinstance(command, Sleep):
                self._timers.forget(invocation.number, TimerKind.SLEEP, number)
            elif isinstance(command, Run):
                self._actions.cancel((invocation.id, number))
        journal.pending.clear()
        journal.unanswered.clear()

    def _keep_outcome_us(self, invocation: InvocationRun) -> int | None:
        """How long somebody may still come for the outcome (rule X7)."""
        if invocation.keep_outcome_us is not None or invocation.sender_id is None:
            return invocation.keep_outcome_us
        may_ask = self._registry.may_ask(invocation.sender_id, invocation.sender_unfinished)
        return self._messages.retention_us(invocation.handler) if may_ask else None

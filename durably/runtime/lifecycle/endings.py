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
from durably.runtime.activations.activations import Residence
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.invocation import Invocation, Journal
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import NO_KEYS, KeysFound, Messages
from durably.runtime.observation.logs import RuntimeLog
from durably.runtime.registry.registry import Directory
from durably.runtime.timers.timer_service import Alarm
from durably.storage.records import DEADLINE_TIMER


class Outcomes:
    """The ends of invocations."""

    def __init__(
        self,
        *,
        actions: Actions,
        alarm: Alarm,
        attempts: Attempts,
        clock: Clock,
        committer: Committer,
        completions: Completions,
        directory: Directory,
        log: RuntimeLog,
        messages: Messages,
        residence: Residence,
    ) -> None:
        self._actions = actions
        self._alarm = alarm
        self._attempts = attempts
        self._clock = clock
        self._committer = committer
        self._completions = completions
        self._directory = directory
        self._log = log
        self._messages = messages
        self._residence = residence

    def finish(
        self, activation: Activation, invocation: Invocation, last: Step | None, outcome: Outcome, found: KeysFound
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
            self._alarm.forget(invocation.number, DEADLINE_TIMER)
        invocation.outcome = outcome
        invocation.status = InvocationStatus.COMPLETED
        keep_us = self._keep_outcome_us(invocation)
        if keep_us is not None:
            invocation.expires_at = self._clock.now() + keep_us
        self._committer.batch.end(invocation, keep=keep_us is not None)
        if self._log.debug:
            self._log.ended(invocation)
        self._completions.tell_everybody(invocation, outcome)
        self._directory.note_end(invocation.number)
        if keep_us is None and invocation.scope is None:
            self._directory.forget(invocation)
        else:
            self._committer.when_durable(self._directory.forget, invocation)
        if activation.current is invocation:
            activation.current = None
            self._residence.start_next(activation)
        else:
            activation.beside.pop(invocation.number, None)
        self._residence.rest(activation)

    def fail(self, activation: Activation, invocation: Invocation, error: TerminalError) -> None:
        """End an invocation without its handler."""
        activation.changed_at = self._committer.next_position()
        self.finish(activation, invocation, None, Outcome(True, encode_failure(error)), NO_KEYS)

    def _issue_last(self, invocation: Invocation, last: Step, outcome: Outcome, found: KeysFound) -> None:
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
        self, activation: Activation, invocation: Invocation, last: Step | None, outcome: Outcome
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

    def _cancel_pending(self, invocation: Invocation, journal: Journal) -> None:
        for number, command in journal.pending.items():
            if isinstance(command, Sleep):
                self._alarm.forget(invocation.number, number)
            elif isinstance(command, Run):
                self._actions.cancel((invocation.id, number))
        journal.pending.clear()
        journal.unanswered.clear()

    def _keep_outcome_us(self, invocation: Invocation) -> int | None:
        """How long somebody may still come for the outcome (rule X7)."""
        if invocation.keep_outcome_us is not None or invocation.sender_id is None:
            return invocation.keep_outcome_us
        may_ask = self._directory.may_ask(invocation.sender_id, invocation.sender_unfinished)
        return self._messages.retention_us(invocation.handler) if may_ask else None

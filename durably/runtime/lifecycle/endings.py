"""`Endings`: how invocations end.

State, messages of the last step, answers, the outcome and the next in the mailbox are one transition: after a crash
there are all of them or none.
"""

from __future__ import annotations

from durably.actors.protocol.commands import HELD_BACK, Command
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import TerminalError
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.passivation import Passivation
from durably.runtime.clock import Clock
from durably.runtime.commands.command_kind import CommandTable
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.invocations.journal import Journal
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import TimerKind


class Endings:
    """Ends invocations, with their last step or without their handler."""

    def __init__(
        self,
        *,
        activations: Activations,
        attachments: Attachments,
        clock: Clock,
        commands: CommandTable,
        committer: Committer,
        observer: Observer,
        passivation: Passivation,
        registry: InvocationRegistry,
        targets: Targets,
        timers: TimerService,
    ) -> None:
        self._activations = activations
        self._attachments = attachments
        self._clock = clock
        self._commands = commands
        self._committer = committer
        self._observer = observer
        self._passivation = passivation
        self._registry = registry
        self._targets = targets
        self._timers = timers

    def finish(
        self, transition: Transition, invocation: InvocationRun, last: Step, outcome: Outcome, found: KeysFound
    ) -> None:
        """Its handler has ended with this step."""
        journal = invocation.journal
        if last.commands or (journal is not None and journal.held_back):
            self._issue_last(transition, invocation, last, outcome, found)
        execution = invocation.execution
        if execution is not None and execution.made_tasks:
            self._warn_leftovers(execution)
        if invocation.handler.kind == "exclusive" and not (outcome.failed and invocation.handler.atomic):  # Rule V6
            if journal is not None:
                transition.change_state(invocation.activation, journal.changes)
            if last.changes is not None:
                transition.change_state(invocation.activation, last.changes)
        self._end(transition, invocation, outcome)

    def fail(self, transition: Transition, invocation: InvocationRun, error: TerminalError) -> None:
        """End an invocation without its handler. What its steps changed stands, unless it is atomic (rule V6)."""
        journal = invocation.journal
        if journal is not None and invocation.handler.kind == "exclusive" and not invocation.handler.atomic:
            transition.change_state(invocation.activation, journal.changes)
        self._end(transition, invocation, Outcome(True, encode_failure(error)))

    def _end(self, transition: Transition, invocation: InvocationRun, outcome: Outcome) -> None:
        throw_away(invocation)
        if invocation.journal is not None:
            self._withdraw_pending(invocation, invocation.journal)
        if invocation.deadline is not None:
            self._timers.forget(invocation.number, TimerKind.DEADLINE)
        keep_us = self._keep_outcome_us(invocation)
        expires_at = None if keep_us is None else self._clock.now() + keep_us
        was_stored = transition.end(invocation, outcome, expires_at=expires_at)
        if self._observer.detailed:
            self._observer.ended(invocation)
        self._attachments.answer_all(transition, invocation, outcome)
        if was_stored:
            self._registry.note_end(invocation.number)
        if keep_us is None and invocation.scope is None:
            self._registry.forget(invocation)
        else:
            self._committer.when_durable(self._registry.forget, invocation)
        self._leave(invocation)

    def _leave(self, invocation: InvocationRun) -> None:
        """The next in the mailbox may start."""
        activation = invocation.activation
        if activation.current is invocation:
            activation.current = None
            if activation.mailbox or activation.stored_tail:
                self._activations.start_next(activation)
        else:
            activation.shared.pop(invocation.number, None)
        self._passivation.mark_idle(activation)

    def _issue_last(
        self, transition: Transition, invocation: InvocationRun, last: Step, outcome: Outcome, found: KeysFound
    ) -> None:
        """Calls and sends of the last step stand; no handler waits for the answers of the calls (rule S6)."""
        journal = invocation.journal
        first = 0 if journal is None else journal.next_command
        issued: list[tuple[int, Command]] = [] if journal is None else list(journal.held_back)
        issued += enumerate(last.commands, first)
        is_dropped = outcome.failed and invocation.handler.atomic  # Rule V6
        for number, command in issued:
            if not (is_dropped and isinstance(command, HELD_BACK)):
                self._commands[type(command)].issue_unawaited(transition, invocation, number, command, found)

    def _warn_leftovers(self, execution: Execution) -> None:
        leftovers = execution.leftover_tasks()
        if leftovers:  # Rule S6
            self._observer.warned(
                execution, f"the handler ended and left tasks behind, which are thrown away: {', '.join(leftovers)}"
            )

    def _withdraw_pending(self, invocation: InvocationRun, journal: Journal) -> None:
        for number, command in journal.pending.items():
            self._commands[type(command)].withdraw(invocation, number, command)
        journal.pending.clear()
        journal.unanswered.clear()

    def _keep_outcome_us(self, invocation: InvocationRun) -> int | None:
        """How long the outcome is kept for those who come later (rule X7)."""
        if invocation.keep_outcome_us is not None or invocation.sender_id is None:
            return invocation.keep_outcome_us
        may_ask = self._registry.may_ask(invocation.sender_id, invocation.sender_unfinished)
        return self._targets.retention_us(invocation.handler) if may_ask else None

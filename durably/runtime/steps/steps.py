"""`Steps`: advance, append, act.

An invocation is advanced by what has come for it. The step that comes of it is appended to the open batch as a
transition, and acted on at once inside the process: messages go to mailboxes, callees run, timers are set. Nothing
leaves the process before the step is durable. An advance that fails is no step (rule S2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from durably.actors.protocol.commands import Attach, Call, Command, GetStatus, Run, Send, Sleep
from durably.errors import NonDeterminismError
from durably.ids import InvocationStatus
from durably.runtime.activations.activation import Activation
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import AttemptFailure, Delivery, Step
from durably.runtime.invocations.invocation import InvocationRun, Journal
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import NO_KEYS, KeysFound, Messages, has_key, scope_of
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.runtime.steps.run_commands import RunCommands
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import CallerRecord, TimerKind

NO_DELIVERIES: Sequence[Delivery] = ()
WAITS_FOR_OTHERS = (InvocationStatus.PAUSED, InvocationStatus.BACKING_OFF)
"""Advanced only by whoever ends that: a person, a timer."""


class Steps:
    """The steps of all invocations of one incarnation."""

    def __init__(
        self,
        *,
        timers: TimerService,
        attempts: Attempts,
        clock: Clock,
        committer: Committer,
        completions: Completions,
        registry: InvocationRegistry,
        log: RuntimeLogger,
        messages: Messages,
        endings: Endings,
        pauses: Pauses,
        activations: Activations,
        retries: Retries,
        run_commands: RunCommands,
        settings: Settings,
    ) -> None:
        self._activations = activations.by_address
        self._timers = timers
        self._attempts = attempts
        self._clock = clock
        self._committer = committer
        self._completions = completions
        self._registry = registry
        self._log = log
        self._messages = messages
        self._endings = endings
        self._pauses = pauses
        self._retries = retries
        self._run_commands = run_commands
        self._start_run = run_commands.start
        self._verify_replay = settings.verify_replay

    def advance(self, invocation: InvocationRun) -> None:
        """Advance an invocation by what has come for it, if there is anything."""
        if invocation.outcome is not None or invocation.is_held or invocation.status in WAITS_FOR_OTHERS:
            return
        activation = self._activations[invocation.address]
        journal = invocation.journal
        execution = invocation.execution
        if execution is None:
            load_error = invocation.load_error or activation.load_error
            if load_error is not None:  # Rule L5
                self._pauses.pause(activation, invocation, load_error)
                return
            execution = invocation.execution = self._attempts.make(activation, invocation)
            if journal is not None and not self._replay(activation, invocation, execution, journal):
                return
        if journal is None:
            at, deliveries = self._clock.now(), NO_DELIVERIES
        elif not journal.undelivered:
            self._wait_on(activation, invocation, journal)
            return
        else:
            at, deliveries = max(self._clock.now(), journal.not_before), journal.undelivered  # Rule T1
        if invocation.handler.kind == "shared":
            execution.use_snapshot(activation.view())
        taken = len(deliveries)
        try:
            step = execution.advance(at, deliveries, invocation.attempts + 1)
        except BaseException:  # Rule E3: dropped unrecorded; it is the host's.
            self._attempts.throw_away(invocation)
            raise
        if isinstance(step, AttemptFailure):
            self._retries.attempt_failed(activation, invocation, step.error)
        elif (step.commands and any(map(has_key, step.commands))) or (journal is not None and journal.held_sends):
            self._look_keys_up(activation, invocation, step, taken)
        else:
            self._append(activation, invocation, step, taken, NO_KEYS)

    def _wait_on(self, activation: Activation, invocation: InvocationRun, journal: Journal) -> None:
        """It was woken in vain, by the answer to a command that it has given up, and says so in a transition."""
        if invocation.status is InvocationStatus.RUNNING and not journal.unanswered:
            invocation.position = activation.changed_at = self._committer.next_position()
        self._attempts.park(invocation, journal)

    # ------------------------------------------------------------------ replay

    def _replay(
        self, activation: Activation, invocation: InvocationRun, execution: Execution, journal: Journal
    ) -> bool:
        """Bring a new attempt to the end of the journal; False if its code does not follow the journal any more."""
        try:
            execution.replay(journal.steps, journal.deliveries)
        except NonDeterminismError as error:
            self._pauses.pause(activation, invocation, error)
            return False
        except BaseException:  # Rule E3
            self._attempts.throw_away(invocation)
            raise
        if self._log.debug:
            self._log.replayed(invocation, len(journal.steps))
        for number, command in list(journal.pending.items()):
            if isinstance(command, Run):
                self._committer.when_durable(self._start_run, (invocation, number))
            elif number in journal.unanswered:
                self._completions.ask_for(invocation, number, command)
        return True

    def _verify(self, activation: Activation, invocation: InvocationRun, last: Step) -> bool:
        """Replay the whole invocation, the last step included; a difference pauses it."""
        execution = self._attempts.make(activation, invocation)
        journal = invocation.journal
        steps = [last] if journal is None else [*journal.steps, last]
        deliveries = {} if journal is None else {delivery.command: delivery for delivery in journal.undelivered}
        if journal is not None:
            deliveries.update(journal.deliveries)
        try:
            execution.replay(steps, deliveries)
        except NonDeterminismError as error:
            self._pauses.pause(activation, invocation, error)
            return False
        finally:
            execution.close()
        return True

    # ------------------------------------------------------------------ append

    def _look_keys_up(self, activation: Activation, invocation: InvocationRun, step: Step, taken: int) -> None:
        """A step that uses idempotency keys is appended when it is known what they stand for (rule L3)."""
        scopes = [scope for command in _leaving_now(invocation, step) if (scope := scope_of(command)) is not None]
        unknown = [scope for scope in scopes if scope not in self._registry.keyed]
        if not unknown:
            self._append(activation, invocation, step, taken, NO_KEYS)
            return
        invocation.is_held = True
        invocation.held_position = held = self._committer.next_position()
        self._registry.pin(scopes, unknown, partial(self._keys_known, activation, invocation, step, taken, held))

    def _keys_known(
        self, activation: Activation, invocation: InvocationRun, step: Step, taken: int, held: int, found: KeysFound
    ) -> None:
        if (
            not invocation.is_held or invocation.held_position != held
        ):  # It was paused meanwhile: the step has not happened.
            return
        invocation.is_held = False
        self._append(activation, invocation, step, taken, found)
        if invocation.journal is not None and invocation.journal.undelivered:
            self._attempts.wake(invocation)

    def _append(
        self, activation: Activation, invocation: InvocationRun, step: Step, taken: int, found: KeysFound
    ) -> None:
        """The step becomes part of the log, and everything inside the process may act on it."""
        invocation.position = activation.changed_at = self._committer.next_position()
        if invocation.attempts:
            invocation.attempts, invocation.failing_since, invocation.failure = 0, None, None
        if step.outcome is not None:
            if not self._verify_replay or self._verify(activation, invocation, step):
                self._endings.finish(activation, invocation, step, step.outcome, found)
            return
        journal = invocation.journal
        if journal is None:
            journal = invocation.journal = Journal()
        first = journal.next_command
        self._committer.batch.step(invocation.number, len(journal.steps), step)
        journal.take(step, taken)
        if self._log.debug:
            self._log.journaled(invocation, step)
        for number in step.abandoned:
            if number < first:
                self._give_up(invocation, journal, number)
        for offset, command in enumerate(step.commands):
            self._issue(invocation, journal, first + offset, command, found, first + offset in step.abandoned)
        self._attempts.park(invocation, journal)

    # ------------------------------------------------------------------ act

    def _issue(
        self,
        invocation: InvocationRun,
        journal: Journal,
        number: int,
        command: Command,
        found: KeysFound,
        abandoned: bool,
    ) -> None:
        """Act on a command that is in the log now; of one that was given up in the same step only messages stand."""
        if isinstance(command, Send):
            if invocation.handler.atomic:  # Rule V6
                journal.held_sends.append((number, command))
            else:
                self._messages.send(invocation, number, command, None, command.due, found)
            return
        if abandoned:
            if isinstance(command, Call):
                self._messages.send(invocation, number, command, None, None, found)
            return
        journal.pending[number] = command
        match command:
            case Call():
                caller = CallerRecord(invocation.address, invocation.number, number)
                self._messages.send(invocation, number, command, caller, None, found)
            case Sleep():
                self._timers.set(invocation, TimerKind.SLEEP, command.due, number)
            case Run():
                journal.unanswered.add(number)
                self._committer.when_durable(self._start_run, (invocation, number))  # Rule X1
            case GetStatus() | Attach():
                journal.unanswered.add(number)
                self._completions.ask_for(invocation, number, command)

    def _give_up(self, invocation: InvocationRun, journal: Journal, number: int) -> None:
        """The handler does not want this answer any more (rule C5)."""
        match journal.give_up(number):
            case Sleep():
                self._timers.drop(invocation.number, TimerKind.SLEEP, number)
            case Run():
                self._run_commands.give_up(invocation, number)
            case _:
                pass


def _leaving_now(invocation: InvocationRun, step: Step) -> list[Command]:
    """The commands that are acted on when this step is; an atomic handler's messages wait for its outcome (rule V6)."""
    if not invocation.handler.atomic:
        return list(step.commands)
    if step.outcome is None:
        return [command for command in step.commands if not isinstance(command, Send)]
    held = [] if invocation.journal is None else [command for _, command in invocation.journal.held_sends]
    return [*held, *step.commands]

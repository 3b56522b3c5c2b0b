"""`Steps`: advance, append, act.

An invocation is advanced by what has come for it. The step that comes of it is appended to the open batch as a
transition, and acted on at once inside the process: messages go to mailboxes, callees run, timers are set. Nothing
leaves the process before the step is durable. An advance that fails is no step (rule S2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter

from durably.actors.protocol.commands import HELD_BY_ATOMIC, MESSAGES, Call, Command, CompleteAwakeable, SendSignal
from durably.actors.protocol.entries import in_words
from durably.errors import CodecError, NonDeterminismError, UnencodableError, UnreadableRecordError
from durably.ids import SEED_BYTES, InvocationStatus, KeyScope, derived_invocation_id, earliest_time, is_storable
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commands.command_kind import CommandTable
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.state_size import StateSize
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import AttemptFailure, Delivery, Step
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.invocations.invocation import InvocationRun, known_outcome, throw_away
from durably.runtime.invocations.journal import ANSWERED_BY_THIS_PROCESS, Journal
from durably.runtime.invocations.load_errors import LoadError
from durably.runtime.lifecycle.continuations import Continuations
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.lifecycle.state_migrations import StateMigrations
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.messages import NO_KEYS, KeysFound, id_named
from durably.runtime.messaging.orders import Orders
from durably.runtime.messaging.signals import Signals
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.runtime.steps.preparation import Preparation
from durably.runtime.steps.rereading import Rereading
from durably.storage.records import CallerRecord, InvocationRecord, OrderKind

# A global is found at once, the member of an enum is looked up each time.
PENDING, PAUSED, BACKING_OFF = InvocationStatus.PENDING, InvocationStatus.PAUSED, InvocationStatus.BACKING_OFF
NO_DELIVERIES: Sequence[Delivery] = ()
NAMING_AN_ID = frozenset({CompleteAwakeable, SendSignal})


class Steps:
    """The steps of all invocations of one incarnation."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        clock: Clock,
        commands: CommandTable,
        committer: Committer,
        continuations: Continuations,
        deadlines: Deadlines,
        deadlocks: Deadlocks,
        endings: Endings,
        named_limits: NamedLimits,
        observer: Observer,
        orders: Orders,
        pauses: Pauses,
        payloads: PayloadCheck,
        preparation: Preparation,
        registry: InvocationRegistry,
        rereading: Rereading,
        retries: Retries,
        settings: Settings,
        state_size: StateSize,
        targets: Targets,
        signals: Signals,
        state_migrations: StateMigrations,
        versions: CodeVersions,
    ) -> None:
        self._payloads = payloads
        self._attempts = attempts
        self._clock = clock
        self._commands = commands
        self._answered_here = {name for name, kind in commands.items() if kind.is_answered_by_this_process}
        assert self._answered_here == {*ANSWERED_BY_THIS_PROCESS}, "a journal that is loaded asks for the same again"
        self._committer = committer
        self._continuations = continuations
        self._deadlines = deadlines
        self._deadlocks = deadlocks
        self._endings = endings
        self._named_limits = named_limits
        self._observer = observer
        self._orders = orders
        self._pauses = pauses
        self._preparation = preparation
        self._registry = registry
        self._rereading = rereading
        self._retries = retries
        self._scope_of = targets.scope_of
        self._signals = signals
        self._state_size = state_size
        self._long_journal_steps = settings.long_journal_steps
        self._large_changes_bytes = settings.large_changes_bytes
        self._nothing_resident = settings.nothing_resident
        self._slice_bytes = settings.slice_bytes
        self._verify_replay = settings.verify_replay
        self._forgets_reads = not (settings.verify_replay or settings.nothing_resident)  # These replay at once.
        self._state_migrations = state_migrations
        self._versions = versions

    def advance(self, invocation: InvocationRun) -> None:
        """Advance an invocation by what has come for it, if there is anything."""
        status = invocation.status
        if (
            invocation.outcome is not None
            or invocation.held_step is not None
            or invocation.is_preparing
            or status is PAUSED
            or status is BACKING_OFF
        ):
            return  # A person or a timer ends the last two.
        journal = invocation.journal
        execution = invocation.execution
        if execution is not None and execution.has_waited:
            throw_away(invocation)
            execution = None
        if execution is None:
            if status is PENDING and self._deadlines.prevents_start(invocation):
                return
            if invocation.handler.is_by_machine:
                self._endings.carry_out(invocation)
                return
            if invocation.handler.limit is not None and not self._named_limits.admits(invocation):
                return  # Rule C9
            load_error = invocation.load_error or invocation.activation.load_error
            activation = invocation.activation
            if load_error is None and activation.state_version != activation.actor.state_version:
                load_error = self._state_migrations.why_not(invocation)
            if load_error is not None:  # Rule L5
                self._cannot_be_loaded(invocation, load_error)
                return
            if activation.actor.asked is not None:
                self._preparation.set_up(invocation)
                return
            if journal is not None and journal.unread:
                self._rereading.begin(invocation, journal)
                return
            if len(invocation.argument) > self._slice_bytes or (
                journal is not None and self._preparation.is_needed_to_replay(journal)
            ):
                self._preparation.begin(invocation)
                return
            execution = invocation.execution = self._attempts.make(invocation)
            if journal is not None and not self._replay(invocation, execution, journal):
                return
        if journal is None:
            at, deliveries = max(self._clock.now(), invocation.due or 0), NO_DELIVERIES  # Rule T1
            if len(invocation.seed) > SEED_BYTES:
                at = max(at, earliest_time(invocation.seed))
        elif not journal.undelivered:
            self._attempts.park(self._committer.begin(), invocation, journal)  # Resumed, or woken by what it gave up.
            self._deadlocks.waits_anew(invocation)
            return
        else:
            at, deliveries = max(self._clock.now(), journal.not_before), journal.undelivered  # Rule T1
            for delivery in deliveries:
                if len(delivery.value) > self._slice_bytes and not execution.has_prepared(delivery.command):
                    self._preparation.deliver(invocation, execution, deliveries)
                    return
        if invocation.handler.kind == "shared":
            execution.use_snapshot(invocation.activation.view())
        taken = len(deliveries)
        try:
            step = execution.advance(at, deliveries, invocation.attempts + 1)
            if type(step) is Step:
                size_bytes = self._payloads.size_of_step(step)
                if size_bytes > self._payloads.certain_names_bytes:
                    self._payloads.names_of_step(invocation, step, execution.where)
                if size_bytes > self._payloads.certain_bytes:
                    self._payloads.step(invocation, step, deliveries, execution.where)
                if step.changes:
                    if journal is not None:
                        size_bytes += journal.changed_bytes
                    if size_bytes + invocation.activation.state_bytes > self._state_size.surely_bytes:
                        self._state_size.check(invocation, step.changes)
        except (UnencodableError, CodecError) as error:  # Rule L5: it cannot be stored, and so it has not happened.
            self._retries.attempt_failed(invocation, error)
            return
        except BaseException:  # Rule E3: dropped unrecorded; it is the host's.
            throw_away(invocation)
            raise
        if isinstance(step, AttemptFailure):
            self._retries.attempt_failed(invocation, step.error)
        elif (step.commands and self._name_others(step.commands)) or (journal is not None and journal.held_back):
            self._look_keys_up(invocation, step, taken)
        else:
            self._append(invocation, step, taken, NO_KEYS)

    def pause(self, invocation: InvocationRun, error: BaseException) -> None:
        """It cannot be advanced, and waits for a person; one that is cancelled, and has nothing to undo, ends (E1)."""
        if invocation.journal is not None and invocation.journal.ends_if_it_fails:
            self._retries.attempt_failed(invocation, error)
        else:
            self._pauses.pause(invocation, error)

    def _cannot_be_loaded(self, invocation: InvocationRun, error: LoadError) -> None:
        """A shared handler that has recorded nothing, and whose object cannot be loaded, fails (rule E6)."""
        if invocation.load_error is None and invocation.handler.kind == "shared" and invocation.journal is None:
            self._retries.give_up(invocation, error)
        else:
            self.pause(invocation, error)

    # ------------------------------------------------------------------ replay

    def _replay(self, invocation: InvocationRun, execution: Execution, journal: Journal) -> bool:
        """Bring a new attempt to the end of the journal; False if its code does not follow the journal any more."""
        try:
            execution.replay(journal.steps, journal.deliveries)
        except NonDeterminismError as error:
            self._versions.tell(error, journal.versions, invocation.handler)
            self.pause(invocation, error)
            return False
        except MemoryError as error:  # Rule E3
            self._retries.attempt_failed(invocation, error)
            return False
        except BaseException:  # Rule E3
            throw_away(invocation)
            raise
        self._preparation.replayed(invocation, journal)
        return True

    def _verify(self, invocation: InvocationRun, last: Step) -> bool:
        """Replay the whole invocation, the last step included; a difference pauses it."""
        execution = self._attempts.make(invocation)
        journal = invocation.journal
        steps = [last] if journal is None else [*journal.steps, last]
        deliveries = {} if journal is None else {delivery.command: delivery for delivery in journal.undelivered}
        if journal is not None:
            deliveries.update(journal.deliveries)
        try:
            execution.replay(steps, deliveries)
        except NonDeterminismError as error:
            self.pause(invocation, error)
            return False
        finally:
            execution.close()
        return True

    # ------------------------------------------------------------------ append

    def _look_keys_up(self, invocation: InvocationRun, step: Step, taken: int) -> None:
        """A step that names other invocations is appended when it is known what the names stand for (rule L3)."""
        leaving = _leaving_now(invocation, step)
        scopes = [scope for command in leaving if (scope := self._scope_of(command)) is not None]
        ids = [id for command in leaving if (id := id_named(command)) is not None and is_storable(id)]
        unknown: list[KeyScope | str] = [scope for scope in scopes if scope not in self._registry.keyed]
        unknown += [id for id in ids if id not in self._registry.live]
        if not unknown:
            self._append(invocation, step, taken, NO_KEYS)
            return
        invocation.held_step = step
        if invocation.journal is not None:
            invocation.journal.taken_by_held_step = taken
        self._registry.pin(scopes, ids, unknown, partial(self._keys_known, invocation, step, taken))

    def _keys_known(self, invocation: InvocationRun, step: Step, taken: int, found: KeysFound) -> None:
        if invocation.held_step is not step:  # It was paused meanwhile: the step has not happened.
            return
        invocation.held_step = None
        unreadable = self._unreadable_outcome(step, found)
        if unreadable is not None:  # Rule L5: the step has not happened, and is made again after a resume.
            self.pause(invocation, unreadable)
            return
        self._append(invocation, step, taken, found)
        if invocation.journal is not None:
            invocation.journal.release()
        if invocation.outcome is None and invocation.journal is not None and invocation.journal.undelivered:
            self._attempts.wake(self._committer.begin(), invocation)

    def _unreadable_outcome(self, step: Step, found: KeysFound) -> UnreadableRecordError | None:
        """Why a call cannot be answered that joins what has ended, if its outcome cannot be read."""
        for command in step.commands:
            first = found.get(scope) if isinstance(command, Call) and (scope := self._scope_of(command)) else None
            if isinstance(first, InvocationRecord):
                try:
                    known_outcome(first)
                except UnreadableRecordError as error:
                    return error
        return None

    def _append(self, invocation: InvocationRun, step: Step, taken: int, found: KeysFound) -> None:
        """The step becomes part of the log, and everything inside the process may act on it."""
        if invocation.attempts:
            invocation.attempts, invocation.failing_since, invocation.failure = 0, None, None
        if step.outcome is not None or step.continues_with is not None:
            if self._verify_replay and not self._verify(invocation, step):
                return
            outcome = step.outcome or self._continuations.outcome_instead(invocation, step)
            if outcome is not None:
                self._endings.finish(self._committer.begin(), invocation, step, outcome, found)
            else:
                self._continuations.continue_as_new(self._committer.begin(), invocation, step, found)
            return
        journal = invocation.journal
        if journal is None:
            journal = invocation.journal = Journal()
        first = journal.next_command
        transition = self._committer.begin()
        version = journal.note_version(self._versions.of(invocation.handler))
        execution = invocation.execution
        undoing = journal.undoing if execution is None else execution.undoing
        transition.step(invocation, len(journal.steps), step, version, undoing)
        journal.note_undoing(len(journal.steps), undoing)
        changed_bytes = journal.changed_bytes
        journal.take(step, taken)
        if journal.reads and self._forgets_reads and invocation.is_exclusive:
            journal.forget_reads(step)
        if step.changes and _doublings(journal.changed_bytes, self._large_changes_bytes) > _doublings(
            changed_bytes, self._large_changes_bytes
        ):
            field, size_bytes = _largest(step.changes)
            self._observer.changes_are_large(invocation, field, size_bytes, journal.changed_bytes)
        steps = len(journal.steps)
        if steps >= self._long_journal_steps and _has_doubled(steps, self._long_journal_steps):
            self._observer.journal_is_long(invocation, steps)
        if self._observer.detailed:
            self._observer.journaled(invocation, step)
        cancelled = _calls(step, journal, first) if step.cancelled else ()
        for number in step.abandoned:
            if number < first:
                self._give_up(transition, invocation, journal, number)
        abandoned = frozenset(step.abandoned) if step.abandoned else ()
        if self._nothing_resident and invocation.execution is not None:
            invocation.execution.has_waited = True
        for number, command in enumerate(step.commands, first):
            self._issue(transition, invocation, journal, number, command, found, number in abandoned)
        for number, call in cancelled:
            self._cancel_below(transition, invocation, number, call)
        self._attempts.park(transition, invocation, journal)
        if journal.awaits_resume is not None and not journal.undelivered:
            self._pauses.pause_as_asked(transition, invocation, journal.awaits_resume)
        self._deadlocks.step_ended(invocation, first)

    # ------------------------------------------------------------------ act

    def _name_others(self, commands: Sequence[Command]) -> bool:
        """One says by a key, or by an id, which invocation it is about: that has to be looked up."""
        for command in commands:
            kind = type(command)
            if kind in NAMING_AN_ID or (kind in MESSAGES and self._scope_of(command) is not None):
                return True
        return False

    def _issue(
        self,
        transition: Transition,
        invocation: InvocationRun,
        journal: Journal,
        number: int,
        command: Command,
        found: KeysFound,
        abandoned: bool,
    ) -> None:
        """Act on a command that is in the log now; of one that was given up in the same step only messages stand."""
        kind = self._commands[type(command)]
        is_answered = kind.is_answered(invocation, command)
        if abandoned and is_answered:
            kind.issue_unawaited(transition, invocation, number, command, found)
            return
        if is_answered:
            journal.pending[number] = command
        if type(command) in self._answered_here:
            journal.unanswered.add(number)
        kind.issue(transition, invocation, number, command, found)

    def _give_up(self, transition: Transition, invocation: InvocationRun, journal: Journal, number: int) -> None:
        """The handler does not want this answer any more (rule C5)."""
        if journal.taken_signals and number in journal.taken_signals:
            self._signals.give_back(transition, invocation, number)
            return
        command = journal.give_up(number)
        if command is not None:
            self._commands[type(command)].give_up(transition, invocation, number, command)

    def _cancel_below(self, transition: Transition, invocation: InvocationRun, number: int, call: Call) -> None:
        """A cancel has reached a call: its callee is cancelled, and the end of that is waited for (rule E1)."""
        id = derived_invocation_id(invocation.id, invocation.seed, number, call.service, call.key)
        caller = CallerRecord(invocation.address, invocation.number, number)
        self._orders.give(transition, id, OrderKind.CANCEL_OWN, caller)


def _doublings(size_bytes: int, first_bytes: int) -> int:
    """0 below the first so many bytes, 1 from there on, 2 from twice that on..."""
    return (size_bytes // first_bytes).bit_length()


def _largest(changes: Mapping[str, bytes | None]) -> tuple[str, int]:
    sizes = {field: 0 if value is None else len(value) for field, value in changes.items()}
    name, size_bytes = max(sizes.items(), key=itemgetter(1))
    return in_words(name), size_bytes


def _has_doubled(steps: int, first: int) -> bool:
    """It is `first`, twice that, four times that..."""
    times, rest = divmod(steps, first)
    return rest == 0 and times.bit_count() == 1


def _calls(step: Step, journal: Journal, first: int) -> list[tuple[int, Call]]:
    """The calls that a cancel has reached in this step, and that are not answered: also if it then gave them up."""
    found = (
        (number, step.commands[number - first] if number >= first else journal.pending.get(number))
        for number in step.cancelled
    )
    return [(number, command) for number, command in found if isinstance(command, Call)]


def _leaving_now(invocation: InvocationRun, step: Step) -> list[Command]:
    """The commands that are acted on with this step; what an atomic handler sends waits for its outcome (rule V6)."""
    if not invocation.handler.atomic:
        return list(step.commands)
    if not step.is_last:
        return [command for command in step.commands if not isinstance(command, HELD_BY_ATOMIC)]
    held = [] if invocation.journal is None else [command for _, command in invocation.journal.held_back]
    return [*held, *step.commands]

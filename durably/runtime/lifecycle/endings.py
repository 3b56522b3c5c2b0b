"""`Endings`: how invocations end.

State, messages of the last step, answers, the outcome and the next in the mailbox are one transition: after a crash
there are all of them or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.protocol.commands import HELD_BY_ATOMIC, Call, Command
from durably.actors.protocol.entries import EntryChanges, is_of_entries
from durably.actors.values.durations import kept_until
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import TerminalError
from durably.ids import InvocationStatus, derived_invocation_id
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.passivation import Passivation
from durably.runtime.clock import Clock
from durably.runtime.commands.command_kind import CommandTable
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun, throw_away
from durably.runtime.invocations.journal import Journal
from durably.runtime.lifecycle.emptying import Emptying
from durably.runtime.lifecycle.kept_journals import KeptJournals
from durably.runtime.lifecycle.object_deletion import ObjectExpiry
from durably.runtime.lifecycle.state_edits import decode_edit
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.messaging.orders import Orders
from durably.runtime.messaging.targets import Targets
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import OrderKind, TimerKind

BACKING_OFF = InvocationStatus.BACKING_OFF


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
        emptying: Emptying,
        kept_journals: KeptJournals,
        object_expiry: ObjectExpiry,
        named_limits: NamedLimits,
        observer: Observer,
        orders: Orders,
        passivation: Passivation,
        payloads: PayloadCheck,
        registry: InvocationRegistry,
        targets: Targets,
        timers: TimerService,
    ) -> None:
        self._payloads = payloads
        self.on_left: Callable[[Activation], None] = _no_one_listens
        """Hears that a handler of a workflow has ended whose retention is over."""
        self.on_delivered: Callable[[Transition, InvocationRun, Outcome], None] = _no_one_subscribes
        """Hears that a handler of events has ended."""
        self.on_end_of: dict[BoundActorHandler, Callable[[InvocationRun], None]] = {}
        """Hears that an invocation of a handler has ended."""
        self._activations = activations
        self._attachments = attachments
        self._clock = clock
        self._commands = commands
        self._committer = committer
        self._emptying = emptying
        self._kept_journals = kept_journals
        self._object_expiry = object_expiry
        self._named_limits = named_limits
        self._observer = observer
        self._orders = orders
        self._passivation = passivation
        self._registry = registry
        self._targets = targets
        self._timers = timers

    def finish(
        self, transition: Transition, invocation: InvocationRun, last: Step, outcome: Outcome, found: KeysFound
    ) -> None:
        """Its handler has ended with this step."""
        execution = invocation.execution
        if execution is not None and invocation.fixed is not None and not outcome.failed:
            self._observer.warned(execution, "the handler returned after its deadline; what it returned is dropped")
        drops = invocation.handler.atomic and _is_dropped(invocation, outcome)
        may_be_kept = invocation.scope is not None or self._kept_journals.is_asked
        if may_be_kept and (last.commands or invocation.journal is not None):
            self._kept_journals.take_last_step(transition, invocation, last)
        left = self.take_last_step(transition, invocation, last, found, drops=drops)
        self._end(transition, invocation, outcome)
        if left:
            self.cancel_left(transition, left)

    def cancel_left(self, transition: Transition, callees: Sequence[str]) -> None:
        """A cancelled execution has ended and left these behind (rule E1)."""
        for id in callees:
            self._orders.give(transition, id, OrderKind.CANCEL_OWN)

    def take_last_step(
        self, transition: Transition, invocation: InvocationRun, last: Step, found: KeysFound, *, drops: bool
    ) -> Sequence[str]:
        """What the last step of an execution asked for and changed becomes real; `drops`: what was held back does not.

        State, and what an atomic handler holds back, is dropped when it fails (rule V6). Returns the callees that a
        cancelled execution leaves pending.
        """
        journal = invocation.journal
        if self._observer.detailed:
            self._observer.concluded(invocation, last)
        if last.commands or (journal is not None and journal.held_back):
            self._issue_last(transition, invocation, last, found, drops)
        execution = invocation.execution
        left: Sequence[str] = ()
        if execution is not None:
            if execution.loop.tasks is not None:
                self._warn_leftovers(execution)
            if execution.was_cancelled:
                left = _left_callees(invocation, execution, last)
        if invocation.handler.is_exclusive and not drops:
            if journal is not None:
                transition.change_state(invocation.activation, journal.changes)
            if last.changes is not None:
                transition.change_state(invocation.activation, last.changes)
            if invocation.activation.actor.keeps_entries:
                entries = _changed_entries(journal, last)
                if entries:
                    transition.change_entries(invocation.activation, entries)
        return left

    def fail(
        self,
        transition: Transition,
        invocation: InvocationRun,
        error: TerminalError,
        order: OrderKind | None = None,
    ) -> None:
        """End an invocation without its handler. What its steps changed stands, unless it is atomic (rule V6).

        `order` is what becomes of the callees that it waits for (rules E1, E2).
        """
        journal = invocation.journal
        callees = [] if order is None or journal is None else _callees(invocation, journal.pending)
        if journal is not None and invocation.is_exclusive and not invocation.handler.atomic:
            transition.change_state(invocation.activation, journal.changes)
            if journal.entries:
                transition.change_entries(invocation.activation, journal.entries)
        self._end(transition, invocation, self._payloads.outcome(Outcome(True, encode_failure(error))))
        for id in callees:
            assert order is not None
            self._orders.give(transition, id, order)

    def carry_out(self, invocation: InvocationRun) -> None:
        """Do what the machine does by itself."""
        if invocation.handler.is_deletion:
            if not self._emptying.goes_on(invocation):
                self.delete_object(invocation)
        else:
            self.edit_state(invocation)

    def edit_state(self, invocation: InvocationRun) -> None:
        """Carry out an edit (rule W8): the new state and the end are one transition, or the reason why not."""
        activation, edit = invocation.activation, decode_edit(invocation.argument)
        refusal = edit.refusal(invocation.id, activation)
        if refusal is not None:
            self.fail(self._committer.begin(), invocation, refusal)
            return
        transition = self._committer.begin()
        activation.state_version = activation.actor.state_version  # The new state was checked by the class of today.
        transition.change_state(activation, edit.changes(activation))
        self._end(transition, invocation, Outcome(False, b""))

    def delete_object(self, invocation: InvocationRun) -> None:
        """Carry out a deletion: the state goes and the message ends in one transition."""
        activation, transition = invocation.activation, self._committer.begin()
        transition.vacate(activation)  # Entries, too, of which the snapshot says nothing (rule V7).
        activation.load_error = None
        self._end(transition, invocation, Outcome(False, b""))

    def keep_until(self, invocation: InvocationRun) -> int | None:
        """Until when an outcome that is known now is kept for those who come later; None: it goes with the reply."""
        keep_us = invocation.keep_outcome_us
        if keep_us is None and invocation.sender_id is not None:
            keep_us = self._kept_for_sender_us(invocation, invocation.sender_id)
        if invocation.scope is None:
            keep_us = self._kept_journals.outcome_us(invocation.handler, keep_us)
        # A clock that ran ahead when the message was accepted, and has been corrected, does not shorten the time.
        return None if keep_us is None else kept_until(max(self._clock.now(), invocation.accepted_at), keep_us)

    def _end(self, transition: Transition, invocation: InvocationRun, outcome: Outcome) -> None:
        throw_away(invocation)
        invocation.held_step = None
        if invocation.journal is not None:
            self.withdraw_pending(invocation, invocation.journal)
        if invocation.deadline is not None:
            self._timers.forget(invocation.number, TimerKind.DEADLINE)
        if invocation.status is BACKING_OFF:
            self._timers.forget(invocation.number, TimerKind.RETRY)
        fixed = invocation.fixed
        if fixed is None:
            is_kept = (
                invocation.keep_outcome_us is not None
                or invocation.sender_id is not None
                or (self._kept_journals.is_asked and self._kept_journals.are_asked_for(invocation.handler))
            )
            expires_at = self.keep_until(invocation) if is_kept else None
        else:  # Rule E7: everybody has been answered, and the retention counts from then.
            outcome, expires_at = fixed, invocation.expires_at
            is_run = invocation.scope is not None and invocation.scope.is_workflow_id
            # What a workflow leaves goes together with its outcome (rule W3).
            if expires_at is not None and expires_at <= self._clock.now() and not is_run:
                expires_at = None
        if expires_at is None and invocation.journal is not None and self._kept_journals.is_long(invocation.journal):
            expires_at = self._clock.now()
        kept_journal = None if expires_at is None else self._kept_journals.of(invocation, expires_at)
        was_stored = transition.end(invocation, outcome, expires_at=expires_at, kept_journal=kept_journal)
        if invocation.activation.actor.ttl_us is not None and invocation.is_exclusive:
            self._object_expiry.has_ended(transition, invocation)
        if self._observer.detailed:
            self._observer.ended(invocation)
        if fixed is None:
            self._attachments.answer_all(transition, invocation, outcome)
        if was_stored:
            self._registry.note_end(invocation.number)
        if expires_at is None and invocation.scope is None:
            self._registry.forget(invocation)
        else:
            self._committer.when_durable(self._registry.forget, invocation)
        if self._named_limits.is_used:
            self._named_limits.ended(transition, invocation, was_stored=was_stored)
        if invocation.handler.subscription is not None:
            self.on_delivered(transition, invocation, outcome)
        if self.on_end_of and (hear := self.on_end_of.get(invocation.handler)) is not None:
            hear(invocation)
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
        if activation.expiring is not None:
            self.on_left(activation)
        self._passivation.mark_idle(activation)

    def _issue_last(
        self, transition: Transition, invocation: InvocationRun, last: Step, found: KeysFound, drops: bool
    ) -> None:
        """Calls and sends of the last step stand; no handler waits for the answers of the calls (rule S6)."""
        journal = invocation.journal
        first = 0 if journal is None else journal.next_command
        issued: list[tuple[int, Command]] = [] if journal is None else list(journal.held_back)
        issued += enumerate(last.commands, first)
        for number, command in issued:
            if not (drops and isinstance(command, HELD_BY_ATOMIC)):
                self._commands[type(command)].issue_unawaited(transition, invocation, number, command, found)

    def _warn_leftovers(self, execution: Execution) -> None:
        leftovers = execution.leftover_tasks()
        if leftovers:  # Rule S6
            self._observer.warned(
                execution, f"the handler ended and left tasks behind, which are thrown away: {', '.join(leftovers)}"
            )

    def withdraw_pending(self, invocation: InvocationRun, journal: Journal) -> None:
        """What is still waited for is waited for no longer."""
        for number, command in journal.pending.items():
            self._commands[type(command)].withdraw(invocation, number, command)
        journal.pending.clear()
        journal.unanswered.clear()

    def _kept_for_sender_us(self, invocation: InvocationRun, sender_id: str) -> int | None:
        """How long the outcome of a handler's message is kept, in case the handler asks for it (rule X7)."""
        may_ask = self._registry.may_ask(sender_id, invocation.sender_unfinished)
        return self._targets.retention_us(invocation.handler) if may_ask else None


def _no_one_listens(activation: Activation) -> None:
    raise AssertionError("a handler ended before the machine was put together")


def _no_one_subscribes(transition: Transition, invocation: InvocationRun, outcome: Outcome) -> None:
    raise AssertionError("a handler of events ended before the machine was put together")


def _changed_entries(journal: Journal | None, last: Step) -> EntryChanges | None:
    """What an execution that ends with this step has changed of entries."""
    entries = None if journal is None else journal.entries
    if last.changes is not None and any(map(is_of_entries, last.changes)):
        entries = EntryChanges() if entries is None else entries
        entries.take(last.changes)
    return entries


def _is_dropped(invocation: InvocationRun, outcome: Outcome) -> bool:
    """Rule V6: an atomic handler that has not ended well, in time, changes and sends nothing."""
    return outcome.failed or invocation.fixed is not None


def _left_callees(invocation: InvocationRun, execution: Execution, last: Step) -> list[str]:
    """Rule E1 (f): the callees of calls that a cancelled execution leaves pending, but for shielded ones."""
    journal = invocation.journal
    assert journal is not None
    commands = journal.pending | dict(enumerate(last.commands, journal.next_command))
    wanted = {*execution.open_calls(), *last.cancelled} - journal.cancelled_calls
    return _callees(invocation, {number: commands[number] for number in sorted(wanted) if number in commands})


def _callees(invocation: InvocationRun, commands: Mapping[int, Command]) -> list[str]:
    """The ids that these commands gave to what they called."""
    return [
        derived_invocation_id(invocation.id, invocation.seed, number, command.service, command.key)
        for number, command in commands.items()
        if isinstance(command, Call)
    ]

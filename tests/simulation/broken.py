"""Deliberately broken runtimes and actors, each one small change away from the real code, for the kit to find."""

# pyright: reportPrivateUsage=false
# Here the machine is broken from inside.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import signature
from types import FunctionType
from typing import Any

import msgspec
import pytest

from durably import Context, ObjectContext, Service, VirtualObject, handler, sagas, shared, state
from durably.actors import compensations
from durably.actors.context import SharedContext
from durably.actors.cron import CronSchedule
from durably.actors.definition.binding import DELETION, STATE_EDIT, BoundActor, BoundActorHandler, MissingHandler
from durably.actors.large_state import DurableDict, DurableList
from durably.actors.middleware import Onion
from durably.actors.protocol.commands import AwaitSignal, Publish, Send
from durably.actors.protocol.entries import EntryChanges, FieldChanges
from durably.actors.protocol.popped import ListPops
from durably.actors.protocol.port import Port
from durably.actors.values.error_envelopes import terminal
from durably.ids import (
    AWAKEABLE_PREFIX,
    STATE_VERSION_FIELD,
    Address,
    AwakeableId,
    EntryKey,
    InvocationStatus,
    new_identity,
    next_seed,
)
from durably.runtime.activations import activations
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commands.cancel_commands import CancelCommands
from durably.runtime.commands.entry_commands import SharedRead
from durably.runtime.commands.event_commands import PublishCommands
from durably.runtime.commands.promise_commands import CompletePromiseCommands
from durably.runtime.commands.question_commands import IdentifyRunCommands
from durably.runtime.commands.run_commands import RunCommands
from durably.runtime.commands.signal_commands import CompleteAwakeableCommands, SendSignalCommands
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.commit.transition import Transition
from durably.runtime.commit.verification import Verification
from durably.runtime.dependencies.made_dependencies import MadeDependencies
from durably.runtime.execution.execution import DurableOperation, Execution
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.gateway import intake
from durably.runtime.gateway import requests as gateway_requests
from durably.runtime.gateway.admission import Admission
from durably.runtime.gateway.control import Control, Verb
from durably.runtime.gateway.deliveries import Deliveries
from durably.runtime.gateway.intake import Intake
from durably.runtime.gateway.pending_requests import AcceptanceOperation, IdentificationOperation, OutcomeOperation
from durably.runtime.inspection.inspection import Inspection
from durably.runtime.invocations import invocation as invocation_module
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.invocations.journal import journal_of as original_journal_of
from durably.runtime.lifecycle import deadlocks, restarts_as_new, retries, sources, subscriptions
from durably.runtime.lifecycle import endings as endings_module
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.continuations import Continuations
from durably.runtime.lifecycle.dead_letters import DeadLetters
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.ended_journals import EndedJournals
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.event_retention import EventRetention
from durably.runtime.lifecycle.in_flight import InFlight
from durably.runtime.lifecycle.kept_journals import KeptJournals
from durably.runtime.lifecycle.knots import Knot
from durably.runtime.lifecycle.object_deletion import ObjectDeletion, ObjectExpiry
from durably.runtime.lifecycle.pause_notices import PauseNotices
from durably.runtime.lifecycle.pause_search import PauseSearch
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.recovery import Recovery
from durably.runtime.lifecycle.restarts_as_new import RestartsAsNew
from durably.runtime.lifecycle.retention import Retention
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.lifecycle.schedules import Scheduled, ScheduleRow, Schedules
from durably.runtime.lifecycle.sources import RunningFeed, SourceRow, Sources
from durably.runtime.lifecycle.state_edits import StateEdit, StateEdits, decode_edit
from durably.runtime.lifecycle.state_migrations import StateMigrations
from durably.runtime.lifecycle.subscriptions import Subscribed, SubscriptionRow, Subscriptions, SubscriptionStatus
from durably.runtime.lifecycle.timer_dispatch import TimerDispatch
from durably.runtime.lifecycle.wait_graph import Wait, WaitGraph, WaitReason
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.limits.limit_pool import LimitPool
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.messaging.acceptance import Acceptance
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.events import Events
from durably.runtime.messaging.messages import Messages
from durably.runtime.messaging.orders import Orders
from durably.runtime.messaging.promises import Promises
from durably.runtime.messaging.refused_sends import RefusedSends
from durably.runtime.messaging.signals import Signals
from durably.runtime.messaging.targets import Targets
from durably.runtime.registry.entry_reads import EntryReads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.store_questions import Asked, StoreQuestions
from durably.runtime.registry.waiters import Waiters
from durably.runtime.steps import steps
from durably.runtime.steps.setting_up import SettingUp
from durably.runtime.steps.steps import Steps
from durably.sources import SourceRecord
from durably.storage.memory import MemoryStore, StoredRow
from durably.storage.payload_coding import PayloadCoding
from durably.storage.records import (
    LATEST_POSITION,
    NO_COMMAND,
    SCHEDULES,
    SUBSCRIPTIONS,
    Batch,
    CallerRecord,
    CompletionRecord,
    EventAnswer,
    EventRecord,
    OpenMessages,
    OrderRecord,
    SignalRecord,
    StoredInvocation,
    StoredObject,
    TimerKind,
    TimerRecord,
)
from durably.testing import Faults, Simulation, Workload
from durably.testing.simulation import process
from durably.testing.simulation.coded import FarSide
from durably.testing.simulation.disk import SimulatedStore
from workloads import WORKLOADS
from workloads.consumers import CARRIER


class Patch:
    """`monkeypatch`, for functions that take what those take that they replace.

    A mutant of a method that has changed since is no mutant: it would fail of its own.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    @classmethod
    @contextmanager
    def context(cls) -> Generator[Patch]:
        """Undone at the end."""
        with pytest.MonkeyPatch.context() as patch:
            yield cls(patch)

    def setattr(self, target: Any, name: str, replaced: Any, *, raising: bool = True) -> None:
        original = getattr(target, name, None)
        if isinstance(original, FunctionType):
            _check_takes_the_same(original, replaced)
        self._patch.setattr(target, name, replaced, raising=raising)


def _check_takes_the_same(original: FunctionType, replaced: Any) -> None:
    given = signature(original).parameters.values()
    by_name = {one.name: None for one in given if one.kind is one.KEYWORD_ONLY}
    by_place = [None for one in given if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    signature(replaced).bind(*by_place, **by_name)


EVERYTHING = tuple(WORKLOADS.values())
PAUSES = (WORKLOADS["pauses"],)


@dataclass(frozen=True)
class Mutant:
    """What is broken, where it is looked for, and which kinds of errors may tell."""

    breaks: Callable[[Patch], None]
    found_as: frozenset[str]
    where: Sequence[Workload] = EVERYTHING
    first_run: int = 0
    """Where a search begins that is in a hurry: the runs before it find nothing, and take long."""


MUTANTS: dict[str, Mutant] = {}


def mutant(
    *found_as: str, where: Sequence[Workload] = EVERYTHING, first_run: int = 0
) -> Callable[[Callable[[Patch], None]], None]:
    """Register a way to break the machine. `found_as` are kinds of errors as `kind_of` names them."""

    def register(breaks: Callable[[Patch], None]) -> None:
        MUTANTS[breaks.__name__] = Mutant(breaks, frozenset(found_as), where, first_run)

    return register


def around(patch: Patch, cls: type, name: str, wrap: Callable[..., Any]) -> None:
    """Replace a method by `wrap(original, self, *args)`."""
    original = getattr(cls, name)
    _check_takes_the_same(original, partial(wrap, original))

    @wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrap(original, self, *args, **kwargs)

    patch.setattr(cls, name, wrapped)


# ---------------------------------------------------------------------- gates


@mutant("guarantee 5", "guarantee 3")
def every_gate_is_open(patch: Patch) -> None:
    patch.setattr(Committer, "when_answerable", _at_once)


def _at_once(self: Committer, callback: Callable[[Any], object], argument: Any) -> None:
    callback(argument)


@mutant("guarantee 5")
def replies_leave_before_their_commit(patch: Patch) -> None:
    def answer_all(original: Any, self: Attachments, transition: Any, invocation: InvocationRun, outcome: Any) -> None:
        for waiter in self._waiters.take(invocation.number) or []:
            waiter.answer(outcome, None)
        original(self, transition, invocation, outcome)

    around(patch, Attachments, "answer_all", answer_all)


@mutant("guarantee 3")
def actions_start_before_their_command_is_durable(patch: Patch) -> None:
    def when_answerable(original: Any, self: Committer, callback: Any, argument: Any) -> None:
        if getattr(callback, "__func__", None) is RunCommands.start:
            callback(argument)
        else:
            original(self, callback, argument)

    around(patch, Committer, "when_answerable", when_answerable)


@mutant("guarantee 5", "guarantee 3")
def gates_open_although_the_commit_failed(patch: Patch) -> None:
    def fail(original: Any, self: Committer, error: BaseException) -> None:
        for _, callback, argument in list(self._gates):
            callback(argument)
        original(self, error)

    around(patch, Committer, "failed", fail)


LATER: list[asyncio.Task[None]] = []


@mutant("guarantee 5", "guarantee 3")
def the_store_acknowledges_before_it_is_durable(patch: Patch) -> None:
    async def commit(self: SimulatedStore, batch: Batch, /) -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            await self._apply(batch)

        LATER.append(asyncio.get_running_loop().create_task(later()))

    patch.setattr(SimulatedStore, "commit", commit)


# ---------------------------------------------------------------------- wake-ups


@mutant("guarantee 7")
def a_wake_up_is_lost(patch: Patch) -> None:
    def wake(original: Any, self: Attempts, transition: Any, invocation: InvocationRun) -> None:
        if invocation.journal is None or len(invocation.journal.steps) != 2:
            original(self, transition, invocation)

    around(patch, Attempts, "wake", wake)


@mutant("guarantee 7")
def timers_are_dropped_at_recovery(patch: Patch) -> None:
    async def timers(self: MemoryStore, *_: Any, **__: Any) -> list[TimerRecord]:
        return []

    patch.setattr(MemoryStore, "timers", timers)


@mutant("guarantee 7", "guarantee 12", "machine")
def completions_of_the_suspended_are_lost(patch: Patch) -> None:
    patch.setattr(Transition, "answer_stored", _nothing)


@mutant("guarantee 7")
def what_waits_in_the_store_is_not_woken(patch: Patch) -> None:
    patch.setattr(OpenBatch, "wake", _nothing)
    patch.setattr(Activations, "_take_arrived", _only_messages)


def _false(*_: Any) -> bool:
    return False


def _true(*_: Any) -> bool:
    return True


def _nothing(*_: Any, **__: Any) -> None:
    """Not done."""


def _only_messages(self: Activations, activation: Activation, arrivals: Any) -> None:
    for message in arrivals.messages:
        self._dispatch(activation, message)


@mutant("guarantee 7")
def the_next_in_the_mailbox_is_forgotten(patch: Patch) -> None:
    def start_next(original: Any, self: Activations, activation: Activation) -> None:
        if len(activation.mailbox) != 2:
            original(self, activation)

    around(patch, Activations, "start_next", start_next)


# ---------------------------------------------------------------------- exactly once, in order, alone


@mutant("guarantee 4", "guarantee 1", "guarantee 7")
def messages_are_delivered_twice(patch: Patch) -> None:
    def admit(original: Any, self: Activations, invocation: InvocationRun) -> None:
        original(self, invocation)
        activation = self.by_address[invocation.address]
        if invocation.is_exclusive and activation.load_buffer is None:
            activation.mailbox.append(invocation)

    around(patch, Activations, "admit", admit)


@mutant("guarantee 1", "guarantee 7")
def a_mailbox_lets_two_in(patch: Patch) -> None:
    def next_to_start(self: Activation) -> InvocationRun | None:
        if not self.mailbox or self.load_buffer is not None:
            return None
        self.current = self.mailbox.popleft()
        return self.current

    patch.setattr(Activation, "next_to_start", next_to_start)


@mutant("guarantee 1")
def recovery_runs_mailboxes_out_of_order(patch: Patch) -> None:
    def loaded(original: Any, self: Activations, activation: Activation, stored: StoredObject) -> None:
        original(self, activation, msgspec.structs.replace(stored, pending=stored.pending[::-1]))

    around(patch, Activations, "_loaded", loaded)


SLOW_COUNTERS = replace(WORKLOADS["counters"], faults=Faults.slow(rate=0.3) | Faults.clock_jumps(rate=0.1))


@mutant("guarantee 4", "guarantee 7", where=(SLOW_COUNTERS,))
def a_delayed_message_that_rings_twice_comes_twice(patch: Patch) -> None:
    def brought(original: Any, self: TimerDispatch, stored: Any, attached: Any, is_still_there: bool) -> Any:
        return original(self, stored, attached, True)

    around(patch, TimerDispatch, "_start_brought", brought)


@mutant("guarantee 4", "guarantee 1", "guarantee 7", "machine")
def objects_are_loaded_before_the_log_is_durable(patch: Patch) -> None:
    def init(original: Any, self: Activations, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._load._gate = None

    around(patch, Activations, "__init__", init)


# ---------------------------------------------------------------------- what is kept


@mutant("invariant", "check", where=(WORKLOADS["bank"],))
def outcomes_of_keyed_calls_are_not_kept(patch: Patch) -> None:
    patch.setattr(Endings, "keep_until", _nothing)


@mutant("invariant", "check", "stuck", "guarantee 4")
def idempotency_keys_are_not_looked_up(patch: Patch) -> None:
    def accept(original: Any, self: OpenBatch, invocation: InvocationRun) -> None:
        invocation.scope = None
        original(self, invocation)

    around(patch, OpenBatch, "accept", accept)

    def by_key(self: InvocationRegistry, scope: Any, then: Any) -> None:
        self._tell(then, None)

    patch.setattr(InvocationRegistry, "by_key", by_key)


@mutant("guarantee 4", "guarantee 7", "guarantee 2", "invariant", "check", "paused")
def batches_are_cut_within_transitions(patch: Patch) -> None:
    def step(original: Any, self: OpenBatch, *args: Any) -> None:
        original(self, *args)
        self.transitions += 1_000_000

    def next_position(original: Any, self: Transition) -> int:
        log = self._log
        assert isinstance(log, Committer)
        if log.batch.transitions > 1_000_000 and not log.writing:
            log._write()
            self._batch = log.batch
        position: int = original(self)
        return position

    around(patch, OpenBatch, "step", step)
    around(patch, Transition, "next_position", next_position)


@mutant("paused", "check", "invariant")
def state_is_written_before_the_outcome(patch: Patch) -> None:
    def append(original: Any, self: Transition, invocation: InvocationRun, index: int, step: Any, *rest: Any) -> None:
        original(self, invocation, index, step, *rest)
        if step.changes and invocation.is_exclusive:
            for name, value in step.changes.items():
                self._batch.set_state(invocation.address, name, value)

    around(patch, Transition, "step", append)


@mutant("invariant", "check")
def outcomes_are_written_without_the_state(patch: Patch) -> None:
    def set_state(original: Any, self: OpenBatch, address: Any, name: str, value: bytes | None) -> None:
        if self.transitions % 3:
            original(self, address, name, value)

    around(patch, OpenBatch, "set_state", set_state)


@mutant("guarantee 7", "guarantee 3", "machine", where=(WORKLOADS["counters"],))
def completions_of_actions_are_forgotten_at_recovery(patch: Patch) -> None:
    async def load(original: Any, self: MemoryStore, *args: Any, **kwargs: Any) -> list[StoredObject]:
        found: list[StoredObject] = await original(self, *args, **kwargs)
        return [msgspec.structs.replace(one, started=[*map(_without_last_answer, one.started)]) for one in found]

    around(patch, MemoryStore, "load", load)


def _without_last_answer(stored: StoredInvocation) -> StoredInvocation:
    if stored.record.status is InvocationStatus.RUNNING:
        return msgspec.structs.replace(stored, completions=stored.completions[:-1])
    return stored


@mutant("guarantee 8", "stuck", "guarantee 4")
def the_store_lets_two_in(patch: Patch) -> None:
    def open(original: Any, self: MemoryStore, *args: Any) -> Any:
        self.disk.holder = None
        return original(self, *args)

    around(patch, MemoryStore, "open", open)


# ---------------------------------------------------------------------- owners that were superseded


@mutant("guarantee 9", first_run=45)
def no_batch_checks_the_epoch(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_refuse_if_superseded", _nothing)


@mutant("guarantee 9", first_run=55)
def what_follows_from_no_commit_is_not_verified(patch: Patch) -> None:
    def holds(*_: object) -> bool:
        return True

    patch.setattr(Verification, "holds", holds)


@mutant("guarantee 9", where=(WORKLOADS["pauses"],), first_run=90)
def a_check_counts_for_what_was_asked_after_it(patch: Patch) -> None:
    """The store is believed to be ours for a second after it said so."""
    confirmed: dict[Verification, int] = {}

    def holds(original: Any, self: Verification, then: Callable[[], None]) -> bool:
        now = self._clock.monotonic()
        if now - confirmed.get(self, -1_000_001) < 1_000_000:
            return True

        def confirm() -> None:
            confirmed[self] = now
            then()

        is_ours: bool = original(self, confirm)
        return is_ours

    around(patch, Verification, "holds", holds)


@mutant("guarantee 9", "check", first_run=145)
def an_owner_that_opens_again_takes_the_store_back(patch: Patch) -> None:
    """From its successor, which then fails, opens again, and takes it back as well."""

    def open(original: Any, self: MemoryStore, *args: Any) -> Any:
        if self._owner is not None:
            self.disk.holder, self._epoch = None, self.disk.epoch
        return original(self, *args)

    around(patch, MemoryStore, "open", open)


# ---------------------------------------------------------------------- order, limits, and times to wait


@mutant("guarantee 20", "check", where=(WORKLOADS["promises"], WORKLOADS["bank"], WORKLOADS["trees"]))
def sends_of_one_step_leave_in_reverse(patch: Patch) -> None:
    def backwards(commands: Sequence[Any], first: int = 0) -> list[tuple[int, Any]]:
        pairs = list(enumerate(commands, first))
        sends = [pair for pair in pairs if isinstance(pair[1], Send)]
        return [sends.pop() if isinstance(command, Send) else (number, command) for number, command in pairs]

    for module in (steps, endings_module):
        patch.setattr(module, "enumerate", backwards, raising=False)


@mutant("guarantee 20", where=(WORKLOADS["counters"],))
def limits_of_mailboxes_are_not_looked_at(patch: Patch) -> None:
    patch.setattr(Admission, "_check_mailbox", _nothing)


@mutant("guarantee 20", where=(WORKLOADS["counters"],), first_run=105)
def a_mailbox_takes_one_message_too_many(patch: Patch) -> None:
    def check(original: Any, self: Admission, activation: Activation | None) -> None:
        if activation is not None and activation.waiting() > self._settings.mailbox_messages:
            original(self, activation)

    around(patch, Admission, "_check_mailbox", check)


@mutant("guarantee 19", where=PAUSES)
def what_has_failed_is_tried_again_at_once(patch: Patch) -> None:
    def no_delay(*_: object) -> int:
        return 0

    patch.setattr(retries, "retry_delay", no_delay)


@mutant("guarantee 12")
def timers_of_what_has_ended_stay(patch: Patch) -> None:
    def clear(original: Any, self: StoredRow, *args: Any) -> None:
        timers = getattr(self, "timers", {})
        original(self, *args)
        self.timers = timers

    around(patch, StoredRow, "clear", clear)
    around(patch, StoredRow, "keep_journal", clear)


# ---------------------------------------------------------------------- what an operator resumes


def _resuming(patch: Patch, change: Callable[[InvocationRun], object]) -> None:
    """A resume does something else besides."""

    def resume(original: Any, self: Pauses, invocation: InvocationRun) -> bool:
        is_resumed: bool = original(self, invocation)
        if is_resumed:
            change(invocation)
        return is_resumed

    around(patch, Pauses, "resume", resume)


@mutant("guarantee 7", "stuck", where=PAUSES)
def a_resume_loses_callers(patch: Patch) -> None:
    def change(invocation: InvocationRun) -> None:
        invocation.caller, invocation.attachments = None, ()

    _resuming(patch, change)


@mutant("machine", "guarantee 3", "guarantee 4", "guarantee 6", "check", where=PAUSES)
def a_resume_runs_steps_twice(patch: Patch) -> None:
    def change(invocation: InvocationRun) -> None:
        invocation.journal = None

    _resuming(patch, change)


@mutant("guarantee 7", "stuck", where=PAUSES)
def a_resume_forgets_the_mailbox_behind(patch: Patch) -> None:
    def change(invocation: InvocationRun) -> None:
        invocation.activation.mailbox.clear()

    _resuming(patch, change)


@mutant("guarantee 7", "guarantee 1", where=PAUSES)
def a_pause_lets_the_next_in_the_mailbox_begin(patch: Patch) -> None:
    def pause(original: Any, self: Pauses, invocation: InvocationRun, error: BaseException) -> None:
        original(self, invocation, error)
        if invocation.activation.current is invocation:
            invocation.activation.current = None
            for following in list(invocation.activation.mailbox)[:1]:
                invocation.activation.mailbox.popleft()
                invocation.activation.current = following
                self._ready.push(following)

    around(patch, Pauses, "pause", pause)


@mutant("guarantee 5", where=PAUSES)
def a_resume_is_told_before_it_is_durable(patch: Patch) -> None:
    def act(self: Control, operation: Any, verb: Verb, id: str) -> None:
        def reached(found: Found) -> None:
            if found is None or found.status is InvocationStatus.COMPLETED:
                self._queries.refuse_unknown(operation, id)
            else:
                operation.finish(self._does[verb](self._unfinished(found)))
            self._ready.schedule()

        self._reach_or_refuse(operation, id, reached)

    patch.setattr(Control, "act", act)


@mutant("guarantee 10", where=PAUSES)
def a_restart_resumes_what_is_paused(patch: Patch) -> None:
    def change(stored: StoredInvocation) -> StoredInvocation:
        if stored.record.status is not InvocationStatus.PAUSED:
            return stored
        record = msgspec.structs.replace(stored.record, status=InvocationStatus.RUNNING)
        return msgspec.structs.replace(stored, record=record)

    _reloaded(patch, change)


# ---------------------------------------------------------------------- what takes a crash, a wait or a long time

PROMISES = (WORKLOADS["promises"],)


def _reloaded(patch: Patch, change: Callable[[StoredInvocation], StoredInvocation]) -> None:
    """What is read back of unfinished invocations is not what was written."""

    async def load(original: Any, self: MemoryStore, *args: Any, **kwargs: Any) -> list[StoredObject]:
        found: list[StoredObject] = await original(self, *args, **kwargs)
        return [
            msgspec.structs.replace(
                one,
                started=[*map(change, one.started)],
                pending=[*map(change, one.pending)],
            )
            for one in found
        ]

    around(patch, MemoryStore, "load", load)


@mutant("check", where=PROMISES)
def headers_are_lost_at_recovery(patch: Patch) -> None:
    def change(stored: StoredInvocation) -> StoredInvocation:
        return msgspec.structs.replace(stored, record=msgspec.structs.replace(stored.record, headers={}))

    _reloaded(patch, change)


@mutant("check", "guarantee 7", where=PROMISES)
def failed_attempts_are_counted_anew_at_recovery(patch: Patch) -> None:
    def change(stored: StoredInvocation) -> StoredInvocation:
        return msgspec.structs.replace(stored, record=msgspec.structs.replace(stored.record, attempts=0))

    _reloaded(patch, change)


@mutant("check", where=PROMISES)
def shared_handlers_see_only_what_is_durable(patch: Patch) -> None:
    def view(self: Activation) -> Any:
        return self.snapshot

    patch.setattr(Activation, "view", view)


@mutant("check", "paused", where=PROMISES)
def outcomes_of_messages_are_not_kept_for_their_sender(patch: Patch) -> None:
    def may_ask(*_: object) -> bool:
        return False

    patch.setattr(InvocationRegistry, "may_ask", may_ask)


@mutant("check", "guarantee 4", where=PROMISES)
def the_last_message_of_a_long_step_is_lost(patch: Patch) -> None:
    def issue_last(original: Any, self: Endings, transition: Any, invocation: Any, last: Any, *rest: Any) -> None:
        shorter = msgspec.structs.replace(last, commands=last.commands[:-1]) if len(last.commands) >= 3 else last
        original(self, transition, invocation, shorter, *rest)

    around(patch, Endings, "_issue_last", issue_last)


@mutant("check", "guarantee 1", "guarantee 2", "guarantee 4", "guarantee 7", "machine", "stuck", where=PROMISES)
def expiry_removes_what_has_not_ended(patch: Patch) -> None:
    async def expired(original: Any, self: MemoryStore, now: int, limit: int) -> Any:
        found = await original(self, now, limit)
        old = [row.record for row in self.disk.rows.values() if row.record.accepted_at + 86_400_000_000 <= now]
        unfinished = [record for record in old if record.scope is not None and record.outcome is None]
        return (found + unfinished)[:limit]

    around(patch, MemoryStore, "expired", expired)


# ---------------------------------------------------------------------- what is sent to those who wait

APPROVALS = (WORKLOADS["approvals"],)


@mutant("guarantee 5", "guarantee 7", "check", "stuck", where=APPROVALS)
def signals_are_lost_at_recovery(patch: Patch) -> None:
    _reloaded(patch, lambda stored: msgspec.structs.replace(stored, signals=[]))


@mutant("guarantee 7", where=APPROVALS)
def whoever_has_a_signal_in_the_store_is_not_woken(patch: Patch) -> None:
    patch.setattr(Transition, "wake", _nothing)
    patch.setattr(Activations, "_signal", _nothing)


@mutant("check", "guarantee 7", where=APPROVALS)
def a_signal_that_was_taken_stays_in_the_store(patch: Patch) -> None:
    def take_signal(self: OpenBatch, signal: SignalRecord) -> None:
        self._signals.get(signal.number, {}).pop(signal.position, None)

    patch.setattr(OpenBatch, "take_signal", take_signal)


@mutant("check", "stuck", where=APPROVALS)
def a_signal_of_a_wait_that_ended_in_vain_is_lost(patch: Patch) -> None:
    def give_back(self: Signals, transition: Transition, invocation: InvocationRun, number: int) -> None:
        assert invocation.journal is not None
        invocation.journal.unseen_signal(number)

    patch.setattr(Signals, "give_back", give_back)


@mutant("check", where=APPROVALS)
def signals_go_to_the_newest_wait(patch: Patch) -> None:
    def waiting(self: Signals, invocation: InvocationRun, name: str) -> int | None:
        pending = {} if invocation.journal is None else invocation.journal.pending
        found = [number for number, command in pending.items() if isinstance(command, AwaitSignal)]
        named = [number for number in found if getattr(pending[number], "name", "") == name]
        return named[-1] if named else None

    patch.setattr(Signals, "_waiting", waiting)


@mutant("check", where=APPROVALS)
def signals_that_wait_change_places(patch: Patch) -> None:
    def keep(original: Any, self: Signals, transition: Transition, target: InvocationRun, *rest: Any) -> None:
        original(self, transition, target, *rest)
        target.signals = target.signals[-1:] + target.signals[:-1]

    around(patch, Signals, "_keep", keep)


@mutant("check", "guarantee 5", where=APPROVALS)
def whoever_guesses_an_awakeable_completes_it(patch: Patch) -> None:
    def is_of(*_: object) -> bool:
        return True

    patch.setattr(AwakeableId, "is_of", is_of)


@mutant("check", where=APPROVALS)
def atomic_handlers_complete_awakeables_before_their_outcome(patch: Patch) -> None:
    patch.setattr(CompleteAwakeableCommands, "issue", CompleteAwakeableCommands.issue_unawaited)


@mutant("guarantee 5", "guarantee 7", "check", "stuck", where=APPROVALS)
def what_comes_for_an_awakeable_while_its_object_loads_is_lost(patch: Patch) -> None:
    def store(original: Any, self: Signals, transition: Transition, target: Any, name: str, outcome: Any) -> None:
        if not name.startswith(AWAKEABLE_PREFIX):
            original(self, transition, target, name, outcome)

    around(patch, Signals, "_store", store)


@mutant("guarantee 5", where=APPROVALS)
def completions_are_acknowledged_before_they_are_durable(patch: Patch) -> None:
    def completed(original: Any, self: Deliveries, operation: Any, *rest: Any) -> None:
        original(self, operation, *rest)
        operation.finish(None)

    around(patch, Deliveries, "_completed", completed)


@mutant("guarantee 5", where=APPROVALS)
def signals_are_acknowledged_before_they_are_durable(patch: Patch) -> None:
    def signalled(original: Any, self: Deliveries, operation: Any, *rest: Any) -> None:
        original(self, operation, *rest)
        operation.finish(None)

    around(patch, Deliveries, "_signalled", signalled)


# ---------------------------------------------------------------------- deadlocks

CIRCLES = (WORKLOADS["circles"],)


@mutant("guarantee 13", "stuck", where=CIRCLES)
def deadlocks_are_never_looked_for(patch: Patch) -> None:
    patch.setattr(Deadlocks, "_look", _nothing)


@mutant("guarantee 13", where=CIRCLES)
def only_circles_of_one_object_are_seen(patch: Patch) -> None:
    def undo(original: Any, self: Deadlocks, knot: Knot, hunt: Any) -> None:
        if len({member.address for member in knot.members.values()}) == 1:
            original(self, knot, hunt)
        elif hunt is not None:
            self._end_hunt(hunt)

    around(patch, Deadlocks, "_undo", undo)


@mutant("guarantee 13", where=CIRCLES)
def only_what_is_queued_can_close_a_circle(patch: Patch) -> None:
    patch.setattr(Deadlocks, "attached", _nothing)


@mutant("guarantee 13", where=CIRCLES)
def a_step_without_new_calls_closes_no_circle(patch: Patch) -> None:
    def step_ended(original: Any, self: Deadlocks, invocation: InvocationRun, first: int) -> None:
        original(self, invocation, 0)

    around(patch, Deadlocks, "step_ended", step_ended)


@mutant("guarantee 13", where=CIRCLES)
def circles_through_the_store_are_not_followed(patch: Patch) -> None:
    def hunt_next(self: Deadlocks) -> None:
        self._undecided.clear()

    patch.setattr(Deadlocks, "_hunt_next", hunt_next)


@mutant("guarantee 13", "stuck", where=CIRCLES)
def circles_that_a_crash_left_are_not_looked_for(patch: Patch) -> None:
    async def look_for_deadlocks(self: Recovery) -> None:
        """Not done."""

    patch.setattr(Recovery, "_look_for_deadlocks", look_for_deadlocks)


@mutant("guarantee 13", where=CIRCLES)
def the_oldest_call_of_a_deadlock_is_answered(patch: Patch) -> None:
    def newest_call(self: Knot) -> Any:
        calls = [(wait.target.number, waiter, wait) for waiter, wait in self._edges() if wait.target is not None]
        return min(calls, key=lambda one: one[0])[1:]

    patch.setattr(Knot, "newest_call", newest_call)


@mutant("guarantee 13", "check", where=CIRCLES)
def the_message_of_a_deadlock_stays_in_its_mailbox(patch: Patch) -> None:
    def others_wait(*_: object) -> bool:
        return True

    patch.setattr(deadlocks, "_others_wait", others_wait)


@mutant("check", where=CIRCLES)
def a_message_that_was_sent_goes_with_a_deadlock(patch: Patch) -> None:
    def is_own_message(*_: object) -> bool:
        return True

    patch.setattr(deadlocks, "is_own_message", is_own_message)


@mutant("guarantee 13", where=CIRCLES)
def a_deadlock_is_told_although_a_timer_is_set(patch: Patch) -> None:
    def waits_of(original: Any, self: WaitGraph, *args: Any) -> Any:
        waits = [*original(self, *args)]
        return iter([wait for wait in waits if wait.reason is not WaitReason.TIMER] or waits)

    around(patch, WaitGraph, "waits_of", waits_of)


@mutant("guarantee 13", where=CIRCLES)
def a_deadlock_is_told_although_one_of_it_is_to_be_woken(patch: Patch) -> None:
    def answers_of(original: Any, self: WaitGraph, waiter: InvocationRun, brought: Any) -> Any:
        journal = waiter.journal
        if journal is None or not journal.pending:
            return original(self, waiter, brought)
        return iter([self._answer_of(waiter, *one, brought) for one in reversed(journal.pending.items())])

    around(patch, WaitGraph, "_answers_of", answers_of)


# ---------------------------------------------------------------------- workflows

WORKFLOWS = (WORKLOADS["workflows"],)


@mutant("check", "guarantee 4", "guarantee 14", "stuck", where=WORKFLOWS)
def a_workflow_is_started_again_and_again(patch: Patch) -> None:
    def scope(original: Any, self: Targets, handler: Any, key: Any, idempotency_key: Any) -> Any:
        return None if handler.kind == "workflow" else original(self, handler, key, idempotency_key)

    around(patch, Targets, "scope", scope)


@mutant("check", where=WORKFLOWS)
def a_second_caller_of_a_workflow_is_not_refused(patch: Patch) -> None:
    def refuse(self: Any, id: str, error: BaseException) -> None:
        self.finish(Outcome(False, b'"started"'))

    patch.setattr(OutcomeOperation, "refuse_second_start", refuse)
    patch.setattr(Messages, "_refuse_second_start", _answered_all_the_same)


def _answered_all_the_same(self: Messages, transition: Any, first: Any, caller: Any) -> None:
    if caller is not None:
        self._attachments.attach(transition, caller, first)


@mutant("check", where=WORKFLOWS)
def a_second_send_is_said_to_be_the_first(patch: Patch) -> None:
    def joins(self: AcceptanceOperation[Any], id: str) -> None:
        self.id = id

    patch.setattr(AcceptanceOperation, "joins", joins)
    original = gateway_requests.Acceptance

    def acceptance(*, id: str, previously_accepted: bool, due: int | None) -> Any:
        return original(id=id, previously_accepted=False, due=due)

    patch.setattr(intake, "Accepted", acceptance)


@mutant("guarantee 14", "check", where=WORKFLOWS)
def promises_can_be_completed_again(patch: Patch) -> None:
    patch.setattr(Promises, "refusal", _nothing)


@mutant("guarantee 7", "stuck", where=WORKFLOWS)
def who_waits_for_a_promise_is_not_told(patch: Patch) -> None:
    patch.setattr(Promises, "_answer", _nothing)


@mutant("guarantee 14", "guarantee 7", "check", "paused", where=WORKFLOWS)
def completed_promises_are_lost_at_recovery(patch: Patch) -> None:
    async def load(original: Any, self: MemoryStore, *args: Any, **kwargs: Any) -> list[StoredObject]:
        found: list[StoredObject] = await original(self, *args, **kwargs)
        return [msgspec.structs.replace(one, promises=[]) for one in found]

    around(patch, MemoryStore, "load", load)


@mutant("stuck", "guarantee 14", "check", "paused", where=WORKFLOWS)
def a_workflow_leaves_its_state_behind(patch: Patch) -> None:
    patch.setattr(Transition, "vacate", _nothing)


@mutant("guarantee 14", "check", "machine", "paused", where=WORKFLOWS)
def a_workflow_goes_while_a_handler_of_it_is_in_flight(patch: Patch) -> None:
    def let_go(original: Any, self: WorkflowRetention, activation: Activation) -> None:
        patch.setattr(Activation, "is_at_rest", _always)
        original(self, activation)
        patch.setattr(Activation, "is_at_rest", AT_REST)

    around(patch, WorkflowRetention, "_let_go_if_at_rest", let_go)


AT_REST = Activation.is_at_rest


def _always(_: object) -> bool:
    return True


@mutant("stuck", "check", where=WORKFLOWS)
def who_waits_when_a_retention_ends_waits_on(patch: Patch) -> None:
    patch.setattr(Promises, "give_up", _nothing)


@mutant("guarantee 15", "check", where=WORKFLOWS)
def outcomes_are_kept_for_ever(patch: Patch) -> None:
    patch.setattr(Retention, "_expire_again", _nothing)


@mutant("check", "machine", "guarantee 7", "guarantee 3", "paused", "stuck", where=WORKFLOWS)
def an_execution_that_goes_on_keeps_its_number(patch: Patch) -> None:
    def renew(original: Any, self: Transition, invocation: InvocationRun, seed: bytes, argument: bytes) -> None:
        invocation.seed, invocation.argument = seed, argument
        self.move(invocation, InvocationStatus.RUNNING)

    around(patch, Transition, "renew", renew)


@mutant("check", "guarantee 4", "machine", where=WORKFLOWS)
def an_execution_that_goes_on_keeps_its_seed(patch: Patch) -> None:
    def renew(original: Any, self: Transition, invocation: InvocationRun, seed: bytes, argument: bytes) -> None:
        original(self, invocation, invocation.seed, argument)

    around(patch, Transition, "renew", renew)


@mutant("check", "guarantee 7", "guarantee 2", "stuck", where=WORKFLOWS)
def who_waits_for_an_execution_that_goes_on_is_forgotten(patch: Patch) -> None:
    def renew(original: Any, self: OpenBatch, invocation: InvocationRun, previous: int) -> None:
        original(self, invocation, previous)
        self._attachments.pop(invocation.number, None)

    around(patch, OpenBatch, "renew", renew)
    patch.setattr(Waiters, "move", _nothing)


@mutant("check", "stuck", where=WORKFLOWS)
def the_state_of_an_execution_that_goes_on_is_lost(patch: Patch) -> None:
    def take_last_step(
        original: Any, self: Endings, transition: Any, invocation: InvocationRun, last: Any, found: Any, *, drops: bool
    ) -> Any:
        if last.continues_with is not None:
            last = msgspec.structs.replace(last, changes=None)
            if invocation.journal is not None:
                invocation.journal.changes = {}
        return original(self, transition, invocation, last, found, drops=drops)

    around(patch, Endings, "take_last_step", take_last_step)


# ---------------------------------------------------------------------- actors that are wrong


class Stock(VirtualObject, name="BrokenStock"):
    """How much there is; whoever uses it may read and write as they please."""

    left: int = state(default=10)

    @shared
    async def get(self, ctx: SharedContext) -> int:
        return self.left

    @handler
    async def set(self, ctx: ObjectContext, left: int) -> None:
        self.left = left


class Shop(Service, name="BrokenShop"):
    """Reads, thinks, and writes: two customers at once buy the same piece."""

    @handler
    async def buy(self, ctx: Context) -> None:
        left = await ctx.object(Stock, "x").get()
        await ctx.run("think", think)
        await ctx.object(Stock, "x").set(left - 1)


async def think() -> None:
    await asyncio.sleep(0.001)


async def shopping(sim: Simulation) -> None:
    async with asyncio.TaskGroup() as group:
        for name in ("ann", "bob"):
            group.create_task(buy_twice(sim, name))
    left = await sim.object(Stock, "x").get()
    assert left == 6, f"{left} are left of 10, and 4 were sold"


async def buy_twice(sim: Simulation, name: str) -> None:
    for _ in range(2):
        await sim.client(name).service(Shop).buy()


@mutant("guarantee 4")
def delayed_messages_come_at_once(patch: Patch) -> None:
    def schedule(
        original: Any, self: Acceptance, transition: Any, invocation: InvocationRun, due: int, *rest: int
    ) -> None:
        original(self, transition, invocation, due, *rest)
        timer = TimerRecord(invocation.number, TimerKind.START, NO_COMMAND, due, invocation.address)
        self._timers.on_due(timer)

    around(patch, Acceptance, "_schedule", schedule)


@mutant("guarantee 2")
def somebody_is_told_something_else(patch: Patch) -> None:
    def answer(original: Any, self: Any, outcome: Outcome, *rest: Any) -> None:
        original(self, Outcome(outcome.failed, outcome.value[::-1]), *rest)

    around(patch, process._Call, "answer", answer)


@mutant("check", where=(Workload(program=shopping, actors=(Stock, Shop)),))
def an_actor_reads_thinks_and_writes(patch: Patch) -> None:
    """The runtime is sound."""


SETTINGS: dict[str, int] = {"count": 0}


class Careless(VirtualObject, name="BrokenCareless"):
    """Decides by what replay does not know."""

    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        SETTINGS["count"] += 1
        if SETTINGS["count"] % 2:
            await ctx.sleep(1)
        await ctx.run("think", think)
        self.total += 1
        return self.total


async def adding(sim: Simulation) -> None:
    for _ in range(3):
        await sim.object(Careless, "x").add()


@mutant("paused", where=(Workload(program=adding, actors=(Careless,)),))
def an_actor_looks_at_a_global(patch: Patch) -> None:
    """The runtime is sound."""


# ---------------------------------------------------------------------- ids of calls

IDENTITIES = (WORKLOADS["identities"],)


@mutant("check", where=IDENTITIES)
def a_call_that_joined_another_is_told_to_be_one_of_its_own(patch: Patch) -> None:
    def answer(original: Any, self: Attachments, caller: CallerRecord, derived_id: str, found: Found) -> None:
        own = None if found is None else msgspec.structs.replace(found, id=derived_id)
        original(self, caller, derived_id, own)

    around(patch, Attachments, "_answer_identity", answer)


@mutant("guarantee 5", where=IDENTITIES)
def a_client_is_told_the_id_of_a_call_before_it_is_durable(patch: Patch) -> None:
    def tell(self: Intake, operation: IdentificationOperation[Any]) -> None:
        operation.id = operation.call.id
        operation.identified(operation.call)

    patch.setattr(Intake, "_tell_identity", tell)


# ---------------------------------------------------------------------- executions


@mutant("check", where=PAUSES)
def a_restart_keeps_what_the_steps_before_it_changed(patch: Patch) -> None:
    def restart(original: Any, self: Continuations, invocation: InvocationRun, from_step: int = 0) -> None:
        if invocation.journal is not None:
            self._committer.begin().change_state(invocation.activation, invocation.journal.changes)
        original(self, invocation, from_step)

    around(patch, Continuations, "restart", restart)


@mutant("guarantee 7", "machine", "stuck", "check", "paused", "invariant", where=PAUSES)
def a_restart_from_a_later_step_does_not_store_the_steps_before(patch: Patch) -> None:
    def keep(self: Continuations, transition: Transition, invocation: InvocationRun, kept: Journal) -> None:
        invocation.journal = kept

    patch.setattr(Continuations, "keep", keep)


@mutant("guarantee 5", "guarantee 7", "machine", "stuck", "check", "paused", where=PAUSES)
def a_restart_is_forgotten_in_a_crash(patch: Patch) -> None:
    patch.setattr(OpenBatch, "renew", _nothing)


def _never(seed: bytes) -> int:
    return 0


@mutant("check", where=(WORKLOADS["workflows"],))
def time_begins_anew_with_each_execution(patch: Patch) -> None:
    patch.setattr(steps, "earliest_time", _never)


# ---------------------------------------------------------------------- cancels, kills, deadlines

CANCELS = (WORKLOADS["cancels"],)


@mutant("guarantee 11", where=CANCELS)
def cancels_do_not_reach_callees(patch: Patch) -> None:
    patch.setattr(Steps, "_cancel_below", _nothing)


@mutant("guarantee 11", where=CANCELS)
def kills_do_not_reach_callees(patch: Patch) -> None:
    def kill(original: Any, self: Cancellation, transition: Any, invocation: InvocationRun) -> None:
        with Patch.context() as inner:
            inner.setattr(Orders, "give", _nothing)
            original(self, transition, invocation)

    around(patch, Cancellation, "kill", kill)


@mutant("guarantee 11", where=CANCELS)
def orders_are_forgotten_at_recovery(patch: Patch) -> None:
    async def orders(self: MemoryStore, *_: Any) -> list[OrderRecord]:
        return []

    patch.setattr(MemoryStore, "orders", orders)


@mutant("guarantee 11", "guarantee 7", "guarantee 2", "check", where=CANCELS)
def orders_are_not_recorded(patch: Patch) -> None:
    patch.setattr(OpenBatch, "order", _nothing)


@mutant("guarantee 12", "guarantee 7", where=CANCELS)
def deadlines_do_nothing(patch: Patch) -> None:
    patch.setattr(Deadlines, "_reached", _nothing)


@mutant("guarantee 2", "guarantee 5", "guarantee 12", "check", where=CANCELS)
def deadlines_are_not_final(patch: Patch) -> None:
    def fix(self: Transition, invocation: InvocationRun, outcome: Outcome, *, expires_at: int | None) -> None:
        self._batch.clear_timer(invocation.number, TimerKind.DEADLINE)

    patch.setattr(Transition, "fix", fix)


@mutant("guarantee 7", "guarantee 11", "stuck", "check", where=CANCELS)
def what_is_resumed_does_not_go_on(patch: Patch) -> None:
    def resume(self: Pauses, invocation: InvocationRun) -> bool:
        if invocation.status is InvocationStatus.PAUSED:
            self._committer.begin().move(invocation, InvocationStatus.RUNNING)
        return True

    patch.setattr(Pauses, "resume", resume)


@mutant("guarantee 7", "guarantee 1", "machine", "stuck", "check", where=CANCELS)
def what_is_killed_keeps_its_object(patch: Patch) -> None:
    def kill(original: Any, self: Cancellation, transition: Any, invocation: InvocationRun) -> None:
        activation, is_current = invocation.activation, invocation.activation.current is invocation
        original(self, transition, invocation)
        if is_current and activation.current is None:
            activation.current = invocation

    around(patch, Cancellation, "kill", kill)


@mutant("guarantee 12", "guarantee 7", "stuck", where=CANCELS)
def callers_are_not_told_of_what_is_cancelled(patch: Patch) -> None:
    def answer_all(
        original: Any, self: Attachments, transition: Any, invocation: InvocationRun, outcome: Outcome
    ) -> None:
        if b"CancelledInvocationError" in outcome.value:
            invocation.caller = None
        original(self, transition, invocation, outcome)

    around(patch, Attachments, "answer_all", answer_all)


@mutant("guarantee 5", "guarantee 11", "guarantee 7", "guarantee 12", "check", "machine", where=CANCELS)
def a_cancel_is_lost_in_a_crash(patch: Patch) -> None:
    def complete(original: Any, self: OpenBatch, completion: CompletionRecord) -> None:
        if completion.command >= 0:
            original(self, completion)

    around(patch, OpenBatch, "complete", complete)


@mutant("check", "stuck", "guarantee 7", "guarantee 10", where=CANCELS)
def a_handler_that_fails_when_told_is_tried_again(patch: Patch) -> None:
    patch.setattr(Journal, "takes_cancel", property(lambda _: False))


@mutant("check", where=CANCELS)
def what_handlers_cancel_goes_on(patch: Patch) -> None:
    patch.setattr(CancelCommands, "issue", _nothing)
    patch.setattr(CancelCommands, "issue_unawaited", _nothing)


@mutant("check", where=CANCELS)
def what_a_last_step_cancels_goes_on(patch: Patch) -> None:
    patch.setattr(CancelCommands, "issue_unawaited", _nothing)


@mutant("check", where=CANCELS)
def atomic_handlers_cancel_before_their_outcome(patch: Patch) -> None:
    patch.setattr(CancelCommands, "issue", CancelCommands.issue_unawaited)


@mutant("check", where=CANCELS)
def an_order_to_all_of_an_object_goes_to_one(patch: Patch) -> None:
    def records(original: Any, self: Inspection, *args: Any) -> Any:
        async def first() -> Any:
            async for record in original(self, *args):
                yield record
                return

        return first()

    around(patch, Inspection, "records", records)


@mutant("guarantee 5", where=CANCELS)
def a_purge_forgets_nothing(patch: Patch) -> None:
    patch.setattr(InvocationRegistry, "forget_outcome", _nothing)


@mutant("guarantee 5", "guarantee 2", where=CANCELS)
def what_is_begun_again_is_not_accepted(patch: Patch) -> None:
    def begin(
        original: Any, self: RestartsAsNew, found: Any, from_step: int, check_room: Any, then: Callable[[Any], None]
    ) -> None:
        if not from_step:
            then(new_identity(self._entropy, *found.address)[0])
        else:
            original(self, found, from_step, check_room, then)

    around(patch, RestartsAsNew, "begin", begin)


@mutant("guarantee 4", "check", where=CANCELS)
def what_is_begun_again_has_another_argument(patch: Patch) -> None:
    def restart(original: Any, self: RestartsAsNew, *args: Any) -> Any:
        def accept(accept: Any, acceptance: Acceptance, transition: Any, message: Any) -> Any:
            return accept(acceptance, transition, msgspec.structs.replace(message, argument=b'{"what":"twice"}'))

        with Patch.context() as inner:
            around(inner, Acceptance, "accept", accept)
            return original(self, *args)

    around(patch, RestartsAsNew, "_accept", restart)


# ---------------------------------------------------------------------- what is kept for a while

RETENTIONS = (WORKLOADS["retentions"],)
EDITS = (WORKLOADS["edits"],)


@mutant("guarantee 15", where=RETENTIONS)
def the_cleaner_forgets_journals(patch: Patch) -> None:
    async def forget(_: Retention, now: int) -> bool:
        return False

    patch.setattr(Retention, "_forget_journals", forget)


@mutant("guarantee 15", where=RETENTIONS)
def the_cleaner_takes_journals_too_early(patch: Patch) -> None:
    def forget(original: Any, self: Retention, now: int) -> Any:
        return original(self, now + 10_000_000_000)

    around(patch, Retention, "_forget_journals", forget)


@mutant("check", where=RETENTIONS)
def journals_go_with_the_end(patch: Patch) -> None:
    patch.setattr(KeptJournals, "of", _nothing)


@mutant("guarantee 12", "check", where=RETENTIONS)
def a_journal_stays_and_nothing_says_how_long(patch: Patch) -> None:
    def end(original: Any, self: OpenBatch, invocation: InvocationRun, **how: Any) -> Any:
        was_earlier = original(self, invocation, **how)
        self._kept.pop(invocation.number, None)
        return was_earlier

    around(patch, OpenBatch, "end", end)


@mutant("guarantee 15", "check", where=RETENTIONS)
def a_ttl_deletes_what_is_at_work(patch: Patch) -> None:
    def expire(original: Any, self: ObjectDeletion, address: Address, then: Callable[[], None]) -> None:
        def loaded(activation: Activation) -> None:
            transition = self._committer.begin()
            transition.expire_object(activation, None)
            self._send(transition, address, keeps_outcome=False)
            then()

        self._activations.with_loaded(address, loaded)

    around(patch, ObjectDeletion, "expire", expire)


@mutant("guarantee 1", "check", where=RETENTIONS)
def a_deletion_overtakes_messages(patch: Patch) -> None:
    def dispatch(original: Any, self: Activations, activation: Activation, invocation: InvocationRun) -> None:
        original(self, activation, invocation)
        if invocation.handler.is_deletion and invocation in activation.mailbox:
            activation.mailbox.remove(invocation)
            activation.mailbox.appendleft(invocation)

    around(patch, Activations, "_dispatch", dispatch)


@mutant("check", "paused", where=RETENTIONS)
def a_deletion_is_lost_at_a_crash(patch: Patch) -> None:
    def handler(original: Any, self: BoundActor, name: str, *, shared: bool) -> Any:
        if name == DELETION:
            return MissingHandler(self.definition, "deletion", shared=shared)
        return original(self, name, shared=shared)

    around(patch, BoundActor, "handler_or_missing", handler)


@mutant("check", where=RETENTIONS)
def a_deletion_by_ttl_is_not_sent(patch: Patch) -> None:
    def expire(self: ObjectDeletion, address: Address, then: Callable[[], None]) -> None:
        def loaded(activation: Activation) -> None:
            self._expiry.count_no_longer(self._committer.begin(), activation)
            then()

        self._activations.with_loaded(address, loaded)

    patch.setattr(ObjectDeletion, "expire", expire)


@mutant("check", where=RETENTIONS)
def a_deletion_deletes_nothing(patch: Patch) -> None:
    def delete(self: Endings, invocation: InvocationRun) -> None:
        self._end(self._committer.begin(), invocation, Outcome(False, b""))

    patch.setattr(Endings, "delete_object", delete)


@mutant("check", where=RETENTIONS)
def what_is_left_of_an_object_that_goes_is_seen(patch: Patch) -> None:
    def is_going(self: Activation) -> bool:
        return False

    patch.setattr(Activation, "is_going", is_going)


@mutant("guarantee 14", "check", where=RETENTIONS)
def the_store_does_not_know_that_an_object_goes(patch: Patch) -> None:
    def trim_entries(self: Transition, activation: Activation, most: int) -> None:
        activation.changed_at = activation.entries_changed_at = self.position
        activation.is_being_emptied = True
        self._batch.trim_entries(activation.address, most)

    patch.setattr(Transition, "trim_entries", trim_entries)


@mutant("check", where=EDITS)
def an_edit_takes_no_account_of_its_version(patch: Patch) -> None:
    patch.setattr(StateEdit, "refusal", _nothing)


@mutant("check", where=EDITS)
def an_edit_leaves_fields_that_it_does_not_name(patch: Patch) -> None:
    def changes(self: StateEdit, _: Activation) -> dict[str, bytes]:
        return self.state

    patch.setattr(StateEdit, "changes", changes)


@mutant("check", where=EDITS)
def an_edit_goes_around_the_mailbox(patch: Patch) -> None:
    def send(original: Any, self: StateEdits, address: Address, argument: bytes) -> InvocationRun:
        sent: InvocationRun = original(self, address, argument)
        self._committer.begin().change_state(sent.activation, decode_edit(argument).state)
        return sent

    def carry_out(self: Endings, invocation: InvocationRun) -> None:
        self._end(self._committer.begin(), invocation, Outcome(False, b""))

    around(patch, StateEdits, "send", send)
    patch.setattr(Endings, "edit_state", carry_out)


@mutant("guarantee 1", "check", where=EDITS)
def an_edit_overtakes_messages(patch: Patch) -> None:
    def dispatch(original: Any, self: Activations, activation: Activation, invocation: InvocationRun) -> None:
        original(self, activation, invocation)
        if invocation.handler.name == STATE_EDIT and invocation in activation.mailbox:
            activation.mailbox.remove(invocation)
            activation.mailbox.appendleft(invocation)

    around(patch, Activations, "_dispatch", dispatch)


@mutant("check", "paused", where=EDITS)
def an_edit_is_lost_at_a_crash(patch: Patch) -> None:
    def handler(original: Any, self: BoundActor, name: str, *, shared: bool) -> Any:
        if name == STATE_EDIT:
            return MissingHandler(self.definition, "edit", shared=shared)
        return original(self, name, shared=shared)

    around(patch, BoundActor, "handler_or_missing", handler)


@mutant("check", where=RETENTIONS)
def an_end_does_not_count_for_the_ttl(patch: Patch) -> None:
    patch.setattr(ObjectExpiry, "has_ended", _nothing)


@mutant("guarantee 15", where=RETENTIONS)
def a_deleted_object_keeps_its_moment(patch: Patch) -> None:
    def has_ended(original: Any, self: ObjectExpiry, transition: Any, invocation: InvocationRun) -> None:
        if not invocation.handler.is_deletion:
            original(self, transition, invocation)

    around(patch, ObjectExpiry, "has_ended", has_ended)


@mutant("check", "paused", where=RETENTIONS)
def what_begins_as_new_has_its_own_ids_in_the_steps_that_it_keeps(patch: Patch) -> None:
    def seed(original: Any, *args: Any, earlier_id: str = "", **how: Any) -> bytes:
        drawn: bytes = original(*args, **how)
        return drawn

    patch.setattr(restarts_as_new, "next_seed", partial(seed, next_seed))


# ---------------------------------------------------------------------- what is asked for in a last step, or held back


@mutant("check", "guarantee 7", "stuck", where=APPROVALS)
def signals_of_a_last_step_are_lost(patch: Patch) -> None:
    patch.setattr(SendSignalCommands, "issue_unawaited", _nothing)


@mutant("check", where=APPROVALS)
def atomic_handlers_signal_before_their_outcome(patch: Patch) -> None:
    def issue(original: Any, self: SendSignalCommands, transition: Any, invocation: InvocationRun, *rest: Any) -> None:
        does = self.issue_unawaited if invocation.handler.atomic else partial(original, self)
        does(transition, invocation, *rest)

    around(patch, SendSignalCommands, "issue", issue)


@mutant("check", where=WORKFLOWS)
def atomic_runs_complete_promises_before_their_outcome(patch: Patch) -> None:
    def issue(original: Any, self: Any, transition: Any, invocation: InvocationRun, *rest: Any) -> None:
        atomic = invocation.handler.atomic
        object.__setattr__(invocation.handler, "atomic", False)
        original(self, transition, invocation, *rest)
        object.__setattr__(invocation.handler, "atomic", atomic)

    around(patch, CompletePromiseCommands, "issue", issue)


@mutant("check", "guarantee 14", where=WORKFLOWS)
def promises_of_a_last_step_are_completed_again(patch: Patch) -> None:
    def issue(
        self: CompletePromiseCommands, transition: Any, invocation: InvocationRun, number: int, command: Any, found: Any
    ) -> None:
        self._promises.complete(transition, invocation.activation, command)

    patch.setattr(CompletePromiseCommands, "issue_unawaited", issue)


@mutant("guarantee 15", where=WORKFLOWS)
def promises_of_what_never_runs_are_kept_for_ever(patch: Patch) -> None:
    def expire(self: WorkflowRetention, address: Address, then: Callable[[], None]) -> None:
        self.left_alone.add(address)
        then()

    patch.setattr(WorkflowRetention, "expire_promises", expire)


@mutant("check", where=PROMISES)
def headers_do_not_go_on_with_calls(patch: Patch) -> None:
    def headers(self: Messages, sender: InvocationRun, number: int, command: Any) -> Any:
        return command.headers

    patch.setattr(Messages, "_headers", headers)


@mutant("check", "paused", where=PROMISES)
def answers_that_are_decoded_in_slices_fit_every_type(patch: Patch) -> None:
    def prepared(original: Any, self: Any, value: bytes, size_bytes: int) -> Any:
        yield
        return lambda: msgspec.json.decode(value)

    around(patch, DurableOperation, "prepared", prepared)


# ---------------------------------------------------------------------- code that changes

CHANGES = (WORKLOADS["changes"],)


@mutant("paused", where=CHANGES)
def a_replay_does_not_know_what_was_patched(patch: Patch) -> None:
    def along(original: Any, self: Execution, steps: Any) -> Any:
        return original(self, ())

    around(patch, Execution, "_along", along)


@mutant("paused", where=CHANGES)
def what_began_before_a_change_runs_the_new_code(patch: Patch) -> None:
    def patched(*_: object) -> bool:
        return True

    patch.setattr(Execution, "patched", patched)


# ---------------------------------------------------------------------- collections

SHELVES = (WORKLOADS["shelves"],)
SLOW_SHELVES = replace(WORKLOADS["shelves"], faults=Faults.slow(rate=0.4))
"""Reads that are under way while something changes."""


@mutant("check", "paused", "stuck", where=SHELVES)
def a_read_after_a_write_sees_the_old_value(patch: Patch) -> None:
    def own_entries(original: Any, self: Execution, field: str) -> FieldChanges:
        return FieldChanges()

    around(patch, Execution, "own_entries", own_entries)


@mutant("check", where=SHELVES)
def a_read_sees_what_is_written_after_it(patch: Patch) -> None:
    def read(original: Any, self: DurableDict[Any, Any], key: EntryKey, then: Any, what: str, site: Any) -> Any:
        own = self._port.own_entries(self._field.name)

        def late(data: bytes | None) -> Any:
            return then(own.entries.get(key, data))

        return original(self, key, late, what, site)

    around(patch, DurableDict, "_read", read)


@mutant("check", "guarantee 6", "guarantee 17", "paused", where=SHELVES)
def entries_that_a_crash_has_interrupted_are_lost(patch: Patch) -> None:
    """What earlier steps have changed is not folded in where the journal came from the store."""

    def journal_of(original: Any, stored: StoredInvocation) -> Journal:
        journal: Journal = original(stored)
        journal.entries = None
        return journal

    patch.setattr(invocation_module, "journal_of", partial(journal_of, original_journal_of))


@mutant("check", "guarantee 17", "paused", where=SHELVES)
def two_pops_get_the_same_entry(patch: Patch) -> None:
    def take(original: Any, self: DurableList[Any], default: Any, site: Any, *, is_left: bool) -> Any:
        bounds = self._bounds()
        taken = original(self, default, site, is_left=is_left)
        if bounds[0] != bounds[1] and is_left:
            self._bound(*bounds)
        return taken

    around(patch, DurableList, "_take", take)


@mutant("check", "guarantee 17", where=SHELVES)
def changed_entries_survive_an_atomic_handler_that_has_failed(patch: Patch) -> None:
    def take_last_step(
        original: Any, self: Endings, transition: Transition, invocation: InvocationRun, last: Any, found: Any, *,
        drops: bool,
    ) -> Any:  # fmt: skip
        if drops and invocation.journal is not None and invocation.journal.entries:
            transition.change_entries(invocation.activation, invocation.journal.entries)
        return original(self, transition, invocation, last, found, drops=drops)

    around(patch, Endings, "take_last_step", take_last_step)


@mutant("check", "guarantee 17", where=SHELVES)
def changed_entries_of_the_last_step_alone_are_kept(patch: Patch) -> None:
    def changed(original: Any, journal: Journal | None, last: Step) -> EntryChanges | None:
        kept: EntryChanges | None = original(None, last)
        return kept

    patch.setattr(endings_module, "_changed_entries", partial(changed, endings_module._changed_entries))


@mutant("check", "guarantee 6", "guarantee 17", "paused", where=SHELVES)
def entries_are_read_before_what_is_on_its_way_is_stored(patch: Patch) -> None:
    def recent(original: Any, self: EntryReads, activation: Activation, field: str) -> FieldChanges:
        return FieldChanges()

    around(patch, EntryReads, "recent", recent)


@mutant("check", "paused", where=(SLOW_SHELVES,))
def a_shared_read_does_not_hear_of_changes_meanwhile(patch: Patch) -> None:
    def changed(*_: object) -> None:
        return None

    patch.setattr(SharedRead, "changed", changed)


@mutant("check", "guarantee 17", where=SHELVES)
def a_cleared_collection_keeps_what_is_stored(patch: Patch) -> None:
    def change_entries(original: Any, self: OpenBatch, address: Address, field: str, changes: FieldChanges) -> None:
        changes.is_cleared = False
        original(self, address, field, changes)

    around(patch, OpenBatch, "change_entries", change_entries)


@mutant("check", "guarantee 17", where=SHELVES)
def a_pop_that_was_given_up_loses_its_entry(patch: Patch) -> None:
    patch.setattr(ListPops, "_insert", _nothing)


@mutant("check", "guarantee 17", where=SHELVES)
def of_several_pops_that_were_given_up_one_gives_its_entry_back(patch: Patch) -> None:
    seen: list[ListPops] = []

    def insert(original: Any, self: ListPops, entry: Any, value: Any) -> None:
        if all(one is not self for one in seen):
            seen.append(self)
            original(self, entry, value)

    around(patch, ListPops, "_insert", insert)


@mutant("check", "guarantee 17", where=SHELVES)
def a_pop_that_is_given_up_when_it_has_its_entry_loses_it(patch: Patch) -> None:
    patch.setattr(ListPops, "give_back", _nothing)


@mutant("check", "guarantee 15", "guarantee 17", where=(*SHELVES, *RETENTIONS))
def a_deletion_leaves_entries(patch: Patch) -> None:
    """An object whose snapshot is empty has nothing to lose, it seems."""

    def delete(original: Any, self: Endings, invocation: InvocationRun) -> None:
        if invocation.activation.snapshot:
            original(self, invocation)
        else:
            self._end(self._committer.begin(), invocation, Outcome(False, b""))

    around(patch, Endings, "delete_object", delete)


@mutant("check", "guarantee 6", "guarantee 17", "paused", where=(*SHELVES, *RETENTIONS), first_run=50)
def entries_that_were_deleted_are_read_until_that_is_stored(patch: Patch) -> None:
    def vacate(original: Any, self: Transition, activation: Activation) -> None:
        recent, changed_at = activation.recent_entries, activation.entries_changed_at
        original(self, activation)
        activation.recent_entries, activation.entries_changed_at = recent, changed_at

    around(patch, Transition, "vacate", vacate)


@mutant("check", where=RETENTIONS)
def a_ttl_forgets_what_is_not_loaded(patch: Patch) -> None:
    def may_have_state(self: Activation) -> bool:
        return bool(self.snapshot)

    patch.setattr(Activation, "may_have_state", may_have_state)


# ---------------------------------------------------------------------- schedules

SCHEDULED = (WORKLOADS["schedules"],)


@mutant("guarantee 18", where=SCHEDULED)
def a_schedule_moves_on_without_saying_so(patch: Patch) -> None:
    def keep(original: Any, self: Schedules, transition: Transition, one: Scheduled, **changes: Any) -> None:
        original(self, transition, one, **changes)
        if "last_tick" in changes:
            self._committer.batch._state.pop((SCHEDULES, one.name))

    around(patch, Schedules, "_keep", keep)


@mutant("guarantee 18", "machine", "check", where=SCHEDULED)
def ticks_come_again_when_the_clock_is_set_back(patch: Patch) -> None:
    def deliver_next(self: Schedules, one: Scheduled) -> None:
        self._deliver(one, one.ticks[0], None)

    patch.setattr(Schedules, "_deliver_next", deliver_next)
    patch.setattr(ScheduleRow, "has_delivered", _false)


@mutant("check", "guarantee 18", where=SCHEDULED)
def every_start_is_a_first_deployment(patch: Patch) -> None:
    patch.setattr(Scheduled, "is_same", _false)


@mutant("check", "guarantee 18", where=SCHEDULED)
def only_the_last_of_several_ticks_is_delivered(patch: Patch) -> None:
    def to_deliver(original: Any, self: CronSchedule, after: int, until: int) -> list[int]:
        ticks: list[int] = original(self, after, until)
        return ticks[-1:]

    around(patch, CronSchedule, "to_deliver", to_deliver)


@mutant("guarantee 18", where=SCHEDULED)
def a_schedule_that_is_paused_goes_on(patch: Patch) -> None:
    def take(self: Scheduled, row: Any) -> None:
        self.row = row
        self.next_tick = self.declared.next_after(row.position)

    def look(self: Schedules) -> None:
        for one in self._scheduled.values():
            if not one.ticks:
                self._look_at(one)
        self._wind()

    patch.setattr(Scheduled, "take", take)
    patch.setattr(Schedules, "_look", look)


@mutant("check", "guarantee 18", where=SCHEDULED)
def a_tick_is_not_waited_for_again(patch: Patch) -> None:
    def wind(original: Any, self: Schedules) -> None:
        if not any(one.row.last_tick for one in self._scheduled.values()):
            original(self)

    around(patch, Schedules, "_wind", wind)


@mutant("guarantee 18", where=SCHEDULED)
def a_tick_comes_before_its_moment(patch: Patch) -> None:
    def start(original: Any, self: Schedules) -> None:
        now, self._clock = self._clock.now, copy(self._clock)
        patch.setattr(self._clock, "now", lambda: now() + 600_000_000)
        original(self)

    around(patch, Schedules, "start", start)


# ---------------------------------------------------------------------- state that changes its shape

MIGRATED = (WORKLOADS["migrations"],)


@mutant("check", "invariant", "stuck", where=MIGRATED)
def state_of_an_older_version_is_taken_as_it_is(patch: Patch) -> None:
    patch.setattr(StateMigrations, "why_not", _nothing)


@mutant("check", "invariant", "stuck", where=MIGRATED)
def state_is_migrated_under_an_open_journal(patch: Patch) -> None:
    def why_not(original: Any, self: StateMigrations, invocation: InvocationRun) -> Any:
        holder, invocation.activation.current = invocation.activation.current, None
        try:
            return original(self, invocation)
        finally:
            invocation.activation.current = holder

    around(patch, StateMigrations, "why_not", why_not)


@mutant("check", "invariant", "stuck", where=MIGRATED)
def the_version_of_migrated_state_is_not_recorded(patch: Patch) -> None:
    def set_state(original: Any, self: OpenBatch, address: Address, field: str, value: bytes | None) -> None:
        if field != STATE_VERSION_FIELD:
            original(self, address, field, value)

    around(patch, OpenBatch, "set_state", set_state)


@mutant("check", "invariant", "stuck", where=MIGRATED)
def what_a_first_invocation_has_changed_is_of_the_newest_version(patch: Patch) -> None:
    patch.setattr(activations, "_note_unsaved_version", _nothing)


# ---------------------------------------------------------------------- codecs


@mutant("machine", "paused", "check", where=SHELVES)
def a_codec_lets_entries_through(patch: Patch) -> None:
    def batch(original: Any, self: PayloadCoding, given: Batch) -> Batch:
        coded: Batch = original(self, given)
        return coded if isinstance(self, FarSide) else msgspec.structs.replace(coded, entries=given.entries)

    around(patch, PayloadCoding, "batch", batch)


@mutant("machine", where=WORKFLOWS)
def a_codec_lets_promises_through(patch: Patch) -> None:
    def batch(original: Any, self: PayloadCoding, given: Batch) -> Batch:
        coded: Batch = original(self, given)
        return coded if isinstance(self, FarSide) else msgspec.structs.replace(coded, promises=given.promises)

    around(patch, PayloadCoding, "batch", batch)


@mutant("machine", "paused", where=APPROVALS)
def steps_are_not_decoded(patch: Patch) -> None:
    def stored(original: Any, self: PayloadCoding, given: StoredInvocation) -> StoredInvocation:
        decoded: StoredInvocation = original(self, given)
        return decoded if isinstance(self, FarSide) else msgspec.structs.replace(decoded, steps=given.steps)

    around(patch, PayloadCoding, "stored", stored)


# ---------------------------------------------------------------------- limits

LIMITS = (WORKLOADS["limits"],)


@mutant("guarantee 16", "guarantee 7", "guarantee 13", "guarantee 12", "check", "stuck", where=LIMITS)
def a_place_is_not_given_back_at_a_kill(patch: Patch) -> None:
    def kill(original: Any, self: Cancellation, *args: Any) -> None:
        with Patch.context() as inner:
            inner.setattr(NamedLimits, "ended", _nothing)
            original(self, *args)

    around(patch, Cancellation, "kill", kill)


@mutant("guarantee 16", "guarantee 12", where=LIMITS)
def places_are_not_taken_again_at_recovery(patch: Patch) -> None:
    patch.setattr(NamedLimits, "restore", _nothing)


@mutant("guarantee 16", where=LIMITS)
def the_last_to_come_is_given_a_place_first(patch: Patch) -> None:
    def enqueue(original: Any, self: LimitPool, invocation: InvocationRun, position: int) -> None:
        original(self, invocation, -position)

    around(patch, LimitPool, "enqueue", enqueue)


@mutant("guarantee 13", "guarantee 7", "stuck", where=LIMITS)
def a_call_inside_a_limit_counts_again(patch: Patch) -> None:
    def counts(*_: object) -> bool:
        return False

    patch.setattr(NamedLimits, "_runs_on_place_of_caller", counts)


@mutant("guarantee 16", where=LIMITS)
def a_place_is_free_when_who_took_it_has_ended(patch: Patch) -> None:
    def leave(original: Any, self: LimitPool, place: int, number: int) -> bool:
        if place == number:
            self.places[place] = {number: ""}
        return bool(original(self, place, number))

    around(patch, LimitPool, "leave", leave)


@mutant("guarantee 13", "stuck", where=LIMITS)
def deadlocks_through_limits_are_not_seen(patch: Patch) -> None:
    def places_of(self: WaitGraph, *_: object) -> Any:
        yield Wait(WaitReason.RATE)

    patch.setattr(WaitGraph, "_places_of", places_of)


@mutant("guarantee 13", "stuck", where=LIMITS)
def who_begins_to_wait_for_a_limit_is_not_looked_after(patch: Patch) -> None:
    patch.setattr(Deadlocks, "limit_reached", _nothing)


@mutant("guarantee 16", where=LIMITS)
def a_limit_has_room_for_one_more(patch: Patch) -> None:
    def has_room(self: LimitPool) -> bool:
        return self.limit is None or self.limit.at_once is None or len(self.places) <= self.limit.at_once

    patch.setattr(LimitPool, "has_room", has_room)


@mutant("guarantee 16", where=LIMITS)
def a_rate_is_full_after_a_restart(patch: Patch) -> None:
    def use(original: Any, self: LimitPool, limit: Any, since_us: int) -> None:
        original(self, limit, since_us)
        self._full_at = 0.0

    around(patch, LimitPool, "use", use)


@mutant("guarantee 16", where=LIMITS)
def a_rate_lets_all_start_that_wait(patch: Patch) -> None:
    def take(original: Any, self: LimitPool, *args: Any) -> None:
        full_at = self._full_at
        original(self, *args)
        self._full_at = full_at

    around(patch, LimitPool, "take", take)


@mutant("guarantee 7", "guarantee 13", "stuck", where=LIMITS)
def who_waits_for_a_limit_is_forgotten(patch: Patch) -> None:
    def ended(original: Any, self: NamedLimits, *args: Any, **kwargs: Any) -> None:
        with Patch.context() as inner:
            inner.setattr(NamedLimits, "_serve", _nothing)
            original(self, *args, **kwargs)

    around(patch, NamedLimits, "ended", ended)


@mutant("guarantee 12", where=LIMITS)
def rows_of_places_stay(patch: Patch) -> None:
    patch.setattr(Transition, "leave_places", _nothing)


@mutant("guarantee 16", "guarantee 12", "guarantee 7", where=LIMITS)
def a_continued_invocation_loses_its_place(patch: Patch) -> None:
    def renewed(self: NamedLimits, transition: Transition, invocation: InvocationRun, previous: int) -> None:
        for place in self.under.pop(previous, ()):
            transition.leave_places(previous, is_stored=True)
            if place.counts:
                pool = self._pools[place.name, place.key]
                pool.leave(place.place, previous)
                self._serve(pool, transition)

    patch.setattr(NamedLimits, "renewed", renewed)


# ---------------------------------------------------------------------- machines

OF_MODELS = (WORKLOADS["machines"],)


@mutant("check", "stuck", "guarantee 25", where=OF_MODELS, first_run=135)
def an_event_that_is_published_while_another_is_written_wakes_no_one(patch: Patch) -> None:
    def note(original: Any, self: Subscriptions, stream: str) -> None:
        if stream not in self._published:
            original(self, stream)

    around(patch, Subscriptions, "_note", note)


@mutant("check", "guarantee 23", where=OF_MODELS)
def a_subscription_moves_on_without_saying_so(patch: Patch) -> None:
    def keep(original: Any, self: Subscriptions, transition: Transition, one: Subscribed, **changes: Any) -> None:
        original(self, transition, one, **changes)
        self._committer.batch._state.pop((SUBSCRIPTIONS, one.name))

    around(patch, Subscriptions, "_keep", keep)


@mutant("check", "stuck", where=OF_MODELS)
def an_event_that_a_subscription_wants_is_not_delivered(patch: Patch) -> None:
    def accept(original: Any, self: Any, transition: Transition, message: Any) -> Any:
        if message.handler.subscription is not None and message.argument.count(b"stopOver"):
            return None
        return original(self, transition, message)

    around(patch, Acceptance, "accept", accept)


@mutant("check", "guarantee 23", "guarantee 25", "stuck", where=OF_MODELS)
def a_new_subscription_starts_with_what_is_published_after_its_first_look(patch: Patch) -> None:
    def start(original: Any, self: Subscriptions) -> None:
        original(self)
        for one in self._subscribed.values():
            one.row = msgspec.structs.replace(one.row, position=self._committer.position)

    around(patch, Subscriptions, "start", start)


@mutant("check", "paused", "stuck", where=OF_MODELS)
def a_question_to_the_store_is_put_before_what_was_done_is_durable(patch: Patch) -> None:
    def ask(self: StoreQuestions, question: Any, then: Any) -> None:
        self._begin(Asked(question, then))

    patch.setattr(StoreQuestions, "ask", ask)


@mutant("check", where=OF_MODELS)
def an_event_is_published_twice(patch: Patch) -> None:
    def publish(original: Any, self: Events, transition: Transition, event: Publish) -> None:
        original(self, transition, event)
        original(self, transition, msgspec.structs.replace(event, id=f"{event.id}_again"))

    around(patch, Events, "publish", publish)


# ---------------------------------------------------------------------- consumers that catch up

OF_CONSUMERS = (WORKLOADS["consumers"],)


@mutant("check", "guarantee 23", where=OF_CONSUMERS)
def a_consumer_that_is_new_hears_of_nothing_before_it(patch: Patch) -> None:
    def begun(one: Subscribed, now_position: int) -> SubscriptionRow:
        return SubscriptionRow(stream=one.stream, position=now_position)

    patch.setattr(subscriptions, "_begun", begun)


@mutant("check", "guarantee 23", where=OF_CONSUMERS)
def a_consumer_that_is_new_hears_of_everything(patch: Patch) -> None:
    def begun(one: Subscribed, now_position: int) -> SubscriptionRow:
        return SubscriptionRow(stream=one.stream, position=0)

    patch.setattr(subscriptions, "_begun", begun)


@mutant("check", "guarantee 23", where=OF_CONSUMERS)
def the_place_of_a_consumer_is_kept_by_its_method(patch: Patch) -> None:
    def read(original: Any, self: Subscriptions, name: str, value: bytes) -> SubscriptionRow | None:
        row: SubscriptionRow | None = original(self, name, value)
        return None if name == CARRIER and len(self._subscribed) > len(self._rows) else row

    around(patch, Subscriptions, "_read", read)


@mutant("check", "guarantee 23", where=OF_CONSUMERS)
def a_consumer_that_is_paused_passes_over_what_it_is_not_given(patch: Patch) -> None:
    def set_status(original: Any, self: Subscriptions, name: str, status: Any, *, passes_over: bool = False) -> bool:
        one = self._known(name)
        if one.row.status is SubscriptionStatus.PAUSED:
            one.row = msgspec.structs.replace(one.row, position=self._committer.durable)
        return bool(original(self, name, status, passes_over=passes_over))

    around(patch, Subscriptions, "set_status", set_status)


@mutant("check", "guarantee 23", where=OF_CONSUMERS)
def transitions_go_by_their_age_alone(patch: Patch) -> None:
    around(patch, Subscriptions, "floor", lambda *_: LATEST_POSITION)


@mutant("check", where=OF_CONSUMERS)
def transitions_go_as_soon_as_consumers_have_had_them(patch: Patch) -> None:
    around(patch, EventRetention, "_kept_us", lambda *_: 0)


@mutant("check", where=OF_CONSUMERS)
def transitions_that_a_consumer_held_back_stay_when_it_is_past_them(patch: Patch) -> None:
    around(patch, EventRetention, "_has_moved", lambda *_: None)


# ---------------------------------------------------------------------- events

OF_EVENTS = (WORKLOADS["events"],)


@mutant("guarantee 23", "check", where=OF_EVENTS)
def events_of_a_portion_are_delivered_last_first(patch: Patch) -> None:
    def take(original: Any, self: Subscriptions, one: Subscribed, answer: EventAnswer) -> None:
        original(self, one, EventAnswer(answer.events[::-1], answer.damaged))
        transition = self._committer.begin()
        self._keep(transition, one, position=max((event.position for event in answer.events), default=0))

    around(patch, Subscriptions, "_take", take)


@mutant("guarantee 23", where=OF_EVENTS)
def an_event_is_delivered_once_more_by_the_next_portion(patch: Patch) -> None:
    def ask(original: Any, self: Subscriptions, one: Subscribed) -> Any:
        if one.row.position and one.name == "SoakPress/print":
            one.row = msgspec.structs.replace(one.row, position=one.row.position - 1)
        return original(self, one)

    around(patch, Subscriptions, "_ask", ask)


@mutant("guarantee 23", "check", where=OF_EVENTS)
def events_go_by_their_age_alone(patch: Patch) -> None:
    around(patch, Subscriptions, "floor", lambda *_: LATEST_POSITION)


@mutant("check", where=OF_EVENTS)
def an_event_that_is_given_up_is_no_dead_letter(patch: Patch) -> None:
    patch.setattr(DeadLetters, "has_failed", _nothing)


@mutant("check", where=OF_EVENTS)
def a_dead_letter_goes_without_being_tried_again(patch: Patch) -> None:
    def redeliver(self: Subscriptions, letter: EventRecord) -> None:
        self.forget_letter(letter)

    patch.setattr(Subscriptions, "redeliver", redeliver)


@mutant("check", "guarantee 23", where=OF_EVENTS)
def what_an_atomic_handler_publishes_is_out_at_once(patch: Patch) -> None:
    patch.setattr(PublishCommands, "issue", PublishCommands.issue_unawaited)


@mutant("check", "stuck", "guarantee 25", where=OF_EVENTS)
def a_message_that_has_ended_counts_as_in_flight(patch: Patch) -> None:
    patch.setattr(InFlight, "end", _nothing)


@mutant("check", where=OF_EVENTS)
def a_renamed_subscription_starts_now_whatever_it_says(patch: Patch) -> None:
    def begun(one: Subscribed, now_position: int) -> SubscriptionRow:
        return SubscriptionRow(stream=one.stream, position=now_position)

    patch.setattr(subscriptions, "_begun", begun)


@mutant("guarantee 21", where=PAUSES)
def who_begins_to_wait_for_a_shut_limit_hears_of_no_pause(patch: Patch) -> None:
    patch.setattr(PauseNotices, "limit_reached", _nothing)


@mutant("guarantee 21", where=PAUSES, first_run=175)
def a_pause_is_not_told_to_who_waits_for_its_place(patch: Patch) -> None:
    patch.setattr(PauseNotices, "_reach_pool", _nothing)


@mutant("guarantee 21", where=PAUSES)
def a_search_for_pauses_does_not_go_through_limits(patch: Patch) -> None:
    patch.setattr(PauseSearch, "_look_at_next_place", _nothing)


@mutant("guarantee 21", where=PAUSES)
def what_is_queued_behind_a_pause_is_not_looked_after(patch: Patch) -> None:
    patch.setattr(PauseNotices, "message_queued", _nothing)


@mutant("guarantee 4", "check", where=(WORKLOADS["identities"],))
def why_a_message_is_refused_is_not_kept(patch: Patch) -> None:
    patch.setattr(RefusedSends, "keep", _nothing)


@mutant("guarantee 16", where=LIMITS)
def a_limit_that_nobody_uses_is_forgotten_before_its_rate_is_full(patch: Patch) -> None:
    def is_idle(self: LimitPool, now_us: int) -> bool:
        return not self.places and not self.waiting

    patch.setattr(LimitPool, "is_idle", is_idle)


@mutant("guarantee 16", "guarantee 7", "machine", "stuck", where=LIMITS)
def a_limit_that_is_in_use_is_forgotten(patch: Patch) -> None:
    def is_idle(self: LimitPool, now_us: int) -> bool:
        return self._full_at <= now_us

    patch.setattr(LimitPool, "is_idle", is_idle)


@mutant("guarantee 5", "guarantee 15", where=RETENTIONS)
def a_journal_that_is_to_be_forgotten_stays(patch: Patch) -> None:
    patch.setattr(EndedJournals, "forget", _nothing)


# ---------------------------------------------------------------------- middleware and dependencies

ONIONS = (WORKLOADS["onions"],)


@mutant("check", where=ONIONS)
def middleware_stands_around_handlers_the_wrong_way_round(patch: Patch) -> None:
    def made(original: Any, self: Onion, where: str, middleware: Sequence[Any], *args: Any) -> None:
        original(self, where, middleware[::-1], *args)

    around(patch, Onion, "__init__", made)


@mutant("check", "guarantee 6", "paused", where=ONIONS)
def a_handler_that_is_replayed_has_no_middleware(patch: Patch) -> None:
    def make(original: Any, self: Attempts, invocation: InvocationRun, *args: Any) -> Execution:
        execution: Execution = original(self, invocation, *args)
        if invocation.journal is not None:
            bare = copy(invocation.handler)
            bare.start = bare.signature.types.arguments.call
            execution.handler = bare
        return execution

    around(patch, Attempts, "make", make)


@mutant("check", where=ONIONS)
def what_middleware_changes_of_arguments_is_lost(patch: Patch) -> None:
    def changed(self: Onion, decoded: Any, *_: Any) -> Any:
        return decoded

    patch.setattr(Onion, "changed", changed)


@mutant("guarantee 22", "paused", "check", where=ONIONS)
def what_an_activation_has_outlives_it(patch: Patch) -> None:
    patch.setattr(MadeDependencies, "leave", _nothing)


@mutant("guarantee 22", "paused", "check", where=ONIONS)
def what_an_activation_has_is_torn_down_before_its_handlers_run(patch: Patch) -> None:
    async def enter(original: Any, self: MadeDependencies, *args: Any) -> Any:
        scope = await original(self, *args)
        self.leave(scope)
        return scope

    around(patch, MadeDependencies, "enter", enter)


@mutant("guarantee 22", "paused", "check", "machine", where=ONIONS)
def each_invocation_sets_its_activation_up(patch: Patch) -> None:
    def begin(original: Any, self: SettingUp, invocation: InvocationRun) -> None:
        waiting = self._waiting.pop(invocation.activation, None)
        original(self, invocation)
        if waiting is not None:
            self._waiting[invocation.activation][:0] = waiting

    around(patch, SettingUp, "begin", begin)


@mutant("guarantee 22", "paused", "check", where=ONIONS)
def what_activations_have_outlives_a_failed_commit(patch: Patch) -> None:
    patch.setattr(MadeDependencies, "leave_all", _nothing)


# ---------------------------------------------------------------------- sagas

SAGAS = (WORKLOADS["sagas"],)


@mutant("check", where=SAGAS)
def a_step_that_failed_for_good_is_undone(patch: Patch) -> None:
    patch.setattr(sagas, "_is_interrupted", _true)


@mutant("check", where=SAGAS)
def a_step_whose_outcome_is_unknown_is_not_undone(patch: Patch) -> None:
    patch.setattr(sagas, "_is_interrupted", _false)


@mutant("check", where=SAGAS)
def compensations_run_in_the_order_of_the_steps(patch: Patch) -> None:
    patch.setattr(sagas, "reversed", list, raising=False)


@mutant("check", "guarantee 12", where=SAGAS)
def a_cancel_breaks_off_what_undoes(patch: Patch) -> None:
    async def disturbed(port: Port, undoing: Coroutine[Any, Any, None]) -> bool:
        port.compensates(1)
        await undoing
        port.compensates(-1)
        return False

    patch.setattr(sagas, "undisturbed", disturbed)
    patch.setattr(compensations, "undisturbed", disturbed)


@mutant("check", where=SAGAS)
def a_cancel_ends_what_undoes_when_that_fails_for_the_moment(patch: Patch) -> None:
    patch.setattr(Journal, "ends_if_it_fails", Journal.hears_of_cancel)


@mutant("check", where=SAGAS)
def a_retry_policy_ends_what_is_to_be_undone(patch: Patch) -> None:
    patch.setattr(Retries, "_undo_and_fail", vars(Retries)["_fail"])


@mutant("check", where=SAGAS, first_run=150)
def what_undoes_has_the_deadline_of_its_caller(patch: Patch) -> None:
    patch.setattr(Execution, "compensates", _nothing)


@mutant("check", where=SAGAS)
def a_handler_that_breaks_when_it_is_told_undoes_nothing(patch: Patch) -> None:
    def fails_for_good(_port: Port, error: BaseException) -> bool:
        return terminal(error) is not None

    patch.setattr(sagas, "fails_for_good", fails_for_good)
    patch.setattr(compensations, "fails_for_good", fails_for_good)


@mutant("check", "guarantee 7", where=SAGAS)
def what_asks_for_a_person_is_not_paused(patch: Patch) -> None:
    patch.setattr(Pauses, "pause_as_asked", _nothing)


@mutant("check", "guarantee 7", where=SAGAS)
def a_resume_does_not_answer_what_asks_for_a_person(patch: Patch) -> None:
    def resume(original: Any, self: Pauses, invocation: InvocationRun) -> bool:
        if invocation.journal is not None:
            invocation.journal.awaits_resume = None
        return bool(original(self, invocation))

    around(patch, Pauses, "resume", resume)


@mutant("guarantee 24", "check", where=SAGAS)
def a_run_is_said_not_to_be_there(patch: Patch) -> None:
    def answer(original: Any, self: Attachments, caller: CallerRecord, name: str, found: Found) -> None:
        original(self, caller, name, None)

    around(patch, Attachments, "_answer_run", answer)


@mutant("guarantee 24", "check", where=SAGAS)
def a_run_that_has_not_begun_is_not_found(patch: Patch) -> None:
    def answer(original: Any, self: Attachments, caller: CallerRecord, name: str, found: Found) -> None:
        is_to_begin = found is not None and found.status is InvocationStatus.SCHEDULED
        original(self, caller, name, None if is_to_begin else found)

    around(patch, Attachments, "_answer_run", answer)


@mutant("guarantee 24", where=SAGAS)
def who_asks_for_a_run_is_told_its_own_id(patch: Patch) -> None:
    def answer(original: Any, self: Attachments, caller: CallerRecord, name: str, found: Found) -> None:
        asker = self._activations.by_address[caller.address].find(caller.number)
        if found is not None and asker is not None:
            found = msgspec.structs.replace(found, id=asker.id)
        original(self, caller, name, found)

    around(patch, Attachments, "_answer_run", answer)


@mutant("guarantee 7", "stuck", where=SAGAS)
def who_asked_for_a_run_before_a_crash_hears_nothing(patch: Patch) -> None:
    def issue(
        self: IdentifyRunCommands, _transition: Any, invocation: InvocationRun, number: int, command: Any, _found: Any
    ) -> None:
        self._attachments.ask_run(CallerRecord(invocation.address, invocation.number, number), command)

    patch.setattr(IdentifyRunCommands, "issue", issue)
    patch.setattr(IdentifyRunCommands, "resume", _nothing)


# ---------------------------------------------------------------------- sources

OF_TOPICS = (WORKLOADS["topics"],)


@mutant("check", where=OF_TOPICS)
def how_far_a_source_was_read_is_not_kept(patch: Patch) -> None:
    patch.setattr(Transition, "keep_source", _nothing)


@mutant("check", where=OF_TOPICS)
def what_a_source_gives_again_is_taken_again(patch: Patch) -> None:
    def take(original: Any, self: Sources, one: RunningFeed, records: Any) -> bool:
        one.row = SourceRow()
        return bool(original(self, one, records))

    around(patch, Sources, "_take", take)


@mutant("check", where=OF_TOPICS)
def how_far_a_source_was_read_is_kept_before_its_records_are(patch: Patch) -> None:
    def take(original: Any, self: Sources, one: RunningFeed, records: Sequence[SourceRecord]) -> bool:
        before = one.row
        positions = {record.partition: record.position + 1 for record in records}
        self._keep(self._committer.begin(), one, SourceRow(positions={**before.positions, **positions}))
        one.row = before
        self._committer.when_durable(partial(original, self, one), records)
        return True

    around(patch, Sources, "_take", take)


@mutant("check", where=OF_TOPICS)
def records_of_a_poll_are_taken_last_first(patch: Patch) -> None:
    def take(original: Any, self: Sources, one: RunningFeed, records: Sequence[SourceRecord]) -> bool:
        positions = dict(one.row.positions)
        new = [record for record in records if record.position >= positions.get(record.partition, 0)]
        for record in new[::-1]:
            one.row = SourceRow()
            original(self, one, [record])
        positions.update({record.partition: record.position + 1 for record in new})
        self._keep(self._committer.begin(), one, SourceRow(positions=positions))
        return True

    around(patch, Sources, "_take", take)


@mutant("check", "stuck", "guarantee 25", where=OF_TOPICS)
def a_message_of_a_source_that_has_ended_makes_no_room(patch: Patch) -> None:
    patch.setattr(Sources, "_has_ended", _nothing)


@mutant("check", "guarantee 25", where=OF_TOPICS)
def a_paused_message_of_a_source_holds_others_up(patch: Patch) -> None:
    patch.setattr(Sources, "_has_pause_changed", _nothing)


# ---------------------------------------------------------------------- what is under way of subscriptions and feeds

OF_QUEUES = (WORKLOADS["queues"],)


@mutant("guarantee 25", where=OF_QUEUES)
def what_is_in_flight_is_counted_from_nothing_after_a_restart(patch: Patch) -> None:
    patch.setattr(InFlight, "take_over", _nothing)


@mutant("guarantee 25", where=OF_QUEUES)
def a_paused_key_counts_after_a_restart(patch: Patch) -> None:
    def take_over(original: Any, self: InFlight, left: Iterable[OpenMessages]) -> None:
        given = [*left]
        original(self, given)
        self.counted += sum(one.count for one in given if one.is_held_up)

    around(patch, InFlight, "take_over", take_over)


@mutant("guarantee 25", where=OF_QUEUES)
def a_paused_key_counts_twice_when_it_goes_on(patch: Patch) -> None:
    def resume(original: Any, self: InFlight, key: str) -> None:
        before = self.counted
        original(self, key)
        self.counted += self.counted - before

    around(patch, InFlight, "resume", resume)


@mutant("guarantee 25", where=OF_QUEUES)
def a_paused_key_is_taken_off_twice(patch: Patch) -> None:
    def pause(original: Any, self: InFlight, key: str) -> None:
        before = self.counted
        original(self, key)
        self.counted += self.counted - before

    around(patch, InFlight, "pause", pause)


@mutant("guarantee 25", where=OF_QUEUES)
def what_waits_behind_a_pause_counts_unless_that_is_a_message_too(patch: Patch) -> None:
    def holds_up(invocation: InvocationRun, handler: BoundActorHandler) -> bool:
        return invocation.handler is handler

    patch.setattr(subscriptions, "holds_up", holds_up)
    patch.setattr(sources, "holds_up", holds_up)


@mutant("guarantee 25", where=OF_QUEUES, first_run=120)
def records_that_were_held_up_before_a_restart_never_count(patch: Patch) -> None:
    def take_over(original: Any, self: RunningFeed, left: Sequence[OpenMessages]) -> None:
        original(self, [one for one in left if not one.is_held_up])

    around(patch, RunningFeed, "take_over", take_over)


@mutant("guarantee 25", where=OF_QUEUES, first_run=20)
def records_that_were_held_up_before_a_restart_count_for_ever(patch: Patch) -> None:
    patch.setattr(RunningFeed, "_ended_of_left", _nothing)


@mutant("guarantee 25", "check", "stuck", where=OF_QUEUES)
def nothing_is_heard_of_pauses(patch: Patch) -> None:
    patch.setattr(Transition, "_tell_of_pause", _nothing)

"""Deliberately broken runtimes and actors, each one small change away from the real code, for the kit to find."""

# pyright: reportPrivateUsage=false
# Here the machine is broken from inside.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

import msgspec
import pytest

from durably import Context, ObjectContext, Service, VirtualObject, handler, shared, state
from durably.actors.context import SharedContext
from durably.actors.protocol.commands import AwaitSignal
from durably.ids import AWAKEABLE_PREFIX, Address, AwakeableId, InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.activations.attempts import Attempts
from durably.runtime.commands.cancel_commands import CancelCommands
from durably.runtime.commands.promise_commands import CompletePromiseCommands
from durably.runtime.commands.run_commands import RunCommands
from durably.runtime.commands.signal_commands import CompleteAwakeableCommands, SendSignalCommands
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.commit.transition import Transition
from durably.runtime.commit.verification import Verification
from durably.runtime.execution.execution import DurableOperation, Execution
from durably.runtime.execution.step import Outcome
from durably.runtime.gateway import intake
from durably.runtime.gateway import requests as gateway_requests
from durably.runtime.gateway.control import Control, Verb
from durably.runtime.gateway.deliveries import Deliveries
from durably.runtime.gateway.intake import Intake
from durably.runtime.gateway.pending_requests import AcceptanceOperation, IdentificationOperation, OutcomeOperation
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.lifecycle import deadlocks
from durably.runtime.lifecycle.cancellation import Cancellation
from durably.runtime.lifecycle.continuations import Continuations
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.lifecycle.knots import Knot
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.recovery import Recovery
from durably.runtime.lifecycle.retention import Retention
from durably.runtime.lifecycle.timer_dispatch import TimerDispatch
from durably.runtime.lifecycle.wait_graph import WaitGraph, WaitReason
from durably.runtime.lifecycle.workflow_retention import WorkflowRetention
from durably.runtime.messaging.acceptance import Acceptance
from durably.runtime.messaging.attachments import Attachments
from durably.runtime.messaging.messages import Messages
from durably.runtime.messaging.orders import Orders
from durably.runtime.messaging.promises import Promises
from durably.runtime.messaging.signals import Signals
from durably.runtime.messaging.targets import Targets
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiters
from durably.runtime.runtime import Runtime
from durably.runtime.steps import steps
from durably.runtime.steps.steps import Steps
from durably.storage.memory import MemoryStore
from durably.storage.payload_coding import PayloadCoding
from durably.storage.records import (
    NO_COMMAND,
    Batch,
    CallerRecord,
    CompletionRecord,
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

Patch = pytest.MonkeyPatch

EVERYTHING = tuple(WORKLOADS.values())


@dataclass(frozen=True)
class Mutant:
    """What is broken, where it is looked for, and which kinds of errors may tell."""

    breaks: Callable[[Patch], None]
    found_as: frozenset[str]
    where: Sequence[Workload] = EVERYTHING


MUTANTS: dict[str, Mutant] = {}


def mutant(*found_as: str, where: Sequence[Workload] = EVERYTHING) -> Callable[[Callable[[Patch], None]], None]:
    """Register a way to break the machine. `found_as` are kinds of errors as `kind_of` names them."""

    def register(breaks: Callable[[Patch], None]) -> None:
        MUTANTS[breaks.__name__] = Mutant(breaks, frozenset(found_as), where)

    return register


def around(patch: Patch, cls: type, name: str, wrap: Callable[..., Any]) -> None:
    """Replace a method by `wrap(original, self, *args)`."""
    original = getattr(cls, name)

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


def _nothing(*_: Any) -> None:
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
    def admit(original: Any, self: Activations, transition: Any, invocation: InvocationRun) -> None:
        original(self, transition, invocation)
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
    def append(original: Any, self: Transition, invocation: InvocationRun, index: int, step: Any) -> None:
        original(self, invocation, index, step)
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


@mutant("guarantee 7", "guarantee 3", "machine")
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


@mutant("guarantee 9")
def no_batch_checks_the_epoch(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_refuse_if_superseded", _nothing)


@mutant("guarantee 9")
def what_follows_from_no_commit_is_not_verified(patch: Patch) -> None:
    def holds(*_: object) -> bool:
        return True

    patch.setattr(Verification, "holds", holds)


@mutant("guarantee 9", where=(WORKLOADS["promises"],))
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


# ---------------------------------------------------------------------- what an operator resumes

PAUSES = (WORKLOADS["pauses"],)


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


@mutant("check", where=PROMISES)
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

    patch.setattr(Continuations, "_keep", keep)


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
        with pytest.MonkeyPatch.context() as inner:
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
    def pages(original: Any, self: Runtime, *args: Any) -> Any:
        async def first() -> Any:
            async for record in original(self, *args):
                yield record
                return

        return first()

    around(patch, Runtime, "_pages", pages)


@mutant("guarantee 5", where=CANCELS)
def a_purge_forgets_nothing(patch: Patch) -> None:
    patch.setattr(InvocationRegistry, "forget_outcome", _nothing)


@mutant("guarantee 5", "guarantee 2", where=CANCELS)
def what_is_begun_again_is_not_accepted(patch: Patch) -> None:
    def restart(original: Any, self: Control, found: Any) -> str:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Acceptance, "accept", _nothing)
            id: str = original(self, found)
        return id

    around(patch, Control, "_restart", restart)


@mutant("guarantee 4", "check", where=CANCELS)
def what_is_begun_again_has_another_argument(patch: Patch) -> None:
    def restart(original: Any, self: Control, found: Any) -> str:
        def accept(accept: Any, acceptance: Acceptance, transition: Any, message: Any) -> Any:
            return accept(acceptance, transition, msgspec.structs.replace(message, argument=b'{"what":"twice"}'))

        with pytest.MonkeyPatch.context() as inner:
            around(inner, Acceptance, "accept", accept)
            id: str = original(self, found)
        return id

    around(patch, Control, "_restart", restart)


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
    def headers(self: Messages, sender: InvocationRun, command: Any) -> Any:
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


# ---------------------------------------------------------------------- codecs


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

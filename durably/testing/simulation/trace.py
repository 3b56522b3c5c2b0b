"""`Trace`: what happened in a run, in order, for the account of a failure and for comparing runs to the letter.

`TraceLog` is the log of a simulated runtime. The machine tells it what it does, as it would tell structlog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from durably.actors.protocol.coding import CodingMeter
from durably.actors.protocol.commands import Command
from durably.actors.protocol.entries import in_words
from durably.actors.values.error_envelopes import decode_failure
from durably.errors import TerminalError
from durably.ids import Address
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.execution.step import Step
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.logs import describe_command
from durably.runtime.observation.observer import Observer
from durably.storage.records import EventRecord, InvocationRecord

SHOWN_ID_DIGITS = 6
LONGEST_SHOWN = 160


class Entry(NamedTuple):
    """One thing that happened. `at_us` counts from the beginning of the run."""

    at_us: int
    who: str
    what: str

    def __str__(self) -> str:
        text = self.what if len(self.what) <= LONGEST_SHOWN else f"{self.what[:LONGEST_SHOWN]}..."
        return f"{self.at_us / 1_000_000:12.6f} s  {self.who:<10} {text}"


class HasTime(Protocol):
    """A loop."""

    elapsed_us: int


class Trace:
    """Everything that happened in one run."""

    def __init__(self, loop: HasTime) -> None:
        self.entries: list[Entry] = []
        self._loop = loop

    def note(self, who: str, what: str) -> None:
        self.entries.append(Entry(self._loop.elapsed_us, who, what))

    def digest(self) -> str:
        """The same for two runs if and only if they were the same."""
        hashed = blake2b(digest_size=16)
        for entry in self.entries:
            hashed.update(repr(tuple(entry)).encode())
        return hashed.hexdigest()


def tail(entries: Sequence[Entry], count: int) -> str:
    """The last things that happened, a line each."""
    left_out = max(len(entries) - count, 0)
    lines = [f"    ... {left_out} before that"] if left_out else []
    return "\n".join([*lines, *map(str, entries[left_out:])])


class Watcher(Protocol):
    """Who wants to know what the machine does."""

    def accepted(self, invocation: InvocationRun, /) -> None: ...
    def attempted(self, invocation: InvocationRun, /) -> None: ...
    def waits_for_limit(self, invocation: InvocationRun, /) -> None: ...
    def given_place(self, invocation: InvocationRun, /) -> None: ...
    def stepped(self, invocation: InvocationRun, /) -> None: ...
    def concluded(self, invocation: InvocationRun, last: Step, /) -> None: ...
    def ended(self, invocation: InvocationRun, /) -> None: ...
    def deadlocked(self, invocation: InvocationRun, command: int, /) -> None: ...
    def killed(self, invocation: InvocationRun, /) -> None: ...
    def gave_up(self, error: BaseException, /) -> None: ...
    def retries(self, invocation: InvocationRun, error: BaseException, /) -> None: ...
    def paused(self, invocation: InvocationRun, /) -> None: ...
    def delivered(self, subscription: str, event: int, position: int, /) -> None: ...
    def taken(self, source: str, id: str, position: int, /) -> None: ...
    def incarnation_failed(self, error: BaseException, /) -> None: ...


class TraceLog(Observer):
    """The log of a simulated runtime: all lines go to the trace, and to a watcher what it wants to know."""

    def __init__(self, trace: Trace, who: str, watcher: Watcher) -> None:
        self.detailed = True
        self._trace = trace
        self._who = who
        self._watcher = watcher

    def _note(self, what: str) -> None:
        self._trace.note(self._who, what)

    def started(self, store: str, services: int) -> None:
        self._note("has started")

    def stopped(self) -> None:
        self._note("has stopped")

    def waits_for_actions(self, actions: list[str], drain_us: int, interrupted: bool) -> None:
        self._note(f"stops, and waits for the actions {', '.join(actions)}")

    def stops_at_once(self) -> None:
        self._note("stops now, without waiting any longer")

    def left_behind(self, what: list[str]) -> None:
        self._note(f"stops without waiting any longer for {', '.join(what)}")

    def accepted(self, invocation: InvocationRun) -> None:
        self._watcher.accepted(invocation)

    def tear_down_failed(self, error: BaseException) -> None:
        self._note(f"cannot tear a dependency down: {error!r}")

    def invoked(self, invocation: InvocationRun) -> None:
        self._watcher.attempted(invocation)

    def waits_for_limit(self, invocation: InvocationRun, limit: str) -> None:
        self._watcher.waits_for_limit(invocation)
        self._note(f"{shown(invocation)} waits for the limit {limit}")

    def given_place(self, invocation: InvocationRun, limit: str) -> None:
        self._watcher.given_place(invocation)

    def journaled(self, invocation: InvocationRun, step: Step) -> None:
        self._watcher.stepped(invocation)
        asked = ", ".join(describe_command(command) for command in step.commands)
        self._note(f"{shown(invocation)} waits; {_changes(step)}asked for: {asked or 'nothing new'}")

    def concluded(self, invocation: InvocationRun, last: Step) -> None:
        self._watcher.concluded(invocation, last)  # What it asked for last shows in what becomes of that.

    def suspended(self, invocation: InvocationRun) -> None:
        self._note(f"{shown(invocation)} is suspended")

    def replayed(self, invocation: InvocationRun, steps: int) -> None:
        self._note(f"{shown(invocation)} is resumed, {steps} steps replayed")

    def ended(self, invocation: InvocationRun) -> None:
        assert invocation.outcome is not None
        self._watcher.ended(invocation)
        value = invocation.outcome.value
        if invocation.outcome.failed:
            self._note(f"{shown(invocation)} failed: {describe_failure(decode_failure(value))}")
        else:
            self._note(f"{shown(invocation)} -> {value.decode(errors='replace') or 'nothing'}")

    def collected_slowly(self, took_us: int, waiting: int) -> None:
        self._note(f"the garbage collector held up {waiting} requests")

    def retries(self, invocation: InvocationRun, error: BaseException, delay_us: int, due: int) -> None:
        self._watcher.retries(invocation, error)
        self._note(f"{shown(invocation)} failed and is tried again: {describe_failure(error)}")

    def action_retries(self, invocation: InvocationRun, action: str, fields: dict[str, Any]) -> None:
        self._note(f"the action {action!r} of {shown(invocation)} failed and is tried again: {fields.get('error')}")

    def gave_up(self, invocation: InvocationRun, error: BaseException) -> None:
        self._note(f"{shown(invocation)} fails for good: {describe_failure(error)}")
        self._watcher.gave_up(error)

    def killed(self, invocation: InvocationRun) -> None:
        self._watcher.killed(invocation)
        self._note(f"{shown(invocation)} is killed")

    def paused(self, invocation: InvocationRun, error: BaseException) -> None:
        self._watcher.paused(invocation)
        self._note(f"{shown(invocation)} is paused: {describe_failure(error)}")

    def slow(self, invocation: InvocationRun, took_us: int, coding: CodingMeter, place: str, stack: str) -> None:
        """Cannot happen: no time passes while code runs."""

    def changes_are_large(self, invocation: InvocationRun, field: str, field_bytes: int, changed_bytes: int) -> None:
        self._note(f"{shown(invocation)} has changed {changed_bytes} bytes of fields, the last {field}")

    def state_is_large(self, invocation: InvocationRun, size_bytes: int, limit_bytes: int) -> None:
        self._note(f"{shown(invocation)} has made the state large, of {size_bytes} bytes")

    def blocked(self, invocation: InvocationRun, for_us: int, place: str, stack: str) -> None:
        """Cannot happen either: no thread looks on."""

    def mailbox_is_long(self, activation: Activation, waiting: int, limit: int) -> None:
        service, key = activation.address
        self._note(f"{service}/{key} has a long mailbox, of {waiting} messages of at most {limit}")

    def journal_is_long(self, invocation: InvocationRun, steps: int) -> None:
        self._note(f"{shown(invocation)} has a long journal, of {steps} steps")

    def deadlocked(self, invocation: InvocationRun, command: int, cycle: tuple[str, ...]) -> None:
        self._note(f"{shown(invocation)} is told of a deadlock: {' -> '.join(cycle)}")
        self._watcher.deadlocked(invocation, command)

    def undeliverable(self, sender: InvocationRun, command: Command, error: TerminalError) -> None:
        told = describe_failure(error)
        self._note(f"{shown(sender)} asked to {describe_command(command)}, which cannot be delivered: {told}")

    def continued(self, invocation: InvocationRun, previous: int) -> None:
        self._note(f"{shown(invocation)} continues as new")

    def nobody_home(self, address: Address) -> None:
        self._note(f"the store holds work of {address.service}, which this process does not have; it waits")

    def waiting_for_people(self, count: int, example: InvocationRecord) -> None:
        self._note(f"{count} paused invocations wait for a person, such as {shown_id(example.id)}")

    def hook_failed(self, error: BaseException) -> None:
        self._note(f"on_paused raised: {describe_failure(error)}")

    def subscriber_failed(self, event: str, error: BaseException) -> None:
        self._note(f"a function that has subscribed to {event} raised: {describe_failure(error)}")

    def subscriber_too_slow(self, events: Sequence[str]) -> None:
        self._note(f"a function that has subscribed to {', '.join(events)} is slower than the retention")

    def subscriber_does_not_end(self, function: str) -> None:
        self._note(f"{function}, which has subscribed to events, does not end when it is cancelled")

    def source_does_not_end(self, source: str) -> None:
        self._note(f"the source {source} does not end when it is cancelled")

    def observer_failed(self, event: str, error: BaseException) -> None:
        self._note(f"an observer of {event!r} raised: {describe_failure(error)}")

    def incarnation_failed(self, error: BaseException) -> None:
        self._note(f"the store failed, everything in memory is void: {describe_failure(error)}")
        self._watcher.incarnation_failed(error)

    def subscription_begins(self, subscription: str, start: str) -> None:
        self._note(f"the subscription {subscription} begins at {start}")

    def subscription_begins_late(self, subscription: str) -> None:
        self._note(f"the subscription {subscription} begins with what is left")

    def subscription_gone(self, subscription: str) -> None:
        self._note(f"the subscription {subscription} is gone")

    def subscription_unreadable(self, subscription: str, error: BaseException) -> None:
        self._note(f"the store does not tell where the subscription {subscription} stood: {error}")

    def event_delivered(self, subscription: str, event: EventRecord, position: int) -> None:
        self._note(f"{event.name} ({event.id}) is delivered to {subscription}")
        self._watcher.delivered(subscription, event.position, position)

    def event_unreadable(self, subscription: str, event: str, reason: str) -> None:
        self._note(f"the subscription {subscription} is paused: {event} cannot be read: {reason}")

    def source_begins(self, source: str, positions: Mapping[str, int]) -> None:
        self._note(f"the source {source} is read from {dict(positions)} on")

    def record_taken(self, source: str, id: str, position: int) -> None:
        self._note(f"a record of the source {source} becomes {shown_id(id)}")
        self._watcher.taken(source, id, position)

    def source_failed(self, source: str, error: BaseException, delay_us: int) -> None:
        self._note(f"the source {source} failed: {error}")

    def source_paused(self, source: str, reason: str) -> None:
        self._note(f"the source {source} is paused: {reason}")

    def source_unreadable(self, source: str, error: BaseException) -> None:
        self._note(f"the store does not tell how far the source {source} was read: {error}")

    def schedule_begins(self, schedule: str, next_tick: str | None) -> None:
        self._note(f"the schedule {schedule} begins; its next tick is {next_tick}")

    def schedule_gone(self, schedule: str) -> None:
        self._note(f"the schedule {schedule} is gone")

    def schedule_unreadable(self, schedule: str, error: BaseException) -> None:
        self._note(f"the store does not tell where the schedule {schedule} stood: {error}")

    def ticks_missed(self, schedule: str, after: str | None, before: str | None) -> None:
        self._note(f"ticks of {schedule} between {after} and {before} are left out")

    def stopped_for_good(self, error: BaseException) -> None:
        self._note(f"stops for good: {describe_failure(error)}")

    def reopen_failed(self, error: BaseException, delay_us: int) -> None:
        self._note(f"the store cannot be opened: {describe_failure(error)}")

    def recovered(self) -> None:
        self._note("the store is back")

    def handler_logged(self, execution: Execution, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        told = "".join(f" {name}={value!r}" for name, value in fields.items())
        self._note(f"{execution.handler.service}/{execution.key}/{execution.handler.name} logs: {event}{told}")

    def action_logged(
        self, id: str, action: str, attempt: int, level: str, event: str, fields: Mapping[str, Any], /
    ) -> None:
        told = "".join(f" {name}={value!r}" for name, value in fields.items())
        self._note(f"the action {action!r} of {shown_id(id)} logs: {event}{told}")

    def action_slow(self, id: str, action: str, took_us: int, place: str, stack: str) -> None:
        """Cannot happen: no time passes while code runs."""

    def action_blocked(self, id: str, action: str, for_us: int, place: str, stack: str) -> None:
        """Cannot happen: no time passes while code runs."""

    def threads_busy(self, waiting: list[str], running: list[str]) -> None:
        self._note(f"{len(waiting)} actions wait for a thread")

    def warned(self, execution: Execution, message: str, /) -> None:
        self.handler_logged(execution, "warning", message, {})

    def task_failed(self, execution: Execution, task: str, error: BaseException, /) -> None:
        self.handler_logged(
            execution, "error", "Task exception was never retrieved", {"task": task, "error": describe_failure(error)}
        )


def shown(invocation: InvocationRun) -> str:
    """An invocation, for people: which object, which handler, and enough of the id to tell it from others."""
    service, key = invocation.address
    place = service if key == invocation.id else f"{service}/{key}"
    return f"{place}/{invocation.handler.name} ({shown_id(invocation.id)})"


def shown_id(id: str) -> str:
    """The last digits: the ids of an object's invocations begin alike."""
    return id if len(id) <= 2 * SHOWN_ID_DIGITS else f"inv_...{id[-SHOWN_ID_DIGITS:]}"


def _changes(step: Step) -> str:
    changes: Iterable[tuple[str, bytes | None]] = (step.changes or {}).items()
    said = [
        f"{in_words(name)} = {'unset' if value is None else value.decode(errors='replace')}" for name, value in changes
    ]
    return f"changed {', '.join(said)}; " if said else ""

"""Reads of entries of collections (rule V7).

An exclusive handler's read is answered with what the store has: the snapshot that its invocation began with stands
still while it holds the object, so a replay reads the same again and the answer is no record. A shared handler's read
is answered with the state at one moment, the changes of the exclusive invocation in flight included (rule V3), and the
answer is a recorded input (rule S4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec

from durably.actors.protocol.commands import ReadEntries, ReadListRange
from durably.actors.protocol.entries import (
    GREATEST_POSITION,
    LEAST_POSITION,
    PAGE_ENTRIES,
    EntryChanges,
    FieldChanges,
    FoundEntries,
    decode_bounds,
    encode_found,
    end_of,
    laid_over,
)
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import CodecError, TerminalError, UnencodableError, UnreadableRecordError
from durably.ids import Address, EntryKey, InvocationStatus
from durably.runtime.commands.command_kind import CommandKind
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Delivery
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.load_errors import unreadable_entry
from durably.runtime.messaging.completions import Completions
from durably.runtime.messaging.messages import KeysFound
from durably.runtime.registry.entry_reads import EntryReads
from durably.storage.records import EntryAnswer, EntryQuery, Unreadable, entry_part, field_part

C = TypeVar("C", ReadEntries, ReadListRange)

COUNTS_TRIED: Final = 8
"""How often a count is read again because other keys were changed meanwhile."""


def query_of(address: Address, command: ReadEntries) -> EntryQuery:
    """What a read asks the store."""
    return EntryQuery(
        address,
        command.field,
        keys=command.keys,
        only_keys=command.only_keys,
        limit=command.limit,
        after=command.after,
        before=command.before,
        is_backward=command.is_backward,
        counts=command.counts,
    )


def encode_answer(command: ReadEntries, answer: EntryAnswer) -> bytes:
    """What the store has, as an exclusive handler is given it."""
    end = end_of(answer.entries, command.limit) if command.limit else None
    return encode_found(answer.entries, end, answer.count)


def encode_entries(found: FoundEntries) -> bytes:
    return encode_found(found.entries, found.end, found.count)


def read_still(
    reads: EntryReads, activation: Activation, command: ReadEntries, then: Callable[[bytes | EntryAnswer], None]
) -> None:
    """Read for an exclusive handler; `then` hears the answer, or that it cannot be read, at once or later.

    A replay must be given the same answer: what the snapshot has, however much of it was in the store by then.
    """
    query, recent = query_of(activation.address, command), reads.recent(activation, command.field)

    def found(answer: EntryAnswer) -> None:
        if answer.unreadable is not None:
            then(answer)
        elif command.keys and not command.counts:
            then(encode_entries(with_changes(command, answer, recent)))
        else:
            then(encode_answer(command, answer))

    if command.keys and not command.counts:
        if recent.is_cleared or all(key in recent.entries for key in command.keys):
            then(encode_entries(with_changes(command, EntryAnswer(), recent)))
        else:
            reads.ask(activation, query, found)
    elif (
        command.counts
        or recent.is_cleared
        or recent.between(command.after, command.before, 1, is_backward=command.is_backward)
    ):
        reads.ask_when_durable(activation, query, found)
    else:
        reads.ask(activation, query, found)


def with_changes(command: ReadEntries, found: EntryAnswer, changes: FieldChanges) -> FoundEntries:
    """What the store has, with changes that it does not have yet."""
    stored = {} if changes.is_cleared else dict(found.entries)
    if command.limit:
        page = FoundEntries([*stored.items()], end_of(found.entries, command.limit) if stored else None)
        changed = changes.between(command.after, command.before, command.limit, is_backward=command.is_backward)
        return laid_over(page, changed, command.limit, is_backward=command.is_backward)
    now = {**stored, **{key: changes.entries[key] for key in command.keys if key in changes.entries}}
    there = [(key, value) for key in command.keys if (value := now.get(key)) is not None]
    return FoundEntries([(key, b"") for key, _ in there] if command.only_keys else there)


class EntryAnswers:
    """Brings answers to the handlers that have asked."""

    def __init__(
        self, *, committer: Committer, completions: Completions, payloads: PayloadCheck, reads: EntryReads,
        ready: ReadyQueue,
    ) -> None:  # fmt: skip
        self.on_unreadable: Callable[[InvocationRun, UnreadableRecordError], None] = _no_one_pauses
        """Hears that an invocation cannot go on, since what it has asked for cannot be read."""
        self.reads = reads
        self._committer = committer
        self._completions = completions
        self._payloads = payloads
        self._ready = ready

    def is_wanted(self, invocation: InvocationRun, asked_by: int, number: int) -> bool:
        """The command still waits: it was not given up, and its execution goes on (rules C3, W1)."""
        journal = invocation.journal
        if invocation.number != asked_by or invocation.outcome is not None or journal is None:
            return False
        return number in journal.pending and number in journal.unanswered

    def deliver(self, invocation: InvocationRun, number: int, value: bytes) -> None:
        """An answer that is no record."""
        assert invocation.journal is not None
        invocation.journal.answer(Delivery(number, False, value))
        if invocation.status is InvocationStatus.RUNNING and invocation.held_step is None:
            self._ready.push(invocation)

    def record(
        self, invocation: InvocationRun, number: int, value: bytes, transition: Transition | None = None
    ) -> None:
        """An answer that is a recorded input."""
        failed = False
        try:
            self._payloads.value("What was read", value)
        except (UnencodableError, CodecError) as error:
            failed, value = True, encode_failure(TerminalError(f"{error.message} Read less at a time."))
        transition = self._committer.begin() if transition is None else transition
        self._completions.complete(transition, invocation, number, failed, value)

    def refuse(self, invocation: InvocationRun, number: int, error: TerminalError) -> None:
        """What was asked cannot be answered, and the handler hears why: a recorded input."""
        self._completions.complete(self._committer.begin(), invocation, number, True, encode_failure(error))

    def refuse_unreadable(self, invocation: InvocationRun, answer: EntryAnswer) -> bool:
        """Pause an invocation that has asked for what cannot be read (rule L5)."""
        if answer.unreadable is None:
            return False
        if invocation.status is InvocationStatus.RUNNING:
            self.on_unreadable(invocation, unreadable_entry(invocation.address, answer.unreadable))
        return True


class SharedRead(Generic[C]):
    """A read of a shared handler that is under way, with what has changed since it was asked for."""

    def __init__(self, answers: EntryAnswers, invocation: InvocationRun, number: int, command: C) -> None:
        self.answers = answers
        self.invocation = invocation
        self.number = number
        self.command: C = command
        self._asked_by = invocation.number
        self._changes = FieldChanges()

    def begin(self, transition: Transition | None = None) -> None:
        """Ask the store; until it has answered, changes are noted."""
        activation, reads = self.invocation.activation, self.answers.reads
        self._changes = reads.recent(activation, self.command.field)
        query = self.query(activation)
        if query is None:
            self.answers.record(self.invocation, self.number, encode_found([]), transition)
            return
        if activation.entry_readers is None:
            activation.entry_readers = {}
        activation.entry_readers[self] = None
        ask = reads.ask_when_durable if query.counts else reads.ask
        ask(activation, query, self._found)

    def changed(self, changes: EntryChanges, /) -> None:
        self._changes.lay(changes.of(self.command.field))

    def query(self, activation: Activation) -> EntryQuery | None:
        """What the store is asked; None: nothing is there, which is known."""
        raise NotImplementedError

    def answer(self, activation: Activation, found: EntryAnswer, changes: FieldChanges) -> bytes | None:
        """The state as it is now; None: more has changed meanwhile than the answer tells of."""
        raise NotImplementedError

    def unreadable(self, activation: Activation, found: EntryAnswer, changes: FieldChanges) -> Unreadable | None:
        """What of the store's answer cannot be read, so that asking again would not help (rule L5)."""
        del activation, changes
        return found.unreadable

    def _found(self, found: EntryAnswer) -> None:
        invocation, activation = self.invocation, self.invocation.activation
        assert activation.entry_readers is not None
        del activation.entry_readers[self]
        if not self.answers.is_wanted(invocation, self._asked_by, self.number):
            return
        changes = self._changes
        changes.lay(activation.entries_in_view(self.command.field))
        unreadable = self.unreadable(activation, found, changes)
        if unreadable is not None:
            self.answers.refuse_unreadable(invocation, EntryAnswer(unreadable=unreadable))
            return
        value = self.answer(activation, found, changes)
        if value is None:
            self.begin()
        else:
            self.answers.record(invocation, self.number, value)


class SharedEntriesRead(SharedRead[ReadEntries]):
    """Of a dictionary, or of a field that is loaded lazily."""

    tried = 0

    def query(self, activation: Activation) -> EntryQuery | None:
        query = query_of(activation.address, self.command)
        if not self.command.counts:
            return query
        self.tried += 1
        asked = (*sorted(activation.entries_in_view(self.command.field).entries),)
        self._asked = frozenset(asked)
        return EntryQuery(query.address, query.field, keys=asked, only_keys=True, counts=True)

    def answer(self, activation: Activation, found: EntryAnswer, changes: FieldChanges) -> bytes | None:
        command = self.command
        if command.counts:
            return self._count(found, changes)
        return encode_entries(with_changes(command, found, changes))

    def _count(self, found: EntryAnswer, changes: FieldChanges) -> bytes | None:
        if changes.is_cleared:
            return encode_found([], count=sum(value is not None for value in changes.entries.values()))
        stored = {key for key, _ in found.entries}
        unknown = [key for key in changes.entries if key not in self._asked]
        if unknown and self.tried < COUNTS_TRIED:
            return None
        count = found.count
        if not unknown:
            count += sum((value is not None) - (key in stored) for key, value in changes.entries.items())
        return encode_found([], count=count)


class SharedListRead(SharedRead[ReadListRange]):
    """Of a list, which may grow and shrink at both ends meanwhile."""

    margin = 0
    _low = _high = 0
    """Between which positions the store was asked."""

    def query(self, activation: Activation) -> EntryQuery | None:
        if self._damaged_bounds(activation) is not None:
            return EntryQuery(activation.address, self.command.field)  # `unreadable` says why.
        first, end = self._wanted(activation)
        if first >= end:
            return None
        self._low = max(first - self.margin, LEAST_POSITION + 1)
        self._high = min(end + self.margin, GREATEST_POSITION)
        self.margin = 2 * self.margin + 1
        return EntryQuery(
            activation.address,
            self.command.field,
            limit=min(self._high - self._low, GREATEST_POSITION),
            after=EntryKey(self._low - 1, ""),
            before=EntryKey(self._high, ""),
        )

    def unreadable(self, activation: Activation, found: EntryAnswer, changes: FieldChanges) -> Unreadable | None:
        """An entry that was asked for, is within the length and was not changed since has to be there."""
        unreadable = found.unreadable or self._damaged_bounds(activation)
        if unreadable is not None or changes.is_cleared:
            return unreadable
        stored = {key.position for key, _ in found.entries}
        for position in range(*self._wanted(activation)):
            key = EntryKey(position, "")
            if self._low <= position < self._high and position not in stored and key not in changes.entries:
                return Unreadable(entry_part(self.command.field, key), "It is within the length of its list, and gone.")
        return None

    def answer(self, activation: Activation, found: EntryAnswer, changes: FieldChanges) -> bytes | None:
        stored = {} if changes.is_cleared else dict(found.entries)
        entries: list[tuple[EntryKey, bytes]] = []
        for position in range(*self._wanted(activation)):
            key = EntryKey(position, "")
            value = changes.entries[key] if key in changes.entries else stored.get(key)
            if value is None:
                return None
            entries.append((key, value))
        return encode_found(entries)

    def _damaged_bounds(self, activation: Activation) -> Unreadable | None:
        try:
            decode_bounds(activation.field_in_view(self.command.field))
        except msgspec.MsgspecError as error:
            return Unreadable(field_part(self.command.field), f"It says where a list begins and ends: {error}.")
        return None

    def _wanted(self, activation: Activation) -> tuple[int, int]:
        first, end = decode_bounds(activation.field_in_view(self.command.field))
        low, high, _ = slice(self.command.start, self.command.stop).indices(end - first)
        return first + low, first + min(high, low + PAGE_ENTRIES)


class ReadEntriesCommands(CommandKind[ReadEntries]):
    """The entries that were asked for are the answer."""

    is_answered_by_this_process = True

    def __init__(self, answers: EntryAnswers) -> None:
        self._answers = answers

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: ReadEntries, found: KeysFound
    ) -> None:
        if invocation.is_exclusive:
            self.resume(invocation, number, command)
        else:
            SharedEntriesRead(self._answers, invocation, number, command).begin(transition)

    def resume(self, invocation: InvocationRun, number: int, command: ReadEntries) -> None:
        if not invocation.is_exclusive:
            SharedEntriesRead(self._answers, invocation, number, command).begin()
            return
        then = partial(self._found, invocation, invocation.number, number)
        read_still(self._answers.reads, invocation.activation, command, then)

    def _found(self, invocation: InvocationRun, asked_by: int, number: int, found: bytes | EntryAnswer) -> None:
        answers = self._answers
        if not answers.is_wanted(invocation, asked_by, number):
            return
        if isinstance(found, bytes):
            answers.deliver(invocation, number, found)
        else:
            answers.refuse_unreadable(invocation, found)


class ReadListRangeCommands(CommandKind[ReadListRange]):
    """A slice of a list, as it is when the answer is made."""

    is_answered_by_this_process = True

    def __init__(self, answers: EntryAnswers) -> None:
        self._answers = answers

    def issue(
        self, transition: Transition, invocation: InvocationRun, number: int, command: ReadListRange, found: KeysFound
    ) -> None:
        SharedListRead(self._answers, invocation, number, command).begin(transition)

    def resume(self, invocation: InvocationRun, number: int, command: ReadListRange) -> None:
        SharedListRead(self._answers, invocation, number, command).begin()


def _no_one_pauses(invocation: InvocationRun, error: UnreadableRecordError) -> None:
    raise AssertionError("entries were read before the machine was put together")

"""`Journal`: what an invocation that has waited at least once remembers. Plain data.

The store holds the same in rows: steps, and the answers that they refer to. An invocation that ends in its first step,
as most do, never has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from durably.actors.protocol.commands import (
    HELD_BY_ATOMIC,
    MESSAGES,
    READS,
    Attach,
    AwaitResume,
    AwaitSignal,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    GetOutput,
    GetStatus,
    IdentifyCall,
    IdentifyRun,
    Publish,
    ReadEntries,
    Run,
    Send,
    SendSignal,
    Sleep,
)
from durably.actors.protocol.entries import EntryChanges, is_of_entries
from durably.runtime.execution.step import (
    CodeVersion,
    Delivery,
    Outcome,
    RecordedStep,
    Step,
    Undoing,
    decode_recorded_step,
    is_cancel,
)
from durably.storage.records import StepRecord, StoredInvocation, Unreadable, step_part

STEP_BYTES = 520
"""What a step of few words and its answer take up in memory."""
DECODED_RATIO = 7
"""What a byte of JSON takes up, with what it was decoded to: 2 for text, 7 for numbers, 9 for many small records."""

VALUED = (CompletePromise, CompleteAwakeable, SendSignal, Publish)
"""Commands that carry a value."""
ANSWERED_BY_THIS_PROCESS = (Run, GetOutput, GetStatus, IdentifyCall, IdentifyRun, Attach, *READS)
"""Commands whose answer this process has to find out itself; all others are answered by something durable."""


class UnreadableStepError(Exception):
    """A step is not what the runtime wrote (rule L5)."""

    def __init__(self, record: StepRecord, error: Exception) -> None:
        super().__init__(record, error)
        self.unreadable = Unreadable(step_part(record.index), f"It is damaged: {error}.")


Versions: TypeAlias = tuple[tuple[int, CodeVersion], ...]
"""Which code made which steps, each from an index on."""


def version_at(versions: Versions, step: int | None = None) -> CodeVersion | None:
    """Of the code that made this step, or the last one. None: it was made before versions were recorded."""
    return next((version for index, version in reversed(versions) if step is None or index <= step), None)


class Journal:
    """Steps, answers, and what is still waited for."""

    __slots__ = (
        "awaits_resume", "cancelled_calls", "cancels", "changed_bytes", "changes", "deliveries", "entries", "has_sent",
        "held_back", "kept_last_step", "next_command", "not_before", "pending", "reads", "size_bytes", "steps",
        "taken_by_held_step", "taken_signals", "unanswered", "undelivered", "undoings", "unread", "version",
        "versions", "was_cancelled",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.size_bytes = 0
        """About what it takes up in memory, with what the handler has decoded of it."""
        self.changed_bytes = 0
        """So much of that are the fields that steps have changed: each step holds them as a whole."""
        self.deliveries: dict[int, Delivery] = {}
        """Answers that steps refer to, by command."""
        self.undelivered: list[Delivery] = []
        """What no step has taken in yet: cancels, then recorded answers, in log order (rule E1)."""
        self.cancels = 0
        """How many have been recorded."""
        self.version: CodeVersion | None = None
        """Of the code that made the last step, if that is known."""
        self.versions: Versions = ()
        self.undoings: dict[int, Undoing] | None = None
        """The steps that end where something is left to undo; None: there never was."""
        self.was_cancelled = False
        """A step has taken in a cancel."""
        self.awaits_resume: int | None = None
        """The command that is answered when a person resumes the invocation; None: it asks for none."""
        self.cancelled_calls: set[int] = set()
        """Calls that a cancel has reached, whose callees have been told (rule E1)."""
        self.taken_by_held_step = 0
        """So many of the undelivered ones are in a step that is not in the journal yet."""
        self.pending: dict[int, Command] = {}
        """Commands that are waited for and have no recorded answer."""
        self.unanswered: set[int] = set()
        """Those of `pending` that this process itself must answer (actions, look-ups): while there are any, it runs."""
        self.taken_signals: dict[int, str] | None = None
        """Names of signals that are recorded answers which no handler has seen yet, by command; None: never any."""
        self.next_command = 0
        self.changes: dict[str, bytes | None] = {}
        """What the steps so far have changed of the fields of the object's state."""
        self.entries: EntryChanges | None = None
        """What they have changed of the entries of collections; None: nothing."""
        self.reads: dict[int, ReadEntries] | None = None
        """Reads of entries that have been answered, as long as the answers are kept; None: never any."""
        self.unread: dict[int, ReadEntries] | None = None
        """Reads of entries that steps have taken in, and whose answers are not kept: a replay reads again (rule V7)."""
        self.held_back: list[tuple[int, Command]] = []
        """What an atomic handler has asked for, kept until its outcome (rule V6)."""
        self.has_sent = False
        """It has sent messages, and may ask for their outcomes."""
        self.kept_last_step = False
        """The step that ends the invocation is stored, too."""
        self.not_before = 0
        """The next step's time is at least this: the due times that it delivers, and the last step's time (rule T1)."""

    def take(self, step: Step, taken: int) -> None:
        """Fold a step in: it took in the first `taken` undelivered answers."""
        self.steps.append(step)
        self.size_bytes += STEP_BYTES
        if self.taken_signals:
            for number in step.deliveries:
                self.taken_signals.pop(number, None)
        for delivery in self.undelivered[:taken]:
            self.deliveries[delivery.command] = delivery
        del self.undelivered[:taken]
        if step.deliveries and min(step.deliveries) < 0:
            self.was_cancelled = True
        if step.cancelled:
            self.cancelled_calls.update(step.cancelled)
        if step.changes is not None:
            self._take_changes(step.changes)
            changed_bytes = sum(len(value) for value in step.changes.values() if value is not None)
            self.changed_bytes += changed_bytes
            self.size_bytes += changed_bytes
        self.next_command += len(step.commands)
        for command in step.commands:
            if type(command) is not Run:
                self.size_bytes += _payload_bytes(command)
                if type(command) is Send:
                    self.has_sent = True
        if step.at > self.not_before:
            self.not_before = step.at

    def note_undoing(self, index: int, undoing: Undoing) -> None:
        """What is left to undo where this step ends."""
        if undoing:
            self.undoings = {} if self.undoings is None else self.undoings
            self.undoings[index] = undoing

    def undoing_at(self, index: int) -> Undoing:
        """The same, where it is recorded with this step."""
        return Undoing.NOTHING if self.undoings is None else self.undoings.get(index, Undoing.NOTHING)

    @property
    def undoing(self) -> Undoing:
        """What is left to undo where the journal ends: no failure may end the invocation before that is done."""
        return Undoing.NOTHING if self.undoings is None else self.undoing_at(len(self.steps) - 1)

    def _take_changes(self, changes: Mapping[str, bytes | None]) -> None:
        has_entries = False
        for name, value in changes.items():
            if is_of_entries(name):
                has_entries = True
            else:
                self.changes[name] = value
        if has_entries:
            if self.entries is None:
                self.entries = EntryChanges()
            self.entries.take(changes)

    def forget_reads(self, step: Step) -> None:
        """The answers to reads of entries that a step has taken in are not kept: they would fill the memory."""
        for number in step.deliveries:
            command = None if self.reads is None else self.reads.pop(number, None)
            if command is not None:
                self.forget_read(number, command)

    def forget_read(self, number: int, command: ReadEntries) -> None:
        """Drops the answer that a step took in: a replay of the step reads it again."""
        delivery = self.deliveries.pop(number, None)
        if delivery is not None:
            self.size_bytes -= DECODED_RATIO * len(delivery.value)
        if self.unread is None:
            self.unread = {}
        self.unread[number] = command

    def read_again(self, number: int, value: bytes) -> None:
        """The answer that a step took in has been read again."""
        assert self.unread is not None
        self.reads = {} if self.reads is None else self.reads
        self.reads[number] = self.unread.pop(number)
        self.deliveries[number] = Delivery(number, False, value)
        self.size_bytes += DECODED_RATIO * len(value)

    def note_version(self, version: CodeVersion) -> CodeVersion | None:
        """The next step is made by this code: what has to be recorded of that."""
        if self.version is version:
            return None
        is_known, self.version = self.version == version, version
        if is_known:
            return None
        self.versions += ((len(self.steps), version),)
        return version

    def version_from(self, step: int) -> CodeVersion | None:
        """The version that is recorded with this step."""
        return next((version for index, version in self.versions if index == step), None)

    def answer(self, delivery: Delivery) -> bool:
        """Records an answer; False if no command waits for it (rule C3)."""
        answered = self.pending.pop(delivery.command, None)
        if answered is None:
            return False
        self.unanswered.discard(delivery.command)
        self.undelivered.append(delivery)
        self.size_bytes += DECODED_RATIO * len(delivery.value)
        if type(answered) is Sleep:
            self.not_before = max(self.not_before, answered.due)
        elif type(answered) is ReadEntries:
            self.reads = {} if self.reads is None else self.reads
            self.reads[delivery.command] = answered
        elif type(answered) is AwaitSignal:
            self.taken_signals = {} if self.taken_signals is None else self.taken_signals
            self.taken_signals[delivery.command] = answered.name
        elif type(answered) is AwaitResume:
            self.awaits_resume = None
        return True

    def cancel(self, value: bytes) -> Delivery:
        """A cancel is recorded; it comes before all answers that no step has taken in."""
        self.cancels += 1
        delivery = Delivery(-self.cancels, True, value)
        place = self.taken_by_held_step
        while place < len(self.undelivered) and is_cancel(self.undelivered[place]):
            place += 1
        self.undelivered.insert(place, delivery)
        return delivery

    def release(self) -> None:
        """The step that was held has not happened, or is in the journal now."""
        if self.taken_by_held_step:
            self.taken_by_held_step = 0
            self.undelivered.sort(key=lambda delivery: not is_cancel(delivery))

    @property
    def takes_cancel(self) -> bool:
        """The next advance takes in a cancel."""
        return bool(self.undelivered) and is_cancel(self.undelivered[0])

    @property
    def hears_of_cancel(self) -> bool:
        """In the next advance its code hears of a cancel, which that takes in or the end of a callee carries on."""
        return self.takes_cancel or any(answer.command in self.cancelled_calls for answer in self.undelivered)

    @property
    def ends_if_it_fails(self) -> bool:
        """A cancel ends it even if its code fails (rule E1 (e)), but not before what was done is undone."""
        return self.hears_of_cancel and not self.undoing

    def reload(self, *, is_suspended: bool, is_atomic: bool) -> None:
        """It comes from the store: note what this process has to answer again, and what is held back.

        One that was suspended has nothing to be answered again: what it attached to knows it. What an atomic handler
        holds back is not in the store as such: it is found in its steps (rule V6). What was refused when it was asked
        for is not held.
        """
        for number, command in self.pending.items():
            if isinstance(command, ANSWERED_BY_THIS_PROCESS) and not is_suspended:
                self.unanswered.add(number)
            elif isinstance(command, AwaitResume):
                self.awaits_resume = number
        if is_atomic:
            refused = {
                delivery.command for delivery in (*self.deliveries.values(), *self.undelivered) if delivery.failed
            }
            commands = (command for step in self.steps for command in step.commands)
            self.held_back += [
                (number, command)
                for number, command in enumerate(commands)
                if isinstance(command, HELD_BY_ATOMIC) and number not in refused
            ]
            for number, _ in self.held_back:  # They have no answer, as when they were issued.
                self.pending.pop(number, None)

    def issued_at(self, number: int) -> int:
        """The time of the step that issued a command."""
        first = 0
        for step in self.steps:
            first += len(step.commands)
            if number < first:
                return step.at
        raise LookupError(number)

    def unseen_signal(self, number: int) -> tuple[str, Delivery] | None:
        """The signal that answered a command, with its name, if no handler has seen it; it is no answer from now on."""
        name = None if self.taken_signals is None else self.taken_signals.pop(number, None)
        if name is None:
            return None
        for delivery in self.undelivered:
            if delivery.command == number:
                self.undelivered.remove(delivery)
                return name, delivery
        return name, self.deliveries.pop(number)

    def cut(self, count: int) -> Journal:
        """The journal as it would be if no steps but the first `count` had been, with all answers that have come.

        What is pending there has no answer that could be taken in again.
        """
        kept = Journal()
        for step in self.steps[:count]:
            for number, command in enumerate(step.commands, kept.next_command):
                if is_answered(command):
                    kept.pending[number] = command
            for number in (*step.deliveries, *step.abandoned):
                dropped = kept.pending.pop(number, None)
                if self.unread is not None and number in self.unread and isinstance(dropped, ReadEntries):
                    kept.forget_read(number, dropped)
                elif number in self.deliveries:
                    kept.deliveries[number] = self.deliveries[number]
                    kept.size_bytes += DECODED_RATIO * len(kept.deliveries[number].value)
            kept.take(step, 0)
        kept.versions = tuple((index, version) for index, version in self.versions if index < count)
        kept.version = version_at(kept.versions)
        for index in range(count):
            kept.note_undoing(index, self.undoing_at(index))
        for step in self.steps[count:]:
            for number in step.deliveries:
                if number in self.deliveries:
                    kept.answer(self.deliveries[number])
        for delivery in self.undelivered:
            kept.answer(delivery)
        reads = [number for number, one in kept.pending.items() if isinstance(one, READS)]
        kept.unanswered.update(reads)
        kept.not_before = self.not_before
        return kept

    def signals_taken(self, first: int = 0) -> list[tuple[str, Delivery]]:
        """All signals that have answered commands from this one on, with their names, in their order."""
        commands = [command for step in self.steps for command in step.commands]
        numbers = (number for step in self.steps for number in step.deliveries if number >= 0)
        seen = [self.deliveries[number] for number in numbers if number in self.deliveries]
        taken: list[tuple[str, Delivery]] = []
        for delivery in (*seen, *self.undelivered):
            command = commands[delivery.command] if delivery.command >= first else None
            if isinstance(command, AwaitSignal):
                taken.append((command.name, delivery))
        return taken

    def give_up(self, number: int) -> Command | None:
        """The handler does not want this answer any more (rule C5): the command, if it was still waited for."""
        self.unanswered.discard(number)
        self.undelivered = [delivery for delivery in self.undelivered if delivery.command != number]
        return self.pending.pop(number, None)


def deliveries_of(stored: StoredInvocation) -> dict[int, Delivery]:
    """Every recorded answer, by command: those that steps keep, and those with a record of their own, in log order.

    Raises:
        UnreadableStepError: a step was damaged.
    """
    return _deliveries([_decoded(step) for step in stored.steps], stored)


def steps_of(stored: StoredInvocation) -> list[Step]:
    """Its recorded steps.

    Raises:
        UnreadableStepError: a step was damaged.
    """
    return [_decoded(record).step for record in stored.steps]


def versions_of(stored: StoredInvocation) -> Versions:
    """Which code made its steps."""
    return _versions([_decoded(record) for record in stored.steps])


def with_outcome(steps: Sequence[Step], outcome: Outcome | None) -> list[Step]:
    """The steps of an invocation that has ended, as they were made: its outcome stands in its row, and not in the last
    of them once more.
    """
    made = list(steps)
    if made and made[-1].outcome is not None and outcome is not None:
        made[-1] = replace(made[-1], outcome=outcome)
    return made


def _versions(steps: Sequence[RecordedStep]) -> Versions:
    return tuple((index, step.version) for index, step in enumerate(steps) if step.version is not None)


def _decoded(record: StepRecord) -> RecordedStep:
    try:
        return decode_recorded_step(record.content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableStepError(record, error) from error


def _deliveries(steps: Sequence[RecordedStep], stored: StoredInvocation) -> dict[int, Delivery]:
    answers: dict[int, Delivery] = {}
    for step in steps:
        for kept in step.answers:
            answers[kept.command] = Delivery(kept.command, kept.failed, kept.value)
    for one in stored.completions:  # Rule C3: the first answer to a command is the one that counts.
        answers.setdefault(one.command, Delivery(one.command, one.failed, one.value))
    return answers


def unrecorded_reads(stored: StoredInvocation) -> list[tuple[int, ReadEntries]]:
    """Reads of entries whose answers its steps have taken in, and which are no records (rule V7), by command.

    Raises:
        UnreadableStepError: a step was damaged.
    """
    steps = [_decoded(record) for record in stored.steps]
    commands = [command for recorded in steps for command in recorded.step.commands]
    answered = _deliveries(steps, stored)
    taken = (number for step, *_ in steps for number in step.deliveries if number >= 0 and number not in answered)
    return [(number, command) for number in taken if isinstance(command := commands[number], ReadEntries)]


def journal_of(stored: StoredInvocation) -> Journal:
    """What a stored invocation remembers.

    Raises:
        UnreadableStepError: a step was damaged.
    """
    journal = Journal()
    steps = [_decoded(record) for record in stored.steps]
    answers = _deliveries(steps, stored)
    journal.versions = _versions(steps)
    journal.version = version_at(journal.versions)
    for index, (step, _, _, undoing) in enumerate(steps):
        journal.note_undoing(index, undoing)
        for offset, command in enumerate(step.commands):
            if is_answered(command):
                journal.pending[journal.next_command + offset] = command
        for number in (*step.deliveries, *step.abandoned):
            taken = journal.pending.pop(number, None)
            if number in answers:
                journal.deliveries[number] = answers.pop(number)
                journal.size_bytes += DECODED_RATIO * len(journal.deliveries[number].value)
            elif isinstance(taken, ReadEntries) and number in step.deliveries:
                journal.forget_read(number, taken)
        journal.take(step, 0)
    for delivery in answers.values():
        if is_cancel(delivery):
            journal.undelivered.append(delivery)
    journal.undelivered.sort(key=lambda delivery: -delivery.command)
    journal.cancels = sum(completion.command < 0 for completion in stored.completions)
    for delivery in answers.values():
        journal.answer(delivery)
    return journal


def _payload_bytes(command: Command) -> int:
    """Of what it carries."""
    if isinstance(command, MESSAGES):
        return len(command.argument)
    return len(command.value) if isinstance(command, VALUED) else 0


def is_answered(command: Command) -> bool:
    """The handler waits for an answer; not so an atomic one for what is held back, as `reload` knows."""
    is_one_way = isinstance(command, Send) and not command.may_join and command.idempotency_key is None
    return not is_one_way and not isinstance(command, Cancel | CompleteAwakeable | Publish)

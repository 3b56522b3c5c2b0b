"""`Journal`: what an invocation that has waited at least once remembers. Plain data.

The store holds the same in rows: steps, and the answers that they refer to. An invocation that ends in its first step,
as most do, never has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from durably.actors.protocol.commands import (
    HELD_BY_ATOMIC,
    Attach,
    AwaitSignal,
    Call,
    Cancel,
    Command,
    CompleteAwakeable,
    CompletePromise,
    GetOutput,
    GetStatus,
    IdentifyCall,
    Run,
    Send,
    SendSignal,
    Sleep,
)
from durably.runtime.execution.step import Answer, Delivery, Step, decode_stored_step, is_cancel
from durably.storage.records import StepRecord, StoredInvocation, Unreadable, step_part

NO_CHANGES: Mapping[str, bytes | None] = {}

STEP_BYTES = 520
"""What a step of few words and its answer take up in memory."""
DECODED_RATIO = 7
"""What a byte of JSON takes up, with what it was decoded to: 2 for text, 7 for numbers, 9 for many small records."""

ANSWERED_BY_THIS_PROCESS = (Run, GetOutput, GetStatus, IdentifyCall, Attach)
"""Commands whose answer this process has to find out itself; all others are answered by something durable."""


class UnreadableStepError(Exception):
    """A step is not what the runtime wrote (rule L5)."""

    def __init__(self, record: StepRecord, error: Exception) -> None:
        super().__init__(record, error)
        self.unreadable = Unreadable(step_part(record.index), f"It is damaged: {error}.")


class Journal:
    """Steps, answers, and what is still waited for."""

    __slots__ = (
        "cancelled_calls", "cancels", "changes", "deliveries", "has_sent", "held_back", "next_command", "not_before",
        "pending", "size_bytes", "steps", "taken_by_held_step", "taken_signals", "unanswered", "undelivered",
        "was_cancelled",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.size_bytes = 0
        """About what it takes up in memory, with what the handler has decoded of it."""
        self.deliveries: dict[int, Delivery] = {}
        """Answers that steps refer to, by command."""
        self.undelivered: list[Delivery] = []
        """What no step has taken in yet: cancels, then recorded answers, in log order (rule E1)."""
        self.cancels = 0
        """How many have been recorded."""
        self.was_cancelled = False
        """A step has taken in a cancel."""
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
        self.changes: Mapping[str, bytes | None] = NO_CHANGES
        """What the steps so far have changed of the object's state."""
        self.held_back: list[tuple[int, Command]] = []
        """What an atomic handler has asked for, kept until its outcome (rule V6)."""
        self.has_sent = False
        """It has sent messages, and may ask for their outcomes."""
        self.not_before = 0
        """The next step's time is at least this: the due times that it delivers, and the last step's time (rule T1)."""

    def take(self, step: Step, taken: int) -> None:
        """Fold a step in: it took in the first `taken` undelivered answers."""
        self.steps.append(step)
        self.size_bytes += STEP_BYTES + sum(map(_payload_bytes, step.commands))
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
            self.changes = {**self.changes, **step.changes}
        self.next_command += len(step.commands)
        for command in step.commands:
            if isinstance(command, Send):
                self.has_sent = True
        if step.at > self.not_before:
            self.not_before = step.at

    def answer(self, delivery: Delivery) -> bool:
        """An answer is recorded; False if nobody waits for it (rule C3)."""
        answered = self.pending.pop(delivery.command, None)
        if answered is None:
            return False
        self.unanswered.discard(delivery.command)
        self.undelivered.append(delivery)
        self.size_bytes += DECODED_RATIO * len(delivery.value)
        if isinstance(answered, Sleep):
            self.not_before = max(self.not_before, answered.due)
        elif isinstance(answered, AwaitSignal):
            self.taken_signals = {} if self.taken_signals is None else self.taken_signals
            self.taken_signals[delivery.command] = answered.name
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

    def reload(self, *, is_suspended: bool, is_atomic: bool) -> None:
        """It comes from the store: note what this process has to answer again, and what is held back.

        One that was suspended has nothing to be answered again: what it attached to knows it. What an atomic handler
        holds back is not in the store as such: it is found in its steps (rule V6). What was refused when it was asked
        for is not held.
        """
        for number, command in self.pending.items():
            if isinstance(command, ANSWERED_BY_THIS_PROCESS) and not is_suspended:
                self.unanswered.add(number)
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
                if _is_answered(command):
                    kept.pending[number] = command
            for number in (*step.deliveries, *step.abandoned):
                kept.pending.pop(number, None)
                if number in self.deliveries:
                    kept.deliveries[number] = self.deliveries[number]
                    kept.size_bytes += DECODED_RATIO * len(kept.deliveries[number].value)
            kept.take(step, 0)
        for step in self.steps[count:]:
            for number in step.deliveries:
                kept.answer(self.deliveries[number])
        for delivery in self.undelivered:
            kept.answer(delivery)
        kept.not_before = self.not_before
        return kept

    def signals_taken(self, first: int = 0) -> list[tuple[str, Delivery]]:
        """All signals that have answered commands from this one on, with their names, in their order."""
        commands = [command for step in self.steps for command in step.commands]
        seen = [self.deliveries[number] for step in self.steps for number in step.deliveries if number >= 0]
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
    return _deliveries(stored, [_decoded(step) for step in stored.steps])


def steps_of(stored: StoredInvocation) -> list[Step]:
    """Its recorded steps.

    Raises:
        UnreadableStepError: a step was damaged.
    """
    return [_decoded(record)[0] for record in stored.steps]


def _decoded(record: StepRecord) -> tuple[Step, Sequence[Answer]]:
    try:
        return decode_stored_step(record.content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableStepError(record, error) from error


def _deliveries(stored: StoredInvocation, steps: Sequence[tuple[Step, Sequence[Answer]]]) -> dict[int, Delivery]:
    answers: dict[int, Delivery] = {}
    for _, kept_answers in steps:
        for kept in kept_answers:
            answers[kept.command] = Delivery(kept.command, kept.failed, kept.value)
    for one in stored.completions:  # Rule C3: the first answer to a command is the one that counts.
        answers.setdefault(one.command, Delivery(one.command, one.failed, one.value))
    return answers


def journal_of(stored: StoredInvocation) -> Journal:
    """What a stored invocation remembers.

    Raises:
        UnreadableStepError: a step was damaged.
    """
    journal = Journal()
    steps = [_decoded(record) for record in stored.steps]
    answers = _deliveries(stored, steps)
    for step, _ in steps:
        for offset, command in enumerate(step.commands):
            if _is_answered(command):
                journal.pending[journal.next_command + offset] = command
        for number in (*step.deliveries, *step.abandoned):
            journal.pending.pop(number, None)
            if number in answers:
                journal.deliveries[number] = answers.pop(number)
                journal.size_bytes += DECODED_RATIO * len(journal.deliveries[number].value)
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
    if isinstance(command, Call | Send):
        return len(command.argument)
    return len(command.value) if isinstance(command, CompletePromise | CompleteAwakeable | SendSignal) else 0


def _is_answered(command: Command) -> bool:
    """The handler waits for an answer; not so an atomic one for what is held back, as `reload` knows."""
    is_one_way = isinstance(command, Send) and not command.may_join and command.idempotency_key is None
    return not is_one_way and not isinstance(command, Cancel | CompleteAwakeable)

"""`Invocation`: one accepted request while it is in memory. Plain data; the engine moves it, nothing here decides.

It holds everything that a retry or a suspension needs. The store holds the same in rows. An invocation that ends in its
first step, as most do, never has a `Journal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.protocol.commands import Command, Send, Sleep
from durably.errors import LoadLimitError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Delivery, Outcome, Step, decode_step
from durably.runtime.observation.failure_text import decode_attempt_failure
from durably.storage.records import CallerRecord, InvocationRecord, InvocationUpdate, StoredInvocation

LOAD_LIMIT_ADVICE = (
    "It stays as it is until the store is opened with a higher limit (`SqliteStore(path, load_limit_mib=...)`) on a "
    "machine with the memory for it; then resume it. Keep large values elsewhere and pass their names."
)
NO_CHANGES: Mapping[str, bytes | None] = {}


class Journal:
    """What an invocation that has waited at least once remembers."""

    __slots__ = (
        "changes", "deliveries", "has_sent", "held_sends", "next_command", "not_before", "pending", "steps",
        "unanswered", "undelivered",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.deliveries: dict[int, Delivery] = {}
        """Answers that steps refer to, by command."""
        self.undelivered: list[Delivery] = []
        """Recorded answers that no step has taken in yet, in log order."""
        self.pending: dict[int, Command] = {}
        """Commands that are waited for and have no recorded answer."""
        self.unanswered: set[int] = set()
        """Those of `pending` that this process itself must answer (actions, look-ups): while there are any, it runs."""
        self.next_command = 0
        self.changes: Mapping[str, bytes | None] = NO_CHANGES
        """What the steps so far have changed of the object's state."""
        self.held_sends: list[tuple[int, Command]] = []
        """Messages of an atomic handler, kept until its outcome (rule V6)."""
        self.has_sent = False
        """It has sent messages, and may ask for their outcomes."""
        self.not_before = 0
        """The next step's time is at least this: the due times that it delivers, and the last step's time (rule T1)."""

    def take(self, step: Step, taken: int) -> None:
        """Fold a step in: it took in the first `taken` undelivered answers."""
        self.steps.append(step)
        for delivery in self.undelivered[:taken]:
            self.deliveries[delivery.command] = delivery
        del self.undelivered[:taken]
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
        if isinstance(answered, Sleep):
            self.not_before = max(self.not_before, answered.due)
        return True

    def issued_at(self, number: int) -> int:
        """The time of the step that issued a command."""
        first = 0
        for step in self.steps:
            first += len(step.commands)
            if number < first:
                return step.at
        raise LookupError(number)

    def give_up(self, number: int) -> Command | None:
        """The handler does not want this answer any more (rule C5): the command, if it was still waited for."""
        self.unanswered.discard(number)
        self.undelivered = [delivery for delivery in self.undelivered if delivery.command != number]
        return self.pending.pop(number, None)


class InvocationRun:
    """One unfinished invocation (or one that has just finished and is not durable yet)."""

    # What most invocations never change is not set for each of them.
    attempts: int = 0
    """Failed attempts since the last progress."""
    failing_since: int | None = None
    failure: bytes | None = None
    paused_error: BaseException | None = None
    outcome: Outcome | None = None
    expires_at: int | None = None
    attachments: tuple[CallerRecord, ...] = ()
    execution: Execution | None = None
    journal: Journal | None = None
    sender_unfinished: bool = False
    """The sender had no outcome when this one was loaded."""
    is_held: bool = False
    """A step of it waits for the look-up of idempotency keys; nothing of that step has happened yet."""
    held_position: int = 0
    """Which of its steps that is."""
    load_error: LoadLimitError | None = None
    """Why it cannot go on: its journal, or the state of its object, is in the store only."""
    is_queued: bool = False
    parked_in: dict[int, Any] | None = None
    """Where it waits for its attempt to be thrown away."""
    position: int = 0
    """The log position of its last transition."""
    stored: tuple[object, ...] = ()
    """What the store, or a batch on its way there, says of the part that changes."""

    def __init__(
        self,
        number: int,
        id: str,
        address: Address,
        handler: BoundActorHandler,
        seed: bytes,
        argument: bytes,
        headers: dict[str, str],
        scope: KeyScope | None,
        caller: CallerRecord | None,
        sender_id: str | None,
        deadline: int | None,
        accepted_at: int,
        keep_outcome_us: int | None,
        status: InvocationStatus,
        mailbox_position: int | None,
    ) -> None:
        self.number = number
        self.id = id
        self.address = address
        self.handler = handler
        self.seed = seed
        self.argument = argument
        self.headers = headers
        self.scope = scope
        self.caller = caller
        self.sender_id = sender_id
        self.deadline = deadline
        self.accepted_at = accepted_at
        self.keep_outcome_us = keep_outcome_us
        self.status = status
        self.mailbox_position = mailbox_position

    def __repr__(self) -> str:
        return f"<{self.status} {self.id} of {self.address.service}/{self.address.key}/{self.handler.name}>"

    @property
    def is_exclusive(self) -> bool:
        return self.handler.kind == "exclusive"

    def record(self) -> InvocationRecord:
        """The row that accepts this invocation."""
        self.note_stored()
        return InvocationRecord(
            number=self.number,
            id=self.id,
            address=self.address,
            handler=self.handler.name,
            seed=self.seed,
            argument=self.argument,
            headers=self.headers,
            scope=self.scope,
            caller=self.caller,
            sender_id=self.sender_id,
            deadline=self.deadline,
            accepted_at=self.accepted_at,
            keep_outcome_us=self.keep_outcome_us,
            status=self.status,
            mailbox_position=self.mailbox_position,
            attempts=self.attempts,
            failure=self.failure,
            outcome=None if self.outcome is None else encode_outcome(self.outcome),
            expires_at=self.expires_at,
        )

    def update(self) -> InvocationUpdate | None:
        """What has changed since, if anything has."""
        changeable = self._changeable()
        if changeable == self.stored:
            return None
        self.stored = changeable
        return InvocationUpdate(
            number=self.number,
            status=self.status,
            mailbox_position=self.mailbox_position,
            attempts=self.attempts,
            failure=self.failure,
            outcome=None if self.outcome is None else encode_outcome(self.outcome),
            expires_at=self.expires_at,
        )

    def note_stored(self) -> None:
        """The store, or a batch on its way there, says the same of it as memory."""
        self.stored = self._changeable()

    def _changeable(self) -> tuple[object, ...]:
        return (self.status, self.mailbox_position, self.attempts, self.failure, self.outcome, self.expires_at)


def from_stored(stored: StoredInvocation, handler: BoundActorHandler) -> InvocationRun:
    """An invocation as its rows tell it: delivered answers apart from those that still wait."""
    record = stored.record
    invocation = InvocationRun(
        record.number,
        record.id,
        record.address,
        handler,
        record.seed,
        record.argument,
        record.headers,
        record.scope,
        record.caller,
        record.sender_id,
        record.deadline,
        record.accepted_at,
        record.keep_outcome_us,
        record.status,
        record.mailbox_position,
    )
    invocation.attempts = record.attempts
    invocation.failure = record.failure
    if record.failure is not None and record.attempts:
        invocation.failing_since = decode_attempt_failure(record.failure).since
    invocation.sender_unfinished = stored.sender_unfinished
    invocation.attachments = tuple(attachment.caller for attachment in stored.attachments)
    invocation.note_stored()
    if stored.left_out_bytes is not None:
        invocation.load_error = LoadLimitError(
            f"The argument, steps and completions of {record.address.service}/{record.address.key}/{record.handler} "
            f"({record.id}) hold {_mib(stored.left_out_bytes)}, more than the store loads. {LOAD_LIMIT_ADVICE}"
        )
    if stored.steps:
        invocation.journal = journal_of(stored)
    return invocation


def journal_of(stored: StoredInvocation) -> Journal:
    """What a stored invocation remembers."""
    journal = Journal()
    answers: dict[int, Delivery] = {}
    for completion in stored.completions:  # Rule C3: the first answer to a command is the one that counts.
        answers.setdefault(completion.command, Delivery(completion.command, completion.failed, completion.value))
    for record in stored.steps:
        step = decode_step(record.content)
        for offset, command in enumerate(step.commands):
            journal.pending[journal.next_command + offset] = command
        for number in (*step.deliveries, *step.abandoned):
            journal.pending.pop(number, None)
            if number in answers:
                journal.deliveries[number] = answers.pop(number)
        journal.take(step, 0)
    for delivery in answers.values():
        journal.answer(delivery)
    return journal


def state_load_error(address: Address, left_out_bytes: int | None) -> LoadLimitError | None:
    """Why nothing of an object can go on, if its snapshot was left out of a load."""
    if left_out_bytes is None:
        return None
    return LoadLimitError(
        f"The state of {address.service}/{address.key} holds {_mib(left_out_bytes)}, more than the store loads. "
        f"{LOAD_LIMIT_ADVICE}"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.1f} MiB"


def encode_outcome(outcome: Outcome) -> bytes:
    """One byte says whether it failed; then the value as it is."""
    return (b"!" if outcome.failed else b"=") + outcome.value


def decode_outcome(content: bytes) -> Outcome:
    return Outcome(content[:1] == b"!", content[1:])

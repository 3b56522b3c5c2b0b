"""`InvocationRun`: one accepted request while it is in memory. Plain data; nothing here decides.

It holds everything that a retry or a suspension needs. The store holds the same in rows.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from durably.actors.definition.binding import BoundActorHandler
from durably.errors import UndecodableError
from durably.ids import SEED_BYTES, Address, InvocationStatus, KeyScope, earliest_time
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.failure_text import known_attempt_failure
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.journal import DECODED_RATIO, Journal, UnreadableStepError, journal_of
from durably.runtime.invocations.load_errors import (
    LoadError,
    journal_load_error,
    outcome_load_error,
    unreadable_error,
    unreadable_outcome,
)
from durably.runtime.invocations.outcomes import decode_outcome, encode_outcome
from durably.runtime.invocations.waiting_attempts import WaitingAttempts
from durably.storage.records import (
    ARGUMENT_PART,
    HEADERS_PART,
    OUTCOME_PART,
    CallerRecord,
    InvocationRecord,
    InvocationUpdate,
    SignalRecord,
    StoredInvocation,
    Unreadable,
)

ATTEMPT_BYTES = 6_000
"""What a waiting attempt of few words takes up: its task, its loop, the frames of its coroutines, its object."""


class PausedByHandError(Exception):
    """The reason of a pause that an operator asked for, with nothing wrong. It is recorded, never raised."""


class InvocationRun(msgspec.Struct, eq=False):
    """One unfinished invocation (or one that has just finished and is not durable yet)."""

    number: int
    id: str
    activation: Activation
    """Of its object; one of its own until it has come to its object (a scheduled message)."""
    address: Address
    handler: BoundActorHandler
    seed: bytes
    argument: bytes
    headers: dict[str, str]
    scope: KeyScope | None
    caller: CallerRecord | None
    sender_id: str | None
    deadline: int | None
    accepted_at: int
    keep_outcome_us: int | None
    status: InvocationStatus
    mailbox_position: int | None
    attempts: int = 0
    """Failed attempts since the last progress."""
    failing_since: int | None = None
    failure: bytes | None = None
    paused_error: BaseException | None = None
    failed_with: BaseException | None = None
    """The handler's error that became its outcome, though it is none that callers know."""
    outcome: Outcome | None = None
    """Set by `Transition.end`, as `status` is by `Transition.move`."""
    fixed: Outcome | None = None
    """Set by `Transition.fix`: its outcome, while its code still runs (rule E7)."""
    expires_at: int | None = None
    due: int | None = None
    """When it was to join its mailbox, if it is a delayed message."""
    attachments: tuple[CallerRecord, ...] = ()
    signals: tuple[SignalRecord, ...] = ()
    """What came for it and no command has taken yet, in log order."""
    execution: Execution | None = None
    journal: Journal | None = None
    sent_before: bool = False
    """An earlier execution of it has sent messages, and this one may ask for their outcomes."""
    sender_unfinished: bool = False
    """The sender had no outcome when this one was loaded."""
    held_step: Step | None = None
    """A step that waits for the look-up of idempotency keys; nothing of it has happened yet."""
    load_error: LoadError | None = None
    """Why it cannot go on: its journal is in the store only."""
    is_queued: bool = False
    is_preparing: bool = False
    """Something large is being decoded for its next advance."""
    parked_in: WaitingAttempts[Any] | None = None
    """Where its attempt waits."""
    traced: Any = None
    """What the tracing of this process keeps of it."""
    position: int = 0
    """The log position of its last transition."""
    stored: tuple[object, ...] = ()
    """What the store, or a batch on its way there, says of the part that changes."""

    def __repr__(self) -> str:
        return f"<{self.status} {self.id} of {self.target}>"

    @property
    def target(self) -> str:
        """Which handler of what, for people: `Service/handler` or `Object/key/handler`."""
        service, key = self.address
        return f"{service}/{self.handler.name}" if key == self.id else f"{service}/{key}/{self.handler.name}"

    @property
    def is_deletion_under_way(self) -> bool:
        """It deletes its object, some of which may have gone: it goes on to its end, and no one sees what is left."""
        return self.handler.is_deletion and self.status is not InvocationStatus.PENDING

    def attempt_bytes(self) -> int:
        """About what its waiting attempt takes up in memory: the journal, and what its handler may keep of that."""
        journal_bytes = 0 if self.journal is None else self.journal.size_bytes
        return ATTEMPT_BYTES + DECODED_RATIO * len(self.argument) + journal_bytes

    @property
    def known_outcome(self) -> Outcome | None:
        """The outcome that it has ended with, or that is fixed and no longer depends on its code."""
        return self.fixed if self.outcome is None else self.outcome

    @property
    def is_exclusive(self) -> bool:
        return self.handler.is_exclusive

    @property
    def is_from_outside(self) -> bool:
        """No other invocation called or sent it."""
        return self.caller is None and self.sender_id is None

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
            outcome=_encoded(self.known_outcome),
            expires_at=self.expires_at,
            due=self.due,
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
            outcome=_encoded(self.known_outcome),
            expires_at=self.expires_at,
        )

    def has_sent(self) -> bool:
        """It has sent messages, and may ask for their outcomes (rule X7)."""
        return self.sent_before or (self.journal is not None and self.journal.has_sent)

    def note_stored(self) -> None:
        """The store, or a batch on its way there, says the same of it as memory."""
        self.stored = self._changeable()

    def _changeable(self) -> tuple[object, ...]:
        outcome = self.fixed if self.outcome is None else self.outcome
        return (self.status, self.mailbox_position, self.attempts, self.failure, outcome, self.expires_at)


def throw_away(invocation: InvocationRun) -> None:
    """End the attempt, if there is one; what its code still does is ignored (rule D3)."""
    execution = invocation.execution
    if execution is not None:
        invocation.execution = None
        execution.close()
        if invocation.parked_in is not None:
            invocation.parked_in.remove(invocation.number)
            invocation.parked_in = None


def drop_held_step(invocation: InvocationRun) -> None:
    """A step that waits for the look-up of its keys has not happened."""
    invocation.held_step = None
    if invocation.journal is not None:
        invocation.journal.release()


def from_stored(stored: StoredInvocation, activation: Activation, handler: BoundActorHandler) -> InvocationRun:
    """An invocation as its rows tell it: delivered answers apart from those that still wait."""
    record = stored.record
    invocation = InvocationRun(
        record.number,
        record.id,
        activation,
        activation.address,
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
    invocation.due = record.due
    invocation.sender_unfinished = stored.sender_unfinished
    invocation.attachments = tuple(attachment.caller for attachment in stored.attachments)
    take_payloads(invocation, stored)
    invocation.note_stored()
    return invocation


def take_payloads(invocation: InvocationRun, stored: StoredInvocation) -> None:
    """What the rows say of it as payloads, or why it cannot go on (rule L5); also where that is read once more."""
    record = stored.record
    invocation.argument, invocation.headers = record.argument, record.headers
    invocation.attempts, invocation.failure = record.attempts, record.failure
    if record.failure is not None and record.attempts:
        invocation.failing_since = known_attempt_failure(record.failure).since
    invocation.expires_at = record.expires_at
    invocation.signals = tuple(stored.signals)
    invocation.load_error = journal_load_error(stored)
    if record.outcome is not None:
        try:
            invocation.fixed = decode_outcome(record.outcome)
        except UndecodableError as error:
            invocation.load_error = unreadable_error(record, Unreadable(OUTCOME_PART, error.message))
    if stored.steps and invocation.load_error is None:
        try:
            invocation.journal = journal_of(stored)
        except UnreadableStepError as error:
            invocation.load_error = unreadable_error(record, error.unreadable)
            return
        is_suspended = record.status is InvocationStatus.SUSPENDED
        invocation.journal.reload(is_suspended=is_suspended, is_atomic=invocation.handler.atomic)
        if len(record.seed) > SEED_BYTES:  # Rule T1
            invocation.journal.not_before = max(invocation.journal.not_before, earliest_time(record.seed))


def known_outcome(found: InvocationRun | InvocationRecord) -> Outcome | None:
    """The outcome that an invocation has ended with, or that is fixed and no longer depends on its code.

    Raises:
        UnreadableRecordError: that is stored and cannot be read.
    """
    if isinstance(found, InvocationRun):
        return found.known_outcome
    load_error = outcome_load_error(found)
    if load_error is not None:
        raise load_error
    if found.outcome is None:
        return None
    try:
        return decode_outcome(found.outcome)
    except UndecodableError as error:
        raise unreadable_outcome(found, error.message) from error


def argument_load_error(found: InvocationRun | InvocationRecord) -> LoadError | None:
    """Why the argument and headers of an invocation cannot be used once more, if they cannot."""
    if isinstance(found, InvocationRun):
        return found.load_error
    needed = [one for one in found.unreadable if one.part in (ARGUMENT_PART, HEADERS_PART)]
    return unreadable_error(found, needed[0]) if needed else None


def _encoded(outcome: Outcome | None) -> bytes | None:
    return None if outcome is None else encode_outcome(outcome)


Found: TypeAlias = InvocationRun | InvocationRecord | None
"""What a look-up found: the invocation in memory, or else its row, or neither."""

"""What the store keeps, and the one thing it is ever asked to write: a `Batch`.

A batch is the net effect of a run of whole transitions. Every record names the object (`Address`) or the invocation
(`number`) that it belongs to. A `number` belongs to one execution of an invocation: the log position of the acceptance,
or of the transition that began a later execution (rule W1). It is unique, grows, is never used again, and is the key
under which everything that belongs to the invocation is kept. Times are microseconds since 1970 UTC. `bytes` are opaque
here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from durably.ids import Address, InvocationStatus, KeyScope


class TimerKind(StrEnum):
    """What happens when a timer is due. The store keeps the name."""

    SLEEP = "sleep"
    """A `Sleep` command of the invocation is answered. There is one timer for each command."""
    START = "start"
    """A scheduled invocation joins its mailbox."""
    RETRY = "retry"
    """A backoff ends."""
    DEADLINE = "deadline"
    """Callers that wait for an invocation with a deadline are answered."""


NO_COMMAND = 0
"""The `command` of every timer that is not a `SLEEP`: an invocation has one such timer of each kind."""

TimerKey: TypeAlias = tuple[int, TimerKind, int]
"""(number, kind, command) identifies a timer."""
TimerPlace: TypeAlias = tuple[int, int, TimerKind, int]
"""(due, number, kind, command) orders timers."""

EVER = -1
"""Comes before every time of day."""

PENDING_BYTES = 1 << 20
"""Of a stored mailbox no further message is loaded once the arguments of those before it hold so many bytes."""


class Unreadable(msgspec.Struct, frozen=True):
    """A stored payload that cannot be made into bytes again: by SQLite, by the store's decoders, or by a codec.

    The record that it belongs to has nothing in its place, and is not to be acted on (rule L5).
    """

    part: str
    """What of the record, as in `step 3`."""
    reason: str
    """Why, as a sentence."""


ARGUMENT_PART = "the argument"
HEADERS_PART = "the headers"
FAILURE_PART = "the last failure"
OUTCOME_PART = "the outcome"


def step_part(index: int) -> str:
    return f"step {index}"


def answer_part(command: int) -> str:
    return f"the answer to command {command}"


def signal_part(name: str) -> str:
    return f"the signal {name!r}"


def field_part(field: str) -> str:
    return f"the field {field!r}"


def promise_part(name: str) -> str:
    return f"the promise {name!r}"


class CallerRecord(msgspec.Struct, frozen=True, gc=False):
    """Who is answered when an invocation ends: command number `command` of the invocation `number` at `address`."""

    address: Address
    number: int
    command: int


class InvocationRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An invocation as it was accepted, with where it stands now."""

    number: int
    id: str
    address: Address
    handler: str
    seed: bytes
    argument: bytes
    headers: dict[str, str]
    scope: KeyScope | None
    caller: CallerRecord | None
    sender_id: str | None
    """The id of the invocation that sent this one and may still ask for its outcome."""
    deadline: int | None
    accepted_at: int
    keep_outcome_us: int | None
    """How long the outcome is kept for those who come later. None: it goes with the reply."""

    # What changes later; the rest never does.
    status: InvocationStatus
    mailbox_position: int | None
    """Order within the mailbox of an object's exclusive handlers. None: has no place in a mailbox (now)."""
    attempts: int = 0
    """Failed attempts since the last progress."""
    failure: bytes | None = None
    """The last failure of an attempt, encoded by the runtime."""
    outcome: bytes | None = None
    """The encoded outcome, once there is one. It is fixed at the deadline, while the status says that code runs on."""
    expires_at: int | None = None
    """When a kept outcome may be forgotten."""
    due: int | None = None
    """When a delayed message was to join its mailbox, as its sender was told; None for one that was not delayed."""
    unreadable: tuple[Unreadable, ...] = ()
    """Payloads of it that cannot be read. Set by reads only."""

    @property
    def is_from_outside(self) -> bool:
        """No other invocation called or sent it."""
        return self.caller is None and self.sender_id is None


class ExecutionRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored invocation goes on in a new execution, under a new number (rule W1).

    Its id, key, callers, attachments, aliases and waiting signals stay. The steps, completions, timers and awakeables
    of the previous execution go, so a late answer to one of its commands finds nothing to answer.
    """

    number: int
    """The log position of the transition that begins the new execution."""
    previous: int
    seed: bytes
    argument: bytes


class InvocationUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that may change in a stored invocation, written together."""

    number: int
    status: InvocationStatus
    mailbox_position: int | None
    attempts: int
    failure: bytes | None
    outcome: bytes | None = None
    """None leaves an outcome that is stored as it is."""
    expires_at: int | None = None


class StepRecord(msgspec.Struct, frozen=True):
    """One step of a journal, encoded by the runtime. `index` counts from 0 within the invocation."""

    number: int
    index: int
    content: bytes


class CompletionRecord(msgspec.Struct, frozen=True):
    """The answer to command `command` of the invocation `number`, recorded at log position `position`."""

    number: int
    command: int
    position: int
    failed: bool
    value: bytes


class SignalRecord(msgspec.Struct, frozen=True):
    """What came for the invocation `number` at log position `position` and no command has taken yet.

    `name` is that of a signal, or the id of an awakeable that had not been asked for.
    """

    number: int
    position: int
    name: str
    failed: bool
    value: bytes


SignalKey: TypeAlias = tuple[int, int]
"""(number, position) identifies a signal that waits."""


class TimerRecord(msgspec.Struct, frozen=True, gc=False):
    """Wake the invocation `number` at `address` when `due` has come. `kind` says what for."""

    number: int
    kind: TimerKind
    command: int
    due: int
    address: Address
    asked_at: int = 0
    """The time of day at which the wait began, by the clock of then: `due - asked_at` is how long it was to be."""

    @property
    def key(self) -> TimerKey:
        return (self.number, self.kind, self.command)

    @property
    def place(self) -> TimerPlace:
        return (self.due, self.number, self.kind, self.command)


class AttachmentRecord(msgspec.Struct, frozen=True, gc=False):
    """The invocation `caller` waits for the outcome of `number` besides the one who called it."""

    number: int
    caller: CallerRecord


class AliasRecord(msgspec.Struct, frozen=True):
    """`id` was given to somebody for a message that had been accepted before, as `number` (rule C7)."""

    id: str
    number: int


class OrderKind(StrEnum):
    """What an order does to the invocation that it is for. The store keeps the name."""

    CANCEL = "cancel"
    """Cancel it."""
    CANCEL_OWN = "cancel-own"
    """Cancel it, unless the call that gave its id had joined an invocation of somebody else."""
    KILL_OWN = "kill-own"
    """Kill it, with the same exception."""


class OrderRecord(msgspec.Struct, frozen=True, gc=False):
    """An order of one invocation to another, given at log position `position` and not carried out yet (rules E1, E2).

    `id` is the other one's. `caller` is the command that waits for it, if it is to be told that it need not.
    """

    position: int
    id: str
    kind: OrderKind
    caller: CallerRecord | None


class StateRecord(msgspec.Struct, frozen=True, gc=False):
    """A field of an object's snapshot. None: the field is cleared."""

    address: Address
    field: str
    value: bytes | None


class PromiseRecord(msgspec.Struct, frozen=True, gc=False):
    """A promise of a workflow that is completed; one that is not has no record."""

    address: Address
    name: str
    failed: bool
    value: bytes
    expires_at: int | None
    """When it may be forgotten if the `run` of the workflow has not been accepted by then (rule W3). None: the `run`
    decides."""


class Batch(msgspec.Struct, kw_only=True):
    """What becomes durable together, or not at all. Each record appears at most once in each list.

    The store applies it as if in this order: `renewed`, `ended`, `removed`, `accepted`, `woken`, `updated`, then
    everything else. A completion or attachment of an invocation that is not there is ignored, and so is a second answer
    to a command: whoever answers need not know whether the asker still waits (rule C3). A signal of an invocation that
    is not there, or has ended, is ignored too.
    """

    last_position: int
    """The highest log position that this batch makes durable."""
    renewed: list[ExecutionRecord] = []
    accepted: list[InvocationRecord] = []
    updated: list[InvocationUpdate] = []
    woken: list[int] = []
    """In the store only, with an answer to come: those of them that are suspended there can run from now on."""
    removed: list[int] = []
    """Invocations that go altogether, with what belongs to them: journal, timers, attachments and aliases."""
    ended: list[int] = []
    """Invocations whose journal, timers and attachments go, while the row stays."""
    steps: list[StepRecord] = []
    completions: list[CompletionRecord] = []
    timers: list[TimerRecord] = []
    timers_cleared: list[TimerKey] = []
    """Timers that are not wanted any more; one that does not exist is no error."""
    attachments: list[AttachmentRecord] = []
    aliases: list[AliasRecord] = []
    vacated: list[Address] = []
    """Objects whose state and promises go, before those of this batch come."""
    state: list[StateRecord] = []
    signals: list[SignalRecord] = []
    signals_taken: list[SignalKey] = []
    """Signals that wait no longer; one that does not exist is no error."""
    promises: list[PromiseRecord] = []
    """One that is there already is replaced."""
    orders: list[OrderRecord] = []
    orders_done: list[int] = []
    """By position; one that does not exist is no error."""


class StoredInvocation(msgspec.Struct, frozen=True):
    """An unfinished invocation with its journal: steps by index, completions by position."""

    record: InvocationRecord
    steps: list[StepRecord]
    completions: list[CompletionRecord]
    attachments: list[AttachmentRecord]
    sender_unfinished: bool
    """The invocation `record.sender_id` exists and has no outcome yet."""
    left_out_bytes: int | None = None
    """The argument, steps, completions and signals hold so many bytes, more than the store loads, and are left out."""
    signals: list[SignalRecord] = []
    """What waits to be taken, by position."""
    unreadable: Unreadable | None = None
    """The first of its steps, completions and signals that cannot be read."""


class StoredObject(msgspec.Struct, frozen=True):
    """What an activation begins with: the snapshot, and the invocations that have not ended.

    `started` are all that are neither pending in the mailbox nor scheduled (paused and backing-off ones too, and those
    of shared handlers and services), by number. `pending` is the head of the mailbox, by `mailbox_position`, bounded in
    number and by `PENDING_BYTES`, and not empty if there is any; `pending_beyond` says how many more there are.
    """

    address: Address
    state: dict[str, bytes]
    started: list[StoredInvocation]
    pending: list[StoredInvocation]
    pending_beyond: int
    promises: list[PromiseRecord] = []
    """Those that are completed, by name."""
    left_out_bytes: int | None = None
    """The fields of the snapshot and the promises hold so many bytes, more than the store loads, and are left out."""
    unreadable: Unreadable | None = None
    """The first of the fields and promises that cannot be read."""


class Owner(msgspec.Struct, frozen=True):
    """Who runs on a store: told to whoever else tries to."""

    host: str
    process_id: int
    since: int


class Opened(msgspec.Struct, frozen=True):
    """What a runtime learns when it takes a store over."""

    epoch: int
    last_position: int
    is_encoded: bool = False
    """It holds values that a codec has wrapped, and that nothing has unwrapped yet."""


MARKER = Address("", "durably")
"""Whose state says which codecs the values of a store were written with. No object has an empty service."""
PLAIN_FIELD = "plain"
"""The field of the marker that is there if values without a codec are among the others."""

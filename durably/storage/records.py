"""What the store keeps, and the one thing it is ever asked to write: a `Batch`.

A batch is the net effect of a run of whole transitions. Every record names the object (`Address`) or the invocation
(`number`) that it belongs to. A `number` belongs to one execution of an invocation: the log position of the acceptance,
or of the transition that began a later execution (rule W1). It is unique, grows, is never used again, and is the key
under which everything that belongs to the invocation is kept. Times are microseconds since 1970 UTC. `bytes` are opaque
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

import msgspec

from durably.ids import Address, EntryKey, InvocationStatus, KeyScope


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
LATEST_POSITION = (1 << 63) - 1
"""Comes behind every position of the log."""

PENDING_BYTES = 1 << 20
"""Of a stored mailbox no further message is loaded once the arguments of those before it hold so many bytes."""


class Unreadable(msgspec.Struct, frozen=True):
    """A stored value that cannot be read: a payload that cannot be made into bytes again, by SQLite, by the store's
    decoders or by a codec, or a column that holds what no version has written.

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
PAYLOAD_PARTS = frozenset({ARGUMENT_PART, HEADERS_PART, FAILURE_PART, OUTCOME_PART})
SEED_PART = "the seed"
SCOPE_PART = "the idempotency key"
CALLER_PART = "the caller"
STATUS_PART = "the status"
NAMES_PART = "a name"


def at_the_beginning(part: str) -> str:
    """A part as a sentence begins with it; the names in it stay as they are."""
    return part[:1].upper() + part[1:]


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


def event_part(id: str, stream: str, key: str) -> str:
    return f"the event {id} of {stream}/{key}"


def entry_part(field: str, key: EntryKey) -> str:
    return f"the entry {key.name or key.position} of the field {field!r}"


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


class PlaceRecord(msgspec.Struct, frozen=True, gc=False):
    """The unfinished invocation `number` runs on a place of a limit (rule C9).

    `place` is the number of who took the place. What that one calls runs on the same place, and does not count again:
    it has a record too, with `counts` only if its own handler is under the limit and it has started.
    """

    number: int
    id: str
    name: str
    """Of the limit."""
    key: str
    """Which part of the limit, where it has a `per`."""
    place: int
    counts: bool
    """The place is taken as long as this invocation runs."""

    @property
    def order(self) -> PlaceKey:
        return (self.number, self.name, self.key)


PlaceKey: TypeAlias = tuple[int, str, str]
"""(number, name, key) identifies a `PlaceRecord`, and orders them."""


class StateRecord(msgspec.Struct, frozen=True, gc=False):
    """A field of an object's snapshot. None: the field is cleared."""

    address: Address
    field: str
    value: bytes | None


class EntryRecord(msgspec.Struct, frozen=True, gc=False):
    """An entry of a collection of an object, which is no part of its snapshot (rule V7). None: the entry is removed."""

    address: Address
    field: str
    key: EntryKey
    value: bytes | None


class FieldKey(NamedTuple):
    """A field of an object."""

    address: Address
    field: str


class EntryQuery(msgspec.Struct, frozen=True, gc=False):
    """A question about the entries of one field; what it does not ask for is not looked at."""

    address: Address
    field: str
    keys: tuple[EntryKey, ...] = ()
    """Those of them that are there, with their values."""
    only_keys: bool = False
    """Those of `keys` that are there, without their values."""
    limit: int = 0
    """So many entries at most between `after` and `before`, neither of them among them; None is the end."""
    after: EntryKey | None = None
    before: EntryKey | None = None
    is_backward: bool = False
    """The last ones first."""
    counts: bool = False
    """How many entries there are; of a list, which knows its length, none."""


class EntryAnswer(msgspec.Struct, frozen=True):
    """The answer to an `EntryQuery`: first what was asked for by key, then the others in order."""

    entries: list[tuple[EntryKey, bytes]] = []
    count: int = 0
    unreadable: Unreadable | None = None
    """The first of them that cannot be read; it is left out."""


class PromiseRecord(msgspec.Struct, frozen=True, gc=False):
    """A promise of a workflow that is completed; one that is not has no record."""

    address: Address
    name: str
    failed: bool
    value: bytes
    expires_at: int | None
    """When it may be forgotten if the `run` of the workflow has not been accepted by then (rule W3). None: the `run`
    decides."""


LEAVING: Final = 0
"""As `expires_at` of a kept journal: it goes a portion at a time, and is not read. As that of the `run` of
a workflow: so does what the workflow leaves."""


class KeptJournalRecord(msgspec.Struct, frozen=True, gc=False):
    """The invocation `number` has ended, and its steps and completions stay until `expires_at`."""

    number: int
    expires_at: int
    steps: int
    """How many: what it costs to remove them."""


class EntriesPortion(msgspec.Struct, frozen=True, gc=False):
    """The first `most` entries of an object, in the order of (field, position, name), or all that there are."""

    address: Address
    most: int


class JournalSize(NamedTuple):
    """How many rows of a journal there are."""

    steps: int
    completions: int


class JournalPortion(msgspec.Struct, frozen=True, gc=False):
    """The last `most` steps and completions of a journal, by index and by command, or all that there are."""

    number: int
    most: int


class ObjectExpiryRecord(msgspec.Struct, frozen=True, gc=False):
    """When the state of an object goes by itself. None: it stays."""

    address: Address
    expires_at: int | None


class EventRecord(msgspec.Struct, frozen=True, gc=False):
    """What was published at log position `position` (rule P1)."""

    position: int
    stream: str
    """Those of one stream are in the order of their positions."""
    key: str
    """What it is about, such as the id of an object."""
    name: str
    """What kind of event it is."""
    id: str
    at: int
    value: bytes


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which events of a stream are asked for: between two positions, of all keys or of one; or the one of an id."""

    stream: str
    key: str | None = None
    id: str | None = None
    after: int = 0
    before: int = LATEST_POSITION
    limit: int = 1
    is_backward: bool = False
    """The last ones first."""


class DamagedEvent(msgspec.Struct, frozen=True):
    """An event whose value cannot be read."""

    record: EventRecord
    """The rest of it; its value is empty."""
    unreadable: Unreadable


class EventAnswer(msgspec.Struct, frozen=True):
    """The answer to an `EventQuery`."""

    events: list[EventRecord]
    damaged: list[DamagedEvent] = []
    """Those whose value cannot be read, which are left out of the others."""

    @property
    def last(self) -> int | None:
        """The highest position that it tells of; None if it is empty."""
        positions = [one.position for one in (*self.events[-1:], *(one.record for one in self.damaged[-1:]))]
        return max(positions, default=None)


class VersionsAnswer(msgspec.Struct, frozen=True):
    """Objects that were asked for, each with its key and the field that was asked for."""

    versions: list[tuple[str, bytes]]
    unreadable: Unreadable | None = None
    """Of the first one that cannot be read; it is left out."""
    is_all: bool = True
    """There are no others behind these."""


class Batch(msgspec.Struct, kw_only=True):
    """What becomes durable together, or not at all. Each record appears at most once in each list.

    The store applies it as if in this order: `renewed`, `ended`, `removed`, `accepted`, `woken`, `updated`, then
    everything else. A completion or attachment of an invocation that is not there is ignored, and so is a second answer
    to a command: its sender need not know whether the asker still waits (rule C3). A signal of an invocation that is
    not there, or has ended, is ignored too.
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
    """Invocations whose journal, timers and attachments go, while the row stays; also a journal that was kept."""
    steps: list[StepRecord] = []
    completions: list[CompletionRecord] = []
    timers: list[TimerRecord] = []
    timers_cleared: list[TimerKey] = []
    """Timers that are not wanted any more; one that does not exist is no error."""
    attachments: list[AttachmentRecord] = []
    aliases: list[AliasRecord] = []
    vacated: list[Address] = []
    """Objects whose state, entries and promises go, before those of this batch come."""
    state: list[StateRecord] = []
    signals: list[SignalRecord] = []
    signals_taken: list[SignalKey] = []
    """Signals that wait no longer; one that does not exist is no error."""
    promises: list[PromiseRecord] = []
    """One that is there already is replaced."""
    orders: list[OrderRecord] = []
    orders_done: list[int] = []
    """By position; one that does not exist is no error."""
    entries_cleared: list[FieldKey] = []
    """Fields of which all entries go, before those of this batch come."""
    entries_trimmed: list[EntriesPortion] = []
    """Objects of whose entries the first ones go, before those of this batch come."""
    entries: list[EntryRecord] = []
    kept: list[KeptJournalRecord] = []
    """Invocations that have ended and whose journal stays for a while. Their timers, attachments and signals go."""
    journals_trimmed: list[JournalPortion] = []
    """Of these journals the last steps and completions go."""
    object_expiries: list[ObjectExpiryRecord] = []
    places_left: list[int] = []
    """Invocations that run on no place any more; their records go before those of this batch come."""
    places: list[PlaceRecord] = []
    """One that is there already is replaced."""
    events: list[EventRecord] = []
    events_forgotten: list[int] = []
    """By position; one that does not exist is no error."""

    def values(self) -> Iterator[bytes]:
        """All values in it; names are none."""
        yield from (one.argument for one in self.renewed)
        for accepted in self.accepted:
            yield accepted.argument
            yield from (header.encode() for header in accepted.headers.values())
            yield from _not_none(accepted.failure, accepted.outcome)
        for updated in self.updated:
            yield from _not_none(updated.failure, updated.outcome)
        yield from (one.content for one in self.steps)
        for valued in (self.completions, self.signals, self.promises):
            yield from (one.value for one in valued)
        yield from (one.value for one in self.events)
        for changed in (self.state, self.entries):
            yield from (one.value for one in changed if one.value is not None)


def _not_none(*values: bytes | None) -> list[bytes]:
    return [value for value in values if value is not None]


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


class ObjectSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An object that has state, entries, promises or something to do, for those who look into the store."""

    key: str
    state_bytes: int
    """What its fields hold together, as they are stored: with a codec, what the codec has made of them. Not entries."""
    waiting: int
    """How many messages wait in its mailbox."""
    started: int
    """How many invocations have started there and not ended; those of shared handlers too."""


class MailboxRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a mailbox stands, as a message in it sees that."""

    holder_id: str | None
    """The invocation that has started and not ended; None: nothing holds the mailbox."""
    ahead: int
    """How many messages start before."""


class OpenMessages(msgspec.Struct, frozen=True, gc=False):
    """The messages to one handler at one key that no invocation has sent, and that have not ended."""

    key: str
    count: int
    is_held_up: bool
    """One of them is paused, or they wait behind an invocation that is."""
    ids: tuple[str, ...]
    """Of each, sorted; left out where they are held up, since these may be many."""


class Owner(msgspec.Struct, frozen=True):
    """The process that runs on a store, as named to another process that tries to."""

    host: str
    process_id: int
    since: int


class Opened(msgspec.Struct, frozen=True):
    """What a runtime learns when it takes a store over."""

    epoch: int
    last_position: int
    has_schedules: bool = False
    """It knows schedules of handlers."""
    is_encoded: bool = False
    """It holds values that a codec has wrapped, and that nothing has unwrapped yet."""
    has_subscriptions: bool = False
    """It knows subscriptions to events."""
    store_id: str = ""
    """Which store it is, wherever it lies."""
    has_events: bool = False
    """It has published events of users' streams."""
    has_places: bool = False
    """Some unfinished invocation runs on a place of a limit."""


SCHEDULES = Address("", "schedules")
"""Whose state says where the schedules of handlers stand, by name. No object has an empty service."""
STREAMS = Address("", "streams")
"""Whose state says up to which position the events of a stream have been forgotten, by the name of the stream."""
SUBSCRIPTIONS = Address("", "subscriptions")
"""Whose state says where subscriptions to events stand, by name."""
SOURCES = Address("", "sources")
"""Whose state says how far sources outside were read, by the name of the feed."""
MARKER = Address("", "durably")
"""Whose state says which codecs the values of a store were written with. No object has an empty service."""
PLAIN_FIELD = "plain"
"""The field of the marker that is there if values without a codec are among the others."""

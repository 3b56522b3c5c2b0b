"""`Activation`: the live one of an object in memory, with its mailbox. Data and admission rules; no `await`, no I/O.

One exclusive invocation runs at a time, in mailbox order; shared ones run beside it. Everything that concerns an object
goes through its activation, which is made first, cold, if need be. What comes while it loads waits in `arrived` (rule
L1). A service has no state and no mailbox: each of its invocations has an activation of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from durably.actors.definition.binding import BoundActor
from durably.actors.migrations import FIRST_STATE_VERSION, recorded_state_version
from durably.actors.protocol.entries import NO_FIELD_CHANGES, EntryChanges, FieldChanges
from durably.ids import GOING_FIELD, STATE_VERSION_FIELD, Address, InvocationStatus
from durably.runtime.invocations.load_errors import LoadError

if TYPE_CHECKING:
    from durably.runtime.dependencies.made_dependencies import ActivationScope
    from durably.runtime.execution.step import Delivery
    from durably.runtime.invocations.invocation import InvocationRun
    from durably.runtime.invocations.journal import Journal
    from durably.storage.records import CallerRecord, PromiseRecord, SignalRecord


class LoadBuffer:
    """What comes for an object while it is on its way from the store."""

    __slots__ = ("answers", "attachments", "callbacks", "messages", "signals")

    def __init__(self) -> None:
        self.messages: list[InvocationRun] = []
        self.answers: list[tuple[int, Delivery]] = []
        self.attachments: list[tuple[int, CallerRecord]] = []
        self.signals: list[SignalRecord] = []
        self.callbacks: list[Callable[[Activation], None]] = []
        """Called once the object is in memory."""


class EntryReader(Protocol):
    """A read of entries that is under way."""

    def changed(self, changes: EntryChanges, /) -> None:
        """These have become part of the snapshot; the store may have been read before."""
        ...


class RecentEntries:
    """Changes of entries that the store may not have yet, in two generations, each of which goes when it is durable."""

    __slots__ = ("_older", "_older_until", "_young", "_young_until")

    def __init__(self) -> None:
        self._older, self._young = EntryChanges(), EntryChanges()
        self._older_until = self._young_until = 0

    def take(self, changes: EntryChanges, position: int, durable: int) -> None:
        """These have changed at a log position, while the log was durable up to another one."""
        if self._older_until <= durable:
            self._older, self._older_until = self._young, self._young_until
            self._young = EntryChanges()
        for field, changed in changes.fields.items():
            self._young.changed(field).lay(changed)
        self._young_until = position

    def forget(self, durable: int) -> bool:
        """The log is durable up to a position. Returns whether nothing is left."""
        if self._older_until <= durable:
            self._older = EntryChanges()
        if self._young_until <= durable:
            self._young = EntryChanges()
        return not (self._older or self._young)

    def of(self, field: str, durable: int) -> FieldChanges:
        """What the store may not have of a field, while the log is durable up to a position; to be written to."""
        found = FieldChanges()
        for changes, until in ((self._older, self._older_until), (self._young, self._young_until)):
            if until > durable:
                found.lay(changes.of(field))
        return found


NO_MAILBOX: deque[InvocationRun] = deque()
NO_STATE: dict[str, bytes] = {}
NO_PROMISES: dict[str, PromiseRecord] = {}


class Activation:
    """What is in memory of one object."""

    load_buffer: LoadBuffer | None = None
    """While it loads: what has come meanwhile."""
    load_position: int = 0
    """The log position at which its load was asked for: it takes only records at or below it (rule L2)."""
    current: InvocationRun | None = None
    """The exclusive invocation in flight: running, waiting, suspended, backing off or paused."""
    load_error: LoadError | None = None
    """Why nothing of this object can go on: its snapshot is in the store only."""
    stored_tail: int = 0
    """How many messages wait in the store only, behind those in memory (rule C8)."""
    recorded_state_version: int = FIRST_STATE_VERSION
    """What the store says of the version of the snapshot; the first where it says nothing."""
    deletion_in_tail: InvocationRun | None = None
    """The last message of those in the store only, if it is a deletion."""
    state_bytes: int = 0
    """Of the snapshot: its values."""
    idle_bytes: int = 0
    """What it counts for among the idle objects."""
    warned_of_size: bool = False
    """It has been told that its state is large."""
    long_mailbox_told: int = 0
    """How many messages waited when a warning said so."""
    is_held: bool = False
    """Something looks at it that needs it in memory for a while."""
    expiring: int | None = None
    """The number of its `run`, of a workflow whose retention is over: it goes once no handler is in flight (W3)."""
    is_being_emptied: bool = False
    """A part of it has gone, and the rest goes in further transitions; the store knows that."""
    entries_changed_at: int = 0
    """The log position of the last change of an entry of a collection: the store knows it when that is durable."""
    recent_entries: RecentEntries | None = None
    """What has changed of entries and may not be in the store yet; None: nothing, as of any object that idles."""
    entry_readers: dict[EntryReader, None] | None = None
    """Who reads entries right now, and must know what changes meanwhile; None: never anything."""
    is_read_again: bool = False
    """The load on its way is for what could not be read before."""
    made: ActivationScope | None = None
    """What factories have made for it; None: nothing."""
    is_rehydrated: bool = False
    """The snapshot and what had started are in memory; a further load is for the rest of the mailbox only."""

    def __init__(self, address: Address, actor: BoundActor, position: int) -> None:
        self.address = address
        self.actor = actor
        self.changed_at = position
        """The log position of the last change; until that is durable it stays in memory (rule L4)."""
        self.shared: dict[int, InvocationRun] = {}
        """Invocations of shared handlers (and the one of a service), by number."""
        self.state_version = actor.state_version
        """The state version of the snapshot. If it differs from that of the class, no handler runs on the snapshot."""
        is_object = actor.definition.kind != "service"
        self.snapshot: dict[str, bytes] = {} if is_object else NO_STATE
        """The encoded state after the last exclusive invocation that has ended (rule V1)."""
        self.promises: dict[str, PromiseRecord] = {} if actor.definition.kind == "workflow" else NO_PROMISES
        """The promises of a workflow that are completed, by name."""
        self.mailbox: deque[InvocationRun] = deque() if is_object else NO_MAILBOX

    @property
    def loading(self) -> bool:
        """On its way from the store."""
        return self.load_buffer is not None

    def is_going(self) -> bool:
        """Its state goes a portion at a time, and no one sees what is left of it."""
        return self.is_being_emptied or (self.current is not None and self.current.is_deletion_under_way)

    def view(self) -> Mapping[str, bytes]:
        """The state as a shared handler sees it: the snapshot under the changes of the one in flight (rule V3)."""
        if self.is_going():
            return NO_STATE
        current = self.current
        if current is None or current.journal is None or not current.journal.changes or current.handler.atomic:
            return self.snapshot
        view = dict(self.snapshot)
        apply_changes(view, current.journal.changes)
        return view

    def may_have_state(self) -> bool:
        """It has something to lose: fields in its snapshot, or entries, of which only the store knows."""
        return bool(self.snapshot or self.actor.large_fields())

    def field_in_view(self, name: str) -> bytes | None:
        """One field of `view`."""
        if self.is_going():
            return None
        journal = self._changes_in_view()
        return journal.changes[name] if journal is not None and name in journal.changes else self.snapshot.get(name)

    def entries_in_view(self, field: str) -> FieldChanges:
        """What the one in flight has changed of the entries of a field (rule V3)."""
        if self.is_going():
            nothing_left = FieldChanges()
            nothing_left.clear()
            return nothing_left
        journal = self._changes_in_view()
        return NO_FIELD_CHANGES if journal is None or journal.entries is None else journal.entries.of(field)

    def _changes_in_view(self) -> Journal | None:
        current = self.current
        return None if current is None or current.handler.atomic else current.journal

    def take_state(self, stored: Mapping[str, bytes]) -> None:
        """Take a stored snapshot, and the version that it says it has."""
        self.is_being_emptied = GOING_FIELD in stored
        self.snapshot = dict(stored)
        self.snapshot.pop(GOING_FIELD, None)
        self.recorded_state_version = recorded_state_version(stored)
        self.snapshot.pop(STATE_VERSION_FIELD, None)
        self.state_version = self.recorded_state_version if self.snapshot else self.actor.state_version

    def waiting(self) -> int:
        """How many messages wait for this object, as far as it is known in memory."""
        waiting = len(self.mailbox) + self.stored_tail
        return waiting if self.load_buffer is None else waiting + len(self.load_buffer.messages)

    def last_deletion(self) -> InvocationRun | None:
        """The deletion that waits behind all other messages, if one does, as far as it is known in memory."""
        if self.load_buffer is not None:
            queued = (message for message in reversed(self.load_buffer.messages) if message.is_exclusive)
            last = next(queued, None)
        elif self.stored_tail:
            last = self.deletion_in_tail
        else:
            last = self.mailbox[-1] if self.mailbox else None
        return last if last is not None and last.handler.is_deletion else None

    def started(self) -> list[InvocationRun]:
        """What has started and has not ended: the exclusive invocation first."""
        shared = [*self.shared.values()]
        return shared if self.current is None else [self.current, *shared]

    def find(self, number: int) -> InvocationRun | None:
        """The started invocation of this number."""
        if self.current is not None and self.current.number == number:
            return self.current
        return self.shared.get(number)

    def find_waiting(self, number: int) -> InvocationRun | None:
        """The invocation of this number in the mailbox."""
        return next((invocation for invocation in self.mailbox if invocation.number == number), None)

    def is_at_rest(self) -> bool:
        """Nothing is left to do."""
        return not (self.current or self.shared or self.mailbox or self.stored_tail) and self.load_buffer is None

    def is_dormant(self) -> bool:
        """What is left to do waits for something durable."""
        if self.mailbox or self.stored_tail or self.load_buffer is not None:
            return False
        if self.current is not None and not is_dormant(self.current):
            return False
        return all(map(is_dormant, self.shared.values()))

    def next_to_start(self) -> InvocationRun | None:
        """Take the head of the mailbox, if nothing holds it."""
        if self.current is not None or not self.mailbox or self.load_buffer is not None:
            return None
        self.current = self.mailbox.popleft()
        return self.current

    def can_passivate(self, durable: int) -> bool:
        """All of rule L4: nothing running, waiting in memory, loading, shared in flight, or not durable."""
        return not self.is_held and self.changed_at <= durable and self.is_dormant()


def is_dormant(invocation: InvocationRun) -> bool:
    """Only something durable can wake it, and it has no attempt in memory: the store alone is enough to go on."""
    return (
        invocation.execution is None
        and not invocation.is_queued
        and not invocation.is_preparing
        and invocation.held_step is None
        and not (invocation.journal is not None and (invocation.journal.undelivered or invocation.journal.unanswered))
        and invocation.status in (InvocationStatus.SUSPENDED, InvocationStatus.BACKING_OFF, InvocationStatus.PAUSED)
    )


def apply_changes(state: dict[str, bytes], changes: Mapping[str, bytes | None]) -> None:
    """Lay changed fields over a state."""
    for name, value in changes.items():
        if value is None:
            state.pop(name, None)
        else:
            state[name] = value

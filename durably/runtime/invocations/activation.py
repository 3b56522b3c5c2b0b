"""`Activation`: the live one of an object in memory, with its mailbox. Data and admission rules; no `await`, no I/O.

One exclusive invocation runs at a time, in mailbox order; shared ones run beside it. Whatever concerns an object goes
through its activation, which is made first, cold, if need be; what comes while it loads waits in `arrived` (rule L1).
A service has no state and no mailbox: each of its invocations has an activation of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from durably.actors.definition.binding import BoundActor
from durably.ids import Address, InvocationStatus
from durably.runtime.invocations.load_errors import LoadError

if TYPE_CHECKING:
    from durably.runtime.execution.step import Delivery
    from durably.runtime.invocations.invocation import InvocationRun
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
        """Whoever needs it in memory."""


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
    is_held: bool = False
    """Something looks at it that needs it in memory for a while."""
    expiring: int | None = None
    """The number of its `run`, of a workflow whose retention is over: it goes once no handler is in flight (W3)."""
    is_read_again: bool = False
    """The load on its way is for what could not be read before."""
    is_rehydrated: bool = False
    """The snapshot and what had started are in memory; a further load is for the rest of the mailbox only."""

    def __init__(self, address: Address, actor: BoundActor, position: int) -> None:
        self.address = address
        self.actor = actor
        self.changed_at = position
        """The log position of the last change; until that is durable it stays in memory (rule L4)."""
        self.shared: dict[int, InvocationRun] = {}
        """Invocations of shared handlers (and the one of a service), by number."""
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

    def view(self) -> Mapping[str, bytes]:
        """The state as a shared handler sees it: the snapshot under the changes of the one in flight (rule V3)."""
        current = self.current
        if current is None or current.journal is None or not current.journal.changes or current.handler.atomic:
            return self.snapshot
        view = dict(self.snapshot)
        apply_changes(view, current.journal.changes)
        return view

    def waiting(self) -> int:
        """How many messages wait for this object, as far as it is known in memory."""
        waiting = len(self.mailbox) + self.stored_tail
        return waiting if self.load_buffer is None else waiting + len(self.load_buffer.messages)

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

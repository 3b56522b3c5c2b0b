"""`PauseSearch`: whether an invocation that somebody outside begins to wait for is held up by one that is paused.

Callers who wait when something is paused are refused then (`pause_notices`). For those who come later the search goes
down from the invocation along what it waits for, in memory or in the store, and what holds the mailbox that it is
queued in. It changes nothing on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from durably.actors.protocol.commands import Attach, Call, Command, key_scope
from durably.errors import PausedInvocationError
from durably.ids import InvocationStatus, derived_invocation_id
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.runtime.invocations.journal import UnreadableStepError, journal_of
from durably.runtime.invocations.load_errors import journal_load_error
from durably.runtime.lifecycle.pause_errors import pause_error
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import StoredInvocation

INVOCATIONS_PER_INQUIRY = 1_000
"""How many are looked at for one who asks; one that waits for more than that is told nothing."""

Told = Callable[[PausedInvocationError], object]


class Inquiry:
    """One search on its way."""

    __slots__ = ("seen", "tell")

    def __init__(self, tell: Told) -> None:
        self.tell: Told | None = tell
        """None: told already."""
        self.seen: set[int] = set()

    def comes_to(self, number: int) -> bool:
        """Whether this invocation is to be looked at: calls may go in circles."""
        if self.tell is None or number in self.seen or len(self.seen) >= INVOCATIONS_PER_INQUIRY:
            return False
        self.seen.add(number)
        return True


class PauseSearch:
    """Searches for what holds invocations up."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._scheduled = scheduled
        self._registry = registry

    def begin(self, found: Found, tell: Told) -> None:
        """Tell what is paused, once that is durable, if anything is that this invocation waits for."""
        self._come_to(Inquiry(tell), found)

    def _come_to(self, inquiry: Inquiry, found: Found) -> None:
        if found is None or found.status is InvocationStatus.COMPLETED or not inquiry.comes_to(found.number):
            return
        if found.status is InvocationStatus.PAUSED:
            self._end(inquiry, pause_error(found))
        elif found.status is InvocationStatus.PENDING and self._activations.hosts(found.address):
            self._activations.with_loaded(found.address, partial(self._look_at_holder, inquiry))
        elif not isinstance(found, InvocationRun):
            self._scheduled.look_at(found.number, partial(self._look_at_stored, inquiry))
        elif found.journal is not None:
            self._go_down(inquiry, found.id, found.seed, found.journal.pending)

    def _look_at_holder(self, inquiry: Inquiry, activation: Activation) -> None:
        """It is queued, so it waits for what holds its object, and for what that waits for."""
        self._come_to(inquiry, activation.current)

    def _look_at_stored(self, inquiry: Inquiry, stored: StoredInvocation | None) -> None:
        if stored is None:
            return
        try:
            pending = journal_of(stored).pending
        except UnreadableStepError:
            pending = None
        if pending is None or journal_load_error(stored) is not None:  # Rule L5: it is paused when it is in memory.
            if self._activations.hosts(stored.record.address):
                self._activations.activation(stored.record.address)
        elif stored.steps:
            self._go_down(inquiry, stored.record.id, stored.record.seed, pending)

    def _go_down(self, inquiry: Inquiry, id: str, seed: bytes, pending: Mapping[int, Command]) -> None:
        come_to = partial(self._come_to, inquiry)
        for number, command in list(pending.items())[:INVOCATIONS_PER_INQUIRY]:
            match command:
                case Call(service=service, key=key):
                    self._registry.by_id(derived_invocation_id(id, seed, number, service, key), come_to)
                case Attach(invocation_id=str() as attached):
                    self._registry.by_id(attached, come_to)
                case Attach():
                    self._registry.by_key(key_scope(command), come_to)
                case _:
                    pass

    def _end(self, inquiry: Inquiry, error: PausedInvocationError) -> None:
        tell, inquiry.tell = inquiry.tell, None
        assert tell is not None
        self._committer.when_answerable(tell, error)  # Rule X1

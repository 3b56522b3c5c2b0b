"""`PauseSearch`: whether an invocation that somebody outside begins to wait for is held up by one that is paused.

Callers who wait when something is paused are refused then (`pause_notices`). For those who come later the search goes
down from the invocation along what it waits for, in memory or in the store, what holds the mailbox that it is queued
in, and what holds the places of the limit that it starts under. One paused invocation is enough to hold up what waits
for it, also beside others; a limit is shut only when all of its places are held up. It changes nothing on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

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
from durably.runtime.limits.limit_pool import LimitPool
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import InvocationRecord, StoredInvocation

INVOCATIONS_PER_INQUIRY = 1_000
"""How many are looked at for one who asks; one that waits for more than that is told nothing."""

ASKER = 0
"""No invocation has this number."""

Told = Callable[[PausedInvocationError], object]


class Edge(NamedTuple):
    """Who waits for an invocation that is looked at."""

    waiter: int
    """Its number; `ASKER` is the caller outside."""
    pool: LimitPool | None = None
    """The limit of which it waits for a place; None: it waits for the invocation itself."""
    place: int = 0
    """The place that the invocation keeps taken."""


class Inquiry:
    """One search on its way."""

    __slots__ = ("above", "held_places", "held_up", "places", "seen", "tell")

    def __init__(self, tell: Told) -> None:
        self.tell: Told | None = tell
        """None: told already."""
        self.seen: set[int] = set()
        self.above: dict[int, list[Edge]] = {}
        """Who waits for each one seen."""
        self.held_up: dict[int, PausedInvocationError] = {}
        """Those seen that are paused, or wait for what is."""
        self.places: dict[int, Iterator[tuple[int, list[str]]]] = {}
        """The places of a limit that are still to be looked at, by the number of who waits for one."""
        self.held_places: dict[int, set[int]] = {}
        """Those that are kept taken by what is held up."""

    def comes_to(self, number: int, edge: Edge) -> bool:
        """Whether this invocation is to be looked at: calls may go in circles."""
        self.above.setdefault(number, []).append(edge)
        if number in self.seen or len(self.seen) >= INVOCATIONS_PER_INQUIRY:
            return False
        self.seen.add(number)
        return True

    def is_shut(self, pool: LimitPool, edge: Edge) -> bool:
        """Whether places enough stay taken, with one more, that no one gets one. Some may be free by now."""
        held = self.held_places.setdefault(edge.waiter, set())
        held.add(edge.place)
        return pool.is_shut_by(sum(place in pool.places for place in held))


class PauseSearch:
    """Searches for what holds invocations up."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        named_limits: NamedLimits,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._named_limits = named_limits
        self._scheduled = scheduled
        self._registry = registry

    def begin(self, found: Found, tell: Told) -> None:
        """Tell what is paused, once that is durable, if anything is that this invocation waits for."""
        self._come_to(Inquiry(tell), Edge(ASKER), found)

    def may_be_shut(self, pool: LimitPool) -> bool:
        """Whether those who wait for this limit may be held up, as far as that can be told without the store."""
        taken = len(pool.places)
        for members in pool.places.values():
            if not pool.is_shut_by(taken):
                return False
            taken -= all(map(self._goes_on, members.values()))
        return pool.is_shut_by(taken)

    def _goes_on(self, id: str) -> bool:
        live = self._registry.live.get(id)
        return live is not None and live.status is not InvocationStatus.PAUSED and not waits_for_others(live)

    def _come_to(self, inquiry: Inquiry, edge: Edge, found: Found) -> None:
        if inquiry.tell is None or found is None or found.status is InvocationStatus.COMPLETED:
            return
        if found.number in inquiry.held_up:
            self._hold_up(inquiry, [edge], inquiry.held_up[found.number])
        elif not inquiry.comes_to(found.number, edge):
            return
        elif found.status is InvocationStatus.PAUSED:
            self._hold_up(inquiry, [Edge(found.number)], pause_error(found))
        elif found.status is InvocationStatus.PENDING and self._activations.hosts(found.address):
            self._activations.with_loaded(found.address, partial(self._look_at_pending, inquiry, found.number))
        elif not isinstance(found, InvocationRun):
            self._scheduled.look_at(found.number, partial(self._look_at_stored, inquiry))
        elif found.journal is not None:
            self._go_down(inquiry, found, found.journal.pending)

    def _look_at_pending(self, inquiry: Inquiry, number: int, activation: Activation) -> None:
        """It waits for a limit, or is queued for what holds its object, and for what that waits for."""
        pool = self._named_limits.waits_in.get(number)
        if pool is None:
            self._come_to(inquiry, Edge(number), activation.current)
            return
        held = [(place, [*members.values()]) for place, members in pool.places.items()]
        inquiry.places[number] = iter(held)
        for _ in range(pool.taken_too_many() + 1):
            self._look_at_next_place(inquiry, number, pool)

    def _look_at_next_place(self, inquiry: Inquiry, number: int, pool: LimitPool) -> None:
        """One after another: those of a busy limit are not all asked for, if the first of them goes on."""
        nothing: list[str] = []
        place, members = next(inquiry.places[number], (0, nothing))
        for id in members:
            self._registry.by_id(id, partial(self._come_to, inquiry, Edge(number, pool, place)))

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
            self._go_down(inquiry, stored.record, pending)

    def _go_down(
        self, inquiry: Inquiry, waiter: InvocationRun | InvocationRecord, pending: Mapping[int, Command]
    ) -> None:
        id, seed, come_to = waiter.id, waiter.seed, partial(self._come_to, inquiry, Edge(waiter.number))
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

    def _hold_up(self, inquiry: Inquiry, edges: list[Edge], error: PausedInvocationError) -> None:
        """Something that these wait for is held up, and they are with it: all the way up."""
        while edges:
            edge = edges.pop()
            if edge.pool is not None and not inquiry.is_shut(edge.pool, edge):
                self._look_at_next_place(inquiry, edge.waiter, edge.pool)
            elif edge.waiter == ASKER:
                self._end(inquiry, error)
                return
            elif edge.waiter not in inquiry.held_up:
                inquiry.held_up[edge.waiter] = error
                edges += inquiry.above.pop(edge.waiter, ())

    def _end(self, inquiry: Inquiry, error: PausedInvocationError) -> None:
        tell, inquiry.tell = inquiry.tell, None
        assert tell is not None
        self._committer.when_answerable(tell, error)  # Rule X1


def waits_for_others(waiter: InvocationRun) -> bool:
    """Some command of it does."""
    return waiter.journal is not None and any(
        isinstance(command, Call | Attach) for command in waiter.journal.pending.values()
    )

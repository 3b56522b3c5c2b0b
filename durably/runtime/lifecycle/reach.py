"""`Reach`: brings an invocation into hand, wherever it is, so that something can be done to it.

It may be in memory, in a mailbox, on its way there, far back in a mailbox of which the store keeps the tail, scheduled
for later, or in the store only. What has not started can then be taken out of the place where it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from durably.ids import Address, InvocationStatus
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun, from_stored
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.scheduled_messages import Coming, ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import CallerRecord, InvocationRecord, StoredInvocation, TimerKind

WhenReached: TypeAlias = Callable[[Found], None]
"""Hears the invocation; its row if it has ended, or its class is not here; None if there is none. No transition is
being made then.
"""


class Reach:
    """Reaches the invocations of one incarnation."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
        timers: TimerService,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._registry = registry
        self._scheduled = scheduled
        self._timers = timers

    def by_id(self, id: str, then: WhenReached) -> None:
        """Reach an invocation by its id, or by an id that leads to it."""
        self._registry.by_id(id, partial(self._found, then))

    def by_number(self, address: Address, number: int, then: WhenReached) -> None:
        """Reach an unfinished invocation by its number; None if it has ended."""
        invocation = self._scheduled.kept(number)
        if invocation is not None:
            then(invocation)
        else:
            self._activations.with_loaded(address, partial(self._look_in_object, number, then))

    def read_again(self, invocation: InvocationRun, then: WhenReached) -> None:
        """Ask the store again for what could not be read of one that is paused; `then` hears where it is after that."""
        self._activations.read_again(invocation, lambda _: self.by_id(invocation.id, then))

    def take_out(self, invocation: InvocationRun) -> None:
        """It ends without having started: it leaves the place where it waits."""
        activation = invocation.activation
        if invocation.status is InvocationStatus.SCHEDULED:
            self._scheduled.take(invocation.number)
            self._timers.forget(invocation.number, TimerKind.START)
        elif activation.current is invocation or activation.shared.get(invocation.number) is invocation:
            return  # It leaves when it has ended.
        else:
            self._activations.take_out(invocation)

    # ------------------------------------------------------------------ by id

    def _found(self, then: WhenReached, found: Found) -> None:
        if isinstance(found, InvocationRun):
            if found.outcome is None and self._registry.live.get(found.id) is not found:
                self.by_id(found.id, then)  # It has left memory since it was found.
            elif found.outcome is None and found.activation.loading:
                self._activations.with_loaded(found.address, lambda _: self.by_id(found.id, then))
            else:
                then(found)
        elif found is None or found.status is InvocationStatus.COMPLETED or not self._activations.hosts(found.address):
            then(found)
        elif found.status is InvocationStatus.SCHEDULED:
            again = partial(self.by_id, found.id, then)
            self._scheduled.bring(found.number, self._hearing(again, then))
        else:
            self._activations.with_loaded(found.address, partial(self._look_up_again, found, then))

    def _look_up_again(self, found: InvocationRecord, then: WhenReached, activation: Activation) -> None:
        again = partial(self.by_id, found.id, then)
        if found.id in self._registry.live:
            again()
        elif not activation.stored_tail:
            self._if_still_ours(again)
        else:
            self._scheduled.bring(found.number, self._hearing(again, then))

    def _hearing(self, again: Callable[[], None], then: WhenReached) -> Coming:
        return partial(self._brought, again, partial(self._if_still_ours, again), then)

    # ------------------------------------------------------------------ by number

    def _look_in_object(self, number: int, then: WhenReached, activation: Activation) -> None:
        invocation = activation.find(number) or activation.find_waiting(number)
        if invocation is not None:
            then(invocation)
        else:
            again = partial(self.by_number, activation.address, number, then)
            self._scheduled.bring(number, partial(self._brought, again, partial(then, None), then))

    # ------------------------------------------------------------------ from the store

    def _brought(
        self,
        again: Callable[[], None],
        gone: Callable[[], None],
        then: WhenReached,
        stored: StoredInvocation | None,
        attached: list[CallerRecord],
        is_still_there: bool,
    ) -> bool:
        """The rows of one that has not started are here. Returns whether it has ended now."""
        if stored is None:
            gone()
            return False
        invocation = self._restored(stored) if is_still_there else None
        if invocation is None:
            if stored.record.id in self._registry.live:
                again()
            else:
                self._if_still_ours(again)
            return False
        invocation.attachments += tuple(caller for caller in attached if caller not in invocation.attachments)
        then(invocation)
        return invocation.outcome is not None

    def _if_still_ours(self, again: Callable[[], None]) -> None:
        """What the store told of is not in memory: it has moved meanwhile, or the next owner of the store has accepted
        it. Then looking again would go on for ever, so the store is asked first whether it still is ours (rule X9).
        """
        self._committer.when_answerable(lambda _: again(), None)

    def _restored(self, stored: StoredInvocation) -> InvocationRun | None:
        """None if it is in memory by now, or on its way there."""
        record = stored.record
        if record.id in self._registry.live:
            return None
        activation = self._activations.by_address.get(record.address)
        if record.status is InvocationStatus.SCHEDULED:
            activation = self._activations.detached(record.address)
        elif activation is None or activation.loading or not activation.stored_tail:
            return None
        handler = activation.actor.handler_or_missing(record.handler, shared=record.mailbox_position is None)
        return from_stored(stored, activation, handler)

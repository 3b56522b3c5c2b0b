"""`Emptying`: the entries of an object that is deleted go a portion at a time, so that other commits go on in between.

From its turn on the deletion is under way, which the store knows: shared handlers find nothing left (rule V3), nothing
ends it any more, and it goes on after a crash. The last portion goes with the rest of the state, and ends the deletion.

Workflows whose retention is over go in the same way (rule W3). With the first portion of either the object is marked
in the store as one that goes (`GOING_FIELD`): what is left of it is seen by no one, also after a crash. The outcome of
the workflow's `run` has expired from then on, so a look-up or the cleaner, which comes first, goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from durably.ids import InvocationStatus
from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.registry.reads import Reads
from durably.runtime.settings import Settings
from durably.storage.records import LEAVING, InvocationRecord


class Emptying:
    """Of one incarnation."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        background: Background,
        committer: Committer,
        reads: Reads,
        ready: ReadyQueue,
        settings: Settings,
    ) -> None:
        self._incarnation = incarnation
        self._background = background
        self._committer = committer
        self._reads = reads
        self._ready = ready
        self._portion = settings.expiry_portion
        self._under_way: set[int] = set()
        self._nearly_empty: set[int] = set()
        """Deletions whose objects have no more than a portion left."""

    def goes_on(self, deletion: InvocationRun) -> bool:
        """Whether a deletion has to wait: it is advanced again when what is left fits into one transition."""
        number = deletion.number
        if number in self._nearly_empty or not deletion.activation.actor.large_fields():
            self._nearly_empty.discard(number)
            return False
        if number not in self._under_way:
            self._under_way.add(number)
            if deletion.status is InvocationStatus.PENDING:
                self._committer.begin().move(deletion, InvocationStatus.RUNNING)
            self._background.spawn(self._empty_object(deletion))
        return True

    def goes_on_for(self, activation: Activation, run: InvocationRecord, then: Callable[[Activation], None]) -> bool:
        """The same of a workflow that can be let go of; `then` hears when what is left fits into one transition."""
        number = run.number
        if number in self._nearly_empty or not activation.actor.large_fields():
            self._nearly_empty.discard(number)
            return False
        if number not in self._under_way:
            self._under_way.add(number)
            activation.is_held = True
            self._background.spawn(self._empty_workflow(activation, run, then))
        return True

    def is_under_way(self, run: InvocationRecord) -> bool:
        """Entries of its workflow go right now, or are counted."""
        return run.number in self._under_way

    async def _empty_workflow(
        self, activation: Activation, run: InvocationRecord, then: Callable[[Activation], None]
    ) -> None:
        await self._empty(activation, run.number, run)
        activation.is_held = False
        if not self._incarnation.dead:
            then(activation)
            self._ready.schedule()

    async def _empty_object(self, deletion: InvocationRun) -> None:
        await self._empty(deletion.activation, deletion.number)
        if not self._incarnation.dead:
            self._ready.push(deletion)
            self._ready.schedule()

    async def _empty(self, activation: Activation, number: int, run: InvocationRecord | None = None) -> None:
        await self._committer.until_durable()
        while await self._reads.has_more_entries(activation.address, self._portion):
            if self._incarnation.dead:
                return
            begins = run is not None and not activation.is_being_emptied
            if begins and not activation.is_at_rest():  # Rule W3: a handler has come since, and has seen what is there.
                self._under_way.discard(number)
                return
            transition = self._committer.begin()
            if run is not None and begins:
                transition.postpone_expiry(run, LEAVING)
            transition.trim_entries(activation, self._portion)
            self._ready.schedule()
            await self._committer.until_durable()
        self._under_way.discard(number)
        self._nearly_empty.add(number)

"""`Emptying`: the entries of an object that is deleted go a portion at a time, so that other commits go on in between.

From its turn on the deletion is under way, which the store knows: shared handlers find nothing left (rule V3), nothing
ends it any more, and it goes on after a crash. The last portion goes with the rest of the state, and ends the deletion.

Workflows whose retention is over go in the same way. The store does not know that of them: after a crash the cleaner
comes to them again.
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
        self._begun: set[int] = set()
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

    def goes_on_for(self, activation: Activation, then: Callable[[Activation], None]) -> bool:
        """The same of a workflow that can be let go of; `then` hears when what is left fits into one transition."""
        number = activation.expiring
        assert number is not None
        if number in self._nearly_empty or not activation.actor.large_fields():
            self._nearly_empty.discard(number)
            self._begun.discard(number)
            return False
        if number not in self._under_way:
            self._under_way.add(number)
            self._background.spawn(self._empty_workflow(activation, number, then))
        return True

    async def _empty_workflow(self, activation: Activation, number: int, then: Callable[[Activation], None]) -> None:
        await self._empty(activation, number)
        if not self._incarnation.dead:
            then(activation)
            self._ready.schedule()

    async def _empty_object(self, deletion: InvocationRun) -> None:
        await self._empty(deletion.activation, deletion.number)
        if not self._incarnation.dead:
            self._ready.push(deletion)
            self._ready.schedule()

    async def _empty(self, activation: Activation, number: int) -> None:
        await self._committer.until_durable()
        while await self._reads.has_more_entries(activation.address, self._portion):
            if self._incarnation.dead:
                return
            if activation.expiring is not None:
                self._begun.add(number)
                activation.is_being_emptied = True
            self._committer.begin().trim_entries(activation, self._portion)
            self._ready.schedule()
            await self._committer.until_durable()
        self._under_way.discard(number)
        self._nearly_empty.add(number)

    def has_begun(self, number: int | None) -> bool:
        """Entries of the workflow of this `run` have gone already."""
        return number in self._begun

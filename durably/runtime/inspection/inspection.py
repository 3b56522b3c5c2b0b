"""`Inspection`: a running runtime's answers about invocations and objects. It reads, and changes nothing.

Every answer is an exit: what it tells is durable (rule X1), and it comes from an owner that still has the store (X9).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from durably.actors.definition.binding import BoundActor
from durably.actors.values.serde import SerdeFactory
from durably.errors import StoreUnavailableError, UnknownTargetError
from durably.ids import InvocationStatus, is_storable
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.inspection import listing, stored_facts
from durably.runtime.inspection.facts import ActionFact, LimitFact
from durably.runtime.inspection.journals import InvocationJournal, JournalReader
from durably.runtime.inspection.listing import ObjectDescription
from durably.runtime.inspection.live_facts import action_fact, limit_fact
from durably.runtime.inspection.waits import WaitingInvocation
from durably.runtime.supervision.supervisor import Supervisor
from durably.storage.introspection import InspectableStore
from durably.storage.records import InvocationRecord


class Inspection:
    """Asks the store in other connections than the one that commits, and memory for what only this process knows."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        store: InspectableStore,
        actors: Mapping[str, BoundActor],
        serde: SerdeFactory | None,
        clock: Clock,
    ) -> None:
        self._supervisor = supervisor
        self._store = store
        self._reader = JournalReader(actors, serde)
        self._clock = clock

    async def records(
        self, service: str | None, key: str | None, handler: str | None, status: InvocationStatus | None
    ) -> AsyncIterator[InvocationRecord]:
        """Rows by number."""
        await self._supervisor.until_durable()
        found = listing.records(
            self._store,
            self._supervisor.until_durable,
            self._clock.now,
            service=service,
            key=key,
            handler=handler,
            status=status,
        )
        async for record in found:
            yield record

    async def objects(self, service: str) -> AsyncIterator[ObjectDescription]:
        """The objects of a class by key."""
        await self._supervisor.until_durable()
        found = listing.objects(self._store, self._supervisor.until_durable, self._activations, service)
        async for description in found:
            yield description

    async def journal(self, id: str) -> InvocationJournal:
        """
        Raises:
            UnknownTargetError: there is no such invocation.
            LoadLimitError, UnreadableRecordError: its journal cannot be read.
        """
        await self._supervisor.until_durable()
        record = (await self._store.find([id])).get(id) if is_storable(id) else None
        if record is None:
            raise unknown(id)
        stored = (await self._store.fetch([record.number])).get(record.number)
        if stored is None and record.status is not InvocationStatus.COMPLETED:  # It has ended, or begun anew, since.
            record = (await self._store.find([id])).get(id, record)
            stored = (await self._store.fetch([record.number])).get(record.number)
        journal = await self._reader.journal(record if stored is None else stored.record, stored)
        await self._supervisor.until_durable()
        return journal

    async def why(self, id: str) -> WaitingInvocation:
        """
        Raises:
            UnknownTargetError: there is no such invocation.
        """
        await self._supervisor.until_durable()
        found = await stored_facts.why(self._store, id, action_now=self._action_now, limit_now=self._limit_now)
        await self._supervisor.until_durable()
        if found is None:
            raise unknown(id)
        return found

    def _action_now(self, id: str, command: int) -> ActionFact | None:
        return action_fact(self._supervisor.actions, self._clock, id, command)

    def _limit_now(self, number: int) -> LimitFact | None:
        engine = self._supervisor.engine
        return None if engine is None else limit_fact(engine.parts.named_limits, self._clock, number)

    def _activations(self) -> Activations:
        engine = self._supervisor.engine
        if engine is None:
            raise StoreUnavailableError("The store failed while it was being read, and is opened again. Ask again.")
        return engine.parts.activations


def unknown(id: str) -> UnknownTargetError:
    """What those hear who ask for an invocation that is not there."""
    return UnknownTargetError(f"There is no invocation {id}, or its outcome is no longer kept.")

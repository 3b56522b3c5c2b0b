"""`Introspection`: what operators and tools read in a store. The machine itself needs none of it (`Store`).

Each answer is one snapshot of what is durable. Both shipped stores implement it, and `durably.testing.store_contract`
tests it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from durably.ids import Address, InvocationStatus
from durably.storage.records import (
    EntryAnswer,
    EntryQuery,
    EventAnswer,
    EventQuery,
    InvocationRecord,
    MailboxRecord,
    ObjectSummary,
    StoredInvocation,
    StoredObject,
    TimerRecord,
)
from durably.storage.store import Store


class Introspection(Protocol):
    """Reads what is stored. Every coroutine may raise `StoreUnavailableError`."""

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        """Stored invocations by number, above `after`.

        Fewer than `limit` where they are large, and none only if there is none.
        """
        ...

    async def state(self, address: Address, /) -> Mapping[str, bytes]:
        """The snapshot of one object; empty where there is none."""
        ...

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        """Invocations that have ended, by number, with what is kept of their journals."""
        ...

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        """As `Store.entries`."""
        ...

    async def events(self, query: EventQuery, /) -> EventAnswer:
        """As `Store.events`."""
        ...

    async def objects(self, addresses: Sequence[Address], /) -> list[StoredObject]:
        """For each object, its snapshot and the journals of what has started there; `pending` stays empty."""
        ...

    async def summaries(self, service: str, /, *, after: str, limit: int) -> list[ObjectSummary]:
        """Objects of a class that have state, promises or something to do, by key, above `after`; "" for the first."""
        ...

    async def mailbox(self, address: Address, /, *, before: int) -> MailboxRecord:
        """What a message at the mailbox position `before` waits for."""
        ...

    async def timers_of(self, numbers: Sequence[int], /) -> list[TimerRecord]:
        """All timers of these invocations, in no order."""
        ...


class InspectableStore(Store, Introspection, Protocol):
    """A store that a `Runtime` can run on."""

"""Stores that misbehave on purpose, around any store that does not.

`HeldStore` lets a test decide when a commit, its acknowledgement, or the answer of a read goes on. `FailingStore` fails
one commit, before or after it became durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from durably.errors import StoreUnavailableError
from durably.ids import Address, KeyScope
from durably.storage.introspection import InspectableStore
from durably.storage.records import (
    Batch,
    InvocationRecord,
    Opened,
    Owner,
    StoredInvocation,
    StoredObject,
)
from durably.storage.wrapping import WrappedStore as WrappedStore


class Barrier:
    """Where callers wait while it is held, in the order they came."""

    def __init__(self, *, held: bool = False) -> None:
        self._held = held
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def hold(self) -> None:
        """From now on everybody waits."""
        self._held = True

    def release_one(self) -> None:
        """Let the first of those who wait go on; later ones wait as before."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def release(self) -> None:
        """Let everybody go on, now and later."""
        self._held = False
        while self._waiting:
            self.release_one()

    async def passed(self) -> None:
        """Return at once while not held, otherwise when released."""
        if self._held:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter


class HeldReads(WrappedStore):
    """A store with a barrier for loads and one for look-ups: where the answer has been read and has not been given."""

    def __init__(self, inner: InspectableStore) -> None:
        super().__init__(inner)
        self.loads = Barrier()
        self.lookups = Barrier()

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        answer = await super().load(addresses, pending_limit=pending_limit)
        await self.loads.passed()
        return answer

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        answer = await super().find(ids)
        await self.lookups.passed()
        return answer

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        answer = await super().find_keyed(scopes)
        await self.lookups.passed()
        return answer

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        answer = await super().fetch(numbers)
        await self.loads.passed()
        return answer

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        answer = await super().fetch_ended(numbers)
        await self.lookups.passed()
        return answer


class HeldStore(HeldReads):
    """A store with barriers. Only `commits` is held from the start.

    `commits` lies before a commit begins; `acknowledgements` when it is durable and has not returned; `loads` and
    `lookups` when the answer has been read and has not been given.
    """

    def __init__(self, inner: InspectableStore) -> None:
        super().__init__(inner)
        self.commits = Barrier(held=True)
        self.acknowledgements = Barrier()

    def release(self) -> None:
        """Let go everything that is held, now and later."""
        for barrier in (self.commits, self.acknowledgements, self.loads, self.lookups):
            barrier.release()

    async def commit(self, batch: Batch, /) -> None:
        await self.commits.passed()
        await self.inner.commit(batch)
        await self.acknowledgements.passed()


class FailingStore(WrappedStore):
    """Fails commit number `fail_at`, counted from 1 over the life of this object: with the batch durable, or not.

    As with any store, no commit succeeds after that until it has been opened again. `commits` counts those asked for.
    """

    def __init__(self, inner: InspectableStore, *, fail_at: int, durable: bool) -> None:
        super().__init__(inner)
        self.fail_at = fail_at
        self.durable = durable
        self.commits = 0
        self._failed = False

    async def open(self, owner: Owner, /) -> Opened:
        opened = await self.inner.open(owner)
        self._failed = False
        return opened

    async def commit(self, batch: Batch, /) -> None:
        if self._failed:
            raise StoreUnavailableError("A commit failed before. Open the store again first.")
        self.commits += 1
        if self.commits != self.fail_at:
            await self.inner.commit(batch)
            return
        self._failed = True
        if self.durable:
            await self.inner.commit(batch)
        raise StoreUnavailableError(f"Commit number {self.commits} failed because a test wants it to.")

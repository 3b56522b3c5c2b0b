"""A store that takes its time, fails when it is told to, and remembers every journal that was ever committed to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random

import msgspec

from durably.errors import StoreUnavailableError
from durably.ids import Address, KeyScope
from durably.runtime.execution.step import Delivery, decode_stored_step
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch, InvocationRecord, Opened, Owner, StoredInvocation, StoredObject
from durably.testing.stores.wrapped import WrappedStore


class Committed(msgspec.Struct):
    """What was committed of one invocation, in the order in which it was."""

    record: InvocationRecord
    snapshot: Mapping[str, bytes] = {}
    """The object's state under the first step."""
    steps: list[bytes] = []
    deliveries: dict[int, Delivery] = {}


class RestlessStore(WrappedStore):
    """Every question and every commit takes a few turns of the event loop, before and after."""

    def __init__(self, random: Random, patience: int) -> None:
        self.memory = MemoryStore()
        super().__init__(self.memory)
        self.journals: dict[int, Committed] = {}
        self.fail_next: str | None = None
        """How the next commit fails: "before" the batch is durable, or "after"."""
        self.commits = 0
        self._random = random
        self._patience = patience
        self._failed = False

    async def open(self, owner: Owner, /) -> Opened:
        opened = await self.inner.open(owner)
        self._failed = False
        return opened

    async def commit(self, batch: Batch, /) -> None:
        if self._failed:
            raise StoreUnavailableError("A commit failed before. Open the store again first.")
        await self._dawdle()
        how, self.fail_next = self.fail_next, None
        self.commits += 1
        if how != "before":
            await self.inner.commit(batch)
            await self._remember(batch)
            await self._dawdle()
        if how is not None:
            self._failed = True
            raise StoreUnavailableError(f"A commit failed {how} it was durable because a test wants it to.")

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        await self._dawdle()
        answer = await self.inner.load(addresses, pending_limit=pending_limit)
        await self._dawdle()
        return answer

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        await self._dawdle()
        answer = await self.inner.find(ids)
        await self._dawdle()
        return answer

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        await self._dawdle()
        answer = await self.inner.find_keyed(scopes)
        await self._dawdle()
        return answer

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        await self._dawdle()
        answer = await self.inner.fetch(numbers)
        await self._dawdle()
        return answer

    async def _dawdle(self) -> None:
        for _ in range(self._random.randint(0, self._patience)):
            await asyncio.sleep(0)

    async def _remember(self, batch: Batch) -> None:
        for record in batch.accepted:
            self.journals[record.number] = Committed(record)
        for completion in batch.completions:
            delivery = Delivery(completion.command, completion.failed, completion.value)
            self.journals[completion.number].deliveries[completion.command] = delivery
        ended = {kept.number for kept in batch.kept}
        for step in batch.steps:
            if step.number in ended:  # What they changed is in the state already.
                continue
            journal = self.journals[step.number]
            assert step.index == len(journal.steps), "the steps of a journal have no gaps"
            if step.index == 0:
                journal.snapshot = await self.inner.state(journal.record.address)
            for one in decode_stored_step(step.content)[1]:
                journal.deliveries[one.command] = Delivery(one.command, one.failed, one.value)
            journal.steps.append(step.content)

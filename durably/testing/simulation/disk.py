"""`SimulatedDisk` and `SimulatedStore`: what survives a crash, and the fallible way to it.

The disk is that of `MemoryStore`, the executable specification. A store is one process's view of it: commits and reads
take time, and fail as the run's faults want. What a process has not committed when it is killed is lost; of a batch
that is on its way at that moment the seed decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from durably.errors import StoreInUseError, StoreUnavailableError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.storage.memory import ContradictionError, Disk, MemoryStore
from durably.storage.records import (
    EVER,
    Batch,
    EntryAnswer,
    EntryQuery,
    EventAnswer,
    EventQuery,
    InvocationRecord,
    JournalSize,
    KeptJournalRecord,
    MailboxRecord,
    ObjectSummary,
    Opened,
    OpenMessages,
    OrderRecord,
    Owner,
    PlaceKey,
    PlaceRecord,
    StoredInvocation,
    StoredObject,
    TimerPlace,
    TimerRecord,
)
from durably.testing.simulation.faults import Place
from durably.testing.simulation.injection import Injection, Strike
from durably.testing.simulation.latencies import Latencies
from durably.testing.stores.wrapped import WrappedStore

COMMIT_US = (200, 2_000)
READ_US = (20, 400)


class Process(Protocol):
    """The process that has opened a store."""

    name: str
    number: int
    takes_over: bool
    """Another process has the store, and does not stand in the way."""
    superseded_at_us: int | None
    """When another process had the store; None: it is the owner."""


class World(Protocol):
    """What a store has to do with besides the disk."""

    injection: Injection
    latencies: Latencies

    def crash_by(self, strike: Strike, /) -> bool:
        """The process dies, now or soon. Returns whether now: then the caller must not go on."""
        ...

    def clock_may_jump(self) -> None: ...
    def committed(self, batch: Batch, /) -> None:
        """A batch is on the disk."""
        ...

    def opened(self, process: Any, /) -> None:
        """What is on the disk is what has happened; a new incarnation of this process begins."""
        ...

    def refused(self, error: ContradictionError, /) -> None:
        """A batch contradicts what is on the disk."""
        ...

    def superseded_owner_committed(self, name: str, /) -> None:
        """A batch of a process became durable that was not the owner of the store any more."""
        ...

    def may_be_superseded(self, place: Place, /) -> None:
        """A moment at which another process may begin to take the store over."""
        ...

    def note(self, what: str, /) -> None: ...


class SimulatedDisk(Disk):
    """The disk of a run, with what is on its way to it."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        """Commits that were begun."""
        self.failed_commits = 0
        """Commits that reported a failure, after each of which the runtime recovers."""
        self.in_flight: Batch | None = None
        self.full_until_us = 0

    def addresses(self) -> Iterable[Address]:
        """All objects that it knows."""
        return {
            **dict.fromkeys(self.state),
            **dict.fromkeys(self.entries),
            **dict.fromkeys(row.record.address for row in self.rows.values()),
        }

    def lose_power(self, random: Random) -> Batch | None:
        """The process is gone, and its lock; the batch that was on its way is on the disk, or not: then it is None."""
        self.holder = None
        batch, self.in_flight = self.in_flight, None
        if batch is None or random.random() < 0.5:
            return None
        self.apply(batch)
        return batch


class SimulatedStore(WrappedStore):
    """The store of one simulated process."""

    def __init__(self, disk: SimulatedDisk, world: World, process: Process) -> None:
        super().__init__(MemoryStore(disk))
        self.disk = disk
        self._world = world
        self._process = process
        self._host = asyncio.get_running_loop()
        self._failed = False
        self._was_opened = False

    def describe(self) -> str:
        return "simulated disk"

    async def open(self, owner: Owner, /) -> Opened:
        await self._takes(READ_US)
        self._refuse_if_full()
        if self._process.takes_over:
            self.disk.holder = None
        elif self._process.superseded_at_us is not None and not self._was_opened:
            # A start that was superseded gives up, also while its successor is down: the store is not its to take back.
            # A store that was opened before is refused by its epoch (rule X9).
            raise StoreInUseError("Another process took the store over while this one was starting.")
        opened = await self.inner.open(Owner("simulated", self._process.number, owner.since))
        self._failed, self._was_opened = False, True
        self._world.opened(self._process)
        return opened

    async def commit(self, batch: Batch, /) -> None:
        if self._failed:
            raise StoreUnavailableError("A commit failed before. Open the store again first.")
        disk, world = self.disk, self._world
        if self._process.superseded_at_us is not None:  # Faults are for the owner.
            await self._takes(COMMIT_US)
            await self._apply(batch)
            return
        disk.commits += 1
        world.injection.passes("before_commit", disk.commits)
        world.may_be_superseded("before_commit")
        await self._crash("before_commit")
        failing = world.injection.strikes("commit_fails", "before_commit")
        if failing is None:
            self._fill_up()
            self._refuse_if_full()
        disk.in_flight = batch
        await self._takes(COMMIT_US, "before_commit")
        if disk.in_flight is batch:
            disk.in_flight = None
        if failing is not None:
            self._failed = True
            durable = failing.dice.random() < 0.5 if failing.fault.durable is None else failing.fault.durable
            if durable:
                await self._apply(batch)
            world.note(f"commit {disk.commits} reports a failure, and is {'' if durable else 'not '}durable")
            disk.failed_commits += 1
            raise StoreUnavailableError("The simulated disk failed.")
        await self._apply(batch)
        world.injection.passes("after_commit", disk.commits)
        world.clock_may_jump()
        world.may_be_superseded("after_commit")
        await self._crash("after_commit")

    async def verify(self) -> None:
        await self._takes(READ_US)
        await self.inner.verify()

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        await self._reads()
        answer = await super().load(addresses, pending_limit=pending_limit)
        await self._takes(READ_US)
        return answer

    async def events(self, query: EventQuery, /) -> EventAnswer:
        await self._reads()
        return await super().events(query)

    async def event_sizes(self) -> list[tuple[str, int]]:
        await self._reads()
        return await super().event_sizes()

    async def entries(self, queries: Sequence[EntryQuery], /) -> list[EntryAnswer]:
        await self._reads()
        answer = await super().entries(queries)
        await self._takes(READ_US)
        return answer

    async def find(self, ids: Sequence[str], /) -> Mapping[str, InvocationRecord]:
        await self._reads()
        answer = await super().find(ids)
        await self._takes(READ_US)
        return answer

    async def find_keyed(self, scopes: Sequence[KeyScope], /) -> Mapping[KeyScope, InvocationRecord]:
        await self._reads()
        answer = await super().find_keyed(scopes)
        await self._takes(READ_US)
        return answer

    async def fetch(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        await self._reads()
        answer = await super().fetch(numbers)
        await self._takes(READ_US)
        return answer

    async def fetch_ended(self, numbers: Sequence[int], /) -> Mapping[int, StoredInvocation]:
        await self._reads()
        answer = await super().fetch_ended(numbers)
        await self._takes(READ_US)
        return answer

    async def recoverable(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        await self._reads()
        return await super().recoverable(after, limit)

    async def held_up(self, after: int, limit: int, /) -> list[tuple[int, Address]]:
        await self._reads()
        return await super().held_up(after, limit)

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        await self._reads()
        answer = await super().timers(until, limit, after=after, asked_after=asked_after)
        await self._takes(READ_US)
        return answer

    async def orders(self, after: int, limit: int, /) -> list[OrderRecord]:
        await self._reads()
        answer = await super().orders(after, limit)
        await self._takes(READ_US)
        return answer

    async def places(self, limit: int, /, *, after: PlaceKey | None = None) -> list[PlaceRecord]:
        await self._reads()
        answer = await super().places(limit, after=after)
        await self._takes(READ_US)
        return answer

    async def open_messages(self, service: str, handler: str, /) -> list[OpenMessages]:
        await self._reads()
        return await super().open_messages(service, handler)

    async def expired(self, now: int, limit: int, /) -> list[InvocationRecord]:
        await self._reads()
        answer = await super().expired(now, limit)
        await self._takes(READ_US)
        return answer

    async def expired_promises(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        await self._reads()
        return await super().expired_promises(now, limit)

    async def has_more_entries(self, address: Address, most: int, /) -> bool:
        await self._reads()
        return await super().has_more_entries(address, most)

    async def journal_size(self, number: int, /) -> JournalSize:
        await self._reads()
        return await super().journal_size(number)

    async def expired_journals(self, now: int, limit: int, /) -> list[KeptJournalRecord]:
        await self._reads()
        return await super().expired_journals(now, limit)

    async def expired_objects(self, now: int, limit: int, /) -> list[tuple[int, Address]]:
        await self._reads()
        return await super().expired_objects(now, limit)

    async def paused(self, limit: int, /) -> list[InvocationRecord]:
        await self._reads()
        return await super().paused(limit)

    async def invocations(
        self, *, after: int, limit: int, service: str | None = None, key: str | None = None, handler: str | None = None,
        status: InvocationStatus | None = None,
    ) -> list[InvocationRecord]:  # fmt: skip
        await self._reads()
        return await super().invocations(
            after=after, limit=limit, service=service, key=key, handler=handler, status=status
        )

    async def summaries(self, service: str, /, *, after: str, limit: int) -> list[ObjectSummary]:
        await self._reads()
        return await super().summaries(service, after=after, limit=limit)

    async def mailbox(self, address: Address, /, *, before: int) -> MailboxRecord:
        await self._reads()
        return await super().mailbox(address, before=before)

    async def timers_of(self, numbers: Sequence[int], /) -> list[TimerRecord]:
        await self._reads()
        return await super().timers_of(numbers)

    # ------------------------------------------------------------------ inside

    async def _apply(self, batch: Batch) -> None:
        try:
            await self.inner.commit(batch)
        except ContradictionError as error:
            self._world.refused(error)
            raise
        if self._process.superseded_at_us is not None:
            self._world.superseded_owner_committed(self._process.name)
        self._world.committed(batch)

    async def _reads(self) -> None:
        if self._process.superseded_at_us is not None:
            await self._takes(READ_US)
            return
        self._world.injection.passes("read")
        fails = self._world.injection.strikes("reads_fail", "read")
        await self._takes(READ_US, "read")
        if fails is not None:
            self._world.note("a read fails")
            raise StoreUnavailableError("The simulated disk could not be read.")

    async def _takes(self, between_us: tuple[int, int], place: Place | None = None) -> None:
        """Take some time; now and then much."""
        world = self._world
        slow = None if place is None else world.injection.strikes("slow", place)
        delay_us = world.latencies.one_of(between_us) if slow is None else slow.lasts_us
        await asyncio.sleep(delay_us / 1_000_000)

    async def _crash(self, place: Place) -> None:
        """Die here, if a fault wants it; then this never returns."""
        strike = self._world.injection.strikes("crash", place)
        if strike is not None and self._world.crash_by(strike):
            await self._host.create_future()

    def _fill_up(self) -> None:
        strike = self._world.injection.strikes("disk_full", "before_commit")
        if strike is not None:
            lasts_us = strike.lasts_us
            self.disk.full_until_us = round(self._host.time() * 1_000_000) + lasts_us
            self._world.note(f"the disk is full, for {lasts_us / 1_000_000:.3f} s")

    def _refuse_if_full(self) -> None:
        if round(self._host.time() * 1_000_000) < self.disk.full_until_us:
            self._failed = True
            self.disk.failed_commits += 1
            raise StoreUnavailableError("The simulated disk is full.")

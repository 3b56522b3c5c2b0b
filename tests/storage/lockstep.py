"""Simulated runs on a real store: what the simulator's disk is told and asked, the real store is told and asked too.

The disk of a run is `MemoryStore`, the specification. Here each batch is also committed to a store of the kind that is
tried, each question is also asked there, and the run goes on with that answer. A process that starts opens a real store
of its own, and one that was superseded is refused by the real one too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any, Protocol, TypeVar

import pytest
from msgspec import structs
from typing_extensions import override

from durably.errors import StoreInUseError
from durably.queries import TableLayout, TableQuery
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch, Opened, Owner, VersionsAnswer
from durably.testing import Workload
from durably.testing.simulation import disk as simulated_disk
from durably.testing.simulation import simulation
from durably.testing.simulation.disk import SimulatedDisk

R = TypeVar("R")

PATIENCE_SECONDS = 60
QUESTIONS = (
    "load", "entries", "events", "event_sizes", "versions", "find", "find_keyed", "fetch", "fetch_ended", "recoverable",
    "held_up", "timers", "orders", "places", "open_messages", "expired", "expired_promises", "expired_journals",
    "expired_objects", "paused", "objects", "state", "invocations", "summaries", "mailbox", "timers_of",
)  # fmt: skip
SETS = ("event_sizes", "timers_of")
"""Whose answers come in no order."""


class Bench:
    """Where real stores live during simulated runs: an event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, R]) -> R:
        future: Future[R] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(PATIENCE_SECONDS)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()


class Place(Protocol):
    """Where the real stores of one run are."""

    refuses_superseded: bool
    """An older store is still there when a younger one has been made, and refuses what it is told."""

    async def next_store(self, before: Sequence[InspectableStore], /) -> InspectableStore:
        """The store of a process that starts now, behind those of the processes before it."""
        ...


class Lockstep:
    """The real stores of one simulated disk."""

    def __init__(self, bench: Bench, place: Place) -> None:
        self._bench = bench
        self._place = place
        self._stores: list[InspectableStore] = []
        self.differences: list[str] = []
        self.commits = self.questions = self.refusals = 0

    def open(self, store: InspectableStore | None, owner: Owner, opened: Opened) -> InspectableStore:
        """Open the store of a process, which makes it when it starts. It must tell the same of what it finds."""
        if store is None:
            store = self._bench.do(self._place.next_store(self._stores))
            self._stores.append(store)
        found = self._bench.do(store.open(owner))
        self.compare("open", _without_identity(found), _without_identity(opened))
        return store

    def commit(self, batch: Batch) -> None:
        self.commits += 1
        self._bench.do(self._stores[-1].commit(batch))

    def ask(self, question: Coroutine[Any, Any, R]) -> R:
        return self._bench.do(question)

    def compare(self, asked: str, answer: object, expected: object) -> None:
        self.questions += 1
        if answer != expected:
            self.differences.append(f"{asked}: {answer!r} instead of {expected!r}")

    def check_refused(self, store: InspectableStore, batch: Batch) -> None:
        """The store of a process that was superseded takes nothing."""
        if self._place.refuses_superseded:
            self.refusals += 1
            with pytest.raises(StoreInUseError):
                self._bench.do(store.commit(batch))

    def close(self) -> None:
        for store in self._stores:
            self._bench.do(store.close())


class LockstepDisk(SimulatedDisk):
    """Also what was on its way when the process died, and got there."""

    def __init__(self, lockstep: Lockstep) -> None:
        super().__init__()
        self.lockstep = lockstep

    @override
    def apply(self, batch: Batch) -> None:
        super().apply(batch)
        self.lockstep.commit(batch)


class LockstepStore(MemoryStore):
    """Asks both, and goes on with the answer of the real one."""

    real: InspectableStore | None = None

    @property
    def lockstep(self) -> Lockstep:
        assert isinstance(self.disk, LockstepDisk)
        return self.disk.lockstep

    @override
    async def open(self, owner: Owner, /) -> Opened:
        opened = await super().open(owner)
        self.real = self.lockstep.open(self.real, owner, opened)
        return opened

    @override
    async def commit(self, batch: Batch, /) -> None:
        try:
            await super().commit(batch)
        except StoreInUseError:
            assert self.real is not None
            self.lockstep.check_refused(self.real, batch)
            raise

    @override
    async def lay_tables(self, tables: Sequence[TableLayout], /) -> None:
        await super().lay_tables(tables)
        real = self._owned()
        if real is not None:
            self.lockstep.ask(real.lay_tables(tables))

    @override
    async def search(self, query: TableQuery, /) -> VersionsAnswer | None:
        """By the tables of the real one, where the specification looks at all objects."""
        real = self._owned()
        return None if real is None else self.lockstep.ask(real.search(query))

    @override
    async def count_objects(self, query: TableQuery, /) -> int | None:
        real = self._owned()
        return None if real is None else self.lockstep.ask(real.count_objects(query))

    async def ask_both(self, name: str, *args: Any, **kwargs: Any) -> Any:
        expected: Any = await getattr(MemoryStore, name)(self, *args, **kwargs)
        real = self._owned()
        if real is None:
            return expected
        answer: Any = self.lockstep.ask(getattr(real, name)(*args, **kwargs))
        self.lockstep.compare(f"{name}{args}{kwargs}", _in_order(name, answer), _in_order(name, expected))
        return answer

    def _owned(self) -> InspectableStore | None:
        """The real one; None in a process that was superseded: what that reads is void, and a real store may say so."""
        return self.real if self._epoch == self.disk.epoch else None


def _asked_of_both(name: str) -> Any:
    async def ask(self: LockstepStore, *args: Any, **kwargs: Any) -> Any:
        return await self.ask_both(name, *args, **kwargs)

    return ask


for _name in QUESTIONS:
    setattr(LockstepStore, _name, _asked_of_both(_name))


def _without_identity(opened: Opened) -> Opened:
    return structs.replace(opened, epoch=0, store_id="")


def _in_order(name: str, answer: Any) -> Any:
    return sorted(answer) if name in SETS else answer


@contextmanager
def bench() -> Generator[Bench]:
    """For all runs of a test."""
    made = Bench()
    try:
        yield made
    finally:
        made.close()


def run_in_lockstep(workload: Workload, seed: int, bench: Bench, place: Callable[[], Place]) -> list[Lockstep]:
    """One run of a workload, with the real store beside the simulated disk. Any difference is a failure.

    A workload begins with an undisturbed run, which tells how long it is; that one has a place of its own. Give
    one with `shrink=False`: what fails here need not fail without the real store.
    """
    begun: list[Lockstep] = []

    def new_disk() -> LockstepDisk:
        begun.append(Lockstep(bench, place()))
        return LockstepDisk(begun[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "SimulatedDisk", new_disk)
        patch.setattr(simulation, "MemoryStore", LockstepStore)
        patch.setattr(simulated_disk, "MemoryStore", LockstepStore)
        try:
            workload.run(seed)
        finally:
            for one in begun:
                one.close()
            differences = [difference for one in begun for difference in one.differences]
            assert not differences, "\n".join(differences[:5])
    return begun

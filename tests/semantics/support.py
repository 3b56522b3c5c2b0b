"""What the tests of the rules share: turns of the loop, a store that obeys, an outside world, looks inside."""

# pyright: reportPrivateUsage=false
# The rules are about what happens inside the machine, so their tests look there.

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from durably.errors import StoreUnavailableError
from durably.ids import Address, InvocationStatus
from durably.runtime.engine.engine import Engine
from durably.runtime.runtime import Runtime
from durably.runtime.supervision.supervisor import Supervisor
from durably.storage.memory import MemoryStore
from durably.storage.records import EVER, Batch, InvocationRecord, Opened, Owner, StoredObject, TimerPlace, TimerRecord
from durably.testing import Harness
from durably.testing.stores.wrapped import Barrier, HeldReads

T = TypeVar("T")

SECOND_US = 1_000_000


async def turns(count: int = 120) -> None:
    """Let the event loop go round: long enough for everything that waits for nobody."""
    for _ in range(count):
        await asyncio.sleep(0)


async def wait_a_little(app: Harness, seconds: float) -> None:
    """Let virtual time pass where nothing may ever settle, because the test holds something back."""
    await app.clock.advance(round(seconds * SECOND_US), turns)


def begin(awaitable: Awaitable[T]) -> asyncio.Task[T]:
    """Wait for something in a task of its own."""

    async def wait() -> T:
        return await awaitable

    return asyncio.create_task(wait())


async def stop(app: Harness) -> None:
    """Leave a harness that was entered by hand, with an action or a failure still open, and without its checks."""
    stopping = begin(Runtime.__aexit__(app, None, None, None))
    await wait_a_little(app, 41)
    await stopping


def supervisor_of(app: Harness) -> Supervisor:
    return app._supervised()


def engine_of(app: Harness) -> Engine:
    """The engine of the moment, which must be alive."""
    engine = supervisor_of(app).engine
    assert engine is not None
    return engine


def tuned(app: Harness, **settings: Any) -> Harness:
    """The same harness with other numbers to run by; before it is entered."""
    app._settings = replace(app._settings, **settings)
    return app


def keep_one_incarnation(app: Harness) -> None:
    """Nothing has failed so far: the machine runs in its first incarnation, or none but those a test asked for."""
    assert supervisor_of(app).gateway.pending.failure is None, repr(supervisor_of(app).gateway.pending.failure)


class World:
    """What is outside: actions report here when they start, and end when the test says so."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def act(self, name: str) -> str:
        """An action that ends when it is told to."""
        self.started.append(name)
        try:
            await self._end_of(name).wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return f"{name} done"

    async def act_at_once(self, name: str) -> str:
        """An action that ends by itself."""
        self.started.append(name)
        return f"{name} done"

    def end(self, name: str) -> None:
        """Let this action end, now and whenever it is started again."""
        self._end_of(name).set()

    def _end_of(self, name: str) -> asyncio.Event:
        return self._ends.setdefault(name, asyncio.Event())


class PuppetStore(HeldReads):
    """A store in the hands of a test.

    While it is held, each commit waits until the test lets it through or fails it. It counts what it is asked for, can
    refuse to be opened, and can keep back the answers of loads, look-ups and looks at the timers.
    """

    def __init__(self, inner: MemoryStore | None = None) -> None:
        self.memory = MemoryStore() if inner is None else inner
        super().__init__(self.memory)
        self.commits: list[Batch] = []
        """Those that became durable."""
        self.opens = 0
        self.failing_opens: deque[BaseException] = deque()
        self.loaded: list[Address] = []
        self.timer_reads = Barrier()
        self.before_loads = Barrier()
        self._held = False
        self._broken = False
        self._waiting: deque[asyncio.Future[str]] = deque()

    # ------------------------------------------------------------------ what a test says

    def hold(self) -> None:
        """From now on every commit waits for the test's word."""
        self._held = True

    @property
    def waiting(self) -> int:
        """How many commits wait; there is never more than one."""
        return len(self._waiting)

    async def let_one(self) -> None:
        """Let the commit that waits become durable."""
        await self._say("go")

    async def fail_one(self, *, durable: bool) -> None:
        """Fail the commit that waits, after it became durable or without."""
        await self._say("durable" if durable else "lost")

    async def go_on(self) -> None:
        """Let everything through, now and later."""
        self._held = False
        while self._waiting:
            await self._say("go")

    async def lose(self, app: Harness) -> None:
        """`kill -9`: what waits to be committed never is; recover from the rest."""
        crash = asyncio.create_task(app.crash())
        await turns()
        self._held = False
        while self._waiting:
            await self._say("lost")
        await crash

    async def _say(self, word: str) -> None:
        assert self._waiting, "no commit waits"
        self._waiting.popleft().set_result(word)
        await turns()

    # ------------------------------------------------------------------ what the machine asks

    async def open(self, owner: Owner, /) -> Opened:
        self.opens += 1
        if self.failing_opens:
            raise self.failing_opens.popleft()
        opened = await self.inner.open(owner)
        self._broken = False
        return opened

    async def commit(self, batch: Batch, /) -> None:
        if self._broken:
            raise StoreUnavailableError("A commit failed before. Open the store again first.")
        word = "go"
        if self._held:
            said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._waiting.append(said)
            word = await said
        if word != "lost":
            await self.inner.commit(batch)
            self.commits.append(batch)
        if word != "go":
            self._broken = True
            raise StoreUnavailableError("The disk is full.")

    async def load(self, addresses: Sequence[Address], /, *, pending_limit: int) -> list[StoredObject]:
        await self.before_loads.passed()
        self.loaded += addresses
        return await super().load(addresses, pending_limit=pending_limit)

    async def timers(
        self, until: int, limit: int, /, *, after: TimerPlace | None = None, asked_after: int = EVER
    ) -> list[TimerRecord]:
        answer = await self.inner.timers(until, limit, after=after, asked_after=asked_after)
        if asked_after == EVER:
            await self.timer_reads.passed()
        return answer

    # ------------------------------------------------------------------ what is on disk

    def unfinished(self) -> list[InvocationRecord]:
        return [record for record in self.memory.disk.records() if record.status is not InvocationStatus.COMPLETED]

    def stored(self) -> list[InvocationRecord]:
        return list(self.memory.disk.records())

    def timers_on_disk(self) -> int:
        return sum(len(row.timers) for row in self.memory.disk.rows.values())

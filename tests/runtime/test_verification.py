"""The store is asked at once or later, by request and by itself, and what it says too late is of no interest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from durably.errors import StoreUnavailableError
from durably.runtime.commit.verification import Verification
from durably.storage.memory import MemoryStore
from durably.storage.store import VERIFIED
from durably.testing.harness.virtual import VirtualClock
from durably.testing.stores.wrapped import WrappedStore


class ScriptedStore(WrappedStore):
    """Says what the test says."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.answer: Awaitable[None] | Exception = VERIFIED
        self.asked = 0

    def verify(self) -> Awaitable[None]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Log:
    """Whose store it is."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def failed(self, error: BaseException, /) -> None:
        self.told.append(f"failed: {error}")

    def went_on(self) -> None:
        self.told.append("went on")


async def test_a_store_that_can_tell_at_once_costs_no_turn_of_the_loop() -> None:
    log, store = Log(), ScriptedStore()
    verification = Verification(log.failed, clock=VirtualClock(), every_us=None, store=store)
    assert verification.holds(log.went_on)
    store.answer = StoreUnavailableError("gone")
    assert not verification.holds(log.went_on)
    assert log.told == ["failed: gone"]


async def test_a_store_that_takes_its_time_is_waited_for() -> None:
    log, store = Log(), ScriptedStore()
    verification = Verification(log.failed, clock=VirtualClock(), every_us=None, store=store)
    for outcome in (None, StoreUnavailableError("gone")):
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        store.answer = answer
        assert not verification.holds(log.went_on)
        if outcome is None:
            answer.set_result(None)
        else:
            answer.set_exception(outcome)
        await verification.finish()
        await asyncio.sleep(0)
    assert log.told == ["went on", "failed: gone"]


async def test_late_answers_are_of_no_interest() -> None:
    log, store = Log(), ScriptedStore()
    verification = Verification(log.failed, clock=VirtualClock(), every_us=None, store=store)
    answers: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
    for answer in answers:
        store.answer = answer
        verification.holds(log.went_on)
    verification.kill()
    answers[0].set_result(None)
    answers[1].set_exception(StoreUnavailableError("gone"))
    await verification.finish()
    await asyncio.sleep(0)
    assert log.told == []


async def test_it_asks_by_itself_until_it_is_ended() -> None:
    async def settle() -> None:
        await asyncio.sleep(0)

    log, store, clock = Log(), ScriptedStore(), VirtualClock()
    verification = Verification(log.failed, clock=clock, every_us=500_000, store=store)
    await clock.advance(2_000_000, settle)
    assert store.asked == 4
    store.answer = StoreUnavailableError("gone")
    await clock.advance(500_000, settle)
    assert log.told == ["failed: gone"]
    verification.kill()
    await clock.advance(5_000_000, settle)
    assert store.asked == 5

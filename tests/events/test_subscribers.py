"""Ordinary code hears of events from now on, in order, and goes on hearing when it raises or the store fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from durably import DefinitionError, MemoryStore, Runtime
from durably.actors.values.descriptions import named
from durably.runtime.messaging import event_feeds
from durably.storage.memory import Disk
from durably.testing import Harness
from tests.events.test_events import Damaged, Ledger, Paid, Returned, Shipped


async def test_ordinary_code_hears_of_what_is_published_from_now_on_until_it_unsubscribes() -> None:
    heard: list[object] = []
    both: list[object] = []

    async def hear(event: Paid) -> None:
        await asyncio.sleep(0)
        heard.append(event.amount)
        if event.amount == 2:
            raise ValueError("not this one")

    async with Harness(Ledger) as app:
        await app.publish(Paid("a", 0))
        unsubscribe = await app.subscribe(hear, Paid)
        await app.subscribe(both.append, Paid, Shipped)
        for amount in (1, 2, 3):
            await app.publish(Paid("a", amount), Shipped("a"), Returned(order="a"))
        await until(lambda: len(both) == 6 and len(heard) == 3)
        await app.crash()
        await app.publish(Paid("a", 4))
        await until(lambda: len(both) == 7 and len(heard) == 4)
        await unsubscribe()
        await app.publish(Paid("a", 5))
        await until(lambda: len(both) == 8)
        assert heard == [1, 2, 3, 4]
        with pytest.raises(DefinitionError):
            await app.subscribe(print, dict)


async def test_one_who_is_far_behind_misses_nothing_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feeds, "RECENT_EVENTS", 3)
    monkeypatch.setattr(event_feeds, "PORTION", 2)
    slow: list[int] = []
    fast: list[int] = []
    gate = asyncio.Event()

    async def hear_slowly(event: Paid) -> None:
        await gate.wait()
        slow.append(event.amount)

    async with Harness(Ledger) as app:
        await app.subscribe(hear_slowly, Paid)
        await app.subscribe(lambda event: fast.append(event.amount), Paid)
        for amount in range(20):
            await app.publish(Paid("a", amount))
        await until(lambda: len(fast) == 20)
        assert slow == []
        gate.set()
        await until(lambda: len(slow) == 20)
        assert slow == fast == [*range(20)]


async def test_readers_go_on_behind_portions_of_damaged_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feeds, "RECENT_EVENTS", 1)
    monkeypatch.setattr(event_feeds, "PORTION", 2)
    live: list[int] = []
    late: list[bytes] = []
    async with Harness(Ledger, store=Damaged(Disk(), "lost")) as app:
        await app.subscribe(lambda event: live.append(event.amount), Paid)
        await app.publish(Paid("a", 0), *[Paid("lost", 1)] * 5, Paid("a", 2), *[Paid("lost", 1)] * 4)
        await until(lambda: live == [0, 2])
        await app.publish(Paid("a", 3))
        await until(lambda: live == [0, 2, 3])
        reader = await app.follow_events(after=0)
        while len(late) < 3:
            late += [event.value[-3:-2] for event in await reader.next()]
        reader.close()
        assert late == [b"0", b"2", b"3"]


async def test_a_function_goes_on_after_a_cancellation_of_its_own() -> None:
    heard: list[int] = []

    async def hear(event: Paid) -> None:
        heard.append(event.amount)
        if event.amount == 1:
            waiting = asyncio.get_running_loop().create_future()
            waiting.cancel()
            await waiting

    async with Harness(Ledger) as app:
        unsubscribe = await app.subscribe(hear, Paid)
        for amount in range(3):
            await app.publish(Paid("a", amount))
        await until(lambda: heard == [0, 1, 2])
        await unsubscribe()


@pytest.mark.parametrize("by_child", [False, True])
async def test_a_function_that_unsubscribes_itself_ends_its_call_and_hears_no_more(by_child: bool) -> None:
    heard: list[str] = []
    others: list[object] = []
    unsubscribe: list[Callable[[], Awaitable[None]]] = []

    async def once(event: Paid) -> None:
        heard.append("begins")
        if by_child:
            await asyncio.gather(unsubscribe[0]())
        else:
            await unsubscribe[0]()
        await asyncio.sleep(0)
        heard.append("ends")

    async with Harness(Ledger) as app:
        unsubscribe.append(await app.subscribe(once, Paid))
        await app.subscribe(others.append, Paid)
        await app.publish(Paid("a", 1), Paid("a", 2))
        await app.publish(Paid("a", 3))
        await until(lambda: len(others) == 3 and len(heard) > 1)
        assert heard == ["begins", "ends"]


async def test_a_function_that_ignores_its_cancellation_does_not_keep_the_runtime_from_stopping() -> None:
    ends, in_call = asyncio.Event(), asyncio.Event()

    async def stubborn(event: Paid) -> None:
        in_call.set()
        while not ends.is_set():
            with suppress(asyncio.CancelledError):
                await ends.wait()

    try:
        with capture_logs() as logs:
            async with Runtime(MemoryStore(), [Ledger], stop_timeout=0.01) as runtime:
                await runtime.subscribe(stubborn, Paid)
                await runtime.publish(Paid("a", 1))
                await in_call.wait()
    finally:
        ends.set()
    assert [one["function"] for one in logs if "does not end" in one["event"]] == [named(stubborn)]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")

"""Attempts that wait stay in memory while there is room, and go on without a replay; those that leave are replayed."""

from __future__ import annotations

import logging

import pytest

from durably import Context, Limits, MemoryStore, ObjectContext, Runtime, Service, VirtualObject, handler, state
from durably.runtime.environment import Environment
from durably.runtime.settings import Settings
from durably.testing import Harness

POLLS = 400
LARGE = "x" * 100_000


class Begun:
    """How often the code of each sleeper began."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, key: str) -> None:
        self.counts[key] = self.counts.get(key, 0) + 1

    @property
    def replays(self) -> dict[str, int]:
        """How often each that has ended was brought back to memory; besides, `Harness` replays it at its end."""
        return {key: count - 2 for key, count in self.counts.items()}


class Sleeper(VirtualObject):
    def __init__(self, begun: Begun) -> None:
        self.begun = begun

    @handler
    async def poll(self, ctx: ObjectContext, times: int, seconds: float = 60) -> int:
        self.begun.note(self.key)
        for _ in range(times):
            await ctx.sleep(seconds)
        return times

    @handler
    async def keep(self, ctx: ObjectContext, what: str) -> int:
        self.begun.note(self.key)
        await ctx.sleep(60)
        return len(what)


class Marker(VirtualObject):
    """Changes a large field in each step."""

    lines: list[str] = state(default_factory=list)

    def __init__(self, begun: Begun) -> None:
        self.begun = begun

    @handler
    async def mark(self, ctx: ObjectContext, times: int, seconds: float) -> None:
        self.begun.note(self.key)
        self.lines = [LARGE]
        for number in range(times):
            self.lines.append(str(number))
            await ctx.sleep(seconds)


class Bounded(Service, suspend_after=10):
    def __init__(self, begun: Begun) -> None:
        self.begun = begun

    @handler
    async def wait(self, ctx: Context, seconds: float) -> None:
        self.begun.note(str(seconds))
        await ctx.sleep(seconds)


async def test_a_poller_that_waits_for_minutes_is_never_replayed() -> None:
    begun = Begun()
    async with Harness(Sleeper, dependencies={Begun: begun}) as app:
        polling = await app.object(Sleeper, "a").poll.send(POLLS)
        await app.advance(minutes=POLLS)
        assert await polling.result() == POLLS
    assert begun.replays == {"a": 0}


async def test_where_more_wait_than_there_is_room_for_the_least_recently_woken_leave() -> None:
    begun = Begun()
    async with Harness(Sleeper, dependencies={Begun: begun}, limits=Limits(waiting_attempts=2)) as app:
        for key, seconds in (("frequent", 10), ("rare", 1_000), ("middle", 100)):
            await app.object(Sleeper, key).poll.send(1_000 // seconds, seconds)
        await app.settle()
        await app.advance(1_000)
    # Each that came last drove out the one before: `frequent`, which came back for good, then `rare`.
    assert begun.replays == {"frequent": 1, "rare": 1, "middle": 0}


async def test_what_waits_takes_up_no_more_bytes_than_it_may() -> None:
    begun = Begun()
    async with Harness(Sleeper, dependencies={Begun: begun}, limits=Limits(waiting_bytes=2_000_000)) as app:
        kept = [await app.object(Sleeper, key).keep.send(LARGE) for key in "abcd"]
        await app.settle()
        await app.advance(60)
        assert [await one.result() for one in kept] == [len(LARGE)] * 4
    assert sorted(begun.replays.values()) == [0, 0, 1, 1]


async def test_one_that_takes_up_more_than_all_may_stays_while_it_is_alone() -> None:
    begun = Begun()
    async with Harness(Sleeper, dependencies={Begun: begun}, limits=Limits(waiting_bytes=1)) as app:
        await app.object(Sleeper, "a").keep.send(LARGE)
        await app.advance(60)
    assert begun.replays == {"a": 0}


async def test_a_class_bounds_how_long_its_attempts_wait_in_memory() -> None:
    begun = Begun()
    async with Harness(Bounded, dependencies={Begun: begun}) as app:
        for seconds in (9.0, 60.0):
            await app.service(Bounded).wait.send(seconds)
        await app.advance(61)
    assert begun.replays == {"9.0": 0, "60.0": 1}


async def test_a_journal_that_grows_long_is_told_at_each_doubling(caplog: pytest.LogCaptureFixture) -> None:
    environment = Environment(settings=Settings(long_journal_steps=10))
    runtime = Runtime(MemoryStore(), [Sleeper], dependencies={Begun: Begun()}, environment=environment)
    with caplog.at_level(logging.WARNING):
        async with runtime:
            await runtime.object(Sleeper, "a").poll(50, 0)
    told = [record for record in caplog.records if "ctx.continue_as_new" in record.getMessage()]
    assert len(told) == 3


async def test_a_field_that_each_step_writes_again_is_named_at_each_doubling(caplog: pytest.LogCaptureFixture) -> None:
    environment = Environment(settings=Settings(large_changes_bytes=3 * len(LARGE)))
    runtime = Runtime(MemoryStore(), [Marker], dependencies={Begun: Begun()}, environment=environment)
    with caplog.at_level(logging.WARNING):
        async with runtime:
            await runtime.object(Marker, "a").mark(20, 0)
    told = [record.getMessage() for record in caplog.records if "large field" in record.getMessage()]
    assert len(told) == 3  # At 3, 6 and 12 times its size.
    assert all("field='lines'" in text for text in told)


async def test_changed_fields_count_for_what_may_wait_in_memory() -> None:
    begun = Begun()
    async with Harness(Marker, dependencies={Begun: begun}, limits=Limits(waiting_bytes=10 * len(LARGE))) as app:
        for key in ("small", "large"):
            await app.object(Marker, key).mark.send(1 if key == "small" else 20, 60)
        await app.advance(21 * 60)
    assert begun.replays["small"] == 0
    async with Harness(Marker, dependencies={Begun: begun}, limits=Limits(waiting_bytes=10 * len(LARGE))) as app:
        for key in ("one", "two"):
            await app.object(Marker, key).mark.send(20, 60)
        await app.advance(21 * 60)
    assert begun.replays["one"] > 0

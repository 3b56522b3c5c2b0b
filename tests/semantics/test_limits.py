"""The limits of a runtime: messages that wait, memory of idle objects, the state of one, what is ahead of the disk."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from durably import (
    Context,
    Limit,
    Limits,
    ObjectContext,
    OverloadedError,
    PausedInvocationError,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.runtime.engine.pump import ADVANCES_PER_REQUEST
from durably.runtime.incarnation.ready_queue import MOST_IN_SUCCESSION
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.semantics.support import begin, engine_of, tuned

KB = 1_000


class Box(VirtualObject):
    """Holds a text, or is busy."""

    content: str = state(default="")
    more: str = state(default="")

    @handler
    async def put(self, ctx: ObjectContext, size: int) -> int:
        self.content = "x" * size
        return size

    @handler
    async def put_in_two_steps(self, ctx: ObjectContext, first: int, second: int) -> int:
        self.content = "x" * first
        await ctx.sleep(1)
        self.more = "y" * second
        return len(self.content) + len(self.more)

    @handler
    async def size(self, ctx: ObjectContext) -> int:
        return len(self.content)

    @handler
    async def be_busy(self, ctx: ObjectContext) -> None:
        await ctx.sleep(1_000)


class Queue(Service):
    @handler(limit=Limit(at_once=1))
    async def work(self, ctx: Context) -> None:
        await ctx.sleep(10)


def in_memory(app: Harness) -> list[str]:
    return sorted(address.key for address in engine_of(app).parts.activations.by_address)


async def test_messages_that_wait_in_all_mailboxes_and_for_limits_have_one_limit_together() -> None:
    async with Harness(Box, Queue, limits=Limits(waiting_messages=6)) as app:
        for key in "ab":
            for _ in range(3):
                await app.object(Box, key).be_busy.send()
        for _ in range(3):
            await app.service(Queue).work.send()
        assert engine_of(app).parts.activations.waiting == 4
        with pytest.raises(OverloadedError, match=r"6 messages wait in all .*waiting_messages="):
            await app.service(Queue).work.send()
        await app.advance(10)  # One of those that waited for the limit has started.
        await app.service(Queue).work.send()
        with pytest.raises(OverloadedError):
            await app.object(Box, "c").size()
        await app.cancel("Box/a")
        await app.advance(1)
        await app.object(Box, "c").size()
        await app.cancel("Box/b")
        await app.advance(100)
        assert engine_of(app).parts.activations.waiting == 0


@pytest.mark.parametrize("in_memory", [1, 2, 1_000])
async def test_what_waits_is_counted_wherever_it_is(in_memory: int) -> None:
    """In memory, or far back in a stored mailbox, before and after a restart."""
    async with tuned(Harness(Box), pending_in_memory=in_memory) as app:
        await app.object(Box, "a").be_busy.send()
        sent = [await app.object(Box, "a").size.send() for _ in range(9)]
        assert engine_of(app).parts.activations.waiting == 9
        await app.crash()
        await app.kill(sent[8].id)
        assert engine_of(app).parts.activations.waiting == 8
        await app.object(Box, "a").size.send()
        await app.kill(sent[0].id)
        assert engine_of(app).parts.activations.waiting == 8
        await app.advance(1_000)
        assert engine_of(app).parts.activations.waiting == 0


async def test_idle_objects_leave_memory_by_bytes_the_least_recently_used_first() -> None:
    async with Harness(Box, limits=Limits(active_bytes=100 * KB)) as app:
        for key in ("a", "b", "a", "c"):
            await app.object(Box, key).put(35 * KB)
            await app.settle()
        assert in_memory(app) == ["a", "c"]
        await app.object(Box, "c").put(1)
        await app.object(Box, "d").put(10)
        assert in_memory(app) == ["a", "c", "d"]
        busy = await app.object(Box, "a").be_busy.send()
        await app.object(Box, "e").put(200 * KB)
        await app.settle()
        assert in_memory(app) == ["a"], "it waits, and there is room for its attempt"
        assert await app.object(Box, "e").size() == 200 * KB
        await app.kill(busy.id)


async def test_cold_objects_take_no_more_memory_however_many_they_are() -> None:
    """Small; a hundred thousand are in `benchmarks/cold_objects.py`."""
    async with Harness(Box, limits=Limits(active_bytes=100 * KB)) as app:
        for _ in range(2):
            for number in range(300):
                await app.object(Box, f"{number}").put(KB)
                assert len(in_memory(app)) <= 41, "100 KB hold 40 objects of 2.5 KB, and one may be on its way out"
        assert len(engine_of(app).parts.registry.live) <= 41


async def test_what_must_stay_stays_whatever_the_limit() -> None:
    async with Harness(Box, limits=Limits(active_bytes=0, active_objects=0)) as app:
        await app.object(Box, "a").be_busy.send()
        waiting = begin(app.object(Box, "a").put(5))
        await app.settle()
        assert in_memory(app) == ["a"], "a message waits in its mailbox"
        await app.advance(1_000)
        assert await waiting == 5
        assert in_memory(app) == []


async def test_a_state_that_is_larger_than_a_lowered_limit_may_shrink_and_not_grow() -> None:
    """Step by step, as long as it stays no larger than the invocation found it."""
    store = MemoryStore()
    async with Harness(Box, store=store) as app:
        await app.object(Box, "a").put(30 * KB)
    async with Harness(Box, store=store, limits=Limits(state_bytes=10 * KB)) as app:
        box = app.object(Box, "a")
        assert await box.put(29 * KB) == 29 * KB
        assert await box.put(29 * KB) == 29 * KB
        shrinking = begin(box.put_in_two_steps(15 * KB, 12 * KB))
        await app.advance(1)
        assert await shrinking == 27 * KB
        growing = begin(box.put_in_two_steps(15 * KB, 13 * KB))
        await app.advance(1)
        with pytest.raises(PausedInvocationError, match="at most 10000 are allowed"):
            await growing
        await app.kill("Box/a")
        assert await box.put(5 * KB) == 5 * KB  # Beside the 12 KB of the other field.


async def test_a_state_that_is_too_large_pauses_its_invocation_and_nothing_of_that_step_has_happened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    async with Harness(Box, store=store, limits=Limits(state_bytes=10 * KB)) as app:
        await app.object(Box, "a").put(7 * KB)
        assert "nears its limit" not in caplog.text
        await app.object(Box, "a").put(8 * KB)
        await app.object(Box, "a").put(9 * KB)
        assert caplog.text.count("nears its limit") == 1
        for call in (app.object(Box, "a").put(11 * KB), app.object(Box, "b").put_in_two_steps(6 * KB, 6 * KB)):
            waiting = begin(call)
            await app.advance(1)
            with pytest.raises(PausedInvocationError, match=r"would have \d+ bytes; at most 10000 are allowed"):
                await waiting
        assert (await app.state(Box, "a"))["content"] == "x" * 9 * KB
    async with Harness(Box, store=store) as app:
        for key, field, size in (("a", "content", 11 * KB), ("b", "more", 6 * KB)):
            await app.resume(f"Box/{key}")
            await app.settle()
            assert len((await app.state(Box, key))[field]) == size


def test_limits_that_make_no_sense_are_refused_with_a_sentence() -> None:
    numbers: list[dict[str, Any]] = [{"state_bytes": 0}, {"mailbox_messages": -1}, {"active_bytes": -1}]
    for wrong in numbers:
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=...\\) is too small"):
            Limits(**wrong)
    with pytest.raises(TypeError, match=r"active_objects=\.\.\.\) is a whole number, not 1\.5"):
        Limits(active_objects=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a Limit"):
        Limits(named={"card": 3})  # type: ignore[dict-item]
    limits: list[dict[str, Any]] = [
        {},
        {"at_once": 0},
        {"per_second": 0.0},
        {"at_once": 1, "burst": 2},
        {"at_once": 1, "per": "a b"},
    ]
    for wrong in limits:
        with pytest.raises(ValueError, match="Limit"):
            Limit(**wrong)


# ---------------------------------------------------------------------- fairness


class Busy(VirtualObject):
    @handler
    async def rest(self, ctx: ObjectContext) -> None:
        await ctx.sleep(10)

    @handler
    async def step(self, ctx: ObjectContext) -> None:
        TAKEN.append(self.key)

    @handler(limit="door")
    async def go_through(self, ctx: ObjectContext, *, slowly: bool = False) -> None:
        TAKEN.append(self.key)
        if slowly:
            await ctx.sleep(10)


TAKEN: list[str] = []
"""Whose turn it was, in order."""
A_TURN = ADVANCES_PER_REQUEST + 4
"""As many others may have their turns between a request and its own."""
DOOR = Limits(mailbox_messages=20_000, named={"door": Limit(at_once=1)})


async def waited_for(app: Harness, key: str) -> int:
    """How many turns others have before somebody's, who comes while the machine is busy. Replies wait for the disk."""
    before = len(TAKEN)
    call = begin(app.object(Busy, key).step())
    while key not in TAKEN[before:]:
        assert not call.done(), call.exception()
        await asyncio.sleep(0)
    return TAKEN[before:].index(key)


async def test_one_busy_key_does_not_starve_the_others() -> None:
    """Ten thousand messages wait for one object; a message for another one waits for a turn of the machine at most.

    (If it has to be loaded, also for the batch under way, which is written after 100 ms at the latest.)
    """
    # A budget of nothing: the machine does one thing in each turn of the loop, so that others can come in between.
    async with tuned(Harness(Busy, limits=DOOR), verify_replay=False) as app:
        await asyncio.gather(*(app.object(Busy, f"other {number}").step() for number in range(50)))
        TAKEN.clear()
        await app.object(Busy, "busy").rest.send()
        for _ in range(100):
            await asyncio.gather(*(app.object(Busy, "busy").step.send() for _ in range(100)))
        tune_pump(app, budget_us=-1)
        passing = begin(app.advance(10))
        while not TAKEN:
            await asyncio.sleep(0)
        waits = [await waited_for(app, f"other {number}") for number in range(50)]
        assert max(waits) <= A_TURN
        assert TAKEN.count("busy") < 5_000, "the busy one was not done meanwhile"
        tune_pump(app, budget_us=5_000)
        await passing
        assert TAKEN.count("busy") == 10_000


class Relay(VirtualObject):
    @handler
    async def pass_on(self, ctx: ObjectContext, hops: int) -> None:
        TAKEN.append(self.key.partition("/")[0])
        if hops:
            await ctx.object(Relay, f"{self.key}/{hops}").pass_on(hops - 1)

    @handler
    async def ask_often(self, ctx: ObjectContext, times: int) -> None:
        for _ in range(times):
            await ctx.object(Relay, "asked").pass_on(0)


async def test_chains_of_calls_end_one_after_the_other() -> None:
    async with tuned(Harness(Relay), verify_replay=False) as app:
        await asyncio.gather(*(app.object(Relay, f"{number}").pass_on(4) for number in range(20)))
        TAKEN.clear()
        await asyncio.gather(*(app.object(Relay, f"{number}").pass_on(4) for number in range(20)))
        assert [f"{number}" for number in range(20) for _ in range(5)] == TAKEN


async def test_one_that_calls_without_end_does_not_keep_the_others_waiting() -> None:
    async with tuned(Harness(Busy, Relay, limits=DOOR), verify_replay=False) as app:
        await asyncio.gather(app.object(Busy, "other").step(), app.object(Relay, "asked").pass_on(0))
        TAKEN.clear()
        tune_pump(app, budget_us=-1)
        asking = begin(app.object(Relay, "asking").ask_often(1_000))
        while not TAKEN:
            await asyncio.sleep(0)
        assert await waited_for(app, "other") <= A_TURN + MOST_IN_SUCCESSION
        assert len(TAKEN) < 500, "the one that asks was not done meanwhile"
        tune_pump(app, budget_us=5_000)
        await asking


class Crowd(Service):
    @handler
    async def come(self, ctx: Context) -> None:
        TAKEN.append("crowd")

    @handler
    async def gather(self, ctx: Context, count: int, how: str) -> None:
        for _ in range(count):
            await (ctx.service(Crowd).come if how == "service" else ctx.object(Crowded, "busy").come).send()


class Crowded(VirtualObject):
    @shared
    async def come(self, ctx: SharedContext) -> None:
        TAKEN.append("crowd")


@pytest.mark.parametrize("how", ["service", "shared"])
async def test_a_busy_service_and_a_busy_shared_handler_do_not_starve_the_others(how: str) -> None:
    async with tuned(Harness(Busy, Crowd, Crowded, limits=DOOR), verify_replay=False, ready_at_once=32) as app:
        await asyncio.gather(*(app.object(Busy, f"other {number}").step() for number in range(5)))
        if how == "shared":
            await app.object(Crowded, "busy").come()
        TAKEN.clear()
        tune_pump(app, budget_us=-1)
        sending = begin(app.service(Crowd).gather.send(600, how))
        while not TAKEN:
            await asyncio.sleep(0)
        waits = [await waited_for(app, f"other {number}") for number in range(5)]
        assert max(waits) <= A_TURN + 32
        assert TAKEN.count("crowd") < 300, "the busy one was not done meanwhile"
        tune_pump(app, budget_us=5_000)
        await sending
        await app.settle()
        assert TAKEN.count("crowd") == 600


async def test_a_busy_limit_does_not_hold_up_those_who_do_not_need_it_and_lets_through_in_order() -> None:
    async with tuned(Harness(Busy, limits=DOOR), verify_replay=False) as app:
        await asyncio.gather(*(app.object(Busy, f"other {number}").step() for number in range(20)))
        TAKEN.clear()
        await app.object(Busy, "first").go_through.send(slowly=True)
        keys = [f"{number}" for number in range(2_000)]
        for start in range(0, 2_000, 100):
            await asyncio.gather(*(app.object(Busy, key).go_through.send() for key in keys[start : start + 100]))
        assert await waited_for(app, "other 0") == 0
        tune_pump(app, budget_us=-1)
        passing = begin(app.advance(10))
        while len(TAKEN) < 3:
            await asyncio.sleep(0)
        assert max([await waited_for(app, f"other {number}") for number in range(20)]) <= A_TURN
        tune_pump(app, budget_us=5_000)
        await passing
        assert [key for key in TAKEN if key.isdecimal()] == keys


def tune_pump(app: Harness, *, budget_us: int) -> None:
    pump = engine_of(app).parts.ready.turn.__self__  # type: ignore[attr-defined]
    pump._settings = replace(pump._settings, pump_budget_us=budget_us)

"""Rules T1 and T2: time."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably import (
    Context,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.support import (
    SECOND_US,
    PuppetStore,
    World,
    begin,
    engine_of,
    keep_one_incarnation,
    tuned,
    turns,
    wait_a_little,
)

A_YEAR_SECONDS = 365 * 86_400
TEN_YEARS_US = 10 * A_YEAR_SECONDS * SECOND_US
A_CENTURY_US = 10 * TEN_YEARS_US


class Sleeper(VirtualObject):
    woken: int = state(default=0)

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def walk(self, ctx: ObjectContext) -> list[datetime]:
        times = [ctx.now()]
        for number in range(4):
            await ctx.run(f"act {number}", self.world.act, f"act {number}")
            times.append(ctx.now())
            await ctx.sleep(5)
            times.append(ctx.now())
        return times

    @handler
    async def sleep(self, ctx: ObjectContext, seconds: float) -> float:
        before = ctx.now()
        await ctx.sleep(seconds)
        self.woken += 1
        return (ctx.now() - before).total_seconds()

    @handler
    async def plainly(self, ctx: ObjectContext, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(seconds)
        return round(loop.time() - before, 6)

    @handler
    async def wake(self, ctx: ObjectContext) -> None:
        self.woken += 1

    @shared
    async def count(self, ctx: SharedContext) -> int:
        return self.woken


class Patient(VirtualObject):
    """Waits with limits that never come, and with one that has passed already."""

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        async with asyncio.timeout(math.inf):
            await asyncio.wait_for(ctx.sleep(1), math.inf)
            sleeping = asyncio.create_task(asyncio.sleep(1))
            await asyncio.wait([sleeping], timeout=math.inf)
        asyncio.get_running_loop().call_later(math.inf, print).cancel()
        forever = asyncio.create_task(asyncio.sleep(math.inf))
        await asyncio.sleep(0)
        forever.cancel()
        try:
            async with asyncio.timeout(math.inf) as limit:
                limit.reschedule(-math.inf)
                await ctx.sleep(1000)
        except TimeoutError:
            return "out of patience"
        return "slept"

    @handler
    async def wait_for_nothing(self, ctx: ObjectContext) -> None:
        await asyncio.sleep(math.inf)


async def test_a_limit_that_never_comes_is_no_timer(suspend_after: float, store: PuppetStore) -> None:
    async with Harness(Patient, suspend_after=suspend_after, store=store) as app:
        call = begin(app.object(Patient, "p").wait())
        await turns()
        assert store.timers_on_disk() == 1
        await app.advance(2)
        assert await call == "out of patience"
        assert store.timers_on_disk() == 0
        with pytest.raises(PausedInvocationError, match="nothing will ever supply"):
            await app.object(Patient, "p").wait_for_nothing()


class TestT1:
    """`at` is UTC in whole microseconds and never goes back within an invocation, whatever the clock does."""

    @pytest.mark.parametrize("step_back_at", range(9))
    async def test_the_clock_steps_back_between_any_two_deliveries(
        self, step_back_at: int, world: World, suspend_after: float
    ) -> None:
        async with Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.object(Sleeper, "s").walk())
            await turns()
            for event in range(8):
                if event == step_back_at:
                    app.clock.set_back(3 * SECOND_US)
                    await app.crash()
                    await turns()
                if event % 2 == 0:
                    world.end(f"act {event // 2}")
                    await turns()
                else:
                    await wait_a_little(app, 10)
            times = await call
            assert times == sorted(times)
            for number in range(4):
                assert times[2 * number + 2] - times[2 * number + 1] >= timedelta(seconds=5)
            assert all(time.utcoffset() == timedelta(0) for time in times)

    async def test_a_handler_never_wakes_before_its_time(self, world: World, suspend_after: float) -> None:
        async with Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.object(Sleeper, "s").sleep(0.5))
            await turns()
            app.clock.set_back(60 * SECOND_US)
            await wait_a_little(app, 0.499)
            assert not call.done()
            await wait_a_little(app, 0.001)
            assert await call >= 0.5

    @pytest.mark.parametrize("window_us", [0, 60 * SECOND_US, A_CENTURY_US], ids=["none", "minute", "century"])
    async def test_a_clock_that_is_set_back_lengthens_no_wait(
        self, world: World, suspend_after: float, window_us: int
    ) -> None:
        app = Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after)
        async with tuned(app, timer_window_us=window_us):
            call = begin(app.object(Sleeper, "s").sleep(90))
            await app.object(Sleeper, "t").wake.after(90).send()
            late = begin(app.object(Sleeper, "s").wake.options(timeout=90)())
            await turns()
            app.clock.set_back(3600 * SECOND_US)
            await wait_a_little(app, 89)
            assert not call.done()
            await wait_a_little(app, 1)
            assert await call >= 90
            assert await app.object(Sleeper, "t").count() == 1
            await asyncio.wait([late])

    async def test_a_glitch_ahead_parks_nothing(self, world: World, suspend_after: float) -> None:
        """Not what was asked for before it, not what was asked for during it, and not what is asked for afterwards."""
        async with Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after) as app:
            walker = begin(app.object(Sleeper, "walker").walk())
            before = begin(app.object(Sleeper, "before").sleep(0.3))
            await turns()
            app.clock.set_back(-TEN_YEARS_US)
            world.end("act 0")  # The walker's next step is in the glitch, and its time goes on from there.
            await turns()
            during = begin(app.object(Sleeper, "during").sleep(0.3))
            await app.object(Sleeper, "sent").wake.after(0.3).send()
            await turns()
            app.clock.set_back(TEN_YEARS_US)
            after = begin(app.object(Sleeper, "after").sleep(0.3))
            await turns()
            await wait_a_little(app, 0.3)
            assert all(call.done() for call in (before, during, after))
            assert await app.object(Sleeper, "sent").count() == 1
            for number in (1, 2, 3):
                await wait_a_little(app, 5)
                world.end(f"act {number}")
                await turns()
            await wait_a_little(app, 5)
            times = await walker
            assert times == sorted(times)
            assert times[-1] - times[1] >= timedelta(seconds=20)
            assert times[-1] - times[1] < timedelta(seconds=25)

    @pytest.mark.parametrize("window_us", [0, 60 * SECOND_US], ids=["none", "minute"])
    async def test_what_was_asked_for_in_a_glitch_waits_no_longer_than_it_asked_after_a_restart(
        self, world: World, suspend_after: float, window_us: int
    ) -> None:
        """Its time of day is ten years ahead; the store says how long it was to wait, too."""
        app = Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after)
        async with tuned(app, timer_window_us=window_us):
            before = await app.object(Sleeper, "before").sleep.send(500)
            app.clock.set_back(-TEN_YEARS_US)
            during = [await app.object(Sleeper, f"during {number}").sleep.send(100 + number) for number in range(3)]
            sent = await app.object(Sleeper, "sent").wake.after(100).send()
            await turns()
            app.clock.set_back(TEN_YEARS_US)
            await app.crash()
            await turns()
            await wait_a_little(app, 99)
            assert {await one.status() for one in (*during, sent)} & {InvocationStatus.COMPLETED} == set()
            await wait_a_little(app, 10)
            assert {await one.status() for one in (*during, sent)} == {InvocationStatus.COMPLETED}
            assert await before.status() is not InvocationStatus.COMPLETED
            await wait_a_little(app, 400)
            assert await before.status() is InvocationStatus.COMPLETED

    @pytest.mark.parametrize("window_us", [SECOND_US, 60 * SECOND_US], ids=["second", "minute"])
    @settings(max_examples=25, deadline=None)
    @given(
        jumps=st.lists(
            st.tuples(st.floats(0, 40), st.integers(-TEN_YEARS_US, TEN_YEARS_US) | st.integers(-SECOND_US, SECOND_US)),
            max_size=6,
        ),
        seconds=st.floats(0, 100),
    )
    def test_no_sequence_of_jumps_lengthens_a_sleep(
        self, window_us: int, jumps: list[tuple[float, int]], seconds: float
    ) -> None:
        """One asked for after each jump, too; and no handler sees its time go back."""

        class Restless(Service):
            @handler
            async def sleep_twice(self, ctx: Context, seconds: float) -> None:
                times = [ctx.now()]
                for _ in range(2):
                    await ctx.sleep(seconds)
                    times.append(ctx.now())
                for earlier, later in pairwise(times):
                    assert later - earlier >= timedelta(seconds=seconds) - timedelta(microseconds=1)

        async def run() -> None:
            async with tuned(Harness(Restless), timer_window_us=window_us) as app:
                begun: list[tuple[int, asyncio.Task[None]]] = []
                for after, by_us in [*jumps, (0.0, 0)]:
                    begun.append((app.clock.elapsed_us, begin(app.service(Restless).sleep_twice(seconds))))
                    await turns(20)
                    await app.advance(after)
                    app.clock.set_back(-by_us)
                for at, call in begun:
                    until = at + round(2 * seconds * SECOND_US) + SECOND_US
                    await app.advance(max(until - app.clock.elapsed_us, 0) / SECOND_US)
                    assert call.done()
                    await call

        asyncio.run(run())

    async def test_a_clock_that_jumps_ahead_wakes_within_a_second(self, world: World, suspend_after: float) -> None:
        async with Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.object(Sleeper, "s").sleep(3600))
            await turns()
            app.clock.set_back(-3600 * SECOND_US)
            await wait_a_little(app, 1)
            assert await call >= 3600

    async def test_asyncios_time_is_durable_time(self, world: World, suspend_after: float) -> None:
        async with Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.object(Sleeper, "s").plainly(12.5))
            await turns()
            await wait_a_little(app, 12)
            await app.crash()
            assert not call.done()
            await wait_a_little(app, 0.5)
            assert await call == 12.5

    @pytest.mark.parametrize("window_us", [60 * SECOND_US, 100 * 365 * 86_400 * SECOND_US], ids=["minute", "century"])
    async def test_a_year_passes_in_few_looks_at_the_clock(self, world: World, window_us: int) -> None:
        app = Harness(Sleeper, dependencies={World: world})
        async with tuned(app, timer_window_us=window_us):
            call = begin(app.object(Sleeper, "s").sleep(A_YEAR_SECONDS))
            await app.advance(days=365)
            assert await call == A_YEAR_SECONDS
            # Once a day somebody looks for outcomes to forget, as they are kept for a day.
            assert app.clock.calls_made < 365 + 20

    async def test_a_year_of_days_passes_in_a_few_looks_a_day(self, world: World) -> None:
        async with Harness(Sleeper, dependencies={World: world}) as app:
            for day in range(1, 366):
                await app.object(Sleeper, "s").wake.after(days=day).send()
            await app.advance(days=365)
            assert await app.object(Sleeper, "s").count() == 365
            assert app.clock.calls_made < 365 * 15

    async def test_a_clock_that_jumps_ahead_wakes_what_was_beyond_the_window(self, world: World) -> None:
        app = Harness(Sleeper, dependencies={World: world})
        async with tuned(app, timer_window_us=60 * SECOND_US):
            call = begin(app.object(Sleeper, "s").sleep(3600))
            await turns()
            app.clock.set_back(-3600 * SECOND_US)
            await wait_a_little(app, 1)
            assert await call >= 3600

    async def test_a_clock_that_was_far_ahead_and_is_set_right_keeps_the_window_small(
        self, world: World, store: PuppetStore
    ) -> None:
        app = Harness(Sleeper, dependencies={World: world}, store=store)
        app.clock.set_back(-A_YEAR_SECONDS * SECOND_US)
        async with tuned(app, timer_window_us=60 * SECOND_US):
            app.clock.set_back(A_YEAR_SECONDS * SECOND_US)
            sent = await app.object(Sleeper, "s").wake.after(3600).send()
            await app.settle()
            assert engine_of(app).parts.registry.live == {}
            await app.advance(3600)
            assert await sent.status() is InvocationStatus.COMPLETED


class TestT2:
    """Timers beyond the window live in the store only; those found due at start come by due time."""

    async def test_one_beyond_the_window_fires_at_its_time(self, world: World, suspend_after: float) -> None:
        app = Harness(Sleeper, dependencies={World: world}, suspend_after=suspend_after)
        async with tuned(app, timer_window_us=60 * SECOND_US):
            call = begin(app.object(Sleeper, "s").sleep(1000))
            sent = await app.object(Sleeper, "t").wake.after(2000).send()
            await wait_a_little(app, 999)
            assert not call.done()
            await wait_a_little(app, 1)
            assert await call == 1000
            await wait_a_little(app, 999)
            assert await sent.status() is InvocationStatus.SCHEDULED
            await wait_a_little(app, 1)
            assert await app.object(Sleeper, "t").count() == 1

    async def test_those_that_are_due_at_the_start_come_in_their_order(self, suspend_after: float) -> None:
        class Diary(VirtualObject):
            lines: list[str] = state(default=[])

            @handler
            async def write(self, ctx: ObjectContext, line: str) -> None:
                self.lines.append(line)

        class Writer(Service):
            @handler
            async def write_after(self, ctx: Context, seconds: float) -> None:
                await ctx.sleep(seconds)
                await ctx.object(Diary, "d").write.send(f"slept {seconds}")

        store = PuppetStore()
        async with Harness(Diary, Writer, suspend_after=suspend_after, store=store) as app:
            for seconds in (30.0, 10.0, 20.0):
                await app.service(Writer).write_after.send(seconds)
                await app.object(Diary, "e").write.after(seconds).send(f"delayed {seconds}")
            await app.settle()
            app.clock.set_back(-60 * SECOND_US)
            await app.crash()
            await app.advance(1)
            assert await app.state(Diary, "d") == {"lines": ["slept 10.0", "slept 20.0", "slept 30.0"]}
            assert await app.state(Diary, "e") == {"lines": ["delayed 10.0", "delayed 20.0", "delayed 30.0"]}

    async def test_a_timer_that_was_read_before_its_invocation_ended_does_not_fire(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        class Racing(Service):
            def __init__(self, world: World) -> None:
                self.world = world

            @handler
            async def race(self, ctx: Context) -> str:
                try:
                    async with asyncio.timeout(10):
                        return await ctx.run("act", self.world.act, "act")
                except TimeoutError:
                    return "too late"

        async with Harness(Racing, dependencies={World: world}, store=store, suspend_after=suspend_after) as app:
            call = begin(app.service(Racing).race())
            await turns()
            store.timer_reads.hold()
            await app.crash()
            await turns()
            assert store.timer_reads.waiting == 1
            world.end("act")
            await turns()
            assert await call == "act done"
            store.timer_reads.release()
            await turns()
            await wait_a_little(app, 20)
            keep_one_incarnation(app)

    async def test_a_timer_that_was_set_while_the_store_was_asked_fires_once(
        self, world: World, store: PuppetStore
    ) -> None:
        async with Harness(Sleeper, dependencies={World: world}, store=store) as app:
            store.timer_reads.hold()
            await app.crash()
            call = begin(app.object(Sleeper, "s").sleep(10))
            await turns()
            store.timer_reads.release()
            await turns()
            await wait_a_little(app, 10)
            assert await call == 10
            assert await app.object(Sleeper, "s").count() == 1


@pytest.mark.parametrize("timers_in_memory", [0, 100])
async def test_a_slow_look_at_the_timers_does_not_bring_an_earlier_retry_back(timers_in_memory: int) -> None:
    """Also where the next one is so late that it is in the store only."""

    class Failing(Service):
        @handler(retry=RetryPolicy(initial=2, factor=100, maximum=200))
        async def fail(self, ctx: Context) -> None:
            attempts.append(app.clock.monotonic())
            raise RuntimeError("a mistake")

    attempts: list[int] = []
    store = PuppetStore()
    harness = Harness(Failing, store=store)
    async with tuned(harness, timer_window_us=5 * SECOND_US, timers_in_memory=timers_in_memory) as app:
        sent = await app.service(Failing).fail.send()
        await app.settle()
        store.timer_reads.hold()
        engine_of(app).parts.timers.open_window()
        await turns()
        await wait_a_little(app, 3)
        assert len(attempts) == 2
        store.timer_reads.release()
        await app.advance(100)
        assert len(attempts) == 2
        await app.advance(150)
        assert len(attempts) == 3
        await app.kill(sent.id)

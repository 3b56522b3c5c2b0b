"""The simulated world itself: restarts amid crashes, deadlines, and when time may be said to pass."""

from __future__ import annotations

import asyncio
import math
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from durably import DeadlineExceededError, ObjectContext, VirtualObject, handler, state
from durably.ids import Address
from durably.runtime.observation.logs import RuntimeLogger
from durably.testing import Faults, Simulation, SimulationFailedError, Snapshots, simulate
from durably.testing.simulation.loop import SimulatedLoop
from durably.testing.simulation.trace import Trace, TraceLog, tail


class Guest(VirtualObject, name="WorldGuest"):
    """Sleeps, and remembers how often."""

    nights: int = state(default=0)

    @handler
    async def sleep(self, ctx: ObjectContext, seconds: float) -> int:
        await ctx.sleep(seconds)
        self.nights += 1
        return self.nights


def test_a_process_may_be_killed_while_it_stops_and_while_it_starts() -> None:
    async def program(sim: Simulation) -> None:
        sleeping = asyncio.create_task(sleep_often(sim))
        for _ in range(5):
            await sim.restart()
            await sim.advance(sim.random.random())
        await sleeping

    async def sleep_often(sim: Simulation) -> None:
        for night in range(1, 6):
            assert await sim.object(Guest, "x").sleep(0.3) == night

    report = simulate(program, Guest, runs=60, faults=Faults.crash(rate=0.3) | Faults.slow(rate=0.3))
    assert report.crashes > 100


def test_a_program_may_wait_with_a_limit_that_never_comes() -> None:
    async def program(sim: Simulation) -> None:
        async with asyncio.timeout(math.inf):
            await asyncio.wait_for(sim.object(Guest, "x").sleep(1), math.inf)

    assert simulate(program, Guest, runs=2).runs == 2


def test_who_asks_later_is_told_of_the_deadline_too() -> None:
    async def program(sim: Simulation) -> None:
        guest = sim.object(Guest, "x")
        under_way = guest.sleep.options(timeout=1, idempotency_key="night")
        with pytest.raises(DeadlineExceededError):
            await under_way(5)
        with pytest.raises(DeadlineExceededError):
            await under_way.attach()

    report = simulate(program, Guest, runs=20, faults=Faults.slow(rate=0.1, up_to=0.5))
    assert report.runs == 20


def test_what_is_due_now_needs_no_time_to_pass() -> None:
    loop = SimulatedLoop(Random(0), shuffle=lambda batch: None, longest_us=10_000_000)
    passed: list[int] = []
    loop.on_time_passing = lambda: passed.append(loop.elapsed_us)

    async def main() -> None:
        woken = loop.create_future()
        loop.call_after_us(0, woken.set_result, None)
        await woken
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    loop.close()
    assert passed == [0]
    assert loop.elapsed_us == 1_000_000


def test_the_account_of_a_task_group_tells_what_failed_in_it() -> None:
    async def fail(sim: Simulation) -> None:
        raise AssertionError("two and two are five")

    async def program(sim: Simulation) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(sim))

    with pytest.raises(SimulationFailedError, match="seed 0 failed: AssertionError: two and two are five\n"):
        simulate(program, Guest, runs=1)


def test_no_line_of_the_machine_leaves_the_world() -> None:
    lines = {name for name in vars(RuntimeLogger) if not name.startswith("_")}
    assert lines <= set(vars(TraceLog))


def test_work_of_a_service_that_is_not_there_is_told_in_the_trace(caplog: pytest.LogCaptureFixture) -> None:
    loop: Any = SimpleNamespace(elapsed_us=0)
    trace = Trace(loop)
    TraceLog(trace, "process 1", cast("Any", None)).nobody_home(Address("Gone", "a"))
    assert "work of Gone" in tail(trace.entries, 1)
    assert caplog.records == []


class Till(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> None:
        self.total += 1


class Shop(VirtualObject):
    @handler
    async def sell(self, ctx: ObjectContext) -> None:
        for _ in range(3):
            await ctx.object(Till, "t").add.send()
            await ctx.sleep(0.01)


@pytest.mark.parametrize("seed", [14, 31, 46])
def test_what_is_true_eventually_is_not_asked_while_the_store_is_gone(seed: int) -> None:
    """In these runs the disk is full when the faults end, and what was accepted goes on after that."""

    def everything_is_sold(snapshots: Snapshots) -> bool:
        return snapshots[Till, "t"].total == 30

    async def program(sim: Simulation) -> None:
        sim.eventually(everything_is_sold)
        for number in range(10):
            await sim.object(Shop, str(number)).sell.send()

    simulate(program, Till, Shop, seed=seed, faults=Faults.disk_full(rate=0.2))


class Napper(VirtualObject):
    @handler
    async def nap(self, ctx: ObjectContext, seconds: float) -> None:
        before = ctx.now()
        await ctx.sleep(seconds)
        assert (ctx.now() - before).total_seconds() >= seconds - 1e-6


def test_no_jump_of_the_clock_lengthens_a_nap() -> None:
    """Rule T1: not in runs with small windows for timers either."""

    async def program(sim: Simulation) -> None:
        async def nap(name: str) -> None:
            for seconds in (0.3, 100, 5):
                began = sim.loop.elapsed_us
                await sim.object(Napper, name).nap(seconds)
                assert sim.loop.elapsed_us - began <= (seconds + 1) * 1_000_000

        async with asyncio.TaskGroup() as group:
            for name in ("a", "b", "c"):
                group.create_task(nap(name))

    simulate(program, Napper, runs=20, faults=Faults.clock_jumps(rate=0.7, up_to=10 * 365 * 86_400))

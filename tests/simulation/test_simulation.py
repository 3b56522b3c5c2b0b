"""A simulation is repeatable to the letter, lets a year pass in no time, and tells how to repeat a failure."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys

import pytest

from durably import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.testing import (
    Faults,
    InvariantError,
    NotLinearizableError,
    Simulation,
    SimulationFailedError,
    SimulationStuckError,
    Snapshots,
    for_each_crash_point,
    simulate,
)


class Counter(VirtualObject, name="SimulatedCounter"):
    """Counts, with a side effect in between."""

    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int) -> int:
        """Add, and tell the world."""
        self.count += by
        await ctx.run("note", note)
        return self.count

    @handler
    async def doze(self, ctx: ObjectContext, days: float) -> None:
        """Sleep for a while."""
        await ctx.sleep(days * 86_400)

    @shared
    async def get(self, ctx: SharedContext) -> int:
        """Look."""
        return self.count


async def note() -> str:
    await asyncio.sleep(0.5)
    return "noted"


async def three_clients(sim: Simulation) -> None:
    """Three clients add up to fifteen, whatever goes wrong."""

    async def add(name: str) -> None:
        client = sim.client(name)
        for _ in range(5):
            await client.object(Counter, "x").add(1)

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(add(name))
    assert await sim.object(Counter, "x").get() == 15


def digest(seed: int) -> str:
    with Simulation(Counter, seed=seed, faults=Faults.any()) as sim:
        sim.run(three_clients(sim))
        sim.finish()
        return sim.trace.digest()


def test_exactly_once_whatever_goes_wrong() -> None:
    report = simulate(three_clients, Counter, runs=60)
    assert report.runs == 60
    assert report.crashes > 20
    assert report.actions > 60 * 15


def test_the_same_seed_is_the_same_run_to_the_letter_in_any_process() -> None:
    program = "from tests.simulation.test_simulation import digest; print(*map(digest, range(12)))"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert len(set(said.pop().split())) == 12


def test_a_year_takes_no_time() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Counter, "x").doze(365)

    with Simulation(Counter) as sim:
        sim.run(program(sim))
        assert sim.loop.elapsed_us >= 365 * 86_400 * 1_000_000
        assert sim.loop.callbacks < 20_000  # Of which each day takes some 30, to look for what has expired.


def test_a_failure_tells_its_seed_and_how_to_repeat_it() -> None:
    def never_seven(snapshots: Snapshots) -> bool:
        return all(counter.count != 7 for counter in snapshots.of(Counter).values())

    async def program(sim: Simulation) -> None:
        sim.invariant(never_seven)
        await three_clients(sim)

    with pytest.raises(SimulationFailedError) as raised:
        simulate(program, Counter, runs=3, faults=Faults.slow())
    told = str(raised.value)
    assert "seed 0" in told
    assert "never_seven does not hold after a commit" in told
    assert "simulate(program, Counter, seed=0, faults=Faults.slow(rate=0.1, up_to=5))" in told
    assert isinstance(raised.value.__cause__, InvariantError)


def test_eventually_is_asked_in_the_end() -> None:
    async def program(sim: Simulation) -> None:
        sim.eventually(lambda snapshots: snapshots[Counter, "x"].count == 1, within=86_400)
        await sim.object(Counter, "x").add.after(minutes=30).send(1)

    simulate(program, Counter, runs=20)

    async def in_vain(sim: Simulation) -> None:
        sim.eventually(lambda snapshots: snapshots[Counter, "x"].count == 1, within=60)
        await sim.object(Counter, "x").add.after(minutes=30).send(1)

    with pytest.raises(SimulationFailedError, match="does not hold in the end"):
        simulate(in_vain, Counter, runs=1, faults=Faults.none())


def test_every_crash_point_is_visited_once() -> None:
    crashes: list[int] = []

    async def program(sim: Simulation) -> int:
        first = await sim.object(Counter, "x").add(1)
        second = await sim.object(Counter, "x").add(1)
        assert (first, second) == (1, 2)
        crashes.append(sim.crashes)
        return await sim.object(Counter, "x").get()

    report = for_each_crash_point(program, Counter)
    assert report.runs == len(crashes)
    assert report.runs > 5
    assert crashes[0] == 0
    assert crashes[1:-2] == [1] * (report.runs - 3)


def test_a_program_that_waits_for_what_never_comes_is_told_so() -> None:
    async def program(sim: Simulation) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationFailedError, match="was not done") as raised:
        simulate(program, Counter, runs=1, faults=Faults.none(), longest=86_400)
    assert isinstance(raised.value.__cause__, SimulationStuckError)


def test_only_a_program_to_which_something_may_come_is_told_to_give_more_time() -> None:
    async def asks_and_waits(sim: Simulation) -> None:
        await sim.object(Counter, "x").add(1)
        await asyncio.Event().wait()

    async def sleeps(sim: Simulation) -> None:
        await sim.advance(days=3)

    nothing_comes, more = "nothing in the simulation can set", r"Give Simulation\(longest=...\) more"
    for program, told, other in ((asks_and_waits, nothing_comes, more), (sleeps, more, nothing_comes)):
        with pytest.raises(SimulationFailedError, match=told) as raised:
            simulate(program, Counter, runs=1, faults=Faults.none(), longest=86_400)
        assert re.search(other, str(raised.value)) is None


class CounterModel:
    """What a counter is."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, by: int) -> int:
        self.count += by
        return self.count

    def get(self) -> int:
        return self.count


class HastyCounter(VirtualObject, name="HastyCounter"):
    """Reads, waits, and then lets another message write: what was read is old by then."""

    count: int = state(default=0)

    @handler
    async def put(self, ctx: ObjectContext, count: int) -> None:
        self.count = count

    @shared
    async def add(self, ctx: SharedContext, by: int) -> int:
        count = self.count + by
        await ctx.run("note", note)
        await ctx.object(HastyCounter, self.key).put(count)
        return count


class HastyModel(CounterModel):
    """What its author believes that it is."""

    def put(self, count: int) -> None:
        """Written by `add`."""


def test_objects_behave_as_their_model() -> None:
    async def program(sim: Simulation) -> None:
        sim.linearizable(Counter, CounterModel)
        await three_clients(sim)

    simulate(program, Counter, runs=20)


def test_what_no_model_explains_is_found() -> None:
    async def program(sim: Simulation) -> None:
        sim.linearizable(HastyCounter, HastyModel)

        async def add(name: str) -> None:
            await sim.client(name).object(HastyCounter, "x").add(1)

        async with asyncio.TaskGroup() as group:
            for name in ("ann", "bob"):
                group.create_task(add(name))

    with pytest.raises(SimulationFailedError, match="HastyCounter/x") as raised:
        simulate(program, HastyCounter, runs=20)
    assert isinstance(raised.value.__cause__, NotLinearizableError)

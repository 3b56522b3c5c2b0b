"""What a simulation says: no failure is lost, none is invented, and each can be repeated as it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from durably import ObjectContext, VirtualObject, handler, state
from durably.errors import DeadlockError, ForgottenAwaitError
from durably.runtime.execution.step import Outcome
from durably.testing import (
    Faults,
    GuaranteeError,
    InvariantError,
    Simulation,
    SimulationFailedError,
    Snapshots,
    for_each_crash_point,
    simulate,
)
from durably.testing.simulation.process import _Call as Reply  # pyright: ignore[reportPrivateUsage]


class Box(VirtualObject, name="VerdictBox"):
    """Holds a number."""

    number: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int) -> int:
        self.number += by
        return self.number

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        _ = 1 // self.number

    @handler
    async def doze(self, ctx: ObjectContext, seconds: float) -> None:
        await ctx.sleep(seconds)

    @handler
    async def visit(self, ctx: ObjectContext, path: list[str]) -> int:
        """Call one after the other, each from within the one before."""
        if path:
            return await ctx.object(Box, path[0]).visit(path[1:])
        return self.number

    @handler
    async def never(self, ctx: ObjectContext) -> None:
        await ctx.run("never", asyncio.sleep, 10**9)

    @handler
    async def put_by_name(self, ctx: ObjectContext, value: int) -> None:
        await asyncio.sleep(0)
        ctx.set("value", value)


def failure(program: Callable[[Simulation], Coroutine[Any, Any, object]], **options: Any) -> SimulationFailedError:
    """How a program fails that does not go wrong by itself."""
    wanted: dict[str, Any] = {"runs": 5, "faults": Faults.none(), **options}
    with pytest.raises(SimulationFailedError) as raised:
        simulate(program, Box, **wanted)
    return raised.value


def test_an_answer_that_is_not_the_outcome_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Reply.answer

    def always_one(self: Reply, outcome: Outcome, *rest: Any) -> None:
        original(self, Outcome(False, b"1"), *rest)

    monkeypatch.setattr(Reply, "answer", always_one)

    async def program(sim: Simulation) -> None:
        for _ in range(2):
            await sim.object(Box, "a").add(1)

    cause = failure(program).__cause__
    assert isinstance(cause, GuaranteeError)
    assert cause.number == 2


def test_an_error_that_nobody_asks_for_fails_the_run() -> None:
    async def raises() -> None:
        raise ZeroDivisionError("in the background")

    async def program(sim: Simulation) -> None:
        task = asyncio.create_task(raises())
        await sim.object(Box, "a").add(1)
        del task

    assert "ZeroDivisionError: in the background" in str(failure(program))


def test_a_call_that_nobody_awaits_fails_the_run() -> None:
    async def program(sim: Simulation) -> None:
        _ = sim.object(Box, "a").add(1)
        await sim.settle()

    told = failure(program)
    assert isinstance(told.__cause__, ForgottenAwaitError)
    assert __file__ in str(told)


def test_the_line_of_a_handler_that_fails_is_in_the_traceback() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Box, "a").fail()

    paused = failure(program).__cause__
    assert paused is not None
    assert isinstance(paused.__cause__, ZeroDivisionError)
    assert paused.__cause__.__traceback__ is not None


def test_what_a_condition_raised_is_told_whatever_it_is() -> None:
    def refuses(snapshots: Snapshots) -> None:
        pytest.fail("it is not as it should be")

    async def program(sim: Simulation) -> None:
        sim.invariant(refuses)
        await sim.object(Box, "a").add(1)

    told = failure(program)
    assert isinstance(told.__cause__, InvariantError)
    assert "it is not as it should be" in str(told)


def test_what_pytest_raises_in_a_program_carries_the_seed() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Box, "a").add(1)
        pytest.fail("enough")

    with pytest.raises(pytest.fail.Exception) as raised:
        simulate(program, Box, runs=1)
    assert "The run with seed 0 failed" in "".join(raised.value.__notes__)


def test_whoever_gives_up_and_actions_that_never_end_do_not_hold_up_the_end() -> None:
    async def program(sim: Simulation) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await sim.object(Box, "a").doze(30 * 86_400)
        await sim.object(Box, "b").never.send()

    with Simulation(Box) as sim:
        sim.run(program(sim))
        sim.finish()
        assert sim.loop.callbacks < 5_000


def test_the_same_name_asks_anew_each_time() -> None:
    async def program(sim: Simulation) -> None:
        for _ in range(2):
            await sim.client("ann").object(Box, "a").add(1)
        await sim.client("somebody").object(Box, "a").add(1)
        assert await sim.object(Box, "a").add(1) == 4

    simulate(program, Box, runs=10)


def test_a_circle_of_calls_is_told_with_who_waits_for_whom() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Box, "a").visit(["b", "a"])

    told = failure(program)
    assert isinstance(told.__cause__, DeadlockError)
    assert told.__cause__.cycle == ("VerdictBox/a/visit", "VerdictBox/b/visit", "VerdictBox/a/visit")

    async def in_line(sim: Simulation) -> None:
        assert await sim.object(Box, "a").visit(["b", "c", "d"]) == 0

    simulate(in_line, Box, runs=10)


def test_dice_of_programs_are_seeded_and_those_of_others_left_alone() -> None:
    rolled: list[float] = []

    async def program(sim: Simulation) -> None:
        rolled.append(random.random())
        await sim.object(Box, "a").add(1)
        rolled.append(random.random())

    before = random.getstate()
    for seed in (1, 1, 2):
        simulate(program, Box, seed=seed, faults=Faults.none())
    assert random.getstate() == before
    assert rolled[0:2] == rolled[2:4] != rolled[4:6]


def test_state_by_name_is_in_the_snapshots() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Box, "a").put_by_name(7)
        await sim.object(Box, "a").add(1)
        assert sim.snapshots.by_name(Box, "a") == {"value": 7, "number": 1}

    simulate(program, Box, runs=1, faults=Faults.none())


def test_commits_after_the_program_are_crash_points_too() -> None:
    async def program(sim: Simulation) -> None:
        sim.eventually(lambda snapshots: snapshots[Box, "a"].number == 1, within=60)
        await sim.object(Box, "a").add.after(5).send(1)

    for place in ("before_commit", "after_commit"):
        report = for_each_crash_point(program, Box, place=place)
        assert report.crashes == report.runs - 1 >= 2


def test_a_run_is_repeated_by_what_is_told() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Box, "a").add(1)
        raise ArithmeticError

    told = str(failure(program, faults=Faults.crash(at="before_commit:3", down=0), suspend_after=0, seed=3))
    line = told.rpartition("Repeat it with: ")[2].splitlines()[0]
    assert line == (
        'simulate(program, Box, seed=3, suspend_after=0, faults=Faults.crash(at="before_commit:3", down=0))'
    )
    with pytest.raises(SimulationFailedError) as again:
        eval(line, {"simulate": simulate, "program": program, "Box": Box, "Faults": Faults})
    assert str(again.value) == told


rates = st.floats(0, 1)
durations = st.one_of(st.integers(0, 10**6), st.floats(0, 10**6))
some_faults = st.one_of(
    st.builds(Faults.crash, rate=rates, down=durations),
    st.builds(Faults.crash, at=st.sampled_from(("before_commit:3", "after_action:1")), down=durations),
    st.builds(Faults.commit_fails, rate=rates, durable=st.sampled_from((None, True, False))),
    st.builds(Faults.disk_full, rate=rates, lasts=durations),
    st.builds(Faults.reads_fail, rate=rates),
    st.builds(Faults.slow, rate=rates, up_to=durations),
    st.builds(Faults.clock_jumps, rate=rates, up_to=durations),
    st.builds(Faults.client_retries, rate=rates),
    st.sampled_from((Faults.none(), Faults.any())),
)


@given(some_faults, some_faults)
def test_faults_are_written_as_they_are_made(one: Faults, other: Faults) -> None:
    both = one | other
    again = eval(repr(both), {"Faults": Faults})
    assert (again.kinds, again.is_any) == (both.kinds, both.is_any)


async def no_program(sim: Simulation) -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: simulate(lambda sim: None, Box), "coroutine function"),  # type: ignore[arg-type,return-value]
        (lambda: simulate(no_program), "nothing to simulate"),
        (lambda: simulate(no_program, Box, runs=0), "whole number from 1 on, not 0"),
        (lambda: simulate(no_program, Box, faults=Faults.crash), "faults= takes a value"),  # type: ignore[arg-type]
        (lambda: Faults.crash(rate=2), "probability from 0 to 1"),
        (lambda: Simulation(Box).invariant(no_program), "plain function"),  # type: ignore[arg-type]
        (lambda: Simulation().linearizable(Box, object), "does not run VerdictBox"),
    ],
)
def test_bad_input_gets_a_sentence(wrong: Callable[[], object], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        wrong()

"""What a user says must be so: at times, not too large, and within a while; and what the summary tells."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from durably import ObjectContext, TerminalError, VirtualObject, handler, state
from durably.testing import (
    Faults,
    InvariantError,
    NeverHappenedError,
    Simulation,
    SimulationFailedError,
    Snapshots,
    simulate,
)
from durably.testing.harness.conditions import Condition


class Diary(VirtualObject, name="ConditionsDiary"):
    """Grows with each line."""

    lines: list[str] = state(default=[])

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> int:
        if not line:
            raise TerminalError("nothing to write")
        self.lines.append(line)
        return len(self.lines)


async def write_some(sim: Simulation) -> None:
    sim.sometimes("written", lambda snapshots: bool(snapshots[Diary, "x"].lines))
    sim.sometimes("even", sim.seed % 2 == 0)
    for _ in range(3):
        await sim.object(Diary, "x").write("a line")


def test_what_is_true_in_one_run_at_least_is_enough() -> None:
    report = simulate(write_some, Diary, runs=4)
    assert report.sometimes == {"even": 2, "written": 4}


def test_what_never_happens_fails_the_campaign_and_not_a_single_run() -> None:
    async def program(sim: Simulation) -> None:
        await write_some(sim)
        sim.sometimes("much was written", lambda snapshots: len(snapshots[Diary, "x"].lines) > 3)

    with pytest.raises(NeverHappenedError, match="'much was written' did not happen in any of 3 runs"):
        simulate(program, Diary, runs=3)
    assert simulate(program, Diary, seed=1).sometimes["much was written"] == 0


def test_a_state_that_grows_too_large_is_told_with_its_largest_field() -> None:
    async def program(sim: Simulation) -> None:
        sim.bounded(Diary, bytes=25)
        await write_some(sim)

    with pytest.raises(SimulationFailedError, match=r"ConditionsDiary/x has \d\d bytes.*largest field is 'lines'"):
        simulate(program, Diary, runs=1)
    assert simulate(write_some, Diary, runs=2).largest_bytes == {"ConditionsDiary": 33}


def test_until_lets_time_pass_until_something_is_true_and_no_longer() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Diary, "x").write.after(minutes=10).send("later")
        await sim.until(lambda snapshots: snapshots[Diary, "x"].lines == ["later"], within=3600)
        assert 600 <= sim.loop.time() < 700
        with pytest.raises(InvariantError, match="did not come true within 5 s of virtual time"):
            await sim.until(lambda snapshots: len(snapshots[Diary, "x"].lines) == 2, within=5)

    simulate(program, Diary, runs=10, faults=Faults.none())


def broken(snapshots: Snapshots) -> bool:
    raise LookupError(snapshots[Diary, "x"].lines[0])


async def give_to_a_coroutine(snapshots: Snapshots) -> bool:
    return True


async def always(sim: Simulation, condition: Condition) -> None:
    sim.invariant(condition)


async def in_the_end(sim: Simulation, condition: Condition) -> None:
    sim.eventually(condition)


async def at_times(sim: Simulation, condition: Condition) -> None:
    sim.sometimes("once", condition)


async def at_times_from_the_start(sim: Simulation, condition: Condition) -> None:
    sim.sometimes("once", lambda snapshots: bool(snapshots[Diary, "x"].lines) and condition(snapshots))
    await sim.object(Diary, "x").write("another")


async def within_a_while(sim: Simulation, condition: Condition) -> None:
    await sim.until(condition)


KINDS = [always, in_the_end, at_times, at_times_from_the_start, within_a_while]


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_that_fails_with_an_error_is_named_with_it_whatever_its_kind(
    kind: Callable[[Simulation, Condition], Coroutine[Any, Any, None]],
) -> None:
    def awaits(snapshots: Snapshots) -> object:
        return give_to_a_coroutine(snapshots)

    async def program(condition: Condition, sim: Simulation) -> None:
        await sim.object(Diary, "x").write("a line")
        await kind(sim, condition)

    for condition, what in ((broken, "LookupError: a line"), (awaits, "TypeError: it return")):
        with pytest.raises(SimulationFailedError, match=rf"InvariantError: The condition .*{what}") as failed:
            simulate(partial(program, condition), Diary, runs=1, shrink=False)
        assert isinstance(failed.value.__cause__, InvariantError)


def test_an_invariant_is_asked_when_it_is_registered_and_once_more_at_the_end() -> None:
    told = [True]

    async def after_the_last_commit(sim: Simulation) -> None:
        await sim.object(Diary, "x").write("a line")
        sim.invariant(lambda snapshots: not snapshots[Diary, "x"].lines)

    async def of_the_program(sim: Simulation) -> None:
        told[0] = True
        await sim.object(Diary, "x").write("a line")
        sim.invariant(lambda _: told[0])
        told[0] = False

    async def grows_no_more(sim: Simulation) -> None:
        await sim.object(Diary, "x").write("a line")
        sim.bounded(Diary, bytes=1)

    async def has_happened(sim: Simulation) -> None:
        await sim.object(Diary, "x").write("a line")
        sim.sometimes("written", lambda snapshots: bool(snapshots[Diary, "x"].lines))

    for program, when in (
        (after_the_last_commit, "does not hold when it is registered"),
        (of_the_program, "does not hold at the end"),
        (grows_no_more, "allowed by bounded"),
    ):
        with pytest.raises(SimulationFailedError, match=when):
            simulate(program, Diary, runs=1, shrink=False)
    assert simulate(has_happened, Diary, runs=1).sometimes == {"written": 1}


def test_the_report_tells_faults_handlers_and_outcomes() -> None:
    async def program(sim: Simulation) -> None:
        await write_some(sim)
        with pytest.raises(TerminalError):
            await sim.object(Diary, "x").write("")

    report = simulate(program, Diary, runs=3, faults=Faults.none())
    assert report.outcomes == {"ConditionsDiary.write -> TerminalError": 3, "ConditionsDiary.write -> result": 9}
    assert next(report.details()) == "no run saw a crash"
    assert any(line.startswith("faults: ") for line in simulate(program, Diary, runs=20).details())

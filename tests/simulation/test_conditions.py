"""What a user says must be so: at times, not too large, and within a while; and what the summary tells."""

from __future__ import annotations

import pytest

from durably import ObjectContext, TerminalError, VirtualObject, handler, state
from durably.testing import Faults, InvariantError, NeverHappenedError, Simulation, SimulationFailedError, simulate


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
        with pytest.raises(InvariantError, match="did not come true within 5 of virtual time"):
            await sim.until(lambda snapshots: len(snapshots[Diary, "x"].lines) == 2, within=5)

    simulate(program, Diary, runs=10, faults=Faults.none())


def test_the_report_tells_faults_handlers_and_outcomes() -> None:
    async def program(sim: Simulation) -> None:
        await write_some(sim)
        with pytest.raises(TerminalError):
            await sim.object(Diary, "x").write("")

    report = simulate(program, Diary, runs=3, faults=Faults.none())
    assert report.outcomes == {"ConditionsDiary.write -> TerminalError": 3, "ConditionsDiary.write -> result": 9}
    assert next(report.details()) == "no run saw a crash"
    assert any(line.startswith("faults: ") for line in simulate(program, Diary, runs=20).details())

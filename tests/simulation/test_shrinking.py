"""A run that fails is told as the plainest that fails like it; its seed is kept and comes first the next time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durably import ObjectContext, VirtualObject, handler, state
from durably.ids import Address
from durably.testing import Faults, Simulation, SimulationFailedError, Snapshots, simulate
from durably.testing.simulation.concerned import events_of_concern
from durably.testing.simulation.failures import FOLDER_VARIABLE, Failures
from durably.testing.simulation.trace import Entry


class Note(VirtualObject, name="ShrinkingNote"):
    """Is written by an action, and by whoever comes."""

    writers: list[str] = state(default=[])

    @handler
    async def write(self, ctx: ObjectContext, who: str) -> int:
        await ctx.run("look", look)
        self.writers.append(who)
        return len(self.writers)


async def look() -> None:
    """Nothing to see."""


async def no_action_is_repeated(sim: Simulation) -> None:
    for number in range(3):
        await sim.object(Note, "x").write(f"writer {number}")
    await sim.settle()
    assert len(sim.actions()) == 3, f"{len(sim.actions())} actions"


async def ann_writes_before_bob(sim: Simulation) -> None:
    async with asyncio.TaskGroup() as group:
        for who in ("ann", "bob"):
            group.create_task(sim.client(who).object(Note, "x").write(who))
    assert sim.snapshots[Note, "x"].writers == ["ann", "bob"]


def failure_of(program: object, **options: object) -> SimulationFailedError:
    with pytest.raises(SimulationFailedError) as failed:
        simulate(program, Note, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    return failed.value


def test_one_fault_is_left_of_many_and_the_order_is_plain() -> None:
    told = str(failure_of(no_action_is_repeated))
    plain = told.partition("This is the plainest run that fails like it: ")[2].splitlines()[0]
    assert plain.count("Faults.") == 1
    assert plain.endswith('order="fifo")')
    assert 'ShrinkingNote/x: writers = ["writer 0"]' in told, "what each commit changed is told"
    again = failure_of(no_action_is_repeated, **eval(f"dict({plain.partition('Note, ')[2]}", {"Faults": Faults}))
    assert str(again).partition("\n")[0] == told.partition("\n")[0]
    as_it_was = str(failure_of(no_action_is_repeated, shrink=False))
    assert "plainest" not in as_it_was


def test_one_shuffle_is_left_of_many() -> None:
    failed = failure_of(ann_writes_before_bob, faults=Faults.none())
    told = str(failed)
    plain = told.partition("This is the plainest run that fails like it: ")[2].splitlines()[0]
    assert 'order="fifo"' in plain or plain.partition('order="fifo but ')[2].count(",") == 0


def test_what_fails_without_faults_in_the_plainest_order_of_any_seed_is_told_so() -> None:
    trouble = Faults.slow(rate=0.3)

    def fails(seed: int, faults: Faults, order: str | None = None) -> bool:
        try:
            simulate(ann_writes_before_bob, Note, seed=seed, faults=faults, order=order, shrink=False)
        except SimulationFailedError:
            return True
        return False

    seed = next(seed for seed in range(100) if fails(seed, trouble) and not fails(seed, Faults.none(), "fifo"))
    told = str(failure_of(ann_writes_before_bob, seed=seed, faults=trouble))
    plain = told.partition("This is the plainest run that fails like it: ")[2].splitlines()[0]
    assert plain.endswith('faults=Faults.none(), order="fifo")')
    assert f"seed={seed}," not in plain
    assert f"Repeat it with: simulate(ann_writes_before_bob, Note, seed={seed}, " in told


def test_a_seed_that_failed_comes_first_until_it_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "kept"))
    seeds: list[int] = []
    is_broken = True

    async def program(sim: Simulation) -> None:
        seeds.append(sim.seed)
        assert not (is_broken and sim.seed >= 3)

    failed = failure_of(program, runs=10, shrink=False)
    assert failed.seed == 3
    kept = Failures.of(program, "program")
    assert kept.seeds() == [3]
    (trace,) = (tmp_path / "kept").rglob("3.trace")
    assert "process 1  starts" in trace.read_text("utf-8")
    assert str(trace) in str(failed)
    seeds.clear()
    assert failure_of(program, runs=10, shrink=False).seed == 3
    assert seeds == [0, 3], "the undisturbed run, and the one that failed"
    is_broken = False
    assert simulate(program, Note, runs=5).runs == 6
    assert kept.seeds() == []


def test_nothing_is_kept_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    failure_of(no_action_is_repeated, shrink=False)
    assert not [*tmp_path.iterdir()]


def test_processes_share_the_runs_and_the_lowest_seed_is_told() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Note, "x").write("ann")
        assert sim.seed not in (7, 11)

    failed = failure_of(program, runs=14, jobs=2)
    assert failed.seed == 7
    alone = simulate(no_seed_fails, Note, runs=6)
    assert simulate(no_seed_fails, Note, runs=6, jobs=2) == alone


def test_parts_of_a_campaign_are_the_campaign() -> None:
    parts = [simulate(no_seed_fails, Note, runs=20, part=(number, 3)) for number in range(3)]
    assert parts[0] + parts[1] + parts[2] == simulate(no_seed_fails, Note, runs=20)


async def no_seed_fails(sim: Simulation) -> None:
    await sim.object(Note, "x").write("ann")


class Desk(VirtualObject, name="ShrinkingDesk"):
    """Sends what it is given to a note of its name."""

    @handler
    async def post(self, ctx: ObjectContext, who: str) -> int:
        return await ctx.object(Note, self.key).write(who)


async def one_desk_of_many_is_wrong(sim: Simulation) -> None:
    def nothing_but_ann(snapshots: Snapshots) -> None:
        assert snapshots[Note, "b"].writers in ([], ["ann"])

    sim.invariant(nothing_but_ann)
    for number in range(20):
        await sim.client("crowd").object(Desk, f"other {number}").post("somebody")
    await sim.client("bob").object(Desk, "b").post("bob")


def test_only_the_events_of_the_objects_concerned_are_told_and_all_stand_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(SimulationFailedError) as failed:
        simulate(one_desk_of_many_is_wrong, Note, Desk, runs=1)
    told = str(failed.value)
    assert 'the disk   ShrinkingNote/b: writers = ["bob"]' in told, "the state as it changed"
    assert "ShrinkingDesk/b/post" in told, "who asked an object has to do with it"
    assert "process 1  starts" in told, "what concerns no object may concern all"
    assert "other 7" not in told
    assert "events of other objects are left out" in told
    (file,) = tmp_path.rglob("*.trace")
    assert str(file) in told
    assert "ShrinkingDesk/other 7/post" in file.read_text("utf-8")


async def an_answer_is_wrong(sim: Simulation) -> None:
    await sim.object(Note, "b").write("bob")
    assert await sim.object(Note, "other").write("bob") == 2


def test_all_events_are_told_where_no_object_is_known() -> None:
    told = str(failure_of(an_answer_is_wrong, runs=1))
    assert "ShrinkingNote/b" in told
    assert "ShrinkingNote/other" in told
    assert "left out" not in told


def test_a_promise_that_is_broken_names_the_objects() -> None:
    entries = [
        Entry(0, "ann", "calls Seat/A/reserve"),
        Entry(1, "bob", "calls Seat/AB/reserve"),
        Entry(2, "process 1", "Cart/x/add (inv_...abcdef) waits; asked for: call Seat/A/reserve"),
        Entry(3, "process 1", "Seat/AB/reserve (inv_...uvwxyz) -> true"),
        Entry(4, "the disk", 'Cart/x: seats = ["A"]'),
        Entry(5, "process 1", "is killed"),
    ]
    known = [Address("Seat", "A"), Address("Seat", "AB"), Address("Cart", "x")]
    told = events_of_concern(entries, named_in="a timer of Seat/A/reserve was due", read=(), known=known)
    assert [entry.at_us for entry in told] == [0, 2, 4, 5]

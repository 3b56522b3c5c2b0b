"""What handlers keep in globals is lost with the process, is not handed to the next run, and is told by name."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from durably import factory
from durably.testing import Faults, Simulation, simulate
from durably.testing.simulation.process_memory import ProcessMemory
from tests.simulation import forgetful
from tests.simulation.forgetful import LEDGER, Hears, Keeper, hears, opened

CHANGED = {f"tests.simulation.forgetful.{name}": 5 for name in ("count", "Keeper.cache", "SEEN", "spelled")}
GLOBALS: MutableMapping[str, Any] = forgetful.__dict__
"""Looked at by their names as texts: what the tests' code names is left to the tests."""


def is_remembered() -> tuple[bool, ...]:
    cache = vars(Keeper)["cache"]
    spelled = GLOBALS["spelled"].cache_info().currsize
    return bool(GLOBALS["SEEN"]), bool(GLOBALS["count"]), bool(cache), bool(spelled)


ALL, NOTHING = (True,) * 4, (False,) * 4


async def program(sim: Simulation) -> None:
    assert is_remembered() == NOTHING, "what a run finds depends on what ran before"
    await sim.object(Keeper, "x").hear("one")
    assert is_remembered() == ALL
    await sim.crash()
    assert is_remembered() == NOTHING, "it survived the process"
    assert set(LEDGER) == {"one"}, "a ledger that the program looks at is the world's"
    await sim.object(Keeper, "x").hear("two")
    await sim.restart()
    assert is_remembered() == NOTHING
    await sim.object(Keeper, "x").hear("one")


def test_globals_die_with_the_process_and_no_run_hands_them_to_the_next() -> None:
    report = simulate(program, Keeper, runs=5, faults=Faults.none())
    assert report.globals_changed == CHANGED
    assert any("tests.simulation.forgetful.SEEN" in line for line in report.details())
    assert is_remembered() == NOTHING


def test_a_bare_simulation_forgets_too() -> None:
    with Simulation(Keeper) as sim:
        sim.run(sim.object(Keeper, "x").hear("one"))
        assert is_remembered() == ALL
    assert is_remembered() == NOTHING


def test_what_a_dependency_holds_is_the_worlds() -> None:
    seen = GLOBALS["SEEN"]
    memory = ProcessMemory((Keeper,), (), {"seen": seen})
    seen.add("known outside")
    assert memory.begin_process() == []
    seen.clear()


def test_what_is_replaced_is_put_back_as_the_same_object() -> None:
    memory = ProcessMemory((Keeper,), ())
    before = GLOBALS["SEEN"]
    GLOBALS["SEEN"] = {"another"}
    GLOBALS["TABLE"]["a"] = 2
    names = ["tests.simulation.forgetful.SEEN", "tests.simulation.forgetful.TABLE"]
    assert sorted(memory.begin_process()) == names
    assert GLOBALS["SEEN"] is before
    assert GLOBALS["TABLE"] == {"a": 1}


def test_bare_simulations_of_the_same_program_see_what_has_changed_between_them() -> None:
    """Where variables are is remembered from one to the next; what they hold is not."""

    async def ask(sim: Simulation) -> None:
        await sim.object(Keeper, "x").hear("one")

    def changed(value: Any) -> list[str]:
        GLOBALS["TABLE"]["a"] = value
        with Simulation(Keeper) as sim:
            sim.run(ask(sim))
        assert GLOBALS["TABLE"] == {"a": value}, "what was set outside is not taken back"
        return sorted(name.rpartition(".")[2] for name in sim.report().globals_changed)

    assert changed(1) == changed(2) == changed(1) == ["LEDGER", "SEEN", "cache", "count", "spelled"]
    original = GLOBALS["spelled"]
    try:
        GLOBALS["FOUND"] = []
        exec("def spelled(word): FOUND.append(word)", forgetful.__dict__)
        assert "FOUND" in changed(1), "the code is looked through anew"
    finally:
        GLOBALS["spelled"] = original
        del GLOBALS["FOUND"]
    assert is_remembered() == NOTHING


def test_what_middleware_and_factories_keep_dies_with_the_process() -> None:
    async def program(sim: Simulation) -> None:
        await sim.object(Keeper, "x").hear("one")
        assert GLOBALS["HEARD"] == ["hear"] == vars(Hears)["heard"]

    given = {Path: factory(opened)}
    with Simulation(Keeper, middleware=[hears, Hears], dependencies=given) as sim:
        sim.run(program(sim))
        sim.run(sim.crash())
        assert GLOBALS["HEARD"] == [] == vars(Hears)["heard"]
        memory = ProcessMemory((Keeper,), (), given, [hears, Hears])
        GLOBALS["OPENED"].append("again")
        assert memory.begin_process() == ["tests.simulation.forgetful.OPENED"]

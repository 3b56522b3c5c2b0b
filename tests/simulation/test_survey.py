"""Each function that no simulated run enters has a reason, and no reason is left that is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.simulation import survey
from tests.simulation.survey import Function, Reached, Reason

KNOWN = [
    Reason("files cannot be simulated", ["tests/a"], ["a.py", "b.py: Log"]),
    Reason("a mistake", ["tests/a"], ["c.py: f", "c.py: Cart.pay", "c.py: gone"]),
    Reason("few runs come there", ["tests/a"], ["d.py: f", "d.py: gone"], is_rare=True),
]


@pytest.mark.slow
def test_what_no_run_enters_has_a_reason() -> None:
    pytest.importorskip("coverage")
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.survey"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_blind_spot_and_a_reason_that_is_none_any_more_are_told() -> None:
    unentered = ["a.py: f", "b.py: Log.write.inner", "c.py: f", "c.py: g"]
    there = [*unentered, "c.py: Cart.pay", "d.py: f"]
    assert survey.differences(KNOWN, there, unentered) == [
        "c.py: g is entered by no run, and no reason is given.",
        "c.py: Cart.pay is entered: remove its reason.",
        "c.py: gone is no more: remove its reason.",
        "d.py: gone is no more: remove its reason.",
    ]


@pytest.mark.parametrize("place", ["a.py: Logger.write", "a.py: Login", "a.pyx: Log.write"])
def test_a_reason_for_a_class_is_none_for_another_one(place: str) -> None:
    assert not survey.is_within(place, "a.py: Log")


def test_a_function_is_entered_when_the_first_of_its_own_lines_is_reached() -> None:
    functions = [Function("a.py: f", frozenset({2, 3})), Function("a.py: f.inner", frozenset({5}))]
    reached = Reached(functions, {"a.py": frozenset({1, 2})})
    assert [one.place for one in reached.unentered()] == ["a.py: f.inner"]
    assert reached.corners() == {"a.py: f": {3}}


def test_lines_belong_to_the_innermost_function_and_docstrings_to_none() -> None:
    path = ROOT / "tests/simulation/survey.py"
    lines = range(1, len(path.read_text("utf-8").splitlines()) + 1)
    found = {one.place.partition(": ")[2]: one.lines for one in survey.functions_in(path, lines)}
    assert {"Reason.covers", "is_within", "Reached.unentered", "main"} <= found.keys()
    assert sum(map(len, found.values())) == len(frozenset[int]().union(*found.values()))
    assert len(found["is_within"]) == 2


def test_reasons_name_files_and_tests_that_exist() -> None:
    for reason in survey.reasons():
        for named in (*reason.tests, *(place.partition(":")[0] for place in reason.places)):
            assert (ROOT / named).exists(), f"{named}: {reason.why}"

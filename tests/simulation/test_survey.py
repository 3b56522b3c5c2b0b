"""Each function with lines that no simulated run reaches has a reason, and no reason is left that is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.simulation import survey


@pytest.mark.slow
def test_what_no_run_reaches_has_a_reason() -> None:
    pytest.importorskip("coverage")
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.survey"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_blind_spot_and_a_reason_that_is_none_any_more_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a.py: f": "cannot happen", "b.py": "has tests of its own", "c.py: gone": "cannot happen"}
    monkeypatch.setattr(survey, "reasons", lambda: known)
    told = survey.differences({"a.py: f": [1], "b.py: any": [7], "a.py: g": [3, 4]})
    assert told == [
        "a.py: g has lines that no run reaches, and no reason is given: 3, 4",
        "c.py: gone is reached by now, or is no more: remove it",
    ]


def test_reasons_name_files_that_exist() -> None:
    for place in survey.reasons():
        assert (ROOT / place.partition(":")[0]).is_file(), place

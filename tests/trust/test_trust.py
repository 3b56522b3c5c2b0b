"""Each planted bug is found, as the table in docs/testing.md says, and the correct apps pass."""

from __future__ import annotations

import re

import pytest

from tests.levels import level
from tests.processes import ROOT
from tests.trust.planting import App
from tests.trust.survey import APPS, look_for, run

RUNS = 500
PLANTED = [(app, bug) for app in APPS for bug in app.bugs]


@pytest.mark.parametrize(("app", "bug"), PLANTED, ids=[f"{app.name}: {bug}" for app, bug in PLANTED])
def test_a_planted_bug_is_found(app: App, bug: str) -> None:
    is_about_all_runs = app.bugs[bug] == "never happens"
    finding = look_for(app, bug, 20 if is_about_all_runs else RUNS)
    assert finding.runs is not None, f"{RUNS} runs found nothing"


@pytest.mark.parametrize("app", APPS, ids=[app.name for app in APPS])
def test_a_correct_app_passes(app: App) -> None:
    runs = level().runs_per_app
    assert run(app, runs).runs == runs


def test_there_are_as_many_kinds_of_bugs_as_apps_need() -> None:
    kinds = {kind for app in APPS for kind in app.bugs.values()}
    assert len(PLANTED) >= 53
    assert {"race", "tie", "global", "growth", "never happens", "guard", "order of messages"} <= kinds


def test_the_table_of_the_page_has_a_row_for_each_bug_and_says_that_each_is_found() -> None:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (\d+|not found) \| [\d.]+ \|$", page, re.MULTILINE)
    assert [row[:3] for row in rows] == [(app.name, bug, app.bugs[bug]) for app, bug in PLANTED]
    assert all(found.isdecimal() and int(found) <= RUNS for *_, found in rows)

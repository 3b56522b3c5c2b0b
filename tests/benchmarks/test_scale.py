"""`--scale`: curves are judged by their shape, and every case runs; the figures are in docs/benchmarks.md."""

from __future__ import annotations

import msgspec
import pytest
from typer.testing import CliRunner

from benchmarks.command import application
from benchmarks.scale.cases import CASES, Case
from benchmarks.scale.growth import Growth, growth_markdown
from benchmarks.scale.meter import Phase
from tests.processes import ROOT

SMALL = Phase(title="calls", shape="linear", operations=100, seconds=1.0, grown_mib=10.0, holds_all=False)


def growth(small: Phase, **full: object) -> Growth:
    larger = msgspec.structs.replace(small, **{"operations": 1_000, "seconds": 10.0, **full})
    return Growth(small_size=100, small=small, full_size=1_000, full=larger)


def test_a_curve_is_flat_or_linear_or_neither() -> None:
    flat = msgspec.structs.replace(SMALL, shape="flat")
    for expected, one in (
        (True, growth(SMALL)),
        (True, growth(SMALL, seconds=15.0)),
        (False, growth(SMALL, seconds=100.0)),
        (True, growth(flat, seconds=1.1)),
        (False, growth(flat)),
        (True, growth(msgspec.structs.replace(flat, seconds=0.001), seconds=0.1)),  # Too short to tell.
        (False, growth(SMALL, grown_mib=100.0)),
        (True, growth(SMALL, grown_mib=100.0, holds_all=True)),
    ):
        assert one.is_as_it_must_be is expected, one


def test_the_table_has_a_row_for_each_phase() -> None:
    rows = growth_markdown([growth(SMALL), growth(SMALL, seconds=100.0)]).splitlines()
    assert [row.split("|")[-2].strip() for row in rows[2:]] == ["✓", "✗"]
    assert {row.count("|") for row in rows} == {13}


def test_the_page_tells_of_each_case_at_its_full_size() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert [case.name for case in CASES if f"`{case.name}`" not in page] == []
    assert [case.name for case in CASES if f"| {case.full:,} |" not in page] == []


def test_an_unknown_case_is_refused_by_name() -> None:
    refused = CliRunner().invoke(application, ["--scale", "--only", "nonsense"])
    assert refused.exit_code == 2
    assert "nonsense" in refused.output


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_runs(case: Case) -> None:
    done = CliRunner().invoke(application, ["--scale", "--quick", "--markdown", "--only", case.name])
    rows = [
        row for row in done.stdout.splitlines() if row.endswith(("✓ |", "✗ |"))
    ]  # On so little, times tell nothing.
    assert len(rows) >= len(case.lives), done.output

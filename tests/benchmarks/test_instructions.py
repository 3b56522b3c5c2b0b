from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import counted
from benchmarks.command import application
from benchmarks.counted import PARTS, Part
from benchmarks.instructions import Instructions, keep, kept, rises, why_not

BEFORE = Instructions(python="3.11.7", per_call={"calls-1": 100_000, "calls-64": 100_000})


def test_each_part_is_done_between_two_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callgrind's files are told apart by their numbers alone."""
    marks: list[None] = []
    monkeypatch.setattr(counted, "mark", lambda: marks.append(None))
    monkeypatch.setattr(counted, "KEYS", 4)
    monkeypatch.setattr(counted, "WARM_UP_CALLS", 2)
    few = Part(title="few", workload="call", callers=2, calls_each=2)
    monkeypatch.setattr(counted, "PARTS", {"few": few, "also": few})
    try:
        asyncio.run(counted.count(tmp_path, ["few", "also"]))
    finally:
        gc.unfreeze()
    assert len(marks) == 4


def test_only_a_rise_of_more_than_three_percent_is_named() -> None:
    now = Instructions(python="3.11.7", per_call={"calls-1": 102_900, "calls-64": 103_100, "chain-20": 1})
    named = rises(now, BEFORE)
    assert named == ["calls, 64 callers: 103,100 instructions, +3.1% against what is kept."]
    assert rises(BEFORE, now) == []


def test_keeping_some_figures_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    keep(BEFORE, path)
    keep(Instructions(python="3.11.7", per_call={"calls-64": 90_000}), path)
    assert kept(path) == Instructions(python="3.11.7", per_call={"calls-1": 100_000, "calls-64": 90_000})


def test_figures_of_every_part_are_kept() -> None:
    known = kept()
    assert known is not None
    assert [*known.per_call] == [*PARTS]


def test_without_valgrind_the_reason_is_given_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(application, ["--instructions"])
    assert result.exit_code == 0
    assert "valgrind is not installed" in result.output


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason="valgrind is not installed")
def test_instructions_are_counted_and_shown_beside_those_that_are_kept(tmp_path: Path) -> None:
    result = CliRunner().invoke(application, ["--instructions", "--only", "calls-1", "--folder", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert PARTS["calls-1"].title in result.output

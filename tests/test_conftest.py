"""The suite finds the same in every run, and each level tries what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import BRIEF, FULL, LONG, ORDINARY, level
from tests.processes import ROOT

seen: list[int] = []


@given(st.integers())
def note(number: int) -> None:
    seen.append(number)


def test_properties_try_the_same_examples_each_time() -> None:
    if level().is_search:
        pytest.skip("a search was asked for")
    tried: list[list[int]] = []
    for _ in range(2):
        note()
        tried.append(seen[:])
        seen.clear()
    assert tried[0] == tried[1]
    assert len(tried[0]) == level().examples


def test_each_level_tries_at_least_what_the_one_before_does() -> None:
    for less, more in ((BRIEF, ORDINARY), (ORDINARY, FULL), (FULL, LONG)):
        assert all(getattr(less, size) <= getattr(more, size) for size in ("programs", "examples", "kills", "runs"))
        assert less.commit_stride >= more.commit_stride >= 1
    assert FULL.commit_stride == 1


def collected(*arguments: str) -> dict[str, int]:
    """How many tests of each file would run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    counts = (line.rpartition(": ") for line in done.stdout.splitlines() if line.startswith("tests/"))
    return {file: int(count) for file, _, count in counts}


def test_what_is_slow_runs_where_it_was_asked_for() -> None:
    assert collected("tests/test_packaging.py", "tests/typing") == {"tests/test_packaging.py": 6}
    assert [*collected("tests/typing", "--full")] == ["tests/typing/test_typing.py"]


def test_a_search_has_as_much_time_as_it_takes() -> None:
    takes_seconds = "tests/test_conftest.py::test_what_is_slow_runs_where_it_was_asked_for"
    hurried = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0.5"]
    ended = [
        subprocess.run([*hurried, *search, takes_seconds], cwd=ROOT, capture_output=True, text=True, check=False)
        for search in ([], ["--programs", "20"])
    ]
    assert [one.returncode for one in ended] == [1, 0], [one.stderr for one in ended]

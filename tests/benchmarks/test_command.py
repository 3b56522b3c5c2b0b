from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.command import application
from benchmarks.plan import BENCHMARKS


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(application, list(arguments))
    return result.exit_code, result.output


def test_the_benchmarks_are_listed() -> None:
    status, output = run("--list")
    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == [benchmark.name for benchmark in BENCHMARKS]


def test_an_unknown_benchmark_is_refused_by_name() -> None:
    status, output = run("--only", "nonsense")
    assert status == 2
    assert "nonsense" in output


@pytest.mark.parametrize("content", ["{}", "no JSON"])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "earlier.json"
    path.write_text(content)
    status, output = run("--compare", str(path), "--only", "calls-1")
    assert status == 2
    assert "earlier.json" in output.replace("\n", "").replace("│", "").replace(" ", "")


@pytest.mark.slow
def test_a_run_prints_a_table_and_as_json_a_result_that_can_be_compared_with(tmp_path: Path) -> None:
    arguments = ("--only", "calls-1", "--seconds", "0.05", "--repeat", "1", "--folder", str(tmp_path))
    printed = CliRunner().invoke(application, [*arguments, "--json"])
    assert printed.exit_code == 0
    assert "one call, one caller" in printed.stderr
    earlier = tmp_path / "earlier.json"
    earlier.write_text(printed.stdout)
    status, output = run(*arguments, "--compare", str(earlier))
    assert status == 0
    assert "then and now" in output

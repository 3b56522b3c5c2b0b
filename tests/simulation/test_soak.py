"""The soak: thousands of simulated runs on all processors, and a command that says how to repeat what failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import durably
from durably.testing.report import Report
from durably.testing.soak import progress
from durably.testing.soak.command import main
from durably.testing.soak.plan import Plan
from durably.testing.soak.soaking import Total
from tests.levels import level
from workloads import WORKLOADS

SOAK = [sys.executable, "-m", "durably.testing", "soak"]
DIGESTED = 4
"""Runs of each workload whose traces are compared between processes."""
PLANTED = "tests.simulation.planted:workload"


@pytest.mark.slow
def test_thousands_of_runs_with_crashes_find_nothing() -> None:
    runs = level().runs
    done = subprocess.run(
        [*SOAK, "--runs", str(runs), "--seed", "0", "--json"], capture_output=True, text=True, check=False
    )
    told = json.loads(done.stdout)
    assert told["failure"] is None, told["failure"]["account"]
    assert done.returncode == 0
    assert told["runs"] == runs
    assert told["crashes"] > runs / 2
    assert told["actions"] > runs


@pytest.mark.slow
def test_every_workload_is_the_same_to_the_letter_in_any_process() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation.digests", "0", str(DIGESTED), collected_after],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, collected_after in (("1", "700"), ("2", "5"))
    }
    assert len(said) == 1
    digests = [line.split()[-1] for line in said.pop().splitlines()]
    assert len(set(digests)) == len(digests) == DIGESTED * len(WORKLOADS)


@pytest.mark.slow
def test_a_failure_is_repeated_by_the_command_that_it_tells() -> None:
    done = subprocess.run(
        [*SOAK, "--runs", "200", "--jobs", "2", "--seed", "7", "--workload", PLANTED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    command = next(line.removeprefix("Or with: ") for line in done.stdout.splitlines() if line.startswith("Or with: "))
    seed = command.split()[-3]
    assert command == f"python -m durably.testing soak --workload {PLANTED} --seed {seed} --runs 1"
    again = subprocess.run([sys.executable, *command.split()[1:]], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "failed: AssertionError: the page says" in again.stdout
    assert _account(again.stdout) == _account(done.stdout)


def _account(told: str) -> str:
    return told[told.index("The run with seed") : told.index("Or with: ")]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_ends_it_with_the_summary(jobs: str) -> None:
    with subprocess.Popen(
        [*SOAK, "--minutes", "60", "--jobs", jobs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Workloads bank, counters")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.splitlines()[-1].endswith("nothing failed.")


def test_the_summary_can_be_had_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--runs", "3", "--jobs", "1", "--seed", "5", "--workload", "trees", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == 3
    assert told["failure"] is None
    assert told["virtual_seconds"] > 0
    assert main(["soak", "--runs", "200", "--jobs", "1", "--seed", "0", "--workload", PLANTED, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failure"]["workload"] == PLANTED
    assert told["runs"] == told["failure"]["seed"] + 1


def test_it_ends_when_the_time_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--minutes", "0.0001", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 simulated run, ")


def test_bad_input_gets_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for name, sentence in {
        "nobody": "There is no workload 'nobody'. There are bank, counters,",
        "tests.simulation.nothing:workload": "cannot be had: No module named 'tests.simulation.nothing'.",
        "tests.simulation.planted:nothing": "cannot be had: module 'tests.simulation.planted' has no attribute",
        "tests.simulation.planted:program": "is of type function, not a durably.testing.Workload. Write program =",
    }.items():
        assert main(["soak", "--workload", name]) == 2
        assert sentence in capsys.readouterr().err
    for option, value, sentence in [
        ("--runs", "0", "the number of runs is whole and positive, not '0'"),
        ("--jobs", "many", "the number of jobs is whole and positive, not 'many'"),
        ("--minutes", "-1", "the number of minutes is positive, not '-1'"),
        ("--minutes", "nan", "the number of minutes is positive, not 'nan'"),
        ("--seed", "x", "a seed is a whole number from 0, not 'x'"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(["soak", f"{option}={value}"])
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("runs", [1, 5, 32, 33, 100])
def test_workloads_take_turns_and_no_run_comes_twice(runs: int) -> None:
    plan = Plan(workloads=("a", "b", "c"), first_seed=10, runs=runs)
    planned = [(task.workload, seed) for task in plan.tasks() for seed in task.seeds]
    assert len(planned) == len(set(planned)) == runs
    shares = Counter(workload for workload, _ in planned)
    assert max(shares.values()) - min(shares[name] for name in "abc") <= 8
    for name in shares:
        assert sorted(seed for workload, seed in planned if workload == name) == [*range(10, 10 + shares[name])]


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([0.0, 4.0, 11.0, 12.0])
    monkeypatch.setattr(progress, "perf_counter", lambda: next(moments))
    with progress.shown(quiet=False, on_terminal=False) as show:
        for runs in (1, 2, 3):
            show(Total(report=Report(runs=runs)))
    assert capsys.readouterr().out == "... 2 simulated runs, 0 crashes, 0.0 seconds of virtual time\n"


def test_where_durably_is_installed_a_workload_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(durably, "__file__", str(tmp_path / "site-packages" / "durably" / "__init__.py"))
    assert main(["soak", "--runs", "1"]) == 2
    assert "--workload module:attribute" in capsys.readouterr().err
    assert main(["soak", "--runs", "1", "--jobs", "1", "--seed", "2", "--workload", "workloads:WORKLOADS"]) == 2
    assert "is of type dict, not a durably.testing.Workload" in capsys.readouterr().err

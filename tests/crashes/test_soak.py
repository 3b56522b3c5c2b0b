"""A real process with every verb under way at the same time, killed now and then: two minutes with `--full`, an hour
with `--long`, twenty seconds where this file is named.

Nothing that was acknowledged is lost or done twice, nothing is stuck, memory is flat, and in the end state is left and
nothing else. What is done, and much of what is checked, is in `tests/crashes/soaked.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Final

import pytest

from tests.crashes.soaked import CLIENTS, PATIENCE_SECONDS, look_at
from tests.levels import level
from tests.processes import ROOT, environment_with

KILLED_FOR: Final = 0.6
"""The share of the time in which the process is killed again and again. Then it goes on undisturbed."""
LONGEST_LIVES: Final = 8
FLAT_MIB: Final = 24.0
KEPT_TABLES: Final = {"owner", "state"}


@pytest.mark.slow
def test_everything_at_once_loses_nothing_sticks_nowhere_and_leaves_state_only(tmp_path: Path) -> None:
    seconds = level().soak_seconds
    (tmp_path / "lines").touch()
    dice = Random(12)
    run, until_kills, until = 0, time.monotonic() + seconds * KILLED_FOR, time.monotonic() + seconds
    while time.monotonic() < until_kills:
        life = begin(tmp_path, run, seconds)
        time.sleep(1 + dice.random() * seconds / LONGEST_LIVES)
        assert life.poll() is None, output_of(tmp_path, run)
        life.kill()
        life.wait()
        if (tmp_path / "store.db").exists():  # It may have been killed while it started.
            asyncio.run(look_at(tmp_path))
        run += 1
    last = begin(tmp_path, run, until - time.monotonic())
    assert last.wait(seconds + 2 * PATIENCE_SECONDS) == 0, output_of(tmp_path, run)
    check_answers(tmp_path)
    check_memory(tmp_path, run)
    check_rows(tmp_path / "store.db")


def begin(folder: Path, run: int, seconds: float) -> subprocess.Popen[bytes]:
    with (folder / f"output{run}").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crashes.soaked", str(folder), str(run), str(seconds)],
            cwd=ROOT, env=environment_with({}), stdout=output, stderr=output,
        )  # fmt: skip


def output_of(folder: Path, run: int) -> str:
    """The end of it, without what the log tells of each pause."""
    lines = (folder / f"output{run}").read_text().splitlines()
    return "\n".join([line for line in lines if "[error" not in line and "[warning" not in line][-40:])


def check_answers(folder: Path) -> None:
    """Each client has added as often as it was answered, and all that was sent has ended."""
    lines = [line.split(" ") for line in (folder / "lines").read_text().splitlines()]
    added = Counter(int(number) for word, number in lines if word == "added")
    assert (folder / "totals").read_text() == " ".join(str(added[number]) for number in range(CLIENTS))
    assert {id for word, id in lines if word == "sent"} == {id for word, id in lines if word == "ended"}
    assert min(added.values()) > 0


def check_memory(folder: Path, run: int) -> None:
    """In the last life, from its second quarter on."""
    lines = [line.split(" ") for line in (folder / "memory").read_text().splitlines()]
    taken = [figure for number, figure in lines if number == str(run)]
    figures = [float(figure) for figure in taken[: taken.index("over")]]
    quarter = len(figures) // 4
    assert quarter
    grown = fmean(figures[-quarter:]) - fmean(figures[quarter : 2 * quarter])
    assert grown < FLAT_MIB, f"it takes up {grown:.1f} MiB more in the last quarter than in the second"


def check_rows(path: Path) -> None:
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    rows = {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
    services = {service for (service,) in connection.execute("select service from state")}
    connection.close()
    assert rows.keys() > KEPT_TABLES
    assert {name: count for name, count in rows.items() if count and name not in KEPT_TABLES} == {}
    assert services <= {"", "SoakedAccount", "SoakedLimb"}

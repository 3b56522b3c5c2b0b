"""Plain asyncio in handlers replays to the letter, whatever order its answers came in, in this process and in another.

Programs are random; each is run with answers in random order and grouping, then replayed from its bytes by fresh
executions: all of it, and a random prefix from which it goes on. See `asyncio_programs.py` for what they are made of.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.actors.protocol.operations import Operation
from durably.errors import NonDeterminismError
from durably.runtime.execution import execution, loop
from tests.levels import level
from tests.processes import PATIENCE_SECONDS, ROOT, environment_with
from tests.properties.asyncio_programs import BRANCHES, LEAVES, Machine, Op, make_program
from tests.properties.journals import Driver, Journal

IN_ANOTHER_PROCESS = 5
"""One in this many journals is replayed by the child too."""


@pytest.fixture(scope="module")
def driver() -> Driver:
    return Driver(Machine)


def run(driver: Driver, random: Random) -> Journal:
    return driver.live("interpret", msgspec.json.encode(make_program(random)), random)


def test_random_programs_replay_to_the_letter(driver: Driver) -> None:
    for seed in range(level().programs):
        random = Random(seed)
        journal = run(driver, random)
        prefix = random.randint(0, len(journal.steps))
        try:
            driver.check(journal, prefix)
        except Exception as error:
            error.add_note(f"The program is the one of seed {seed}; the prefix has {prefix} steps.")
            raise


@given(random=st.randoms(use_true_random=False))
def test_programs_replay_to_the_letter(random: Random) -> None:
    """The same, in a way that shrinks: to be run when the one above has found something."""
    driver = Driver(Machine)
    journal = run(driver, random)
    driver.check(journal, random.randint(0, len(journal.steps)))


def test_programs_use_everything_that_there_is(driver: Driver) -> None:
    def kinds(op: Op) -> Iterator[str]:
        yield op.kind
        for part in op.parts:
            yield from kinds(part)

    seen = {kind for seed in range(100) for kind in kinds(make_program(Random(seed)))}
    assert seen == {"program", *LEAVES, *BRANCHES}


def test_the_garbage_collector_changes_nothing(driver: Driver) -> None:
    gc.collect()
    gc.freeze()
    advance = execution.Execution.advance

    def collect_and_advance(self: execution.Execution, *args: Any) -> Any:
        gc.collect()
        return advance(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        try:
            for seed in range(30):
                random = Random(seed)
                journal = run(driver, random)
                patch.setattr(execution.Execution, "advance", collect_and_advance)
                driver.check(journal, random.randint(0, len(journal.steps)))
                patch.undo()
        finally:
            gc.unfreeze()


def test_another_process_with_other_hashes_replays_the_same(driver: Driver, tmp_path: Path) -> None:
    path = tmp_path / "journals"
    count = steps = 0
    with path.open("wb") as file:
        for seed in range(0, level().programs, IN_ANOTHER_PROCESS):
            journal = run(driver, Random(seed))
            file.write(msgspec.json.encode(journal) + b"\n")
            count += 1
            steps += len(journal.steps)
    other = "7" if os.environ.get("PYTHONHASHSEED") != "7" else "8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.properties.replay_child", str(path)],
        cwd=ROOT, env=environment_with({"PYTHONHASHSEED": other}), capture_output=True, text=True,
        timeout=PATIENCE_SECONDS * 4, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == f"replayed {count} journals, {steps} steps\n"


def test_with_ordinary_hashes_the_programs_do_not_replay(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what makes the tests above worth something: were hashes forgotten, they would tell."""
    for hashed in (loop.NumberedTask, loop.NumberedFuture, execution.DurableOperation, Operation):
        monkeypatch.setattr(hashed, "__hash__", object.__hash__)
    different = 0
    for seed in range(60):
        random = Random(seed)
        journal = run(driver, random)
        try:
            driver.check(journal, 0)
        except (NonDeterminismError, AssertionError):
            different += 1
    assert different > 5

"""Both type checkers accept right programs and refuse each wrong line, without plugins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = re.compile(r"  # refused: ")
SUPPRESSION = re.compile(r"^# (mypy|type): ignore.*$", re.MULTILINE)

pytestmark = pytest.mark.slow

Checker = Callable[[Path], dict[int, str]]


@pytest.fixture(
    params=["right.py", "wrong.py", "right_models.py", "wrong_models.py", "right_sagas.py", "wrong_sagas.py"]
)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a program, line by line the same but for what keeps a check of the whole project silent."""
    original = HERE / str(request.param)
    copy = tmp_path / original.name
    copy.write_text(SUPPRESSION.sub("#", original.read_text()))
    return copy


def mypy(program: Path) -> dict[int, str]:
    """The lines that mypy refuses, with its words."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
        "--no-error-summary",
    ]
    found = run([*command, program.name], program, {"MYPYPATH": str(ROOT)})
    errors = [line.partition(": error: ") for line in found.splitlines() if ": error: " in line]
    return {int(place.split(":")[1]): words for place, _, words in errors}


def pyright(program: Path) -> dict[int, str]:
    """The lines that pyright refuses in strict mode, with its words."""
    settings = {"include": [program.name], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    output = json.loads(run(command, program, {}))
    assert output["summary"]["filesAnalyzed"] == 1
    errors = [one for one in output["generalDiagnostics"] if one["severity"] == "error"]
    return {one["range"]["start"]["line"] + 1: one["message"] for one in errors}


def run(command: list[str], program: Path, environment: dict[str, str]) -> str:
    settings = {**os.environ, **environment}
    return subprocess.run(command, cwd=program.parent, env=settings, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_marked_lines_are_refused_and_no_others(checker: Checker, program: Path) -> None:
    lines = program.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if MARK.search(line)}
    refused = checker(program)
    assert {number: lines[number - 1] for number in sorted(marked - refused.keys())} == {}
    assert {number: refused[number] for number in sorted(refused.keys() - marked)} == {}
    assert bool(marked) == program.name.startswith("wrong")

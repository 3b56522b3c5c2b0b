"""Both type checkers accept right programs and refuse each wrong line, without plugins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = re.compile(r"  # refused: ")
SUPPRESSION = re.compile(r"^# (mypy|type): ignore.*$", re.MULTILINE)

pytestmark = pytest.mark.slow

Place = tuple[str, int]
"""A file and a line of it."""
Checker = Callable[[Path, Sequence[str]], dict[Place, str]]

PROGRAMS = ["right.py", "wrong.py", "right_models.py", "wrong_models.py", "right_sagas.py", "wrong_sagas.py"]


def mypy(folder: Path, programs: Sequence[str]) -> dict[Place, str]:
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
    found = run([*command, *programs], folder, {"MYPYPATH": str(ROOT)})
    errors = [line.partition(": error: ") for line in found.splitlines() if ": error: " in line]
    return {(place.split(":")[0], int(place.split(":")[1])): words for place, _, words in errors}


def pyright(folder: Path, programs: Sequence[str]) -> dict[Place, str]:
    """The lines that pyright refuses in strict mode, with its words."""
    settings = {"include": [*programs], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    output = json.loads(run(command, folder, {}))
    assert output["summary"]["filesAnalyzed"] == len(programs)
    errors = [one for one in output["generalDiagnostics"] if one["severity"] == "error"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"] for one in errors}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    settings = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_marked_lines_are_refused_and_no_others(checker: Checker, tmp_path: Path) -> None:
    lines: dict[Place, str] = {}
    for name in PROGRAMS:
        # The same line by line, but for what keeps a check of the whole project silent.
        text = SUPPRESSION.sub("#", (HERE / name).read_text())
        (tmp_path / name).write_text(text)
        lines.update({(name, number): line for number, line in enumerate(text.splitlines(), 1)})
    marked = {place for place, line in lines.items() if MARK.search(line)}
    refused = checker(tmp_path, PROGRAMS)
    assert {place: lines[place] for place in sorted(marked - refused.keys())} == {}
    assert {place: refused[place] for place in sorted(refused.keys() - marked)} == {}
    assert {name for name, _ in marked} == {name for name in PROGRAMS if name.startswith("wrong")}

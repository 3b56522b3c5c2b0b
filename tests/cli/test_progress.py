"""What is for eyes alone: bars on a terminal, and colours unless `NO_COLOR` is set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from enum import StrEnum
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from durably.cli import progress
from durably.cli.progress import bars_of
from tests.processes import PATIENCE_SECONDS, environment_with

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")


class Work(StrEnum):
    READING = "reading"
    WRITING = "writing"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_work_is_told_by_bars_on_a_terminal_and_by_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    told = StringIO()

    def console(*, stderr: bool) -> Console:
        assert stderr, "stdout is for data"
        return Console(file=told, force_terminal=is_terminal, width=80)

    monkeypatch.setattr(progress, "Console", console)
    with bars_of({Work.READING: "Reading", Work.WRITING: "Writing"}) as progressed:
        progressed(Work.READING, 30, 40)
    if is_terminal:
        assert re.search(r"Reading .* 75%", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", told.getvalue()))
    else:
        assert told.getvalue().strip() == ""
    assert "Writing" not in told.getvalue(), "a stage that has not begun has no bar"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_colours_are_for_terminals_without_no_color(tmp_path: Path) -> None:
    coloured = on_a_terminal(tmp_path, {})
    plain = on_a_terminal(tmp_path, {"NO_COLOR": "1"})
    assert "Usage" in coloured
    assert "Usage" in plain
    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)


def on_a_terminal(folder: Path, environment: dict[str, str]) -> str:
    """What `durably --help` shows there."""
    ours, theirs = os.openpty()
    inherited = {name: value for name, value in environment_with({}).items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with open(ours, "rb", closefd=True) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "durably", "--help"], cwd=folder, stdout=theirs, stderr=theirs,
            env=inherited | {"TERM": "xterm-256color"} | environment,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while portion := os.read(screen.fileno(), 65_536):
                shown += portion
        except OSError:  # The process has ended, and nobody holds the other side any more.
            pass
        assert process.wait(PATIENCE_SECONDS) == 0
    return shown.decode()

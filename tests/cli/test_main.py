from __future__ import annotations

import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durably.cli import main
from tests.processes import ROOT, environment_with

pytestmark = pytest.mark.usefixtures("process_as_it_was")


def find_nothing(name: str) -> None:
    """Nothing is installed."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["durably", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return ended.value.code


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert re.match(r"durably (\d+\.\d+\.\d+|\(from a source tree, not installed\))\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "command", [["-m", "durably"], ["-m", "durably.cli"], ["-c", "import _durably_command as c; c.main()"]]
)
def test_the_version_needs_no_import_of_the_package(tmp_path: Path, command: list[str]) -> None:
    """What takes a while is not even looked for, so the answer is there at once."""
    (tmp_path / "msgspec.py").write_text("raise RuntimeError")
    (tmp_path / "typer.py").write_text("raise RuntimeError")
    ended = subprocess.run(
        [sys.executable, *command, "--version"], env=environment_with({"PYTHONPATH": f"{tmp_path}:{ROOT}"}),
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("durably ")


@pytest.mark.parametrize("module", ["durably", "durably.cli"])
def test_python_m_is_the_command(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["durably", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("durably ")
    monkeypatch.setattr(main, "find_spec", find_nothing)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 1
    assert "pip install 'durably[cli,http]'" in capsys.readouterr().err


def test_missing_extras_are_a_sentence_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "find_spec", find_nothing)
    assert run(monkeypatch, "serve", "app:runtime") == 1
    said = capsys.readouterr().err
    assert "pip install 'durably[cli,http]'" in said
    assert said.count("\n") == 1


def test_a_mistake_is_a_sentence_and_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "serve", "no.such.thing:runtime") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("There is no module named 'no'")
    assert "Traceback" not in said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command", [["-m", "durably"], ["-m", "durably.cli"], ["-c", "import _durably_command as c; c.main()"]]
)
def test_a_signal_while_the_command_is_imported_ends_it_quietly(
    tmp_path: Path, command: list[str], number: signal.Signals
) -> None:
    """The signal comes when the first module is imported that is no part of Python itself."""
    (tmp_path / "msgspec.py").write_text(f"import signal; signal.raise_signal({number.value})")
    ended = subprocess.run(
        [sys.executable, *command, "--help"], env=environment_with({"PYTHONPATH": f"{tmp_path}:{ROOT}"}),
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "", "")

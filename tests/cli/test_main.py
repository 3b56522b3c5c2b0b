from __future__ import annotations

import re
import runpy
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from _durably_command import print_version
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


@pytest.mark.parametrize("command", [["-m", "durably"], ["-c", "import _durably_command as c; c.main()"]])
def test_the_version_imports_a_little_of_the_standard_library_alone(command: list[str]) -> None:
    """The figure in docs/operations.md rests on that: what is imported takes the time."""
    added = modules_imported_by(*command, "--version") - modules_imported_by("-c", "pass")
    ours = {name for name in added if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours <= {"_durably_command", "durably"}
    assert "_durably_command" in added
    slow = {"asyncio", "email", "http", "importlib.metadata", "logging", "sqlite3", "ssl", "subprocess", "zipfile"}
    assert added & slow == set()


def test_the_version_is_that_of_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_version()
    assert capsys.readouterr().out == f"durably {version('durably')}\n"
    (tmp_path / "durably-7.0.dev1+here.dist-info").mkdir()
    (tmp_path / "durably_other-8.dist-info").mkdir()
    for path, told in (
        ([str(tmp_path / "none"), str(tmp_path), *sys.path], "7.0.dev1+here"),
        ([], "(from a source tree, not installed)"),
    ):
        monkeypatch.setattr(sys, "path", path)
        print_version()
        assert capsys.readouterr().out == f"durably {told}\n"


def modules_imported_by(*command: str) -> set[str]:
    """The modules that Python imports for a program, those of its own start too."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", *command], env=environment_with({}), capture_output=True, text=True,
        check=True,
    ).stderr  # fmt: skip
    return {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")}


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

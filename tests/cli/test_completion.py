"""The shells complete commands, options and statuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from durably.cli.commands import run
from tests.processes import PATIENCE_SECONDS, environment_with


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("durably inv", {"invocations"}),
        ("durably invocations re", {"restart", "restart-as-new", "resume"}),
        ("durably invocations list --st", {"--status", "--store"}),
        ("durably invocations list --status pa", {"paused"}),
        ("durably journal -o y", {"yaml"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_typed_is_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str, typed: str, completed: set[str]
) -> None:
    words = typed.split(" ")
    monkeypatch.setattr("sys.argv", ["durably"])
    monkeypatch.setenv("_DURABLY_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", typed)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_WORD_TO_COMPLETE", words[-1])
    with pytest.raises(SystemExit):
        run()
    told = capsys.readouterr().out
    found = set(re.findall(r"-*\w[\w-]*", told))
    assert completed <= found
    assert "deployments" not in found


IN_SHELLS = {
    "bash": (
        'eval "$(durably --show-completion)"; COMP_WORDS=({words}); COMP_CWORD={last}; '
        '_durably_completion durably; printf "%s\\n" "${{COMPREPLY[@]}}"'
    ),
    "fish": 'durably --show-completion | source; complete -C "{words}"',
}
"""How each is asked for what it would complete."""


@pytest.mark.slow
@pytest.mark.parametrize("shell", IN_SHELLS)
def test_a_shell_that_is_here_completes_by_what_the_command_shows(shell: str, tmp_path: Path) -> None:
    if which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    words = "durably invocations re"
    (tmp_path / "durably").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m durably "$@"\n', "utf-8")
    (tmp_path / "durably").chmod(0o755)
    environment = environment_with({"HOME": str(tmp_path)})
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    told = subprocess.run(
        [shell, "-c", IN_SHELLS[shell].format(words=words, last=len(words.split()) - 1)], env=environment,
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert {line.split()[0] for line in told.stdout.splitlines()} == {"resume", "restart", "restart-as-new"}, told

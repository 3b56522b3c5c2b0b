"""The shells complete commands, options and statuses."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
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
    environment = environment_of_shells(tmp_path)
    told = subprocess.run(
        [shell, "-c", IN_SHELLS[shell].format(words=words, last=len(words.split()) - 1)], env=environment,
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert {line.split()[0] for line in told.stdout.splitlines()} == {"resume", "restart", "restart-as-new"}, told


def environment_of_shells(folder: Path) -> dict[str, str]:
    """In which this `durably` is found, and no settings of a person are."""
    (folder / "durably").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m durably "$@"\n', "utf-8")
    (folder / "durably").chmod(0o755)
    environment = environment_with({"HOME": str(folder), "ZDOTDIR": str(folder), "TERM": "dumb"})
    return {**environment, "PATH": f"{folder}:{environment['PATH']}"}


@pytest.mark.slow
def test_the_tab_key_of_a_zsh_that_is_here_completes(tmp_path: Path) -> None:
    """An interactive zsh alone completes, so one is given a terminal."""
    shell = which("zsh")
    if shell is None:
        pytest.skip("there is no zsh here")
    import pty

    (tmp_path / ".zshrc").write_text(
        'autoload -Uz compinit; compinit -u\neval "$(durably --show-completion)"\nPS1="ready> "\n', "utf-8"
    )
    environment = environment_of_shells(tmp_path)
    ours, its = pty.openpty()
    try:
        with subprocess.Popen(
            [shell, "-i"], env=environment, cwd=tmp_path, stdin=its, stdout=its, stderr=its, start_new_session=True
        ) as running:
            try:
                os.close(its)
                typed_until(ours, "", "ready> ")
                typed_until(ours, "durably invocations re\t", "res")  # What all of them begin with.
                told = typed_until(ours, "\t", "resume ", "restart ", "restart-as-new ")
                assert "pause " not in told
            finally:
                running.kill()  # An interactive one does not mind SIGTERM.
    finally:
        os.close(ours)


def typed_until(terminal: int, typed: str, *expected: str) -> str:
    """What the terminal shows after it, once all of that is there."""
    os.write(terminal, typed.encode())
    told, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    while not all(one.encode() in told for one in expected):
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], told
        told += os.read(terminal, 4096)
    return told.decode()

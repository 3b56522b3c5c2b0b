"""The shells complete commands, options and statuses."""

from __future__ import annotations

import re

import pytest

from durably.cli.commands import run


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

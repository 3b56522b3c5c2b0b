from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from durably.cli.examples import examples_folder, serve_command
from durably.cli.failures import CommandError
from durably.cli.loading import load_runtime

TARGET = "examples.tickets:runtime"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, from which no examples can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "examples"]:
        monkeypatch.delitem(sys.modules, name)


def test_beside_the_examples_the_command_needs_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(examples_folder())
    assert serve_command(TARGET).endswith(f" serve {TARGET}")
    assert "PYTHONPATH" not in serve_command(TARGET)


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_the_command_says_where_they_are() -> None:
    path, *command = shlex.split(serve_command(TARGET, "--port", "0"))
    assert path == f"PYTHONPATH={examples_folder()}"
    assert command[-4:] == ["serve", TARGET, "--port", "0"]


def test_a_command_that_is_not_on_the_path_is_told_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here, other):
        folder.mkdir()
        (folder / "durably").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    for on_the_path, told in ((here, "durably"), (other, str(here / "durably")), (tmp_path, str(here / "durably"))):
        monkeypatch.setenv("PATH", str(on_the_path))
        assert f"{told} serve {TARGET}" in serve_command(TARGET)
    (here / "durably").unlink()
    assert f"{here / 'python'} -m durably serve {TARGET}" in serve_command(TARGET)


@pytest.mark.usefixtures("elsewhere")
def test_whoever_serves_an_example_outside_a_checkout_is_told_how() -> None:
    with pytest.raises(CommandError) as refused:
        load_runtime(TARGET)
    assert str(refused.value).endswith(serve_command(TARGET))
    with pytest.raises(CommandError, match="PYTHONPATH") as refused:
        load_runtime("examples.nothing:runtime")
    assert "durably serve" not in str(refused.value)

"""Each command, wherever it is run: it ends with a documented status, and says in a sentence what is wrong."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from durably.cli.commands import application, run
from tests.cli.test_output_schemas import commands
from tests.processes import PATIENCE_SECONDS, environment_with, free_port

COMMANDS = dict(commands(get_command(application)))
SHOWS = {"demo"}
"""It asks for nothing that could be wrong, and takes seconds."""
ARGUMENTS = {"dev": ["--no-reload"], "mcp": ["--store", "sqlite:///app.db"]}
"""Without these, they wait for a change, or for an assistant."""
DOCUMENTED = {0, 1, 2, 3}
PLACES = {
    "nothing": {},
    "no TOML": {"durably.toml": b"[store"},
    "an unknown key": {"durably.toml": b"[store]\nulr = 'sqlite:///app.db'"},
    "no database": {"durably.toml": b"[store]\nurl = 'sqlite:///app.db'", "app.db": b"\0what is this? " * 500},
    "an empty file": {"durably.toml": b"[store]\nurl = 'sqlite:///app.db'", "app.db": b""},
    "no store": {"durably.toml": b"[store]\nurl = 'postgres:/nowhere'"},
    "no codec": {"durably.toml": b"[store]\nurl = 'sqlite:///app.db'\ncodec = 'nothing:here'"},
}


@pytest.mark.slow
@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - SHOWS))
def test_no_command_ends_with_a_traceback(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for file, content in PLACES[place].items():
        (tmp_path / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("DURABLY_ADMIN_PORT", str(free_port()))
    monkeypatch.setattr("sys.argv", ["durably", *name.split(), *ARGUMENTS.get(name, []), *required_by(COMMANDS[name])])
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(SystemExit) as ended:
            run()
    out, err = capfd.readouterr()
    status = ended.value.code or 0
    assert status in DOCUMENTED
    assert "Traceback" not in out + err
    assert err or not status, "a failure says what is wrong"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["--version", "config show", "mcp --store sqlite:///app.db"])
def test_a_standard_stream_that_is_closed_leads_nowhere(tmp_path: Path, arguments: str, closed: str) -> None:
    (tmp_path / "durably.toml").write_text("[store]\nurl = 'memory:'", "utf-8")
    ended = subprocess.run(
        f"{shlex.quote(sys.executable)} -m durably {arguments} {closed}", shell=True, stdin=subprocess.DEVNULL,
        cwd=tmp_path, env=environment_with({}), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert bool(ended.stdout) is (">&-" not in closed.replace("2>&-", "") and not arguments.startswith("mcp"))


def required_by(command: Any) -> list[str]:
    """A word for each argument that has to be given. It names nothing that there is."""
    return ["nowhere" for one in command.params if one.param_type_name == "argument" and one.required]

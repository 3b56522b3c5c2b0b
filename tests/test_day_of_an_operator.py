"""docs/operations.md tells a day of an operator: its commands, run in order, say what stands below them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import which

import pytest

from durably.cli.commands import run
from tests.processes import PATIENCE_SECONDS, ROOT, ServerProcess, environment_with, eventually, free_port

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
(DAY,) = re.findall(r"^## A day of an operator\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
LOOKS = r"durably (services|invocations list|state get)"
FAILS = ' || echo "ends with $?"'


class Site:
    """The folder of the shop, its server, and the shell of its operator."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        self._port, self._admin_port = free_port(), free_port()
        self._environment = {"DURABLY_SERVER_PORT": str(self._port), "DURABLY_ADMIN_PORT": str(self._admin_port)}
        self._server: ServerProcess | None = None
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        for name, value in self._environment.items():
            monkeypatch.setenv(name, value)

    def run(self, command: str) -> str:
        """What a command says, on stdout and stderr."""
        if command.startswith("systemctl "):
            return self._systemctl(command.split()[1])
        if not command.startswith("durably "):
            return self._shell(command)
        asked = re.sub(r"\$\((.*?)\)", lambda one: self._durably(one[1])[1].strip(), command.removesuffix(FAILS))
        status, out, err = self._durably(asked)
        assert (status == 0) is not command.endswith(FAILS), f"{command}\n{err}"
        assert "Traceback" not in out + err or "durably debug" in command
        return f"{out}{err}ends with {status}"

    def _systemctl(self, verb: str) -> str:
        self.stop()
        if verb != "stop":
            serve = [sys.executable, "-m", "durably.cli", "serve"]
            self._server = ServerProcess(serve, cwd=self._folder, environment=self._environment)
        return ""

    def _shell(self, command: str) -> str:
        for shown, port in (("localhost:8080", self._port), ("localhost:9070", self._admin_port)):
            command = command.replace(shown, f"localhost:{port}")
        done = subprocess.run(
            ["bash", "-c", command], cwd=self._folder, env=environment_with({}), capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, check=True,
        )  # fmt: skip
        return done.stdout

    def _durably(self, command: str) -> tuple[int | str | None, str, str]:
        self._monkeypatch.setattr("sys.argv", shlex.split(command))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        sys.modules.pop("shop", None)  # The next command reads it anew.
        out, err = self._capsys.readouterr()
        return ended.value.code or 0, out, err

    def stop(self) -> None:
        """As systemd does, if it runs."""
        if self._server is not None:
            self._server.stop()
            self._server.end()
            self._server = None


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    (program,) = re.findall(r"```python\n(.*?)```", DAY, re.DOTALL)
    (tmp_path / "shop.py").write_text(program, "utf-8")
    found = Site(tmp_path, monkeypatch, capsys)
    yield found
    found.stop()


@pytest.mark.slow
def test_a_day_of_an_operator_goes_as_it_is_told(site: Site) -> None:
    for command, *expected in steps():
        if re.match(LOOKS, command):  # What they look for may take a moment.
            assert eventually(partial(is_told, site, command, expected)), f"{command}\n{site.run(command)}"
        else:
            said = site.run(command)
            assert missing(expected, said) == [], said


def steps() -> Iterator[list[str]]:
    """Each command, followed by the lines that stand below it."""
    told = "\n".join(re.findall(r"```console\n(.*?)```", DAY, re.DOTALL))
    for step in re.split(r"^\$ ", told, flags=re.MULTILINE)[1:]:
        yield [line for line in step.splitlines() if line]


def is_told(site: Site, command: str, expected: list[str]) -> bool:
    return missing(expected, site.run(command)) == []


def missing(expected: list[str], said: str) -> list[str]:
    """The lines that are not in what was said, where `...` stands for anything."""
    return [line for line in expected if re.search(pattern_of(line), said) is None]


def pattern_of(line: str) -> str:
    return ".*".join(r"\s+".join(map(re.escape, part.split())) for part in line.split("..."))


@pytest.mark.slow
def test_the_image_serves_is_healthy_and_stops_by_its_own_words(tmp_path: Path) -> None:
    """Its variables, command, health check and signal, without a container."""
    image = (ROOT / "docs" / "deploy" / "Containerfile").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", DAY, re.DOTALL)
    (tmp_path / "shop.py").write_text(program, "utf-8")
    (tmp_path / "durably.toml").write_text('[server]\ntarget = "shop:runtime"\n[admin]\n', "utf-8")
    (tmp_path / "data").mkdir()
    variables = dict(one.split("=", 1) for one in shlex.split(only(r"^ENV (.*)$", image)))
    variables["DURABLY_STORE_URL"] = variables["DURABLY_STORE_URL"].replace("/data", f"{tmp_path}/data")
    port, admin_port = free_port(), free_port()
    here = {"DURABLY_SERVER_HOST": "127.0.0.1", "DURABLY_SERVER_PORT": f"{port}", "DURABLY_ADMIN_PORT": f"{admin_port}"}
    name, *arguments = json.loads(only(r"^CMD (.*)$", image))
    check = [sys.executable, *json.loads(only(r"^HEALTHCHECK CMD (.*)$", image).replace("9070", f"{admin_port}"))[1:]]
    assert name == "durably"
    server = ServerProcess(
        [sys.executable, "-m", "durably.cli", *arguments], cwd=tmp_path, environment=variables | here
    )
    try:
        assert subprocess.run(check, check=False, timeout=PATIENCE_SECONDS).returncode == 0
        assert (tmp_path / "data" / "shop.db").exists()
        server.process.send_signal(getattr(signal, only(r"^STOPSIGNAL (.*)$", image)))
        assert server.process.wait(PATIENCE_SECONDS) == 0
    finally:
        server.end()
    assert subprocess.run(check, check=False, timeout=PATIENCE_SECONDS, capture_output=True).returncode != 0


@pytest.mark.skipif(which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_has_no_complaint_about_the_unit(tmp_path: Path) -> None:
    unit = (ROOT / "docs" / "deploy" / "shop.service").read_text("utf-8")
    there = tmp_path / "shop.service"
    there.write_text(unit.replace(only(r"^ExecStart=(\S+)", unit), sys.executable), "utf-8")
    said = subprocess.run(
        ["systemd-analyze", "verify", there], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert [line for line in said.stderr.splitlines() if "shop.service" in line] == []


@pytest.mark.skipif(which("systemd-analyze") is None, reason="there is no systemd here")
def test_the_unit_gives_the_server_little_of_the_machine(tmp_path: Path) -> None:
    unit = tmp_path / "shop.service"
    shutil.copy(ROOT / "docs" / "deploy" / "shop.service", unit)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    if "overall exposure" not in said.stdout.lower():
        pytest.skip("this systemd does not look at units that are not loaded")
    assert re.search(r"Overall exposure level for shop.service: [0-4]\.\d", said.stdout), said.stdout


HADOLINT = which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.mark.skipif(HADOLINT is None, reason="there is no hadolint here")
def test_hadolint_has_no_complaint_about_the_containerfile() -> None:
    said = subprocess.run(
        [str(HADOLINT), "--no-color", ROOT / "docs" / "deploy" / "Containerfile"],
        check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert (said.returncode, said.stdout) == (0, "")


def only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return str(found)


def test_the_files_beside_it_start_the_server_as_it_is_started() -> None:
    unit = (ROOT / "docs" / "deploy" / "shop.service").read_text("utf-8")
    image = (ROOT / "docs" / "deploy" / "Containerfile").read_text("utf-8")
    assert re.search(r"^ExecStart=\S+/durably serve --json-logs$", unit, re.MULTILINE)
    assert 'CMD ["durably", "serve", "--json-logs"]' in image
    assert all("Untried" in text.splitlines()[0] for text in (unit, image))

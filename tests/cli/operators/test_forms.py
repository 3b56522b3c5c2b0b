"""Each command that prints data prints it as a table, JSON, YAML and names: of a server, and of a store's file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
import pytest

from durably import Runtime
from durably.cli.operators.output import Format
from durably.codecs import CompressionCodec
from durably.storage.postgres import moving
from tests.cli.operators.conftest import PATIENCE_SECONDS, Command, Counter, Mailer, Site
from tests.cli.output_schemas import SCHEMAS, assert_fits

FINDINGS = {"doctor", "check"}
"""Where nothing is wrong, nothing has a name."""
HERE = "tests.cli.operators.test_forms"
NUMBERS = count()

pytestmark = pytest.mark.slow


def program() -> Runtime:
    return Runtime("memory:", [Counter, Mailer])


def codec() -> CompressionCodec:
    return CompressionCodec()


@dataclass(frozen=True)
class Place:
    """A server, the file of its store, and an invocation in both."""

    site: Site
    store: str
    folder: Path
    sleeping: str
    number: int = field(default_factory=lambda: next(NUMBERS))

    def new(self, name: str) -> str:
        return str(self.folder / f"{self.number}-{name}")

    def suspended(self) -> str:
        id = self.site.send(f"/Counter/form{self.number}/wait")
        self.site.until(id, "suspended")
        return id

    def paused(self) -> str:
        id = self.suspended()
        self._patch(id, "pause")
        self.site.until(id, "paused")
        return id

    def ended(self) -> str:
        id = self.suspended()
        self._patch(id, "kill")
        self.site.until(id, "completed")
        return id

    def object(self) -> str:
        self.site.post(f"/Counter/form{self.number}/add", 1)
        return f"Counter/form{self.number}"

    def copy(self) -> str:
        """Of the store, which no runtime uses."""
        path = self.new("copy.db")
        shutil.copy(self.store.removeprefix("sqlite:///"), path)
        return f"sqlite:///{path}"

    def _patch(self, id: str, verb: str) -> None:
        httpx.patch(f"{self.site.admin}/invocations/{id}/{verb}", timeout=PATIENCE_SECONDS).raise_for_status()


Arguments = Callable[[Place], list[str]]
ASKED: dict[str, Arguments] = {
    "invocations list": lambda at: ["Counter"],
    "invocations describe": lambda at: [at.sleeping],
    "journal": lambda at: [at.sleeping],
    "why": lambda at: [at.sleeping],
    "services list": lambda at: [],
    "services describe": lambda at: ["Counter"],
    "services status": lambda at: [],
    "state get": lambda at: ["Counter", "formed"],
    "kv get": lambda at: ["Counter/formed"],
    "sql": lambda at: ["select id, status from sys_invocation"],
}
"""Of a server and of a file."""
OF_A_SERVER: dict[str, Arguments] = {
    "deployments": lambda at: [],
    "invocations cancel": lambda at: [at.suspended(), "-y"],
    "invocations kill": lambda at: [at.suspended(), "-y"],
    "invocations pause": lambda at: [at.suspended(), "-y"],
    "invocations resume": lambda at: [at.paused(), "-y"],
    "invocations restart": lambda at: [at.paused(), "-y"],
    "invocations restart-as-new": lambda at: [at.ended(), "-y"],
    "invocations purge": lambda at: [at.ended(), "-y"],
    "invocations purge-journal": lambda at: [at.ended(), "-y"],
    **{f"{group} edit": lambda at: [at.object(), "-y"] for group in ("state", "kv")},
    **{
        f"{group} patch": lambda at: [at.object(), "-y", "-p", '[{"op": "add", "path": "/note", "value": "new"}]']
        for group in ("state", "kv")
    },
    **{f"{group} clear": lambda at: [at.object(), "-y"] for group in ("state", "kv")},
}
OF_A_FILE: dict[str, Arguments] = {
    "doctor": lambda at: [at.store],
    "check": lambda at: [f"{HERE}:program", "--store", at.store],
    "backup": lambda at: [at.new("backup.db"), "--store", at.store],
    "export": lambda at: [at.new("export.jsonl"), "--store", at.store],
    "export-test": lambda at: [
        at.sleeping, f"{HERE}:program", "--store", at.store, "--output", at.new("tests"),
    ],
    "export-journals": lambda at: ["--store", at.store, "--output", at.new("journals")],
}  # fmt: skip
"""Of a file, which may be in use."""
OF_A_STOPPED_FILE: dict[str, Arguments] = {
    "import": lambda at: [str(at.folder / "export.jsonl"), "--store", f"sqlite:///{at.new('import.db')}"],
    "encrypt": lambda at: ["--store", at.copy(), "--codec", f"{HERE}:codec"],
    "decrypt": lambda at: ["--store", at.copy(), "--codec", f"{HERE}:codec"],
    "move": lambda at: [at.store, "postgresql://ann:hush@localhost/shop"],
    "config show": lambda at: [],
}


@pytest.fixture(scope="module")
def known(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("forms")
    site.post("/Counter/formed/add", 5)
    sleeping = site.send("/Counter/form-sleeper/wait")
    site.until(sleeping, "suspended")
    return Place(site, site.store, folder, sleeping)


@pytest.fixture
def stopped(known: Place, command: Command) -> Place:
    """The same in a store that no runtime uses."""
    path, export = known.folder / "stopped.db", known.folder / "export.jsonl"
    if not path.exists():
        assert command("backup", str(path), "--store", known.store).status == 0
        assert command("export", str(export), "--store", known.store).status == 0
    return Place(known.site, f"sqlite:///{path}", known.folder, known.sleeping)


def assert_each_form(command: Command, name: str, arguments: Callable[[], list[str]]) -> None:
    for form in Format:
        option = "--json" if form is Format.JSON else f"-o{form}"
        told = command(*name.split(), *arguments(), option)
        assert told.status == 0, told.err
        lines = told.out.splitlines()
        assert lines or (form is Format.NAME and name in FINDINGS)
        if form is Format.JSON:
            assert_fits(name, told.data)
        elif form is Format.YAML:
            assert_fits(name, msgspec.yaml.decode(told.out))
        elif form is Format.NAME:
            assert all(line and line == line.strip() and line[0] not in '{["' for line in lines)
        else:
            assert all(line == line.rstrip() for line in lines)
        assert "hush" not in told.out + told.err


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_has_each_form_at_a_server_and_of_a_stopped_file(
    name: str, known: Place, stopped: Place, command: Command
) -> None:
    assert_each_form(command, name, lambda: [*ASKED[name](known), "--admin", known.site.admin])
    for at in (known, stopped):
        assert_each_form(command, name, lambda at=at: [*ASKED[name](at), "--store", at.store])  # type: ignore[misc]


@pytest.mark.parametrize("name", OF_A_SERVER)
def test_what_is_done_by_a_server_has_each_form(
    name: str, known: Place, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(text: str, **_: Any) -> str:
        return text.replace('"count": 1', '"count": 7')

    monkeypatch.setattr(click, "edit", edited)

    def arguments() -> list[str]:
        at = Place(known.site, known.store, known.folder, known.sleeping)
        return [*OF_A_SERVER[name](at), "--admin", known.site.admin]

    assert_each_form(command, name, arguments)


@pytest.mark.parametrize("name", [*OF_A_FILE, *OF_A_STOPPED_FILE])
def test_what_is_done_with_a_file_has_each_form(
    name: str, known: Place, stopped: Place, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_: object, **__: object) -> moving.Moved:
        return moving.Moved({"state": 1}, "0" * 64)

    monkeypatch.setattr(moving, "move", moved)
    (tmp_path / "durably.toml").write_text("[store]\nurl = 'postgresql://ann:hush@localhost/shop'", "utf-8")
    scenarios = OF_A_FILE | OF_A_STOPPED_FILE
    for at in (stopped, *([known] if name in OF_A_FILE else [])):

        def arguments(at: Place = at) -> list[str]:
            return scenarios[name](Place(at.site, at.store, at.folder, at.sleeping))

        assert_each_form(command, name, arguments)


def test_each_command_that_prints_data_is_among_them() -> None:
    assert SCHEMAS["commands"].keys() == ASKED.keys() | OF_A_SERVER.keys() | OF_A_FILE.keys() | OF_A_STOPPED_FILE.keys()

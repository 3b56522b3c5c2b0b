"""Each command ends with a status of the table in docs/operations.md, and for the reason that stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from durably import ObjectContext, Runtime, VirtualObject, handler, state
from durably.cli.commands import application
from durably.cli.operators.invocations import Act
from tests.cli.operators.conftest import Command, Counter, Mailer, Site
from tests.cli.test_no_tracebacks import ARGUMENTS, required_by
from tests.cli.test_output_schemas import commands
from tests.doctor.test_doctor import damage
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
(TABLE,) = re.findall(r"^\| the command ends with \| where \|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
DOCUMENTED = {
    int(status): where
    for row in TABLE.splitlines()
    for statuses, where in [row.strip("| ").split(" | ", 1)]
    for status in statuses.split(", ")
}
COMMANDS = dict(commands(get_command(application)))
HERE = "tests.cli.operators.test_exit_codes"
NEED_NOTHING = {"config show", "new", "mcp"}
"""They succeed in an empty folder. (So does `demo`, in seconds.)"""
INTERRUPTED_IN = {
    "doctor": "durably.cli.doctor.examine",
    "check": "durably.cli.check.check_store",
    "backup": "durably.cli.transfer.back_up",
    "export": "durably.cli.transfer.export_store",
    "export-journals": "durably.cli.export_journals.export_journals",
    "export-test": "durably.cli.journals.journal_with_id",
    "debug": "durably.cli.journals.continue_with",
}
"""What takes their time."""


pytestmark = pytest.mark.slow


def without_counter() -> Runtime:
    return Runtime("memory:", [Mailer])


def without_sleep() -> Runtime:
    return Runtime("memory:", [other_counter(), Mailer])


def program() -> Runtime:
    return Runtime("memory:", [Counter, Mailer])


def other_counter() -> type[VirtualObject]:
    class Counter(VirtualObject):
        count: int = state(default=0)

        @handler
        async def wait(self, ctx: ObjectContext) -> None:
            raise LookupError("nothing to wait for")

    return Counter


@pytest.fixture(scope="module")
def sleeping(site: Site) -> str:
    id = site.send("/Counter/ends/wait")
    site.until(id, "suspended")
    return id


@pytest.fixture
def stopped(site: Site, sleeping: str, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that no runtime uses."""
    path = tmp_path_factory.getbasetemp() / "ends.db"
    if not path.exists():
        assert command("backup", str(path), "--store", site.store).status == 0
    return path


def test_the_table_is_read() -> None:
    assert DOCUMENTED.keys() == {0, 1, 2, 3, 130, 143}
    assert set(re.findall(r"`([a-z]+)", DOCUMENTED[3])) == {"doctor", "check", "debug", "invocations", "state"}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_there_is_not_is_2_and_help_is_0(name: str, command: Command) -> None:
    told = command(*name.split(), "--no-such-option")
    assert (told.status, told.out) == (2, "")
    assert "--no-such-option" in told.err
    assert command(*name.split(), "--help").status == 0


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"demo"}))
@pytest.mark.usefixtures("process_as_it_was")
def test_what_cannot_be_done_is_1(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_ADMIN_PORT", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])
    needed = required_by(COMMANDS[name])
    options = [part for one in COMMANDS[name].params if one.param_type_name == "option" and one.required
               for part in (one.opts[0], "nowhere")]  # fmt: skip
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        told = command(*name.split(), *ARGUMENTS.get(name, []), *needed, *options)
    assert told.status == (0 if name in NEED_NOTHING else 1), told.err
    assert bool(told.err) or name in NEED_NOTHING


@pytest.mark.parametrize("act", Act)
def test_an_act_that_fails_for_some_is_3_and_without_an_answer_2(
    act: Act, site: Site, sleeping: str, command: Command
) -> None:
    site.send("/Mailer/send", "x")
    known = sleeping if act in (Act.RESTART_AS_NEW, Act.PURGE, Act.PURGE_JOURNAL) else "inv_1x"
    others = [sleeping] if known != sleeping else ["inv_1x"]
    if act in (Act.CANCEL, Act.KILL, Act.PAUSE):
        others = [site.send("/Counter/ends3/wait")]
    told = command("invocations", act, known, *others, "--admin", site.admin, "-y")
    assert told.status == 3, told.err
    assert command("invocations", act, *others, known, "--admin", site.admin).status == 2


@pytest.mark.parametrize("group", ["state", "kv"])
@pytest.mark.parametrize("verb", ["edit", "patch"])
def test_a_change_that_comes_too_late_is_3(
    group: str, verb: str, site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"ends-{group}-{verb}"
    site.post(f"/Counter/{key}/add", 1)

    def edited(text: str, **_: Any) -> str:
        return text.replace('"count": 1', '"count": 7')

    def asked(*_: object, **__: object) -> None:
        site.post(f"/Counter/{key}/add", 1)

    monkeypatch.setattr(click, "edit", edited)
    monkeypatch.setattr("durably.cli.operators.states.agreed", asked)
    options = ["-p", '[{"op": "replace", "path": "/count", "value": 7}]'] if verb == "patch" else []
    told = command(group, verb, f"Counter/{key}", *options, "--admin", site.admin, "-y")
    assert told.status == 3, told.err


def test_what_is_found_wrong_is_3(stopped: Path, sleeping: str, command: Command, tmp_path: Path) -> None:
    url = f"sqlite:///{stopped}"
    assert command("doctor", url).status == 0
    assert command("check", f"{HERE}:program", "--store", url).status == 0
    assert command("check", f"{HERE}:without_counter", "--store", url).status == 3
    assert command("debug", sleeping, f"{HERE}:program", "--store", url, "--no-pdb").status == 0
    assert command("debug", sleeping, f"{HERE}:without_sleep", "--store", url, "--no-pdb").status == 3
    damaged = tmp_path / "damaged.db"
    shutil.copy(stopped, damaged)
    damage(damaged, "delete from timers where kind = 'sleep'")
    assert command("doctor", f"sqlite:///{damaged}").status == 3


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if any(p.name == "admin" for p in one.params)])
def test_ctrl_c_before_the_answer_is_130(
    name: str, site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if name == "mcp":
        pytest.skip("It waits for an assistant; tests/cli/operators/test_asking.py has its Ctrl-C.")
    monkeypatch.setattr("durably.cli.operators.sources.RunningServer.ask", interrupted)
    words = {"id": "inv_1x", "patch": "[]"}
    needed = [words.get(one.name, "Counter/a") for one in COMMANDS[name].params
              if one.param_type_name == "argument" and one.required]  # fmt: skip
    needed += [f"{HERE}:program"] if any(one.name == "target" for one in COMMANDS[name].params) else []
    told = command(*name.split(), *needed, *(["-p", "[]"] if "patch" in name else []), "--admin", site.admin)
    assert (told.status, told.out) == (130, "")


@pytest.mark.parametrize("name", INTERRUPTED_IN)
def test_ctrl_c_in_the_middle_is_130(
    name: str, stopped: Path, sleeping: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        if name == "debug":  # A KeyboardInterrupt that no signal has raised would be one of the user's code.
            signal.raise_signal(signal.SIGINT)
        raise KeyboardInterrupt

    url = f"sqlite:///{stopped}"
    arguments = {
        "doctor": [url],
        "check": [f"{HERE}:program", "--store", url],
        "export-journals": ["--store", url, "--output", "journals"],
        "export-test": [sleeping, f"{HERE}:program", "--store", url],
        "debug": [sleeping, f"{HERE}:program", "--store", url, "--no-pdb"],
    }
    monkeypatch.setattr(INTERRUPTED_IN[name], interrupted)
    told = command(name, *arguments.get(name, ["made.file", "--store", url]))
    assert (told.status, told.out) == (130, "")

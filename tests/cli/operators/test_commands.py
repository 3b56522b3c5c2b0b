"""Each command on a server and on the file of its store: the same data, in each form, with its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from durably.cli.operators.invocations import FIELDS
from tests.cli.operators.conftest import Command, Site, served

STATUSES = ["scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed"]


@pytest.fixture(scope="module")
def waiting(site: Site) -> str:
    """The id of an invocation that sleeps."""
    site.post("/Counter/read/add", 5)
    site.post("/Mailer/send", "x", **{"idempotency-key": "k"})
    id = site.send("/Counter/sleeper/wait")
    site.until(id, "suspended")
    return id


READING: dict[str, tuple[list[str], list[str] | None]] = {
    "invocations list": (["invocations", "list", "--all", "Mailer", "Counter/sleeper"], list(FIELDS)),
    "invocations describe": (["invocations", "describe", "ID"], None),
    "journal": (
        ["journal", "ID"],
        ["index", "entry_type", "name", "invoked_id", "invoked_target", "appended_at", "entry"],
    ),
    "why": (["why", "ID"], None),
    "services status": (["services", "status", "Counter"], ["name", *STATUSES, "oldest"]),
    "state get": (["state", "get", "Counter", "read"], None),
    "kv get": (["kv", "get", "Counter/read", "--field", "count"], None),
    "state get of a class": (
        ["state", "get", "Counter"],
        ["object", "service_name", "service_key", "fields", "bytes"],
    ),
    "sql": (
        ["sql", "select target, status from sys_invocation where target_service_name = 'Mailer'"],
        ["target", "status"],
    ),
}


@pytest.mark.parametrize("what", READING)
def test_a_server_and_its_file_answer_the_same_in_each_form(
    site: Site, waiting: str, command: Command, what: str
) -> None:
    arguments, schema = READING[what]
    arguments = [waiting if one == "ID" else one for one in arguments]
    asked, read = ["--admin", site.admin], ["--store", site.store]
    data = command(*arguments, *asked, "-o", "json").data
    assert command(*arguments, *read, "--json").data == data
    assert msgspec.yaml.decode(command(*arguments, *asked, "-o", "yaml").out) == data
    if schema is not None:
        assert data
        assert all(list(row) == schema for row in data)
    table = command(*arguments, *asked)
    assert table.out == command(*arguments, *read).out != ""
    assert not any(line.endswith(" ") for line in table.out.splitlines())
    named = command(*arguments, *asked, "-o", "name")
    assert named.out == command(*arguments, *read, "-o", "name").out != ""


def test_services_are_those_that_run_and_of_a_file_those_that_it_knows(
    site: Site, waiting: str, command: Command
) -> None:
    running = command("services", "list", "--admin", site.admin, "--json").data
    assert [(one["name"], one["type"]) for one in running] == [("Counter", "VirtualObject"), ("Mailer", "Service")]
    assert running[0]["handlers"] == ["add", "peek", "wait", "charge"]
    stored = command("services", "list", "--store", site.store, "--json").data
    assert [(one["name"], one["type"]) for one in stored] == [("Counter", "VirtualObject"), ("Mailer", "Service")]
    assert "wait" in stored[0]["handlers"]
    for whom in (["--admin", site.admin], ["--store", site.store]):
        assert command("services", "describe", "Mailer", *whom, "--json").data["name"] == "Mailer"
        assert "send" in command("services", "describe", "Mailer", *whom).out
        refused = command("services", "describe", "Mialer", *whom)
        assert (refused.status, refused.out) == (1, "")
        assert "There are Counter, Mailer." in refused.err
    (deployment,) = command("deployments", "--admin", site.admin, "--json").data
    assert deployment["services"] == ["Counter", "Mailer"]
    assert command("deployments", "--store", site.store, "--json").data == []


def test_a_failing_action_is_seen_at_the_admin_port(site: Site, command: Command) -> None:
    id = site.send("/Counter/failing/charge")
    told = command("why", id, "--admin", site.admin)
    while "the printer is off" not in told.out:
        told = command("why", id, "--admin", site.admin)
    assert told.out.startswith(f"Counter/failing/charge ({id})\n")
    described = command("invocations", "describe", id, "--admin", site.admin, "--json").data
    assert described["waits"][0]["kind"] == "action"
    assert described["waits"][0]["error"] == "ConnectionError: the printer is off"
    assert command("invocations", "kill", id, "--admin", site.admin, "-y").status == 0


def test_what_a_target_names_is_shown_and_asked_for_before_it_is_touched(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [site.send(f"/Counter/{key}/wait") for key in ("a%2Fb", "c")]
    for id in ids:
        site.until(id, "suspended")
    unasked = command("invocations", "cancel", "Counter/a%2Fb", "--admin", site.admin)
    assert (unasked.status, unasked.out) == (2, "")
    assert ids[0] in unasked.err
    assert "say --yes" in unasked.err

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter([False, True])
    questions: list[str] = []

    def confirm(question: str, **_: Any) -> bool:
        questions.append(question)
        return next(answers)

    monkeypatch.setattr("typer.confirm", confirm)
    refused = command("invocations", "cancel", *ids, "--admin", site.admin)
    assert (refused.status, refused.err.splitlines()[-1]) == (1, "Nothing was touched.")
    assert command("invocations", "list", *ids, "--admin", site.admin, "--json").data[0]["status"] == "suspended"
    done = command("invocations", "cancel", "Counter/a%2Fb/wait", "--admin", site.admin, "--json").data
    assert done == [{"id": ids[0], "done": True, "new_id": None, "error": None}]
    assert questions == ["Cancel 2 invocations?", "Cancel 1 invocation?"]
    site.until(ids[0], "completed")

    again = command("invocations", "cancel", *ids, "--admin", site.admin, "-y", "--json")
    assert again.status == 3, "one of them has ended"
    assert {row["id"]: row["done"] for row in again.data_of_a_failure} == {ids[0]: False, ids[1]: True}
    nothing = command("invocations", "cancel", "Counter/c", "--admin", site.admin, "-y", "-o", "json")
    assert nothing.data == []


def test_each_act_does_what_it_says(site: Site, command: Command) -> None:
    def acted(act: str, *what: str) -> list[str]:
        return command("invocations", act, *what, "--admin", site.admin, "-y", "-o", "name").out.split()

    id = site.send("/Counter/acts/wait")
    site.until(id, "suspended")
    assert acted("pause", "Counter/acts") == [id]
    site.until(id, "paused")
    assert acted("pause", "Counter/acts") == []
    assert acted("restart", "Counter/acts") == [id]
    site.until(id, "suspended")
    acted("pause", id)
    assert acted("resume", "Counter/acts") == [id]
    site.until(id, "suspended")
    assert acted("kill", "Counter/acts") == [id]
    (row,) = command("invocations", "restart-as-new", id, "--admin", site.admin, "-y", "--json").data
    site.until(row["new_id"], "suspended")
    acted("kill", row["new_id"])
    assert sorted(acted("purge-journal", "Counter/acts")) == sorted([id, row["new_id"]])
    assert sorted(acted("purge", "Counter/acts")) == sorted([id, row["new_id"]])
    assert command("invocations", "list", "Counter/acts", "--all", "--admin", site.admin, "--json").data == []


def test_state_is_patched_edited_and_cleared_for_what_was_read(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> Any:
        return command("state", "get", "Counter", "edited", "--admin", site.admin, "--json").data

    site.post("/Counter/edited/add", 7)
    patch = '[{"op": "replace", "path": "/count", "value": 8}, {"op": "add", "path": "/note", "value": "by hand"}]'
    done = command("state", "patch", "Counter", "edited", "-p", patch, "--admin", site.admin, "-y")
    assert (done.status, state()) == (0, {"count": 8, "note": "by hand"})
    assert "~ count: 7 -> 8" in done.err

    def edited(text: str, **_: Any) -> str:
        return text.replace("by hand", "by editor")

    monkeypatch.setattr(click, "edit", edited)
    assert command("kv", "edit", "Counter/edited", "--admin", site.admin, "-y", "--json").data[0]["done"] is True
    assert state() == {"count": 8, "note": "by editor"}
    assert "Nothing was changed" in command("kv", "edit", "Counter/edited", "--admin", site.admin, "-y").err

    def meanwhile(text: str, **_: Any) -> str:
        site.post("/Counter/edited/add", 1)
        return text.replace("by editor", "too late")

    monkeypatch.setattr(click, "edit", meanwhile)
    late = command("state", "edit", "Counter/edited", "--admin", site.admin, "-y")
    assert late.status == 3
    assert "was made for another state" in late.out
    assert state() == {"count": 9, "note": "by editor"}
    assert command("state", "clear", "Counter/edited", "--admin", site.admin, "-y").status == 0
    assert state() == {}
    assert "has no state" in command("state", "clear", "Counter/edited", "--admin", site.admin, "-y").err


@pytest.mark.parametrize("editor", ["/nowhere/editor", "false", "'", "printf '\\377' >", "rm"])
def test_an_editor_that_fails_is_told_and_changes_nothing(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, editor: str
) -> None:
    site.post("/Counter/unedited/add", 0)
    if editor.startswith("printf"):  # Editors are commands, not lines of a shell.
        script = tmp_path / "editor"
        script.write_text(f'#!/bin/sh\n{editor} "$1"\n', "utf-8")
        script.chmod(0o755)
        editor = str(script)
    monkeypatch.setenv("VISUAL", editor)
    told = command("state", "edit", "Counter/unedited", "--admin", site.admin, "-y")
    assert (told.status, told.out) == (1, "")
    assert "The editor failed: " in told.err
    assert "VISUAL or EDITOR names the command of the editor. Nothing was changed." in told.err
    assert command("state", "get", "Counter/unedited", "--admin", site.admin, "--json").data == {"count": 0}


def test_an_unknown_id_among_others_stops_none_of_them(site: Site, command: Command) -> None:
    ids = [site.send(f"/Counter/among{number}/wait") for number in range(2)]
    for id in ids:
        site.until(id, "suspended")
    told = command("invocations", "cancel", ids[0], "inv_1x", ids[1], "--admin", site.admin, "-y", "--json")
    assert told.status == 3
    assert "There is no invocation inv_1x" in told.err
    done = {row["id"]: (row["done"], row["error"]) for row in told.data_of_a_failure}
    assert done == {ids[0]: (True, None), ids[1]: (True, None), "inv_1x": (False, "there is no such invocation")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "Conter"],
        ["get", "Conter/a"],
        ["clear", "Conter", "-y"],
        ["clear", "Conter/a", "-y"],
        ["patch", "Conter/a", "-p", "[]", "-y"],
    ],
)
def test_the_state_of_a_class_that_there_is_not_is_refused(site: Site, command: Command, arguments: list[str]) -> None:
    site.post("/Counter/known/add")
    for whom in (
        (["--admin", site.admin], ["--store", site.store]) if "get" in arguments else (["--admin", site.admin],)
    ):
        told = command("state", *arguments, *whom)
        assert (told.status, told.out) == (1, "")
        assert "There is no class 'Conter' in " in told.err
        assert "There are Counter" in told.err
        known = [one.replace("Conter", "Counter").replace("/a", "/nobody") for one in arguments]
        if "/" in known[1]:
            assert command("state", *known, *whom).status == 0


def test_two_columns_of_one_name_are_both_told(site: Site, command: Command) -> None:
    query = "select 1 as n, 2 as n, 3 as m, 4 as n"
    for whom in (["--admin", site.admin], ["--store", site.store]):
        assert command("sql", query, *whom, "--json").data == [{"n": 1, "n:1": 2, "m": 3, "n:2": 4}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["invocations", "describe", "inv_1x"], "There is no invocation inv_1x"),
        (["invocations", "kill", "inv_1x", "-y"], "There is no invocation inv_1x"),
        (["invocations", "kill", "Nope", "-y"], "'Nope' does not run"),
        (["invocations", "list", "a/b/c/d"], "names nothing"),
        (["invocations", "list", "--status", "dead"], "'dead' is no status"),
        (
            ["invocations", "kill", *(f"inv_1x{number}" for number in range(2_500)), "-y"],
            "There is no invocation inv_1x0",
        ),
        (["journal", "Counter"], "There is no invocation Counter"),
        (["why", "inv_1x"], "inv_1x"),
        (["sql", "drop table state"], "9070"),
        (["state", "get", "Counter/read", "--field", "nope"], "has no field 'nope'. It has count."),
        (["state", "get", "a/b/c"], "names no object"),
        (["state", "get", "Counter/a", "b"], "Two keys are given"),
        (["state", "edit", "Counter"], "names no object"),
        (["state", "patch", "Counter/read", "-p", "{", "-y"], "is not JSON"),
        (["state", "patch", "Counter/read", "-p", '[{"op": "remove", "path": "/x"}]', "-y"], "does not fit"),
        (["state", "patch", "Counter/read", "-p", '[{"op": "add", "path": "", "value": 1}]', "-y"], "no JSON object"),
    ],
)
def test_what_cannot_be_is_a_sentence_on_stderr(
    site: Site, waiting: str, command: Command, arguments: list[str], said: str
) -> None:
    told = command(*arguments, "--admin", site.admin)
    assert (told.status, told.out) == (1, "")
    assert said.replace("9070", site.admin) in told.err


def test_without_a_server_there_are_sentences_too(command: Command, tmp_path: Path) -> None:
    nobody = command("invocations", "list", "--admin", "http://127.0.0.1:1")
    assert nobody.status == 1
    assert "No server answers at http://127.0.0.1:1. Start one" in nobody.err
    assert "is no address" in command("invocations", "list", "--admin", "http://[").err
    assert "Write `sqlite:///app.db`" in command("invocations", "list", "--store", "app.db").err
    assert "is not there" in command("why", "inv_1x", "--store", "sqlite:///none.db").err
    assert "is no file" in command("sql", "select 1", "--store", "memory:").err
    (tmp_path / "durably.toml").write_text("[admin]\nport = 1\n[store]\nurl = 'sqlite:///none.db'", "utf-8")
    assert "is not there" in command("invocations", "list").err
    acting = command("invocations", "cancel", "Counter", "-y")
    assert acting.status == 1
    assert "No server answers" in acting.err


def test_the_configured_server_is_asked_and_where_it_has_stopped_its_store(command: Command, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with served(tmp_path / "store") as found:
        found.post("/Counter/x/add", 1)
        (tmp_path / "durably.toml").write_text(
            f"[admin]\nurl = '{found.admin}'\n[store]\nurl = '{found.store}'", "utf-8"
        )
        asked = command("state", "get", "Counter/x", "--json")
        assert (asked.data, asked.err) == ({"count": 1}, "")
    read = command("state", "get", "Counter/x", "--json")
    assert read.data == {"count": 1}
    assert "No server answers" in read.err


def test_a_question_that_ctrl_c_ends_before_its_answer_ends_with_130(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("durably.cli.operators.sources.RunningServer.ask", interrupted)
    for arguments in (["invocations", "list"], ["services", "status"], ["state", "get", "Counter/read"]):
        told = command(*arguments, "--admin", site.admin)
        assert (told.status, told.out) == (130, "")


def test_a_question_is_asked_again_until_ctrl_c(
    site: Site, waiting: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[int] = []

    async def sleep(_: object, delay_us: int) -> None:
        naps.append(delay_us)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("durably.cli.operators.watching.SystemClock.sleep", sleep)
    told = command("kv", "get", "Counter/read", "-f", "count", "-w", "-n", "2.5", "--admin", site.admin)
    assert told.out.split() == ["5", "5", "5"]
    assert naps == [2_500_000] * 3

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from durably import Runtime
from durably.cli.commands import run
from durably.cli.failures import CommandError
from durably.cli.serve import Serving, serving
from durably.configuration import load_configuration
from durably.events import PubSub
from durably.runtime.observation.tracing.otlp import Tracing
from tests.cli.output_schemas import assert_fits
from tests.processes import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def served(environ: Mapping[str, str] | None = None, **options: str | float) -> Serving:
    nothing = dict.fromkeys(("target", "host", "port", "admin_port", "store", "server", "tracing_endpoint"))
    return serving(load_configuration(environ=environ or {}), **(nothing | {"target": "app:runtime"} | options))  # type: ignore[arg-type]


def test_how_long_attempts_wait_in_memory_is_as_the_program_says_unless_asked_for(folder: Path) -> None:
    assert served().suspend_after_seconds is None
    assert served(suspend_after_seconds=0).suspend_after_seconds == 0
    runtime = Runtime("memory:", [], suspend_after=60)
    runtime.use_suspend_after(0)
    assert runtime._settings.suspend_after_us == 0  # pyright: ignore[reportPrivateUsage]


def test_without_a_configuration_calls_and_operators_have_their_ports(folder: Path) -> None:
    found = served()
    assert (found.ingress, found.admin, found.admin_may_fail) == (("127.0.0.1", 8080), ("127.0.0.1", 9070), True)
    assert found.store is None
    found = served(environ={"DURABLY_ADMIN_PORT": "7"})
    assert (found.ingress, found.admin, found.admin_may_fail) == (("127.0.0.1", 8080), ("127.0.0.1", 7), False)


@pytest.mark.parametrize(
    ("text", "ingress", "admin_port"),
    [
        ("[store]\nurl = 'memory:'", ("127.0.0.1", 8080), 9070),
        ("[server]\nport = 1", ("127.0.0.1", 1), None),
        ("[ingress]", ("127.0.0.1", 8080), None),
        ("[admin]\nport = 2", None, 2),
        ("[server]\n[admin]", ("127.0.0.1", 8080), 9070),
    ],
)
def test_once_one_door_is_configured_the_others_are_shut(
    folder: Path, text: str, ingress: object, admin_port: int | None
) -> None:
    (folder / "durably.toml").write_text(text, "utf-8")
    found = served()
    assert (found.ingress, found.admin and found.admin[1]) == (ingress, admin_port)
    opened = served(port=7, admin_port=8, store="memory:")
    assert (opened.ingress, opened.admin, opened.store) == (("127.0.0.1", 7), ("127.0.0.1", 8), "memory:")
    assert not opened.admin_may_fail


def test_the_file_names_what_is_served(folder: Path) -> None:
    (folder / "durably.toml").write_text("[server]\ntarget = 'shop:runtime'\n[store]\nurl = 'memory:'", "utf-8")
    found = serving(
        load_configuration(environ={}),
        target=None,
        host=None,
        port=None,
        admin_port=None,
        store=None,
        server=None,
        tracing_endpoint=None,
    )
    assert (found.target, found.store) == ("shop:runtime", "memory:")
    (folder / "durably.toml").unlink()
    with pytest.raises(CommandError, match=r"Nothing says what to serve.*durably\.toml"):
        serving(
            load_configuration(environ={}),
            target=None,
            host=None,
            port=None,
            admin_port=None,
            store=None,
            server=None,
            tracing_endpoint=None,
        )


def test_traces_and_events_go_where_the_file_says(folder: Path) -> None:
    assert (served().tracing, served().pubsub) == (None, {})
    (folder / "durably.toml").write_text(
        "[tracing]\nendpoint = 'http://traces:4317'\nservice_name = 'shop'\n"
        "[pubsub]\ncluster = 'shops'\nretention_seconds = 60\nsse = true\nnodes = ['http://a']",
        "utf-8",
    )
    found = served()
    assert found.tracing == Tracing("http://traces:4317", service_name="shop")
    assert served(tracing_endpoint="http://other:1").tracing == Tracing("http://other:1", service_name="shop")
    runtime = Runtime("memory:", [], pubsub=PubSub(in_flight=7))
    runtime.use_pubsub(**found.pubsub)
    assert runtime.pubsub == PubSub(cluster="shops", retention=60, sse=True, nodes=("http://a",), in_flight=7)
    assert served(environ={"DURABLY_PUBSUB_NODES": "http://a http://b"}).pubsub["nodes"] == ("http://a", "http://b")
    with pytest.raises(CommandError, match="such as 'http"):
        served(environ={"DURABLY_TRACING_ENDPOINT": "traces:4317"})


def shown(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["durably", "config", "show", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    return ended.value.code


def test_config_show_says_where_each_value_came_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "durably.toml").write_text(
        "[server]\nport = 8000\n[admin]\n[development.store]\nurl = 'sqlite:///dev.db'", "utf-8"
    )
    monkeypatch.setenv("DURABLY_ADMIN_PORT", "9999")
    assert shown(monkeypatch, "--env", "development") == 0
    told = capsys.readouterr()
    lines = [line.split(maxsplit=2) for line in told.out.splitlines()]
    assert ["server.port", "8000", "durably.toml [server]"] in lines
    assert ["server.host", '"127.0.0.1"', "default"] in lines
    assert ["admin.port", "9999", "the environment variable DURABLY_ADMIN_PORT"] in lines
    assert ["store.url", '"sqlite:///dev.db"', "durably.toml [development.store]"] in lines
    assert "Environment: development (--env)" in told.err
    assert shown(monkeypatch, "--json") == 0
    data = orjson.loads(capsys.readouterr().out)
    assert_fits("config show", data)
    assert data["environment"] == {"value": "production", "from": "default"}
    assert {
        "section": "admin",
        "key": "port",
        "value": 9999,
        "from": "the environment variable DURABLY_ADMIN_PORT",
    } in (data["settings"])
    assert "store" not in {one["section"] for one in data["settings"]}


def test_a_mistake_in_the_file_is_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "durably.toml").write_text("[server]\nprot = 8000", "utf-8")
    assert shown(monkeypatch) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "durably.toml [server] has a key 'prot', which there is not. Did you mean 'port'?\n"


def test_the_example_of_the_page_is_one(folder: Path) -> None:
    """Each key is in it, so that a new one is documented."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (folder / "durably.toml").write_text(example, "utf-8")
    found = load_configuration(environ={"DURABLY_ENV": "development"})
    assert all(name in example for one in found.settings for name in (f"[{one.section}]", f"{one.key} = "))
    assert all(found.section(name) is not None for name in ("server", "ingress", "admin", "store"))

"""No command tells a token or a password, whichever way it was given and however the command ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest
from typer.main import get_command

from durably.cli.commands import application, run
from tests.cli.test_no_tracebacks import ARGUMENTS, SHOWS
from tests.cli.test_output_schemas import commands
from tests.otlp import http_collector
from tests.processes import durably, eventually, serving

COMMANDS = dict(commands(get_command(application)))
SECRET = "hush-5e17"
STORE = f"postgresql://ann:{SECRET}@127.0.0.1:9/shop?password={SECRET}"
SERVER = f"http://ann:{SECRET}@127.0.0.1:9"
FILE = f"""
[server]
target = "secret_application:runtime"
port = 0
log_level = "debug"
[ingress]
url = "{SERVER}"
token = "{SECRET}"
[admin]
port = 0
url = "{SERVER}"
token = "{SECRET}"
[store]
url = "{STORE}"
[pubsub]
nodes = ["{SERVER}"]
[tracing]
endpoint = "{SERVER}"
[project]
target = "secret_application:runtime"
"""
VARIABLES = {
    "DURABLY_SERVER_TARGET": "secret_application:runtime",
    "DURABLY_PROJECT_TARGET": "secret_application:runtime",
    "DURABLY_SERVER_PORT": "0",
    "DURABLY_ADMIN_PORT": "0",
    "DURABLY_STORE_URL": STORE,
    "DURABLY_ADMIN_URL": SERVER,
    "DURABLY_ADMIN_TOKEN": SECRET,
    "DURABLY_INGRESS_TOKEN": SECRET,
    "DURABLY_INGRESS_URL": SERVER,
    "DURABLY_PUBSUB_NODES": SERVER,
    "DURABLY_TRACING_ENDPOINT": SERVER,
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}",
}
APPLICATION = """
from durably import Context, RetryPolicy, Runtime, Service, handler


class Till(Service):
    @handler(retry=RetryPolicy(max_attempts=2))
    async def pay(self, ctx: Context) -> str:
        ctx.log.info("headers", headers=repr(ctx.request))
        raise ValueError(f"no receipt for {dict(ctx.request.headers)}")

    @handler
    async def greet(self, ctx: Context) -> str:
        return "hello"


runtime = Runtime("memory:", [Till])
"""
VALUES = {"target": "secret_application:runtime", "store": STORE, "source": STORE, "admin": SERVER, "register": SERVER}
"""What arguments and options get, by their names; other arguments get a word that names nothing."""


@pytest.mark.slow
@pytest.mark.usefixtures("process_as_it_was")
@pytest.mark.parametrize("given_by", ["file", "variables", "options"])
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - SHOWS))
def test_no_command_tells_a_secret(
    name: str, given_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "secret_application.py").write_text(APPLICATION, "utf-8")
    arguments = [*name.split(), *ARGUMENTS.get(name, [])]
    match given_by:
        case "file":
            (tmp_path / "durably.toml").write_text(FILE, "utf-8")
        case "variables":
            for variable, value in VARIABLES.items():
                monkeypatch.setenv(variable, value)
        case _:
            monkeypatch.setenv("DURABLY_ADMIN_PORT", "0")
    for one in COMMANDS[name].params:
        is_given = given_by == "options" and one.name in VALUES
        if one.param_type_name == "argument":
            arguments += [VALUES[one.name] if is_given else "nowhere"] if one.required or is_given else []
        elif is_given:
            arguments += [one.opts[0], VALUES[one.name]]
    monkeypatch.setattr("sys.argv", ["durably", *arguments])
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(SystemExit):
            run()
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert SECRET not in out + err


@pytest.mark.slow
def test_no_token_reaches_a_log_a_span_an_answer_or_the_store(tmp_path: Path) -> None:
    """Good tokens and wrong ones, of both ports, while everything is logged and traced, and a handler fails."""
    (tmp_path / "secret_application.py").write_text(APPLICATION, "utf-8")
    good = {"authorization": f"Bearer {SECRET}-call"}
    operator = {"authorization": f"Bearer {SECRET}-admin"}
    wrong = {"authorization": f"Bearer {SECRET}-wrong"}
    told: list[str] = []
    with http_collector() as collector:
        variables = {
            "DURABLY_INGRESS_TOKEN": f"{SECRET}-call",
            "DURABLY_ADMIN_TOKEN": f"{SECRET}-admin",
            "DURABLY_TRACING_ENDPOINT": collector.endpoint.replace("://", f"://ann:{SECRET}@"),
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        options = ["--log-level", "debug", "--store", "sqlite:///app.db"]
        with serving("secret_application:runtime", *options, cwd=tmp_path, environment=variables) as server:
            with httpx.Client(base_url=server.url, trust_env=False) as client:
                told.append(client.post("/Till/greet", headers=good).text)
                assert told == ['"hello"']
                told += [client.post("/Till/greet", headers=headers).text for headers in (wrong, operator, {})]
                id = client.post("/Till/pay/send", headers=good).json()["invocationId"]
                told += [client.get(path, headers=good).text for path in ("/restate/health", "/restate/openapi")]
                assert eventually(lambda: "paused" in server.output)
                told.append(client.get(f"/restate/invocation/{id}/output", headers=good).text)
            with httpx.Client(base_url=server.admin_url, trust_env=False) as client:
                paths = ("/metrics", "/health", "/ready", "/services", "/deployments", f"/invocations/{id}")
                told += [client.get(path, headers=operator).text for path in (*paths, f"/invocations/{id}/why")]
                told += [client.get("/services", headers=headers).text for headers in (wrong, good, {})]
                query = {"query": "select * from sys_invocation"}
                told.append(client.post("/query", json=query, headers=operator).text)
            whom = ["--admin", server.admin_url]
            for command in (["invocations", "describe", id], ["journal", id], ["why", id], ["services", "list"]):
                said = durably(*command, *whom, cwd=tmp_path, environment=variables)
                assert said.returncode == 0
                told += [said.stdout, said.stderr]
            said = durably("config", "show", cwd=tmp_path, environment=variables)
            told += [said.stdout, said.stderr]
            assert "(hidden)" in said.stdout
            assert server.stop() == 0
        assert collector.of("attempt")
        assert collector.metadata["authorization"].startswith("Basic ")
        told += [server.output, str(collector.spans)]
    assert "no receipt for" in server.output
    assert all(SECRET not in text for text in told)
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.glob("app.db*"))

"""Restate's own command line, as npm has it, works on a `durably serve` and notices nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.processes import serving
from tests.restate_command import RestateCommand, installed

ACTORS = """
from typing import Any
from durably import *

class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hi {name}"

    @handler(retry=RetryPolicy(initial=600.0, maximum=600.0))
    async def fail(self, ctx: Context) -> None:
        raise RuntimeError("oh no")

class Counter(VirtualObject):
    total: int = state(default=0)
    notes: dict[str, Any] = state(default={})

    @handler
    async def add(self, ctx: ObjectContext, n: int) -> int:
        self.total += n
        self.notes = {"by": ["hand"]}
        return self.total

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        greeting = await ctx.service(Greeter).greet("Ann")
        await ctx.sleep(3600)
        return greeting

runtime = Runtime("sqlite:///app.db", [Greeter, Counter])
"""

Restate = Callable[..., str]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("restate"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of ingress and admin API."""
    pytest.importorskip("pyarrow")
    (tmp_path / "cli_app.py").write_text(ACTORS)
    with serving("cli_app:runtime", cwd=tmp_path) as served:
        yield served.url, served.admin_url


@pytest.fixture
def restate(program: Path, server: tuple[str, str], tmp_path: Path) -> Restate:
    ingress, admin = server
    return partial(RestateCommand(program, tmp_path).run, ingress=ingress, admin=admin)


def sent(ingress: str, path: str, body: object = None) -> str:
    content = None if body is None else json.dumps(body).encode()
    answered = httpx.post(f"{ingress}/{path}/send", content=content)
    id: str = answered.json()["invocationId"]
    return id


@pytest.mark.slow
def test_it_tells_what_runs_here(restate: Restate, server: tuple[str, str]) -> None:
    ingress, _ = server
    assert "is healthy" in restate("whoami")
    assert re.search(r"\[public\]\s+Counter\s+1\s+virtual object\s+HTTP\s+dp_1\w{22}", restate("services", "list"))
    described = restate("services", "describe", "Counter")
    assert re.search(r"add\s+JSON integer\s+JSON integer", described)
    assert re.search(r"wait\s+none\s+JSON string", described)
    assert "Idempotent requests retention:  1d" in restate("services", "config", "view", "Greeter")
    assert re.search(r"Active\s+0\s+dp_1\w{22}", restate("deployments", "list", "--extra"))
    assert "already exists" in restate("deployments", "register", ingress)
    (id,) = set(re.findall(r"dp_1\w{22}", restate("deployments", "list")))
    assert "durably/" in restate("deployments", "describe", id)
    for empty in (("rules", "list"), ("kafka-clusters", "list"), ("subscriptions", "list"), ("vqueues", "list")):
        assert restate(*empty).startswith("No ")


@pytest.mark.slow
def test_it_acts_on_invocations(restate: Restate, server: tuple[str, str]) -> None:
    ingress, _ = server
    assert httpx.post(f"{ingress}/Counter/a/add", json=3).json() == 3
    waiting, queued = sent(ingress, "Counter/b/wait"), sent(ingress, "Counter/b/add", 1)
    failing = sent(ingress, "Greeter/fail")
    later = httpx.post(f"{ingress}/Counter/c/add/send?delay=1h", json=1).json()["invocationId"]
    status = restate("services", "status", "Counter")
    assert re.search(r"add\s+1\s+1\s+-", status)
    assert re.search(rf"b\s+1\s+{waiting} \(suspended\)\s+wait", status)
    listed = restate("invocations", "list")
    assert [id for id in (waiting, queued, failing, later) if id not in listed] == []
    assert "RuntimeError: oh no" in listed
    assert "Showing 1/1" in restate(
        "invocations", "list", "--status", "scheduled", "--service", "Counter", "--key", "c"
    )
    assert "Showing 0/0" in restate("invocations", "list", "--zombie")
    described = restate("invocations", "describe", waiting)
    assert re.search(r"#1 .* Command: Call Greeter/greet inv_1\w+", described)
    assert re.search(r"Command: Sleep until", described)
    assert "Paused 1 invocations" in restate("invocations", "pause", waiting)
    assert waiting in restate("invocations", "list", "--status", "paused")
    assert "Resumed 1 invocations" in restate("invocations", "resume", "Counter/b")
    assert "Cancelled 2 invocations" in restate("invocations", "cancel", "Counter/b")
    assert "Killed 1 invocations" in restate("invocations", "kill", failing)
    assert "Restarted 1 invocations" in restate("invocations", "restart-as-new", failing)
    assert "Killed" in restate("invocations", "kill", "Greeter")
    assert "Purged" in restate("invocations", "purge", "Greeter")
    assert "No invocations found" in restate("invocations", "purge", "Greeter", code=1)


@pytest.mark.slow
def test_it_edits_state_and_asks_in_sql(restate: Restate, server: tuple[str, str]) -> None:
    ingress, _ = server
    httpx.post(f"{ingress}/Counter/a/add", json=3)
    assert json.loads(restate("state", "get", "Counter", "a", "--plain")) == {"total": 3, "notes": {"by": ["hand"]}}
    restate("state", "patch", "Counter", "a", "-p", '[{"op": "replace", "path": "/total", "value": 40}]')
    assert httpx.post(f"{ingress}/Counter/a/add", json=2).json() == 42
    rows = restate("sql", "--json", "SELECT key, value_utf8 FROM state ORDER BY key")
    assert json.loads(rows) == [{"key": "notes", "value_utf8": '{"by":["hand"]}'}, {"key": "total", "value_utf8": "42"}]
    assert re.search(r"COUNT\(\*\)\s+2", restate("sql", "SELECT count(*) FROM state"))
    assert "Only queries are answered" in restate("sql", "DROP TABLE state", code=1)
    restate("state", "clear", "Counter/a")
    assert httpx.post(f"{ingress}/Counter/a/add", json=1).json() == 1

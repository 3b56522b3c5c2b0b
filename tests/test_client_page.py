"""docs/client.md tells the truth: its program runs against a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, serving

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ACTORS = """
from durably import ObjectContext, Runtime, TerminalError, VirtualObject, handler, state

class SoldOut(TerminalError):
    code = 409
    seats_left: int

SoldOut.__module__ = "client_page"

class Cart(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, ticket: str, count: int = 1) -> int:
        if count > 9:
            error = SoldOut("sold out")
            error.seats_left = 9
            raise error
        self.total += count
        return self.total

runtime = Runtime("sqlite:///app.db", [Cart])
"""


@pytest.mark.slow
async def test_its_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "client_page.py").write_text(ACTORS)
    names: dict[str, Any] = {"__name__": "client_page"}
    exec(compile(PROGRAM, "client.md", "exec", dont_inherit=True), names)
    with serving("client_page:runtime", cwd=tmp_path) as server:
        await names["main"](server.url)
    total, id, left = capsys.readouterr().out.splitlines()
    assert (total, id[:5], left) == ("2", "inv_1", "9 are left")

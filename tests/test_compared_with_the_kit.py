"""docs/compared-with-the-kit.md tells the truth: its programs run and do what it says."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "compared-with-the-kit.md").read_text("utf-8")


@pytest.fixture
def names() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "kit_page"}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"compared-with-the-kit.md, program {number}", "exec", dont_inherit=True), names)
    return names


async def test_its_calls_and_helpers_run(names: dict[str, Any]) -> None:
    async with Harness(names["Users"], names["User"], names["Helpers"]) as app:
        assert await names["welcome"](app) == "user mary"
        await app.advance(11)
        assert await app.object(names["User"], "1").read() == "Mary"
        used = asyncio.ensure_future(app.object(names["Helpers"], "a").use("bob"))
        await app.settle()
        await app.resolve_awakeable(names["ASKED"][-1], True)
        assert await used == "user bob, approved"


async def test_its_events_run(names: dict[str, Any]) -> None:
    async with Harness(names["Mailer"], names["Registration"]) as app:
        await app.service(names["Registration"]).register("mary")
        await app.settle()
        assert names["ASKED"] == ["mail to mary"]

"""docs/sources.md tells the truth: its programs run and do what it says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from durably import Runtime
from durably.sources import Feed
from durably.storage.memory import MemoryStore
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "sources.md").read_text("utf-8")


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "sources_page"}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"sources.md, program {number}", "exec", dont_inherit=True), names)
    return names


async def test_its_test_passes(names: dict[str, Any]) -> None:
    await names["test_payments_are_booked"]()


async def test_its_source_reads_a_file_that_grows(
    names: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account, lines = names["Account"], tmp_path / "lines"
    lines.write_text("mary 7\nmary 1\nbob seven\n")
    async with Runtime(MemoryStore(), [account], sources=[Feed(names["Lines"](str(lines)), account.book)]) as runtime:
        async with asyncio.timeout(60):
            while (await runtime.sources())[0].status != "paused":
                await asyncio.sleep(0.01)
        await names["pass_over"](runtime)
        with lines.open("a") as file:
            file.write("bob 2\n")
        async with asyncio.timeout(60):
            while (await runtime.state(account, "bob")) != {"balance": 2}:
                await asyncio.sleep(0.01)
        assert await runtime.state(account, "mary") == {"balance": 8}
    assert "The record 2 of the partition all cannot become a message" in capsys.readouterr().out

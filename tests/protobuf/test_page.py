"""docs/protobuf.md tells the truth: its .proto is compiled, its programs run, its curl line answers."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import ROOT
from tests.protobuf.test_plugin import generate

PAGE = (ROOT / "docs" / "protobuf.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


async def test_the_programs_on_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (proto,) = blocks("proto")
    (tmp_path / "hall.proto").write_text(proto)
    assert generate(tmp_path, "hall.proto", source=tmp_path) == ""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for program in blocks("python"):
        exec(compile(program, "page", "exec", dont_inherit=True), names)
    seat = names["Seat"](row="F", number=7)
    async with names["row_runtime"] as runtime:
        row = runtime.object(names["Row"], "F")
        assert [(await row.sell(seat)).count, (await row.sell(seat)).count, (await row.refund(seat)).count] == [1, 2, 1]
    (line,) = re.findall(r"curl localhost:8080(\S+) -d (.*)", PAGE)
    async with names["runtime"] as runtime:
        assert await runtime.service(names["Shop"]).buy("F", 6) == 1
        async with httpx.AsyncClient(transport=httpx.ASGITransport(runtime.asgi())) as client:
            form = {"content-type": "application/x-www-form-urlencoded"}  # As curl sends it.
            answer = await client.post(f"http://localhost{line[0]}", content=shlex.split(line[1])[0], headers=form)
            assert (answer.json(), answer.headers["content-type"]) == ({"count": 2}, "application/json")
        assert await names["HallClient"](runtime, "main").count(names["CountRequest"]()) == names["Taken"](count=2)
    assert json.loads(shlex.split(line[1])[0])["number"] == 7

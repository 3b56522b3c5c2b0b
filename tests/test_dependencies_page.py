"""docs/dependencies.md tells the truth: its programs run and do what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "dependencies.md").read_text("utf-8")


@pytest.fixture
def names() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "dependencies_page"}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"dependencies.md, program {number}", "exec", dont_inherit=True), names)
    return names


async def test_a_factory_sets_up_and_tears_down(names: dict[str, Any]) -> None:
    async with Harness(names["Orders"], dependencies=names["dependencies"]) as app:
        assert await app.service(names["Orders"]).place("tea") == "order of tea in postgres://db"
    assert names["LOG"] == ["open", "close"]


async def test_one_of_an_activation_knows_its_key(names: dict[str, Any]) -> None:
    async with Harness(names["Account"], dependencies=names["with_sessions"]) as app:
        assert await app.object(names["Account"], "a").save("x") == "a: x in postgres://db"
        await app.advance(600)
        assert names["LOG"] == ["open", "session of a", "end of a"]
    assert names["LOG"][3:] == ["close"]


async def test_references_call_for_the_handler_that_uses_them(names: dict[str, Any]) -> None:
    actors = [names[name] for name in ("Checkout", "Cards", "Cart")]
    async with Harness(*actors, dependencies=names["checkout"]) as app:
        assert await app.service(names["Checkout"]).buy("tea") == ["charged 5", "tea for mary"]


async def test_an_override_is_another_mapping(names: dict[str, Any]) -> None:
    async with Harness(names["Orders"], dependencies=names["overridden"]) as app:
        assert await app.service(names["Orders"]).place("tea") == "order of tea in memory"
    assert names["LOG"] == []

"""docs/middleware.md tells the truth: its programs run and do what it says."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from durably import InvalidArgumentError, TerminalError
from durably.middleware import UnauthenticatedError
from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "middleware.md").read_text("utf-8")


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "middleware_page"}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"middleware.md, program {number}", "exec", dont_inherit=True), names)
    return names


async def test_its_middleware_refuses_sees_and_changes(names: dict[str, Any]) -> None:
    async with Harness(names["Invoices"], names["Cart"], names["Orders"]) as app:
        with pytest.raises(TerminalError, match="Name a tenant"):
            await app.service(names["Invoices"]).write(3)
        told = await app.service(names["Invoices"]).write.options(headers={"x-tenant": "acme"})(3)
        assert told == "invoice of 3 for acme"
        assert await app.object(names["Cart"], "mary").add("tea") == "1 tea"
        assert names["SEEN"][:3] == [
            "Cart/add is exclusive and takes ['item', 'count'], here {'item': 'tea', 'count': 1}",
            "timeout 0:01:00, 0 of its own, 1 of its class",
            "its class has ['add', 'clear'], metadata {'team': 'sales'}",
        ]
        assert await app.service(names["Orders"]).place("tea", 0) == "1 TEA"


async def test_its_middleware_that_acts_waits_and_calls_is_replayed(names: dict[str, Any]) -> None:
    async with Harness(names["Sales"], names["Ledger"], nothing_resident=True) as app:
        sold = asyncio.ensure_future(app.service(names["Sales"]).sell("tea"))
        await app.advance(2)
        assert await sold == "tea"
        assert app.actions() == ["number"]
        assert await app.object(names["Ledger"], "main").last() == "7: tea"


async def test_what_is_shipped_works_as_it_says(names: dict[str, Any]) -> None:
    async with Harness(names["Shop"], middleware=names["middleware"]) as app:
        buy = app.service(names["Shop"]).buy
        with pytest.raises(UnauthenticatedError):
            await buy(1)
        known = buy.options(headers={"authorization": "Bearer secret"})
        assert await known(2) == "mary bought 2"
        with pytest.raises(InvalidArgumentError, match="count is at most 10"):
            await known(11)
    assert [one.outcome for one in names["MEASURED"]] == ["failure", "result", "failure"]

"""docs/events.md tells the truth: its programs run one after the other, and do what it says."""

from __future__ import annotations

import asyncio
import re
import sys
from types import ModuleType
from typing import Any

import pytest

from durably import TerminalError
from durably.testing import Harness
from tests.events.test_subscribers import until
from tests.ingress.test_app import client_of
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "events.md").read_text("utf-8")
NAME = "events_page"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the page defines."""
    module = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"events.md, program {number}", "exec", dont_inherit=True), vars(module))
    return module


async def test_who_subscribes_hears_and_what_is_given_up_is_tried_again(page: Any) -> None:
    mails: list[str] = []
    refused = {"eve"}

    def send_mail(name: str, text: str) -> None:
        if name in refused:
            raise TerminalError("no such address")
        mails.append(f"{text} {name}")

    page.send_mail = send_mail
    async with Harness(page.Registration, page.Mailer, page.Inviter) as app:
        registration = app.service(page.Registration)
        await registration.register("ann")
        await registration.register("eve", "ann")
        await registration.remove("ann")
        await app.settle()
        assert mails == ["welcome ann", "good-bye ann"]
        assert await app.object(page.Inviter, "ann").read() == ["eve"]
        refused.clear()
        assert await page.try_again(app) == 1
        await app.settle()
        assert mails[2:] == ["welcome eve"]
        assert await page.try_again(app) == 0
        assert [one.behind for one in await app.subscriptions()] == [0, 0]


async def test_ordinary_code_hears_and_posted_events_are_events(page: Any) -> None:
    page.send_mail = print
    enough = asyncio.Event()
    async with Harness(page.Registration, page.Mailer, page.Inviter) as app, client_of(app.asgi()) as client:
        following = asyncio.create_task(page.follow(app, enough))
        await app.settle()
        posted = [{"name": "UserCreated", "key": "bob", "value": {"name": "bob", "invited_by": "ann"}}]
        assert (await client.post("/events", json=posted)).is_success
        await app.settle()
        assert await app.object(page.Inviter, "ann").read() == ["bob"]
        await until(lambda: page.heard == ["bob"])
        enough.set()
        await following
        await app.service(page.Registration).remove("bob")
        await app.settle()
        assert page.heard == ["bob"]

"""The auction: who subscribes hears of each bid once, and the page shows them live, over a restart of the server."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from durably import TerminalError
from durably.testing import Harness
from examples.events import app as example
from examples.events.app import ACTORS, Auction, Board
from tests.browser import CHROMIUM, WITHOUT_ONE, browser
from tests.processes import PATIENCE_SECONDS, ServerProcess, UvicornProcess, free_port

APPLICATION = "examples.events.app:app"
PICTURES = os.environ.get("DURABLY_PICTURES")
"""A folder for pictures of pages, for those who want to look at them."""


async def test_boards_and_letters_follow_the_bids_over_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    letters: list[str] = []

    def send_mail(to: str, text: str) -> None:
        letters.append(f"{to}: {text}")

    monkeypatch.setattr(example, "send_mail", send_mail)
    async with Harness(*ACTORS) as app:
        piano = app.object(Auction, "piano")
        await piano.bid("ann", 10)
        await piano.bid("bob", 15)
        with pytest.raises(TerminalError, match="bob has bid 15 already"):
            await piano.bid("ann", 15)
        await app.crash()
        await piano.bid("ann", 20)
        await piano.close()
        await piano.close()
        await app.settle()
        assert await app.object(Board, "ann").read() == (2, ["piano"])
        assert await app.object(Board, "bob").read() == (1, [])
        assert letters == ["ann: You have won piano for 20."]


def bid(server: ServerProcess, bidder: str, amount: int) -> None:
    url, body = f"{server.url}/durably/Auction/piano/bid", {"bidder": bidder, "amount": amount}
    httpx.post(url, json=body, timeout=PATIENCE_SECONDS, trust_env=False).raise_for_status()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT_ONE)
def test_the_page_shows_events_live_and_misses_none_when_the_server_restarts(tmp_path: Path) -> None:
    port = free_port()
    lines = "[...document.querySelectorAll('#events li')].map(line => line.lastChild.textContent)"
    with browser(tmp_path / "profile") as page:
        server = UvicornProcess(APPLICATION, cwd=tmp_path, port=port)
        try:
            bid(server, "ann", 1)
            page.open(server.url)
            page.until("document.querySelectorAll('#events li').length == 1 && document.querySelector('#state.live')")
            page.evaluate("document.forms[0].requestSubmit()")
            page.until("document.querySelectorAll('#events li').length == 2")
        finally:
            server.stop()
        page.until("document.querySelector('#state.lost')")
        server = UvicornProcess(APPLICATION, cwd=tmp_path, port=port)
        try:
            bid(server, "bob", 12)
            page.until("document.querySelectorAll('#events li').length == 3 && document.querySelector('#state.live')")
            page.evaluate("document.forms[0].elements.amount.value = 5; document.forms[0].requestSubmit()")
            page.until("document.querySelector('#problem').textContent != ''")
            page.evaluate("document.querySelector('#close').click()")
            page.until("document.querySelectorAll('#events li').length == 4")
            assert page.evaluate(lines) == [
                "piano is sold to bob for 12", "bob bids 12 for piano", "ann bids 10 for piano", "ann bids 1 for piano",
            ]  # fmt: skip
            if PICTURES is not None:
                page.screenshot(Path(PICTURES) / "auction.png")
        finally:
            server.stop()

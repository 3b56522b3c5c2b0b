"""The sign-up and the watch do what they say."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from durably import AlreadyCompletedError, TerminalError
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from examples.providers import Ledger, MailProvider
from examples.signup import Carrier, ParcelWatch, Signup


def harness(ledger: Ledger, store: MemoryStore | None = None, *, suspend_after: float = 60) -> Harness:
    return Harness(
        Signup,
        ParcelWatch,
        dependencies={MailProvider: MailProvider(ledger), Carrier: Carrier()},
        store=store,
        suspend_after=suspend_after,
    )


@pytest.mark.parametrize("suspend_after", [60, 0])
async def test_whoever_brings_the_code_back_is_signed_up(suspend_after: float) -> None:
    ledger = Ledger()
    async with harness(ledger, suspend_after=suspend_after) as app:
        ann = app.workflow(Signup, "ann")
        assert await ann.look() == "unknown"
        sent = await ann.run.send("ann@example.org")
        await app.settle()
        assert await ann.look() == "waits for the code"
        await ann.confirm(cast("str", ledger.of("mail")[0]["text"]))
        assert await sent is True
        assert await ann.look() == "is signed up"
        assert [mail["text"] for mail in ledger.of("mail")][1] == "Welcome, ann!"
        with pytest.raises(AlreadyCompletedError):
            await ann.confirm("again")


async def test_a_wrong_code_and_no_code() -> None:
    ledger = Ledger()
    async with harness(ledger) as app:
        bob, eve = app.workflow(Signup, "bob"), app.workflow(Signup, "eve")
        signing_up = asyncio.create_task(eve.run.send("eve@example.org"))
        await bob.confirm("guess")
        with pytest.raises(TerminalError, match="not the code"):
            await bob.run("bob@example.org")
        await app.advance(days=3, hours=1)
        assert await (await signing_up) is False
        assert await eve.look() == "has expired"


async def test_a_watch_polls_for_days_with_a_short_journal() -> None:
    store = MemoryStore()
    async with harness(Ledger(), store) as app:
        sent = await app.workflow(ParcelWatch, "42").run.send()
        for _ in range(2):
            await app.advance(days=1)
            (row,) = store.disk.rows.values()
            assert len(row.steps) < 10
        await app.advance(days=1)
        assert await sent == 61

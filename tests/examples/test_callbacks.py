"""The feed calls by name, shows the ids of its calls, and gives up what takes too long."""

from __future__ import annotations

from typing import Any

import pytest

from durably.testing import Harness
from examples.callbacks import PATIENCE_SECONDS, Feed, Inbox, Subscriber
from tests.semantics.test_awakeables import WAYS


@pytest.mark.parametrize("way", [*WAYS])
async def test_subscribers_are_called_by_their_names(way: str) -> None:
    options: dict[str, Any] = WAYS[way]
    async with Harness(Feed, Inbox, **options) as app:
        feed = app.object(Feed, "news")
        for subscriber in (
            Subscriber("Inbox", "put", "ann"),
            Subscriber("Inbox", "put_when_asked", "bob"),
            Subscriber("Inbox", "put_when_asked", "eve"),
            Subscriber("Outbox", "put", "joe"),
        ):
            await feed.subscribe(subscriber)
        published = await feed.publish.send("It works.")
        await app.settle()
        _, bob, _, _ = await feed.under_way()
        await app.invocation(bob, str).signal("ask")
        await app.advance(PATIENCE_SECONDS + 1)
        answers = await published.output()
        assert answers["Inbox/ann"] == "ann has 1"
        assert answers["Inbox/bob"] == "bob has 1"
        assert answers["Inbox/eve"] == "failed: The invocation was cancelled."
        assert answers["Outbox/joe"].startswith("failed: There is no service, object or workflow 'Outbox' here.")
        assert await feed.under_way() == []
        assert (await app.state(Inbox, "eve")).get("texts", []) == []

"""Operators see sources, and act on them."""

from __future__ import annotations

import httpx

from durably.sources import Feed
from durably.testing import Harness, Topic, TopicSource
from tests.test_sources import Account


async def test_sources_are_listed_paused_resumed_and_pass_over_a_record() -> None:
    topic = Topic()
    for value in (b"1", b'"two"', b"3"):
        topic.put(value, key="a")
    async with Harness(Account, sources=[Feed(TopicSource(topic), Account.book)]) as app:
        transport = httpx.ASGITransport(app.asgi(admin=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
            await app.settle()
            (told,) = (await admin.get("/sources")).json()["sources"]
            assert told.pop("reason").startswith("The record 1 of the partition 0 cannot become a message")
            assert told == {
                "name": "topic", "handler": "Account/book", "status": "paused", "positions": {"0": 1}, "behind": 2,
                "in_flight": 0, "failure": None,
            }  # fmt: skip
            assert 'durably_source_lag_records{source="topic"} 2.0' in (await admin.get("/metrics")).text
            for verb, changed in (("pause", False), ("pass-over", True), ("resume", False), ("pause", True)):
                answer = await admin.patch(f"/sources/{verb}", params={"name": "topic"})
                assert answer.json() == {"changed": changed}
                await app.settle()
            assert (await app.state(Account, "a"))["booked"] == [1, 3]
            assert 'durably_source_lag_records{source="topic"} 0.0' in (await admin.get("/metrics")).text
            assert (await admin.patch("/sources/resume")).status_code == 400
            assert (await admin.patch("/sources/wind", params={"name": "topic"})).status_code == 404
            assert (await admin.patch("/sources/resume", params={"name": "tropic"})).status_code == 404

"""Operators see subscriptions and dead letters, and act on them."""

from __future__ import annotations

import httpx

from durably.testing import Harness
from tests.events.test_events import Flaky, Paid


async def test_subscriptions_and_dead_letters_are_listed_and_acted_on() -> None:
    Flaky.broken = True
    async with Harness(Flaky) as app:
        transport = httpx.ASGITransport(app.asgi(admin=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
            await app.publish(Paid("a", -1), Paid("a", -2), key="a")
            await app.advance(minutes=1)
            name = {"name": "Flaky/hear"}
            assert (await admin.patch("/subscriptions/pause", params=name)).json() == {"changed": True}
            await app.publish(Paid("a", 3), key="a")
            (told,) = (await admin.get("/subscriptions")).json()["subscriptions"]
            assert told == {
                "id": "Flaky/hear", "source": "stream://default/all", "sink": "service://Flaky/hear", "options": {},
                "name": "Flaky/hear", "stream": "default/all", "events": ["Paid"], "status": "paused", "behind": 1,
                "in_flight": 0, "reason": None,
            }  # fmt: skip
            assert (await admin.patch("/subscriptions/resume", params=name)).json() == {"changed": True}
            assert (await admin.patch("/subscriptions/pass-over", params=name)).json() == {"changed": False}
            letters = (await admin.get("/dead-letters", params={"subscription": "Flaky/hear"})).json()["dead_letters"]
            assert [(one["event"], one["value"]["amount"]) for one in letters] == [("Paid", -1), ("Paid", -2)]
            Flaky.broken = False
            for verb, letter in zip(("retry", "drop"), letters, strict=True):
                answer = await admin.patch(f"/dead-letters/{verb}", params={"id": letter["id"]})
                assert answer.json() == {"changed": True}
                assert (await admin.patch(f"/dead-letters/{verb}", params={"id": letter["id"]})).status_code == 404
            assert (await admin.get("/dead-letters")).json() == {"dead_letters": []}
            for path in ("/subscriptions/pause", "/dead-letters/drop"):
                assert (await admin.patch(path)).status_code == 400
            for path in ("/subscriptions/wind", "/dead-letters/wind"):
                assert (await admin.patch(path, params=name)).status_code == 404

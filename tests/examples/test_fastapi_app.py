from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from examples.fastapi_app import app, lifespan


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application."""
    monkeypatch.chdir(tmp_path)
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        yield client


async def test_routes_and_mounted_handlers_are_the_same_actors(client: httpx.AsyncClient) -> None:
    assert (await client.post("/carts/mary/tickets/2B")).json() is True
    assert (await client.post("/carts/joe/tickets/2B")).json() is False
    assert (await client.get("/seats/2B")).json() == "Reserved"
    mounted = await client.post("/durably/TicketObject/2B/peek")
    assert (mounted.status_code, mounted.json()) == (200, "Reserved")


async def test_a_checkout_begins_once_per_key(client: httpx.AsyncClient) -> None:
    await client.post("/carts/mary/tickets/2B")
    ids = {(await client.post("/carts/mary/checkout", headers={"idempotency-key": "one"})).json() for _ in range(2)}
    assert len(ids) == 1
    repeated = await client.post("/durably/CartObject/mary/checkout", headers={"idempotency-key": "one"})
    assert repeated.json() is True
    assert (await client.get("/seats/2B")).json() == "Sold"

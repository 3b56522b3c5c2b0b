from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from durably.testing import Harness
from examples.fastapi_app import app, make_app
from examples.providers import Ledger, MailProvider, PaymentProvider
from examples.tickets import Cart, Checkout, Ticket


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of the running application, on a file."""
    monkeypatch.chdir(tmp_path)
    with TestClient(app) as client:
        yield client


def test_routes_and_mounted_handlers_are_the_same_actors(client: TestClient) -> None:
    assert client.post("/carts/mary/tickets/2B").json() is True
    assert client.post("/carts/joe/tickets/2B").json() is False
    assert client.get("/seats/2B").json() == "Reserved"
    mounted = client.post("/durably/TicketObject/2B/peek")
    assert (mounted.status_code, mounted.json()) == (200, "Reserved")


def test_a_checkout_begins_once_per_key(client: TestClient) -> None:
    client.post("/carts/mary/tickets/2B")
    ids = {client.post("/carts/mary/checkout", headers={"idempotency-key": "one"}).json() for _ in range(2)}
    assert len(ids) == 1
    repeated = client.post("/durably/CartObject/mary/checkout", headers={"idempotency-key": "one"})
    assert repeated.json() is True
    assert client.get("/seats/2B").json() == "Sold"


def test_a_seat_comes_back_after_fifteen_minutes(tmp_path: Path) -> None:
    ledger = Ledger(None)
    providers = {PaymentProvider: PaymentProvider(ledger, failing=0, seconds=0), MailProvider: MailProvider(ledger)}
    tour = Harness(Ticket, Cart, Checkout, dependencies=providers)
    with TestClient(make_app(tour)) as client:
        assert client.portal is not None
        assert client.post("/carts/mary/tickets/2B").json() is True
        assert client.get("/seats/2B").json() == "Reserved"
        client.portal.call(tour.crash)
        client.portal.call(partial(tour.advance, minutes=15))
        assert client.get("/seats/2B").json() == "Available"

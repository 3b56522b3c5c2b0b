"""The example of orders, from Python classes and from the `.rst` file: its HTTP API, its test, and with crashes."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient

from durably.cli.new import TEMPLATES
from durably.model_files import generate
from durably.testing import Faults, Harness, Simulation, for_each_crash_point, simulate
from examples.orders import app as from_python
from examples.orders.from_file import app as from_file

CARRIER = from_python.Carrier()
CURL_LINES = [
    'curl -X POST "localhost:3000/orders?amount=100"',
    "curl localhost:3000/orders",
    'curl -X POST "localhost:3000/webhook/order_paid/order_01gqjyp438r30j3g28jt78cx23?reference=abc123"',
    "curl localhost:3000/orders",
]
SOURCE = Path(from_file.__file__).with_name("models")


@pytest.fixture(params=[from_python, from_file], ids=["python", "file"])
def example(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    return found


@pytest.fixture
def harness(example: Any) -> Harness:
    return Harness(example.Orders, dependencies={from_python.Carrier: CARRIER})


@pytest.fixture
def client(example: Any, harness: Harness) -> Iterator[TestClient]:
    with TestClient(example.make_app(harness)) as client:
        yield client


def test_each_curl_line_gives_what_it_should(example: ModuleType, client: TestClient, harness: Harness) -> None:
    create, show, pay, _ = CURL_LINES
    assert all(line in str(example.__doc__) for line in CURL_LINES)
    created = answer(client, create)
    assert created == {"id": created["id"], "state": "created", "amount": 100}
    assert answer(client, show) == [created]
    paid = answer(client, pay.replace("order_01gqjyp438r30j3g28jt78cx23", created["id"]))
    assert paid == {**created, "state": "paid", "paymentReference": "abc123"}
    assert client.portal is not None
    client.portal.call(harness.settle)
    assert answer(client, show) == [{**paid, "state": "deliveryBooked", "trackingNumber": "123456789"}]


def answer(client: TestClient, curl_line: str) -> Any:
    """What `curl` would print."""
    _, *options, url = shlex.split(curl_line)
    response = client.request("POST" if options == ["-X", "POST"] else "GET", url.removeprefix("localhost:3000"))
    assert response.status_code == 200
    return response.json()


def test_what_cannot_be_is_refused_with_the_reason(client: TestClient) -> None:
    order = client.post("/orders?amount=100").json()["id"]
    client.post(f"/webhook/order_paid/{order}?reference=abc123")
    again = client.post(f"/webhook/order_paid/{order}?reference=abc123")
    assert again.status_code == 409
    assert "pay leads from created" in again.text
    assert client.post("/webhook/order_paid/order_01gqjyp438r30j3g28jt78cx23?reference=a").status_code == 404
    assert client.post("/webhook/order_paid/nothing?reference=a").status_code == 400


async def test_delivery_is_booked_when_an_order_is_paid(example: Any, harness: Harness) -> None:
    async with harness as app:
        orders = app.machine(example.Orders)
        order, _ = await orders.create(amount=100)
        await orders.pay(order, payment_reference="abc123")
        await app.settle()
        updated = await orders.find_one_or_raise(example.DeliveryBooked, id=order.id)
        assert updated.tracking_number == "123456789"
        names = [one.name for one in await orders.get_object_transitions(order)]
        assert names == ["bookDelivery", "pay", "create"]


async def sell(example: Any, sim: Simulation) -> None:
    """An order is paid, and delivered once, whatever happens to the process."""
    orders = sim.machine(example.Orders)
    order, _ = await orders.create(amount=100)
    await orders.pay(order, payment_reference="abc123")
    while not await orders.count(example.DeliveryBooked):
        await asyncio.sleep(1)
    assert [one.name for one in await orders.get_object_transitions(order)] == ["bookDelivery", "pay", "create"]


def test_an_order_is_delivered_once_wherever_the_process_dies(example: Any) -> None:
    program, dependencies = partial(sell, example), {from_python.Carrier: CARRIER}
    simulate(program, example.Orders, dependencies=dependencies, runs=5, faults=Faults.any())
    for_each_crash_point(program, example.Orders, dependencies=dependencies)


def test_the_generated_module_is_what_durably_generate_writes_and_a_new_project_begins_with(tmp_path: Path) -> None:
    shutil.copy(SOURCE / "Order.rst", tmp_path)
    generate(tmp_path)
    assert (tmp_path / "order.py").read_text() == (SOURCE / "order.py").read_text()
    assert (TEMPLATES / "models/models/Order.rst.txt").read_text() == (SOURCE / "Order.rst").read_text()

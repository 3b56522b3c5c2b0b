"""docs/models.md tells the truth: its programs run one after the other, and its file generates the same model."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from durably import TerminalError
from durably.cli.commands import application
from durably.fastapi import add_error_handlers, lifespan
from durably.graphs import graph_of_machine, to_mermaid
from durably.model_files import ModelFileError, generate
from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(FILE,) = re.findall(r"```rst\n(.*?)```", PAGE, re.DOTALL)
(PICTURE,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
NAME = "models_page"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """What the page defines."""
    module = sys.modules[NAME] = ModuleType(NAME)
    for number, program in enumerate(PROGRAMS):
        exec(compile(program, f"models.md, program {number}", "exec", dont_inherit=True), vars(module))
    yield module
    del sys.modules[NAME]


@pytest.fixture
async def app(page: Any) -> AsyncIterator[Harness]:
    async with Harness(page.Orders) as app:
        yield app


async def test_its_functions_do_what_it_says(page: Any, app: Harness) -> None:
    orders: Any = app.machine(page.Orders)
    order = await page.create_an_order(app)
    assert (order.state, order.amount) == ("created", 100)
    assert await page.look_for_orders(orders, order.id) == 1
    assert re.fullmatch(
        r"order_\w+ is paid, and pay leads from created. From there it can: book_delivery.",
        await page.pay_twice(orders),
    )
    assert [one.name for one in await page.look_at_history(orders, order)] == ["pay", "create"]


async def test_its_tests_pass(page: Any) -> None:
    await page.test_delivery_is_booked_when_an_order_is_paid()


async def test_its_middleware_sees_what_a_transition_is_called_with(page: Any) -> None:
    async with Harness(page.Orders, middleware=[page.no_large_orders]) as app:
        orders: Any = app.machine(page.Orders)
        with pytest.raises(TerminalError, match="Ask a person first"):
            await orders.create(amount=1_001)
        assert (await orders.create(amount=1_000))[0].amount == 1_000


def test_its_lines_for_plain_http_work(page: Any) -> None:
    lines = [line.strip() for line in PAGE.splitlines() if line.startswith("    curl localhost:8080") or "/get" in line]
    calls = [re.fullmatch(r"curl (?:-X POST )?localhost:8080(\S+)(?: -H '.*' -d '(.*)')?", line) for line in lines]
    harness = Harness(page.Orders)
    app = FastAPI(lifespan=lifespan(harness))
    app.mount("/", harness.asgi())
    with TestClient(app) as client:
        answers = [client.post(call[1], content=call[2] or "") for call in calls if call is not None]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert (answers[0].json()[0]["id"], answers[1].json()[1]["note"]) == ("order_7", "by hand")
        assert answers[2].json()["paymentReference"] == "abc123"
        assert client.post("/Orders/order_7/create", json={"amount": 1}).status_code == 409
        assert client.post("/Orders/invoice_7/create", json={"amount": 1}).status_code == 400


def test_its_simulation_passes(page: Any) -> None:
    page.test_an_order_is_delivered_once_wherever_the_process_dies()


def test_its_api_answers_as_it_says_and_so_does_the_ingress(page: Any) -> None:
    harness = Harness(page.Orders)
    api = FastAPI(lifespan=lifespan(harness))
    add_error_handlers(api)
    api.include_router(page.router)
    api.mount("/durably", harness.asgi())
    with TestClient(api) as client:
        order = client.post("/orders?amount=100").json()
        assert order == {"state": "created", "id": order["id"], "amount": 100}
        assert client.post(f"/durably/Orders/{order['id']}/pay", json={"paymentReference": "abc123"}).status_code == 200
        assert client.portal is not None
        client.portal.call(harness.settle)
        booked = {"state": "deliveryBooked", "paymentReference": "abc123", "trackingNumber": "123456789"}
        assert client.get("/orders").json() == [{**order, **booked}]
        assert client.post(f"/webhook/order_paid/{order['id']}?reference=abc123").status_code == 409


def test_its_file_is_the_model_of_its_programs_and_its_mistake_is_told_so(page: Any, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "Order.rst").write_text(FILE)
    generate(folder)
    module = sys.modules["models_page_generated"] = ModuleType("models_page_generated")
    names = vars(module)
    exec(compile((folder / "order.py").read_text(), "order.py", "exec", dont_inherit=True), names)
    for state in ("Created", "Paid", "DeliveryBooked"):
        assert names[state].__struct_encode_fields__ == getattr(page, state).__struct_encode_fields__
    (folder / "Order.rst").write_text(FILE.replace("Pay: Created", "Pay: Craeted"))
    with pytest.raises(ModelFileError) as refused:
        generate(folder)
    told = str(refused.value).removeprefix(f"{tmp_path}/")
    assert "".join(f"    {line}\n" for line in told.splitlines()) in PAGE


def test_its_picture_and_its_commands_are_real(page: Any) -> None:
    assert to_mermaid(graph_of_machine(page.Orders)).endswith(PICTURE.partition("\n")[2])
    for command in {*re.findall(r"`durably ([a-z]+)", PAGE)}:
        assert CliRunner().invoke(application, [command, "--help"]).exit_code == 0

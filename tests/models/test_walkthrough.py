"""The walk through restate-ts, whose models these are: each block of its page in Python, in its order.

What type checkers refuse there, they refuse here: tests/typing/wrong_models.py.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import typer
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from durably import Caller, Context
from durably.cli.commands import application
from durably.configuration import DEVELOPMENT, load_configuration
from durably.errors import DefinitionError
from durably.fastapi import add_error_handlers
from durably.model_files import generate
from durably.models import (
    Fields,
    InvalidTransitionError,
    Machine,
    Model,
    Project,
    Transition,
    TransitionContext,
    consumer,
    initial,
    one_of,
    transition,
)
from durably.testing import Harness
from durably.testing.models import client as client_of
from examples.orders.from_file import app as example

UNKNOWN = "order_01gqjyp438r30j3g28jt78cx23"

# ---------------------------------------------------------------- getting started: installation


def run(*arguments: str, expected: int = 0) -> str:
    done = CliRunner().invoke(application, arguments)
    assert done.exit_code == expected, done
    return f"{done.output}{done.exception or ''}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`mkdir my-first-project && cd my-first-project`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DURABLY_ENV", "")  # Commands set it for the code of the project; here it is as it was again.
    return tmp_path


def test_a_project_is_made_in_the_folder_that_is_current_if_it_is_empty(folder: Path) -> None:
    assert "Written: models/order.py" in run("new", "--models")
    assert {"project.py", "test_orders.py", "durably.toml", "README.md"} <= {path.name for path in folder.iterdir()}
    assert "is not empty" in run("new", "--models", expected=1)


def test_before_there_is_a_project_dev_says_that_there_is_none(folder: Path) -> None:
    assert "There is no project" in run("dev", "--no-reload", expected=1)


# ---------------------------------------------------------------- defining models, generating the client

ORDER = Path(example.__file__).with_name("models").joinpath("Order.rst").read_text("utf-8")


def test_a_model_is_defined_in_a_file_and_its_module_generated(folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "Order.rst").write_text(ORDER)
    assert "Written: models/order.py" in run("generate")
    written = (folder / "models" / "order.py").read_text()
    assert written == Path(example.__file__).with_name("models").joinpath("order.py").read_text()


PLACEHOLDERS = """
class Orders(OrderMachine):
    @models.initial
    async def create(self, ctx: models.TransitionContext, amount: int) -> Created:
        raise NotImplementedError("Create transition not implemented")

    @models.transition
    async def pay(self, ctx: models.TransitionContext, order: Created, payment_reference: str) -> Paid:
        raise NotImplementedError("Pay transition not implemented")

    @models.transition
    async def book_delivery(self, ctx: models.TransitionContext, order: Paid) -> DeliveryBooked:
        raise NotImplementedError("BookDelivery transition not implemented")

async def main(client):
    "main is the entrypoint for your project."

project = models.Project([Orders], main=main)
"""


async def test_a_project_needs_an_implementation_of_each_transition(folder: Path) -> None:
    with pytest.raises(DefinitionError, match=r"pay(.|\n)*book_delivery"):
        generated(folder, ORDER, PLACEHOLDERS.partition("    @models.transition")[0])
    module = generated(folder, ORDER, PLACEHOLDERS)
    async with client_of(module["project"]) as client:
        with pytest.raises(Exception, match="Create transition not implemented"):
            await client.machine(module["Orders"]).create(amount=100)


def generated(folder: Path, text: str, program: str = "") -> dict[str, Any]:
    """What `durably generate` writes, and a program that follows it."""
    (folder / "Model.rst").write_text(text)
    made = generate(folder)
    (path,) = (*made.written, *made.unchanged)
    module = ModuleType("walkthrough_generated")
    sys.modules[module.__name__] = module
    exec(compile(path.read_text() + program, str(path), "exec", dont_inherit=True), vars(module))
    return vars(module)


# ---------------------------------------------------------------- creating, querying, paying, delivering


class Order(Model, prefix="order"):
    """The same model in Python."""

    amount: int


class Created(Order): ...


class PaidFields(Fields):
    payment_reference: str


class Paid(PaidFields, Order): ...


class DeliveryBooked(PaidFields, Order):
    tracking_number: str


class Orders(Machine[Order]):
    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        return Created(amount=amount)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid:
        # `of` keeps the fields that both states have
        return Paid.of(order, payment_reference=payment_reference)

    @transition
    async def book_delivery(self, ctx: TransitionContext, order: Paid) -> DeliveryBooked:
        return DeliveryBooked.of(order, tracking_number="123456789")

    @consumer(pay, name="BookDeliveryAfterOrderPaid")
    async def book_when_paid(self, ctx: Context, order: Order, transition: Transition) -> None:
        # The type is Order rather than Paid, because the object may have changed since
        if not isinstance(order, Paid):
            return
        await ctx.machine(Orders).book_delivery(order)


def make_api(client: Caller) -> FastAPI:
    api = FastAPI()
    add_error_handlers(api)
    orders = client.machine(Orders)

    @api.post("/orders")
    async def create_order(amount: int) -> Any:
        order, _ = await orders.create(amount=amount)
        return msgspec.to_builtins(order)

    @api.get("/orders")
    async def all_orders() -> Any:
        return msgspec.to_builtins(await orders.find_all(Order))

    @api.post("/webhook/order_paid/{order_id}")
    async def order_paid(order_id: str, reference: str) -> Any:
        order, _ = await orders.pay(order_id, payment_reference=reference)
        return msgspec.to_builtins(order)

    return api


async def main(client: Caller) -> None:
    server = uvicorn.Server(uvicorn.Config(make_api(client), port=3000))
    await server.serve()


project = Project([Orders], main=main)


@pytest.fixture
def served() -> Iterator[tuple[TestClient, Harness]]:
    """The API on a runtime; consumers run when the test says so."""
    harness = Harness(Orders)
    with TestClient(make_api(harness)) as http:
        assert http.portal is not None
        with http.portal.wrap_async_context_manager(harness):
            yield http, harness


def test_the_api_creates_shows_and_pays_orders_and_a_consumer_books_the_delivery(
    served: tuple[TestClient, Harness],
) -> None:
    http, harness = served
    order = http.post("/orders?amount=100").json()
    assert re.fullmatch(r"order_[0-9a-z]{26}", order["id"])
    assert order == {"id": order["id"], "state": "created", "amount": 100}
    assert http.get("/orders").json() == [order]
    paid = http.post(f"/webhook/order_paid/{order['id']}?reference=abc123").json()
    assert paid == {"id": order["id"], "state": "paid", "amount": 100, "paymentReference": "abc123"}
    assert http.portal is not None
    http.portal.call(harness.settle)
    (booked,) = http.get("/orders").json()
    assert booked == {**paid, "state": "deliveryBooked", "trackingNumber": "123456789"}


# ---------------------------------------------------------------- model definitions: ids, fields, types


def test_models_have_prefixes_fields_of_all_states_and_of_one_and_types(folder: Path) -> None:
    assert "Order" in generated(folder, 'model Order {\n  prefix "order"\n}\n')
    user = generated(folder, "model User {\n  field name: String\n\n  state Verified {\n    field age: Int\n  }\n}\n")
    assert user["Verified"].__struct_fields__ == ("id", "name", "age")
    nullable = generated(folder, "model Customer {\n  field name: Optional[String]\n  state New {}\n}\n")
    assert nullable["New"]().name is None
    every = "".join(
        f"  field {type.lower()}Field: {type}\n  field no{type}: Optional[{type}]\n"
        for type in ("String", "Int", "Decimal", "Bool")
    )
    types = generated(folder, f"model Every {{\n{every}  state One {{}}\n}}\n")
    one = types["One"](string_field="", int_field=-1, decimal_field=Decimal("0.1"), bool_field=True)
    assert (one.no_string, one.no_int, one.no_decimal, one.no_bool) == (None,) * 4


# ---------------------------------------------------------------- client: transitions


@pytest.fixture
async def client() -> AsyncIterator[Harness]:
    """Without the consumer, as the model of this part has none."""
    async with Harness(Orders) as client:
        await client.pause_subscription("Orders.BookDeliveryAfterOrderPaid/consume")
        yield client


async def test_transitions_are_called_on_the_client_and_are_kept_with_their_notes(client: Harness) -> None:
    orders = client.machine(Orders)
    order, _ = await orders.create(amount=100)
    paid_order, made = await orders.pay(order.id, payment_reference="abc123")
    wrong: Any = paid_order
    with pytest.raises(InvalidTransitionError, match="is paid, and pay leads from created"):
        await orders.pay(wrong, payment_reference="abc123")
    assert re.fullmatch(r"tsn_[0-9a-z]{26}", made.id)
    assert await orders.get_transition(made.id) == made
    assert [one.name for one in await orders.get_object_transitions(paid_order)] == ["pay", "create"]
    other, _ = await orders.create(amount=1)
    _, noted = await orders.pay.options(note="Payment manually verified")(other, payment_reference="abc123")
    assert (await orders.get_transition(noted.id)).note == "Payment manually verified"


# ---------------------------------------------------------------- client: queries


async def test_queries_find_one_or_many_by_fields_and_state(client: Harness) -> None:
    orders = client.machine(Orders)
    made = [(await orders.create(amount=amount))[0] for amount in (100, 100, 7)]  # In the same millisecond
    paid, _ = await orders.pay(made[0], payment_reference="abc123")
    found: Order | None = await orders.find_one(Order, id=paid.id)
    assert found == paid
    assert await orders.find_one(Order, id=UNKNOWN) is None
    assert await orders.find_all(Order, amount=100) == in_order(paid, made[1])
    created: list[Created] = await orders.find_all(Created)
    assert created == in_order(*made[1:])
    order: Order = await orders.find_one_or_raise(Order, id=paid.id)
    assert order == paid
    with pytest.raises(Exception, match=UNKNOWN):
        await orders.find_one_or_raise(Order, id=UNKNOWN)
    assert await orders.find_all(Created, limit=1) == created[:1]
    assert await orders.find_all(Paid, lambda one: (one.amount > 10) & one_of(one.payment_reference, ["abc123"])) == [
        paid
    ]


def in_order(*objects: Order) -> list[Order]:
    return sorted(objects, key=lambda one: one.id)


# ---------------------------------------------------------------- testing


async def test_delivery_is_booked_when_order_is_paid() -> None:
    async with client_of(project) as client:
        orders = client.machine(Orders)
        order, _ = await orders.create(amount=100)
        await orders.pay(order, payment_reference="abc123")
        updated = await orders.find_one_or_raise(DeliveryBooked, id=order.id)
        assert updated.tracking_number == "123456789"


# ---------------------------------------------------------------- config, commands

CONFIGURATION = """
[store]
url = "sqlite:////var/lib/orders/orders.db"

# The settings in here will only be used in the development environment
[development.store]
url = "sqlite:///durably.db"
"""


def test_the_store_is_configured_per_environment(folder: Path) -> None:
    (folder / "durably.toml").write_text(CONFIGURATION)

    def url(environment: str | None, default: str) -> str | None:
        environ = {} if environment is None else {"DURABLY_ENV": environment}
        found = load_configuration(environ=environ, folder=folder, default_environment=default).store
        return None if found is None else found.url

    assert url(None, DEVELOPMENT) == "sqlite:///durably.db"
    assert url(None, "production") == url("production", DEVELOPMENT) == "sqlite:////var/lib/orders/orders.db"


def test_there_are_the_commands_and_migrate_sets_up_the_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = typer.main.get_command(application)
    assert {"dev", "main", "worker", "generate", "migrate"} <= set(getattr(commands, "commands", {}))
    monkeypatch.setenv("DURABLY_STORE_URL", f"sqlite:///{folder}/orders.db")
    target = f"{__name__}:project"
    assert "Made: model_order, with 0 objects" in run("migrate", target)
    asyncio.run(make_one(folder))
    assert "Unchanged: model_order" in run("migrate", target)


async def make_one(folder: Path) -> None:
    async with Harness(Orders, store=folder / "orders.db") as client:
        await client.machine(Orders).create(amount=100)

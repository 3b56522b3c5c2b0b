"""Objects change by transitions only: each checks the state, keeps its history, and changes nothing if it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from durably import (
    DefinitionError,
    InvalidArgumentError,
    InvalidKeyError,
    MemoryStore,
    Runtime,
    SqliteStore,
    TerminalError,
    UnknownTargetError,
)
from durably.actors.machines.machine import COMPANIONS
from durably.actors.protocol.commands import FindObjects
from durably.client import Client
from durably.models import InvalidTransitionError, Machine, Model, TransitionContext, UnknownObjectError, initial
from durably.queries import Compare, FieldKind, FieldName, Operator, TableLayout, TableQuery
from durably.testing import Harness
from durably.testing.replaying import check_store
from tests.models.shop import Carrier, Created, DeliveryBooked, Heard, Order, Orders, Paid, dependencies


async def test_an_order_is_made_paid_and_delivered() -> None:
    outside = dependencies()
    async with Harness(Orders, dependencies=outside) as app:
        orders = app.machine(Orders)
        created, made = await orders.create(amount=100)
        assert created == Created.of(created, amount=100)
        assert (created.id[:6], len(created.id)) == ("order_", 6 + 26)
        assert (made.name, made.source, made.target, made.arguments) == ("create", None, "created", {"amount": 100})
        paid, paying = await orders.pay.options(note="by hand")(created, payment_reference="abc")
        assert (paid.payment_reference, paid.amount, paid.state) == ("abc", 100, "paid")
        assert (paying.note, paying.id[:4]) == ("by hand", "tsn_")
        await app.settle()
        booked = await orders.find_one_or_raise(DeliveryBooked, id=created.id)
        assert booked.tracking_number == "T1"
        history = await orders.get_object_transitions(created)
        assert [one.name for one in history] == ["bookDelivery", "pay", "create"]
        assert [one.triggered_by for one in history] == ["Orders.BookDelivery/consume", "", ""]
        assert await orders.get_transition(paying.id) == paying
        heard = outside[Heard]
        assert isinstance(heard, Heard)
        assert [name for _, name, _ in heard.transitions] == ["create", "pay", "bookDelivery"]


async def test_a_transition_leads_from_its_states_only_and_the_error_names_the_ways_there_are() -> None:
    async with Harness(Orders, dependencies=dependencies()) as app:
        orders = app.machine(Orders)
        created, _ = await orders.create(7)
        await orders.pay(created.id, "abc")
        with pytest.raises(
            InvalidTransitionError, match=r"is paid, and pay leads from created\. .* book_delivery, raise"
        ):
            await orders.pay(created, "abc")  # The version given is a created one; the object is another by now.
        paid = await orders.find_one_or_raise(Order, id=created.id)
        with pytest.raises(InvalidTransitionError, match=r"is .*, and pay leads from created"):
            await orders.pay(paid, "abc")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(UnknownObjectError, match="There is no object"):
            await orders.pay(created.id[:-1] + "0", "abc")
        with pytest.raises(InvalidKeyError, match="whose ids begin with 'order_'"):
            await orders.pay("invoice_1", "abc")


async def test_a_transition_that_fails_changes_nothing() -> None:
    outside = dependencies()
    async with Harness(Orders, dependencies=outside) as app:
        orders = app.machine(Orders)
        with pytest.raises(TerminalError, match="An order has an amount"):
            await orders.create(amount=0)
        await app.settle()
        assert await orders.count(Order) == 0
        assert outside[Heard].transitions == []  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def test_with_an_idempotency_key_an_object_is_made_once() -> None:
    async with Harness(Orders, dependencies=dependencies()) as app:
        create = app.machine(Orders).create.options(idempotency_key="basket-7")
        first, second = await create(amount=3), await create(amount=3)
        assert first == second
        assert await app.machine(Orders).count(Order) == 1


async def test_what_there_is_not_is_told() -> None:
    async with Harness(Orders, dependencies=dependencies()) as app:
        orders = app.machine(Orders)
        assert await orders.find_one(Order, id="order_unknown") is None
        assert await orders.find_one(Order, id="invoice_7") is None
        with pytest.raises(UnknownObjectError, match="no Paid with the id"):
            await orders.find_one_or_raise(Paid, id="order_unknown")
        with pytest.raises(UnknownObjectError, match="no Paid that fits"):
            await orders.find_one_or_raise(Paid, amount=7)
        with pytest.raises(UnknownTargetError, match="has no transition 'tsn_7'"):
            await orders.get_transition("tsn_7")
        with pytest.raises(TypeError, match="no state of Order"):
            await orders.find_all(Carrier)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("on_disk", [False, True])
async def test_objects_and_history_are_there_after_a_restart(tmp_path: Path, on_disk: bool) -> None:
    store: Any = SqliteStore(tmp_path / "app.db") if on_disk else MemoryStore()
    outside = dependencies()
    async with Runtime(store, [Orders], dependencies=outside) as runtime:
        orders = runtime.machine(Orders)
        created, _ = await orders.create(amount=5)
        await orders.raise_price(created, by=2)
    async with Runtime(store, [Orders], dependencies=outside) as runtime:
        orders = runtime.machine(Orders)
        assert [one.amount for one in await orders.find_all(Created)] == [7]
        await orders.raise_price(created.id)
        assert [one.name for one in await orders.get_object_transitions(created.id)] == ["raisePrice"] * 2 + ["create"]
        found, _ = await asyncio.gather(orders.find_one(Created, amount=8), orders.count(Order, amount=8))
        assert found == Created.of(created, amount=8)


async def test_a_nul_in_a_field_is_refused_and_the_text_that_stands_for_one_is_not() -> None:
    async with Harness(Orders, dependencies=dependencies()) as app:
        orders = app.machine(Orders)
        created, _ = await orders.create(1)
        for poison in ("\0", "a\0b", "\\\0", "\0\\u0000"):
            with pytest.raises(InvalidArgumentError, match="has a NUL character"):
                await orders.pay(created, poison)
        for text in (r"\u0000", r"\\u0000", "\\", '"\\u0000"'):
            made, _ = await orders.create(1)
            paid, _ = await orders.pay(made, text)
            assert await orders.find_one(Order, payment_reference=text) in (paid, None)  # Booked by now, perhaps.
            assert [one.id for one in await orders.find_all(Order, payment_reference=text)] == [made.id]
        assert await orders.count(Created) == 1


async def test_a_machine_may_be_given_with_those_that_run_beside_it(tmp_path: Path) -> None:
    companions = getattr(Orders, COMPANIONS)
    assert [one.__name__ for one in companions] == ["BookDelivery", "Audit", "questions"]
    store = SqliteStore(tmp_path / "app.db")
    for actors in ([Orders], [Orders, *companions], [*companions, Orders]):
        async with Runtime(store, actors, dependencies=dependencies()) as runtime:
            await runtime.machine(Orders).create(1)
    await store.open_read_only()
    try:  # As `durably check` does.
        report = await check_store(store, Runtime(store, [Orders, *companions], dependencies=dependencies()).actors)
    finally:
        await store.close()
    assert (report.problems, report.objects) == ([], 3)


class Invoice(Model, prefix="order"):
    pass


class Open(Invoice):
    pass


class Invoices(Machine[Invoice]):
    @initial
    async def open(self, ctx: TransitionContext) -> Open:
        return Open()


def test_two_machines_do_not_share_a_prefix() -> None:
    with pytest.raises(DefinitionError, match=r"Orders and .*Invoices share the prefix 'order', and with it their ids"):
        Harness(Orders, Invoices, dependencies=dependencies())


@pytest.mark.parametrize("on_disk", [False, True])
async def test_an_object_whose_state_an_operator_has_removed_is_in_no_answer(tmp_path: Path, on_disk: bool) -> None:
    store: Any = SqliteStore(tmp_path / "app.db") if on_disk else MemoryStore()
    async with Runtime(store, [Orders], dependencies=dependencies()) as runtime:
        orders = runtime.machine(Orders)
        kept, removed, emptied = [(await orders.create(amount)).object for amount in (1, 2, 3)]
        edits: list[tuple[str, dict[str, bytes]]] = [(removed.id, {"object": b"null"}), (emptied.id, {})]
        for id, state in edits:
            edit = await runtime.request_state_edit("Orders", id, state)
            await runtime.invocation(edit.id).result()
            assert await orders.find_one(Order, id=id) is None
        assert await orders.find_all(Order) == [kept]
        assert await orders.count(Order) == 1
        with pytest.raises(UnknownObjectError):
            await orders.raise_price(removed.id)


async def test_over_http_it_is_the_same() -> None:
    async with (
        Harness(Orders, dependencies=dependencies()) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi())) as http,
    ):
        client = Client("http://app", http=http)
        orders = client.machine(Orders)
        created, _ = await orders.create(amount=5)
        paid, made = await orders.pay.options(note="by hand")(created, payment_reference="abc")
        assert await orders.find_one(Paid, id=paid.id) in (paid, None)  # Its delivery may be booked by now.
        assert [one.id for one in await orders.find_all(Order, amount=5)] == [paid.id]
        assert await orders.count(Order, lambda order: order.amount > 5) == 0
        assert await orders.get_transition(made.id) == made
        with pytest.raises(InvalidTransitionError, match="pay leads from created"):
            await orders.pay(created, payment_reference="abc")
        with pytest.raises(InvalidArgumentError, match="There is no field 'secret'"):
            await client.call("Orders.questions", "ask", msgspec.json.encode(_about_secrets()))


def _about_secrets() -> FindObjects:
    secret = FieldName("secret", FieldKind.TEXT)
    table = TableLayout("order", "Vault", "object", (secret,))
    return FindObjects(TableQuery(table, ("created",), Compare(secret, Operator.EQUAL, "x")))

"""Abstract machines: what a subclass has to implement, and that callers may use the contract."""

from __future__ import annotations

from abc import abstractmethod
from types import new_class
from typing import Any, cast

import pytest

from durably.errors import DefinitionError
from durably.models import Fields, Machine, Model, TransitionContext, initial, transition
from durably.testing import Harness


class Order(Model, prefix="order"):
    amount: int


class Created(Order): ...


class Payment(Fields):
    reference: str


class Paid(Payment, Order): ...


class OrderMachine(Machine[Order], abstract=True, name="Order"):
    @initial
    @abstractmethod
    async def create(self, ctx: TransitionContext, amount: int) -> Created: ...

    @transition
    @abstractmethod
    async def pay(self, ctx: TransitionContext, order: Created, reference: str, *, tip: int | None = None) -> Paid: ...


class Creating(OrderMachine, abstract=True):
    """Implements a part, for others to complete."""

    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        return Created(amount=amount)


class Orders(Creating):
    @transition
    async def pay(self, ctx: TransitionContext, order: Created, reference: str, *, tip: int | None = None) -> Paid:
        return Paid.of(order, reference=reference, amount=order.amount + (tip or 0))


async def test_callers_use_the_contract_and_the_implementation_answers_to_its_name() -> None:
    async with Harness(Orders) as app:
        orders = app.machine(cast("type[Orders]", OrderMachine))
        order, made = await orders.create(3)
        assert (order.amount, made.name) == (3, "create")
        paid, made = await app.machine(Orders).pay(order.id, "abc", tip=1)
        assert (paid.id, paid.amount, paid.reference, made.target) == (order.id, 4, "abc", "paid")


async def _bad_amount(self: Any, ctx: TransitionContext, amount: str) -> Created:
    return Created(amount=int(amount))


async def _bad_kind(self: Any, ctx: TransitionContext, order: Created, amount: int) -> Created:
    return order


async def _bad_target(
    self: Any, ctx: TransitionContext, order: Created, reference: str, *, tip: int | None = None
) -> Created:
    return order


async def _bad_source(
    self: Any, ctx: TransitionContext, order: Paid, reference: str, *, tip: int | None = None
) -> Paid:
    return order


async def _no_default(self: Any, ctx: TransitionContext, order: Created, reference: str, *, tip: int | None) -> Paid:
    return Paid.of(order, reference=reference)


PAY = r"async def pay\(self, ctx: TransitionContext, order: Created, reference: str, \*, tip: int \| None = None\)"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, f"does not implement pay.*\n.*@transition\n.*{PAY} -> Paid"),
        ({"pay": transition(_bad_target)}, f"pay is not what .*OrderMachine declares(.|\n)*{PAY}"),
        ({"pay": transition(_bad_source)}, "pay is not what"),
        ({"pay": transition(_no_default)}, "pay is not what"),
        ({"pay": _bad_target}, "pay is function(.|\n)*Write @transition above it"),
        ({"pay": vars(Orders)["pay"], "create": initial(_bad_amount)}, "create is not what"),
        ({"pay": vars(Orders)["pay"], "create": transition(_bad_kind)}, "create is not what"),
    ],
)
def test_what_is_missing_or_another_transition_is_refused_with_what_to_write(body: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        new_class("Wrong", (Creating,), {}, lambda namespace: namespace.update(body, __module__=__name__))

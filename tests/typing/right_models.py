"""Models and machines, as both type checkers accept them."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type

from durably import Context, Runtime
from durably.models import (
    Applied,
    Fields,
    Machine,
    Model,
    Transition,
    TransitionContext,
    consumer,
    initial,
    one_of,
    transition,
)


class Order(Model, prefix="order", index=("amount",)):
    amount: int
    discount: Decimal | None = None


class Payment(Fields):
    payment_reference: str


class Created(Order):
    pass


class Paid(Payment, Order):
    pass


class DeliveryBooked(Payment, Order):
    tracking_number: str


class Orders(Machine[Order]):
    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        return Created(amount=amount)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid:
        return Paid.of(order, payment_reference=payment_reference)

    @transition
    async def change(self, ctx: TransitionContext, order: Created | Paid, *, amount: int = 1) -> Created | Paid:
        return order.of(order, amount=amount)

    @transition
    async def book_delivery(self, ctx: TransitionContext, order: Paid) -> DeliveryBooked:
        number = await ctx.run("book", lambda: "123456789")
        return DeliveryBooked.of(order, tracking_number=number)

    @consumer(pay, create, name="BookDelivery", start="beginning")
    async def book(self, ctx: Context, order: Order, transition: Transition) -> None:
        if isinstance(order, Paid):
            booked, made = await ctx.machine(Orders).book_delivery(order)
            assert_type(booked, DeliveryBooked)
            assert_type(made, Transition)


async def use(runtime: Runtime) -> None:
    orders = runtime.machine(Orders)
    applied = await orders.create(amount=100)
    assert_type(applied, Applied[Created])
    created, _ = await orders.create.options(note="by hand", idempotency_key="k")(100)
    paid, made = await orders.pay.options(note="seen")(created, payment_reference="abc")
    assert_type(paid, Paid)
    assert_type(paid.payment_reference, str)
    await orders.pay(created.id, "abc")
    assert_type((await orders.change(created, amount=3)).object, Created | Paid)
    assert_type(await orders.find_one(Paid, id=paid.id), Paid | None)
    assert_type(await orders.find_one_or_raise(Order, id=paid.id), Order)
    assert_type(await orders.find_all(Created, amount=100), list[Created])
    assert_type(await orders.find_all(Paid, lambda order: order.payment_reference == "abc"), list[Paid])
    await orders.find_all(Order, lambda order: (order.amount > 10) & one_of(order.amount, [11, 12]), limit=10)
    await orders.find_all(Paid, order_by=lambda order: order.payment_reference, descending=True, after=paid.id)
    assert_type(await orders.count(Order), int)
    assert_type(await orders.get_object_transitions(paid), list[Transition])
    assert_type(await orders.get_transition(made.id), Transition)
    match await orders.find_one_or_raise(Order, id=paid.id):
        case Paid(payment_reference=reference):
            assert_type(reference, str)
        case _:
            pass

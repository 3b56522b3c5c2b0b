# mypy: ignore-errors
# type: ignore  # noqa: PGH003
"""Models and machines: each marked line is refused by both type checkers."""

from __future__ import annotations

from durably import Context, Runtime
from durably.models import Fields, Machine, Model, Transition, TransitionContext, consumer, initial, transition


class Order(Model, prefix="order"):
    amount: int


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
        return Paid(amount=amount, payment_reference="")  # refused: another state is returned

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid:
        return Paid(amount=order.amount)  # refused: a field has no value

    @transition
    async def book_delivery(self, ctx: TransitionContext, order: Paid) -> DeliveryBooked:
        order.amount = 3  # refused: versions do not change
        return Created.of(order)  # refused: another state is returned

    @consumer(pay, name="Book")
    async def book(self, ctx: Context, order: Order, transition: Transition) -> None:
        await ctx.machine(Orders).book_delivery(order)  # refused: it may be in another state


async def use(runtime: Runtime, created: Created, paid: Paid, booked: DeliveryBooked) -> None:
    orders = runtime.machine(Orders)
    await orders.pay(paid, payment_reference="abc")  # refused: it leads from another state
    await orders.book_delivery(booked)  # refused: a state with the same fields is another state
    await orders.pay(created)  # refused: a parameter is missing
    await orders.pay(created, payment_reference=3)  # refused: an argument of another type
    await orders.create(amuont=3)  # refused: a parameter of another name
    await orders.find_all(Created, lambda order: order.payment_reference == "abc")  # refused: no such field here
    (await orders.find_one_or_raise(Created, id=paid.id)).payment_reference  # refused: no such field here  # noqa: B018
    runtime.machine(Order)  # refused: a model is no machine
    await orders.ship(created)  # refused: no such transition

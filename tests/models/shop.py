"""The order of the tests: made, paid, delivered by a consumer."""

from __future__ import annotations

from durably import Context, TerminalError
from durably.models import (
    Fields,
    Machine,
    Model,
    Transition,
    TransitionContext,
    consumer,
    initial,
    transition,
)


class Order(Model, prefix="order", index=("amount",)):
    amount: int


class Created(Order):
    pass


class Payment(Fields):
    payment_reference: str


class Paid(Payment, Order):
    pass


class DeliveryBooked(Payment, Order):
    tracking_number: str


class Carrier:
    """Outside: books deliveries."""

    def __init__(self) -> None:
        self.booked: list[str] = []

    def book(self, order: str) -> str:
        self.booked.append(order)
        return f"T{len(self.booked)}"


class Heard:
    """Outside: what consumers have been told."""

    def __init__(self) -> None:
        self.transitions: list[tuple[str, str, str]] = []


class Orders(Machine[Order]):
    """The transitions of orders."""

    def __init__(self, carrier: Carrier, heard: Heard) -> None:
        self.carrier = carrier
        self.heard = heard

    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        """A customer orders."""
        if amount <= 0:
            raise TerminalError("An order has an amount.", code=422)
        return Created(amount=amount)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid:
        return Paid.of(order, payment_reference=payment_reference)

    @transition
    async def raise_price(self, ctx: TransitionContext, order: Created | Paid, by: int = 1) -> Created | Paid:
        return order.of(order, amount=order.amount + by)

    @transition
    async def book_delivery(self, ctx: TransitionContext, order: Paid) -> DeliveryBooked:
        number = await ctx.run("book", self.carrier.book, order.id)
        return DeliveryBooked.of(order, tracking_number=number)

    @consumer(pay, name="BookDelivery")
    async def deliver(self, ctx: Context, order: Order, transition: Transition) -> None:
        if isinstance(order, Paid):
            await ctx.machine(Orders).book_delivery(order)

    @consumer(name="Audit", start="beginning")
    async def audit(self, ctx: Context, order: Order, transition: Transition) -> None:
        told = (transition.object_id, transition.name, transition.id)
        await ctx.run("tell", self.heard.transitions.append, told)


def dependencies() -> dict[type, object]:
    return {Carrier: Carrier(), Heard: Heard()}

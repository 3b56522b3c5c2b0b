"""A state machine with an indexed field, as the code that fills a store has it."""

from __future__ import annotations

from durably.models import Machine, Model, TransitionContext, initial, transition


class Order(Model, prefix="scale", index=("amount",)):
    """Its amount is asked for."""

    amount: int


class Created(Order):
    """Not paid yet."""


class Paid(Order):
    """Paid."""


class Orders(Machine[Order], name="ScaleOrders"):
    """Makes orders, and lets some be paid."""

    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        return Created(amount=amount)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created) -> Paid:
        return Paid.of(order)

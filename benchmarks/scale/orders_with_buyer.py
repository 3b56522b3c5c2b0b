"""The same state machine a release later: it has a field more."""

from __future__ import annotations

from durably.models import Machine, Model, TransitionContext, initial, transition


class Order(Model, prefix="scale", index=("amount",)):
    """With a buyer, whom stored orders do not have."""

    amount: int
    buyer: str | None = None


class Created(Order):
    """Not paid yet."""


class Paid(Order):
    """Paid."""


class Orders(Machine[Order], name="ScaleOrders"):
    """Makes orders, and lets some be paid."""

    @initial
    async def create(self, ctx: TransitionContext, amount: int, buyer: str | None = None) -> Created:
        return Created(amount=amount, buyer=buyer)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created) -> Paid:
        return Paid.of(order)

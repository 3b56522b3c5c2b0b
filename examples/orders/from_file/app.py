"""The same orders and HTTP API, with the model from `models/Order.rst`.

    uvicorn examples.orders.from_file.app:app --port 3000

    curl -X POST "localhost:3000/orders?amount=100"
    curl localhost:3000/orders
    curl -X POST "localhost:3000/webhook/order_paid/order_01gqjyp438r30j3g28jt78cx23?reference=abc123"
    curl localhost:3000/orders

Use the id of the first answer in the third line. Soon after the payment, the order is `deliveryBooked`.
"""

from __future__ import annotations

from typing import Any, final

import msgspec
from fastapi import APIRouter, FastAPI

from durably import Context, Runtime
from durably.fastapi import Durably, add_error_handlers, lifespan
from durably.models import Transition, TransitionContext, consumer, initial, transition
from examples.orders.app import Carrier
from examples.orders.from_file.models.order import Created, DeliveryBooked, Order, OrderMachine, Paid


@final
class Orders(OrderMachine):
    """How orders change, and what follows from it."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    @initial
    async def create(self, ctx: TransitionContext, amount: int) -> Created:
        """Make an order."""
        return Created(amount=amount)

    @transition
    async def pay(self, ctx: TransitionContext, order: Created, payment_reference: str) -> Paid:
        """The customer has paid."""
        return Paid.of(order, payment_reference=payment_reference)

    @transition
    async def book_delivery(self, ctx: TransitionContext, order: Paid) -> DeliveryBooked:
        """Let the carrier deliver."""
        tracking_number = await ctx.run("book", self.carrier.book, order.id)
        return DeliveryBooked.of(order, tracking_number=tracking_number)

    @consumer(pay, name="BookDeliveryAfterOrderPaid")
    async def book_when_paid(self, ctx: Context, order: Order, transition: Transition) -> None:
        """Runs after the payment, beside the webhook, until it succeeds."""
        if isinstance(order, Paid):  # It may have changed since then.
            await ctx.machine(Orders).book_delivery(order)


router = APIRouter()


@router.post("/orders")
async def create_order(amount: int, durably: Durably) -> Any:
    """Create an order."""
    order, _ = await durably.machine(Orders).create(amount=amount)
    return msgspec.to_builtins(order)


@router.get("/orders")
async def all_orders(durably: Durably) -> Any:
    """All orders, the oldest first."""
    return msgspec.to_builtins(await durably.machine(Orders).find_all(Order))


@router.post("/webhook/order_paid/{order_id}")
async def order_paid(order_id: str, reference: str, durably: Durably) -> Any:
    """The payment provider says that an order is paid."""
    order, _ = await durably.machine(Orders).pay(order_id, payment_reference=reference)
    return msgspec.to_builtins(order)


def make_app(runtime: Runtime) -> FastAPI:
    """The API on this runtime, such as a `Harness` in a test."""
    app = FastAPI(title="Orders", lifespan=lifespan(runtime))
    add_error_handlers(app)
    app.include_router(router)
    return app


app = make_app(Runtime("sqlite:///orders.db", [Orders], dependencies={Carrier: Carrier()}))

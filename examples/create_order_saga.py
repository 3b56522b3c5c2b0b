"""An order that several services have to agree on: it is created, the kitchen takes it, the customer pays.

    durably serve examples.create_order_saga:runtime

    curl localhost:8080/CreateOrder/o1/start --json '{"order_id": "o1", "restaurant": "Luigi", "items": ["pizza"]}'
    curl localhost:8080/CreateOrder/o1/state
    curl localhost:8080/Kitchen/accept --json '"o1"'
    curl localhost:8080/CreateOrder/o1/state

If the kitchen refuses, the card is declined, or somebody aborts the saga (`/CreateOrder/o1/abort`), what was done is
undone, the last step first.
"""

from __future__ import annotations

from dataclasses import dataclass

from durably import (
    Awakeable,
    Context,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    WorkflowContext,
    handler,
    shared,
    state,
)
from durably.sagas import Saga, SagaBuilder, SagaDefinition


@dataclass
class OrderData:
    """What the steps share. It is kept with each step that changes it."""

    order_id: str
    restaurant: str
    items: list[str]
    ticket_id: str | None = None
    confirmation: Awakeable[bool] | None = None


@dataclass(frozen=True)
class TicketCreated:
    """The kitchen has taken the order down."""

    ticket_id: str


class Order(VirtualObject):
    """An order, as the customer sees it."""

    status: str = state(default="unknown")

    @handler
    async def create(self, ctx: ObjectContext, items: list[str]) -> None:
        self.status = f"pending: {', '.join(items)}"

    @handler
    async def approve(self, ctx: ObjectContext) -> None:
        self.status = "approved"

    @handler
    async def reject(self, ctx: ObjectContext) -> None:
        self.status = "rejected"

    @shared
    async def read(self, ctx: SharedContext) -> str:
        return self.status


class Ticket(VirtualObject):
    """An order, as the kitchen sees it."""

    confirmation_id: str = state(default="")
    status: str = state(default="unknown")

    @handler
    async def open(self, ctx: ObjectContext, confirmation_id: str) -> None:
        self.confirmation_id, self.status = confirmation_id, "open"

    @handler
    async def close(self, ctx: ObjectContext, status: str) -> str:
        self.status = status
        return self.confirmation_id

    @shared
    async def read(self, ctx: SharedContext) -> str:
        return self.status


class Kitchen(Service):
    """Takes tickets, and says later whether it cooks them."""

    @handler
    async def create_ticket(self, ctx: Context, restaurant: str, order_id: str, confirmation_id: str) -> TicketCreated:
        if restaurant == "closed":
            raise TerminalError("The restaurant is closed.")
        await ctx.object(Ticket, order_id).open(confirmation_id)
        return TicketCreated(ticket_id=order_id)

    @handler
    async def cancel_ticket(self, ctx: Context, ticket_id: str) -> None:
        await ctx.object(Ticket, ticket_id).close("cancelled")

    @handler
    async def accept(self, ctx: Context, ticket_id: str) -> None:
        confirmation_id = await ctx.object(Ticket, ticket_id).close("accepted")
        await ctx.resolve_awakeable(confirmation_id, True)

    @handler
    async def refuse(self, ctx: Context, ticket_id: str) -> None:
        confirmation_id = await ctx.object(Ticket, ticket_id).close("refused")
        await ctx.resolve_awakeable(confirmation_id, False)


class CreateOrder(Saga[OrderData]):
    """The saga; its id is the order's."""

    def define(self, saga: SagaBuilder[OrderData]) -> SagaDefinition[OrderData]:
        return (
            saga.step(self.create)
            .compensate(self.reject)
            .step(self.create_ticket)
            .compensate(self.cancel_ticket)
            .on_reply(self.ticket_created)
            .step(self.wait_for_confirmation)
            .step(self.approve)
            .build()
        )

    async def create(self, ctx: WorkflowContext, data: OrderData) -> None:
        await ctx.object(Order, data.order_id).create(data.items)

    async def reject(self, ctx: WorkflowContext, data: OrderData) -> None:
        await ctx.object(Order, data.order_id).reject()

    async def create_ticket(self, ctx: WorkflowContext, data: OrderData) -> TicketCreated:
        data.confirmation = ctx.awakeable(bool)
        return await ctx.service(Kitchen).create_ticket(data.restaurant, data.order_id, data.confirmation.id)

    def ticket_created(self, ctx: WorkflowContext, data: OrderData, reply: TicketCreated) -> None:
        data.ticket_id = reply.ticket_id

    async def cancel_ticket(self, ctx: WorkflowContext, data: OrderData) -> None:
        await ctx.service(Kitchen).cancel_ticket(data.order_id)

    async def wait_for_confirmation(self, ctx: WorkflowContext, data: OrderData) -> None:
        assert data.confirmation is not None
        if not await data.confirmation:
            raise TerminalError("The kitchen does not cook this.")

    async def approve(self, ctx: WorkflowContext, data: OrderData) -> None:
        await ctx.object(Order, data.order_id).approve()


ACTORS = [Order, Ticket, Kitchen, CreateOrder]

runtime = Runtime("sqlite:///create_order.db", ACTORS)

"""The ticket reservation of Restate's Go SDK, with the names and the lines that its readers know.

    durably serve examples.go_tour:runtime

    curl -v localhost:8080/UserSession/azmy/AddTicket -H 'content-type: application/json' -d '"ticket-1"'
    curl localhost:8080/UserSession/azmy/Checkout

A handler there is a Go function that is given a context; here it is a method. What its context does stands in
docs/compared-with-restate.md, line by line.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from durably import (
    Context,
    ObjectContext,
    Runtime,
    Service,
    TerminalError,
    VirtualObject,
    handler,
    select,
    state,
)
from examples.providers import Ledger, MailProvider, PaymentProvider

RESERVATION = timedelta(minutes=15)
PAYMENT_LIMIT = timedelta(minutes=1)
PRICE = 30
"""Dollars for a ticket."""


class TicketStatus(Enum):
    """Where a ticket stands."""

    AVAILABLE = 0
    RESERVED = 1
    SOLD = 2


class TicketService(VirtualObject):
    """A ticket; its id is the key."""

    status: TicketStatus = state(default=TicketStatus.AVAILABLE)

    @handler(name="Reserve")
    async def reserve(self, ctx: ObjectContext) -> bool:
        """Take it, if nobody has."""
        was_available = self.status is TicketStatus.AVAILABLE
        if was_available:
            self.status = TicketStatus.RESERVED
        return was_available

    @handler(name="Unreserve")
    async def unreserve(self, ctx: ObjectContext) -> None:
        """Give it back, unless it is sold."""
        if self.status is not TicketStatus.SOLD:
            del self.status

    @handler(name="MarkAsSold")
    async def mark_as_sold(self, ctx: ObjectContext) -> None:
        """Keep it for good."""
        if self.status is TicketStatus.RESERVED:
            self.status = TicketStatus.SOLD


@dataclass(frozen=True, kw_only=True)
class PaymentRequest:
    """What a user wants to pay for."""

    user_id: str
    tickets: list[str]


@dataclass(frozen=True, kw_only=True)
class PaymentResponse:
    """What was paid."""

    id: str
    price: int


class Checkout(Service):
    """Payment and mail."""

    def __init__(self, payments: PaymentProvider, mail: MailProvider) -> None:
        self.payments = payments
        self.mail = mail

    @handler(name="Payment")
    async def payment(self, ctx: Context, request: PaymentRequest) -> PaymentResponse:
        """Charge once, however often the provider has to be asked, and tell the user."""
        id, price = str(ctx.uuid()), PRICE * len(request.tickets)
        paid = await ctx.run("pay", self.payments.charge, id, price)  # Tried again until the provider answers.
        text = "Payment succeeded, enjoy the show." if paid else "Payment failed."
        await ctx.run("mail", self.mail.send, request.user_id, text)
        if not paid:
            raise TerminalError("the card does not cover it", code=402)
        return PaymentResponse(id=id, price=price)


class UserSession(VirtualObject):
    """What somebody wants to buy; the key is the user's name."""

    tickets: list[str] = state(default=[])

    @handler(name="AddTicket")
    async def add_ticket(self, ctx: ObjectContext, ticket_id: str) -> bool:
        """Reserve a ticket for a quarter of an hour; false if somebody was faster."""
        if not await ctx.object(TicketService, ticket_id).reserve():
            return False
        self.tickets.append(ticket_id)
        await self.expire_ticket.after(RESERVATION).send(ticket_id)
        return True

    @handler(name="ExpireTicket")
    async def expire_ticket(self, ctx: ObjectContext, ticket_id: str) -> None:
        """Give a ticket back that was not paid for in time."""
        if ticket_id in self.tickets:
            self.tickets.remove(ticket_id)
            await ctx.object(TicketService, ticket_id).unreserve.send()

    @handler(name="Checkout")
    async def checkout(self, ctx: ObjectContext) -> bool:
        """Pay for all tickets; false if there are none, or if the payment takes longer than a minute."""
        if not self.tickets:
            return False
        request = PaymentRequest(user_id=self.key, tickets=self.tickets)
        first, answer = await select(
            paid=ctx.service(Checkout).payment(request),
            late=ctx.sleep(PAYMENT_LIMIT),
        )
        if first == "late":
            return False
        ctx.log.info("payment succeeded", payment=answer)
        async with asyncio.TaskGroup() as group:
            for ticket in self.tickets:
                group.create_task(ctx.object(TicketService, ticket).mark_as_sold())
        del self.tickets
        return True


def make_runtime(store: str = "sqlite:///go_tour.db", ledger: Ledger | None = None) -> Runtime:
    """The tour on a store, with providers that write down what they did."""
    ledger = Ledger() if ledger is None else ledger
    dependencies = {PaymentProvider: PaymentProvider(ledger, failing=0.2), MailProvider: MailProvider(ledger)}
    return Runtime(store, [TicketService, Checkout, UserSession], dependencies=dependencies)


runtime = make_runtime()

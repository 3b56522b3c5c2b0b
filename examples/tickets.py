"""The ticket tour: seats that are reserved for a while, carts, and a checkout that charges exactly once.

    durably serve examples.tickets:runtime

    curl localhost:8080/CartObject/Mary/addTicket -H 'content-type: application/json' -d '"seat2B"'
    curl -X POST localhost:8080/CartObject/Mary/checkout

Every seat is a virtual object, so two people can never reserve the same one; every cart is one, so its tickets and
its checkout never get in each other's way. A reservation is taken back by a message that the cart sends itself fifteen
minutes ahead. Kill the process wherever you like: the tour goes on where it stood.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Runtime,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from examples.providers import Ledger, MailProvider, PaymentProvider

RESERVATION = timedelta(seconds=float(os.environ.get("TICKETS_RESERVATION_SECONDS", "900")))
PRICE = 40
"""Dollars for a ticket."""


class Status(Enum):
    """Where a seat stands."""

    AVAILABLE = "Available"
    RESERVED = "Reserved"
    SOLD = "Sold"


class Ticket(VirtualObject, name="TicketObject"):
    """A seat; the key is its number."""

    status: Status = state(default=Status.AVAILABLE)

    @handler
    async def reserve(self, ctx: ObjectContext) -> bool:
        """Take the seat, if nobody has."""
        if self.status is not Status.AVAILABLE:
            return False
        self.status = Status.RESERVED
        return True

    @handler
    async def unreserve(self, ctx: ObjectContext) -> None:
        """Give the seat back, unless it is sold."""
        if self.status is not Status.SOLD:
            del self.status

    @handler(name="markAsSold")
    async def mark_as_sold(self, ctx: ObjectContext) -> None:
        """Keep the seat for good."""
        if self.status is Status.RESERVED:
            self.status = Status.SOLD

    @shared
    async def peek(self, ctx: SharedContext) -> Status:
        """Look at the seat, without waiting for those who change it."""
        return self.status


class Cart(VirtualObject, name="CartObject"):
    """What somebody wants to buy; the key is the user's name."""

    tickets: list[str] = state(default=[])

    @handler(name="addTicket")
    async def add_ticket(self, ctx: ObjectContext, ticket_id: str) -> bool:
        """Reserve a seat and put it into the cart; false if somebody was faster."""
        reserved = await ctx.object(Ticket, ticket_id).reserve()
        if reserved:
            self.tickets.append(ticket_id)
            await ctx.object(Cart, self.key).expire_ticket.after(RESERVATION).send(ticket_id)
        return reserved

    @handler(name="expireTicket")
    async def expire_ticket(self, ctx: ObjectContext, ticket_id: str) -> None:
        """Give a seat back that was not paid for in time."""
        if ticket_id in self.tickets:
            self.tickets.remove(ticket_id)
            await ctx.object(Ticket, ticket_id).unreserve.send()

    @handler
    async def checkout(self, ctx: ObjectContext) -> bool:
        """Pay for everything in the cart; false if there is nothing, or no money."""
        if not self.tickets:
            return False
        paid = await ctx.service(Checkout).handle(Purchase(user_id=self.key, tickets=self.tickets))
        if paid:
            async with asyncio.TaskGroup() as group:
                for ticket in self.tickets:
                    group.create_task(ctx.object(Ticket, ticket).mark_as_sold())
            self.tickets.clear()
        return paid


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """What a cart asks the checkout to pay for."""

    user_id: str
    tickets: list[str]


class Checkout(Service, name="CheckoutService"):
    """Payment and mail, each exactly once as far as the providers can tell."""

    def __init__(self, payments: PaymentProvider, mail: MailProvider) -> None:
        self.payments = payments
        self.mail = mail

    @handler
    async def handle(self, ctx: Context, purchase: Purchase) -> bool:
        """Charge and tell; true if the money came."""
        key = str(ctx.uuid())  # The same on every attempt, so the provider recognises a repeated request.
        paid = await ctx.run("charge", self.payments.charge, key, PRICE * len(purchase.tickets))
        text = "Your payment succeeded, enjoy the show." if paid else "Your payment did not go through."
        notify = ctx.run.options(retry=RetryPolicy(max_attempts=3))
        await notify("mail", self.mail.send, purchase.user_id, text)
        return paid


def make_runtime(store: str = "sqlite:///tickets.db") -> Runtime:
    """The tour on a store; environment variables say how the providers behave, for those who watch from outside."""
    ledger_path = os.environ.get("TICKETS_LEDGER")
    ledger = Ledger(Path(ledger_path) if ledger_path else None)
    payments = PaymentProvider(
        ledger,
        failing=float(os.environ.get("TICKETS_PAYMENT_FAILING", "0.2")),
        seconds=float(os.environ.get("TICKETS_PAYMENT_SECONDS", "0")),
    )
    return Runtime(
        store,
        [Ticket, Cart, Checkout],
        dependencies={PaymentProvider: payments, MailProvider: MailProvider(ledger)},
    )


runtime = make_runtime()

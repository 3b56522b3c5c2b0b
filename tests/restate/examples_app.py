"""The examples that use nothing that Restate refuses, as one deployment."""

from __future__ import annotations

import durably.restate
from examples import approval, create_order_saga, go_tour, signup, tickets
from examples.providers import Ledger, MailProvider, PaymentProvider

_ledger = Ledger()
DEPENDENCIES = {PaymentProvider: PaymentProvider(_ledger), MailProvider: MailProvider(_ledger)}
ACTORS = (
    approval.Expense,
    create_order_saga.CreateOrder, create_order_saga.Kitchen, create_order_saga.Order, create_order_saga.Ticket,
    go_tour.TicketService, go_tour.Checkout, go_tour.UserSession,
    signup.Signup,
    tickets.Ticket, tickets.Cart, tickets.Checkout,
)  # fmt: skip
app = durably.restate.app(*ACTORS, dependencies=DEPENDENCIES)

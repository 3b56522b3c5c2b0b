"""The ticket tour on a Restate cluster: the classes of `examples.tickets`, unchanged.

    npx @restatedev/restate-server                   # listens on 8080, and on 9070 for operators
    durably serve-restate examples.on_restate:app --register http://127.0.0.1:9070

    curl localhost:8080/CartObject/Mary/addTicket -H 'content-type: application/json' -d '"seat2B"'
    curl -X POST localhost:8080/CartObject/Mary/checkout

Kill either process wherever you like: the tour goes on where it stood. Serve it as often as you like, on as many
machines: an object still takes one message at a time.
"""

from __future__ import annotations

import durably.restate
from examples.providers import Ledger, MailProvider, PaymentProvider
from examples.tickets import Cart, Checkout, Ticket

ledger = Ledger()
app = durably.restate.app(
    Ticket, Cart, Checkout,
    dependencies={PaymentProvider: PaymentProvider(ledger), MailProvider: MailProvider(ledger)},
)  # fmt: skip

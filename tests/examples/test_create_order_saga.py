"""The create-order saga: what the kitchen and the person who aborts it decide, and what is left then."""

from __future__ import annotations

import pytest

from durably import CancelledInvocationError, TerminalError
from durably.testing import Harness
from examples.create_order_saga import ACTORS, CreateOrder, Kitchen, Order, OrderData, Ticket


def data(restaurant: str = "Luigi") -> OrderData:
    return OrderData(order_id="o", restaurant=restaurant, items=["pizza", "wine"])


async def test_an_order_that_the_kitchen_accepts_is_approved() -> None:
    async with Harness(*ACTORS) as app:
        saga = app.workflow(CreateOrder, "o")
        first = await saga.start(data())
        assert (first.status, first.step, first.step_name) == ("running", 0, "create")
        await app.settle()
        waiting = await saga.state()
        assert (waiting.status, waiting.step_name, waiting.data.ticket_id) == ("running", "wait_for_confirmation", "o")
        await app.service(Kitchen).accept("o")
        ended = await saga.run.attach()
        assert ended.ticket_id == "o"
        assert (await saga.state()).status == "completed"
        assert await app.object(Order, "o").read() == "approved"


@pytest.mark.parametrize("how", ["closed", "refused", "aborted"])
async def test_an_order_that_fails_leaves_nothing_behind(how: str) -> None:
    async with Harness(*ACTORS) as app:
        saga = app.workflow(CreateOrder, "o")
        await saga.start(data("closed" if how == "closed" else "Luigi"))
        await app.settle()
        if how == "refused":
            await app.service(Kitchen).refuse("o")
        elif how == "aborted":
            await saga.abort()
        with pytest.raises(CancelledInvocationError if how == "aborted" else TerminalError):
            await saga.run.attach()
        ended = await saga.state()
        assert ended.status == "compensated"
        assert ended.compensated == (("create",) if how == "closed" else ("create_ticket", "create"))
        assert await app.object(Order, "o").read() == "rejected"
        assert await app.object(Ticket, "o").read() == ("unknown" if how == "closed" else "cancelled")

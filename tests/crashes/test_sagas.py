"""An order is placed as a whole or not at all, at whichever commit the process dies, and its state only goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from durably import CancelledInvocationError, InvocationStatusError, TerminalError, UnknownTargetError
from durably.sagas import SagaState
from durably.testing import Faults, Simulation, for_each_crash_point
from examples.create_order_saga import ACTORS, CreateOrder, Kitchen, Order, OrderData, Ticket
from tests.levels import level

RANKS = ("running", "compensating", "compensated", "completed")


async def _begun(sim: Simulation, restaurant: str = "Luigi") -> SagaState[OrderData]:
    order = OrderData(order_id="o", restaurant=restaurant, items=["pizza"])
    first = await sim.client("customer").workflow(CreateOrder, "o").start(order)
    assert (first.status, first.step_name) == ("running", "create")
    return first


async def _has_ticket(sim: Simulation) -> None:
    await sim.until(lambda snapshots: snapshots[Ticket, "o"].status == "open", within=600)


async def accepted(sim: Simulation) -> None:
    await _begun(sim)
    await _has_ticket(sim)  # Perhaps it does not wait for the answer yet.
    await sim.client("cook").service(Kitchen).accept("o")


async def refused(sim: Simulation) -> None:
    await _begun(sim)
    await _has_ticket(sim)
    await sim.client("cook").service(Kitchen).refuse("o")


async def closed(sim: Simulation) -> None:
    await _begun(sim, "closed")


async def aborted(sim: Simulation) -> None:
    first = await _begun(sim)
    await sim.until(lambda snapshots: snapshots[Order, "o"].status != "unknown", within=600)
    customer = sim.client("customer")
    await customer.workflow(CreateOrder, "o").abort()
    with suppress(InvocationStatusError):  # Once more: what undoes is not broken off.
        await customer.invocation(first.invocation_id).cancel()


async def _watched(sim: Simulation) -> SagaState[OrderData]:
    """How it has ended. What is seen of it meanwhile never goes back."""
    saga = sim.client("watcher").workflow(CreateOrder, "o")
    before: SagaState[OrderData] | None = None
    while before is None or before.status not in ("compensated", "completed"):
        await sim.advance(0.1)
        try:
            now = await saga.state()
        except UnknownTargetError:
            assert before is None
            continue
        if before is not None:
            assert (RANKS.index(now.status), now.step) >= (RANKS.index(before.status), before.step)
            assert now.compensated[: len(before.compensated)] == before.compensated
        before = now
    return before


BOTH = ("create_ticket", "create")
Program = Callable[[Simulation], Coroutine[Any, Any, None]]
ENDS: dict[Program, Any] = {
    accepted: (None, "completed", None, (), "approved", "accepted"),
    refused: (TerminalError, "compensated", "wait_for_confirmation", BOTH, "rejected", "cancelled"),
    closed: (TerminalError, "compensated", "create_ticket", ("create",), "rejected", "unknown"),
    aborted: (CancelledInvocationError, "compensated", "", BOTH, "rejected", "cancelled"),
}


@pytest.mark.parametrize("program", ENDS, ids=lambda program: program.__name__)
def test_an_order_is_placed_or_undone_whichever_commit_dies(program: Program) -> None:
    async def ends(sim: Simulation) -> None:
        _, ended = await asyncio.gather(program(sim), _watched(sim))
        raised: type[BaseException] | None = None
        try:
            await sim.client("customer").workflow(CreateOrder, "o").run.attach()
        except TerminalError as error:
            raised = type(error)
        order, ticket = sim.snapshots[Order, "o"].status, sim.snapshots[Ticket, "o"].status
        end = (raised, ended.status, ended.step_name, ended.compensated, order, ticket)
        if program is not aborted:
            assert end == ENDS[program]
        elif "create_ticket" in ended.compensated:  # It was told while, or after, it asked for the ticket.
            assert end == (*ENDS[program][:2], ended.step_name, *ENDS[program][3:])
        else:
            assert end == (CancelledInvocationError, "compensated", ended.step_name, ("create",), "rejected", "unknown")

    before = ("before_commit",) if level().with_slow else ()
    for_each_crash_point(ends, *ACTORS, place=(*before, "after_commit"), faults=Faults.slow(rate=1, up_to=0.2))

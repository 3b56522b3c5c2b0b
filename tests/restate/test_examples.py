"""The examples come to the same on a runtime and on a cluster: README's to the letter, others by a program each."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durably import Caller, Runtime, TerminalError
from durably.restate import Client
from examples import approval, create_order_saga, go_tour, signup, tickets
from tests.processes import ROOT, free_port
from tests.restate.cluster import Cluster, Deployed, installed
from tests.restate.examples_app import ACTORS, DEPENDENCIES

pytestmark = pytest.mark.slow


async def tour(caller: Caller) -> list[Any]:
    cart = caller.object(tickets.Cart, "Mary")
    told: list[Any] = [await cart.checkout()]
    told += [await cart.add_ticket("seat2B") for _ in range(2)]
    await cart.expire_ticket("seat2B")
    told += [await cart.add_ticket("seat2C"), await caller.object(tickets.Ticket, "seat2C").peek()]
    told += [await cart.checkout(), await cart.checkout()]
    return [*told, await caller.object(tickets.Ticket, "seat2C").peek()]


async def tour_of_go(caller: Caller) -> list[Any]:
    session = caller.object(go_tour.UserSession, "azmy")
    told: list[Any] = [await session.checkout()]
    told += [await session.add_ticket(f"ticket-{number}") for number in (1, 2, 1)]
    return [*told, await session.checkout(), await session.checkout(), await session.add_ticket("ticket-1")]


async def approve(caller: Caller) -> list[Any]:
    expense = caller.object(approval.Expense, "7")
    try:
        await expense.decide(yes=True)
    except TerminalError as error:
        early = f"{error.code} {error.message}"
    else:
        early = "not refused"
    submitted = await expense.submit.send(250, "boss")
    while await expense.outcome() != "asked":
        await asyncio.sleep(0.02)
    await expense.decide(yes=True)
    return [early, await submitted.result(), await expense.outcome()]


async def sign_up(caller: Caller) -> list[Any]:
    ann = caller.workflow(signup.Signup, "ann")
    told: list[Any] = [await ann.look()]
    await ann.run.send("ann@example.org")
    while await ann.look() == "unknown":
        await asyncio.sleep(0.02)
    told.append(await ann.look())
    await ann.confirm("a wrong one")
    for attempt in (ann.run.attach(), ann.confirm("again")):
        try:
            await attempt
        except TerminalError as error:
            told.append(f"{type(error).__name__} {error.code}")
    return told


async def order(caller: Caller) -> list[Any]:
    told: list[Any] = []
    for number, restaurant in enumerate(("Luigi", "Mario", "closed", "Bowser")):
        saga, id = caller.workflow(create_order_saga.CreateOrder, f"o{number}"), f"o{number}"
        data = create_order_saga.OrderData(id, restaurant, ["pizza"])
        begun = await saga.start(data)
        told.append((begun.step, begun.step_name, begun.status, begun.data.items))
        try:
            await saga.start(data)
        except TerminalError as error:
            told.append(f"{type(error).__name__} {error.message}")
        while (await saga.state()).step_name == "create" or (await saga.state()).step_name == "create_ticket":
            if (await saga.state()).status == "compensated":
                break
            await asyncio.sleep(0.02)
        if restaurant == "Luigi":
            await caller.service(create_order_saga.Kitchen).accept(id)
        elif restaurant == "Mario":
            await caller.service(create_order_saga.Kitchen).refuse(id)
        elif restaurant == "Bowser":
            await saga.abort()
        try:
            await saga.run.attach()
        except TerminalError as error:
            told.append(f"{type(error).__name__} {error.code} {error.message}")
        state = await saga.state()
        told.append((state.step, state.step_name, state.status, state.compensated, state.failure))
        told.append(await caller.object(create_order_saga.Order, id).read())
        told.append(await caller.object(create_order_saga.Ticket, id).read())
    return told


@pytest.fixture(scope="module")
def deployed(cluster: Cluster) -> Iterator[Deployed]:
    one = Deployed(cluster, "tests.restate.examples_app:app")
    try:
        yield one
    finally:
        one.end()


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("program", [tour, tour_of_go, approve, sign_up, order])
async def test_an_example_comes_to_the_same_on_both(
    cluster: Cluster, program: Callable[[Caller], Awaitable[list[Any]]]
) -> None:
    async with Runtime("memory:", ACTORS, dependencies=DEPENDENCIES) as runtime:
        here = await program(runtime)
    async with Client(cluster.url) as client:
        there = await program(client)
    assert there == here
    assert len({str(one) for one in here}) > 1


def _readme_example(folder: Path) -> ModuleType:
    """README's first program, as a module: all but its last line, which runs it."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"```python\n(.*?)\nasyncio\.run\(main\(\)\)\n```", text, re.DOTALL)
    assert found is not None
    path = folder / "readme_example.py"
    path.write_text(f"{found[1]}\nactors = [Seat, Cart]\n")
    spec = importlib.util.spec_from_file_location("readme_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["readme_example"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_readme_survives_kills_of_service_and_server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    example = _readme_example(tmp_path)
    port = free_port()
    cluster = Cluster(installed(tmp_path_factory.mktemp("npm")), tmp_path_factory.mktemp("restate"))
    try:
        cluster.start()
        async with Client(cluster.url) as client:
            first = Deployed(cluster, "readme_example:actors", cwd=tmp_path, port=port)
            try:
                assert await client.object(example.Cart, "mary").add("2B")
            finally:
                first.kill()
            cluster.kill()
            cluster.start()
            second = Deployed(cluster, "readme_example:actors", cwd=tmp_path, port=port, registers=False)
            try:
                assert not await client.object(example.Cart, "joe").add("2B")
            finally:
                second.end()
        waiting = "select target from sys_invocation where target_handler_name = 'release' and status = 'scheduled'"
        assert [row["target"] for row in cluster.query(waiting)] == ["Seat/2B/release"]
    finally:
        cluster.end()

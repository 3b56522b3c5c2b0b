"""Pictures of state machines: what they show, and that nothing in them covers anything else."""

from __future__ import annotations

from asyncio import to_thread
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from durably import Runtime
from durably.cli.commands import application
from durably.graphs import StateGraph, to_svg
from durably.graphs.layout import lay_out
from durably.graphs.state_graph import arrows_of
from examples.orders.app import Carrier, Orders
from tests.processes import ROOT

ORDERS = """\
---
title: Order
---
stateDiagram-v2
    Created
    Paid
    DeliveryBooked
    [*] --> Created: create
    Created --> Paid: pay
    Paid --> DeliveryBooked: book_delivery
    DeliveryBooked --> [*]
"""
STATES = ("Created", "Paid", "DeliveryBooked", "Sent", "Returned", "Cancelled")


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(application, ["graph", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_class_and_a_file_are_drawn_by_the_names_that_stand_in_them() -> None:
    assert printed("examples.orders.app:Orders") == ORDERS
    file = str(ROOT / "examples" / "orders" / "from_file" / "models" / "Order.rst")
    expected = ORDERS.replace("create", "Create").replace("pay", "Pay").replace("book_delivery", "BookDelivery")
    assert printed(file) == printed(f"{file}:Order") == expected


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["examples.orders.app:Order"], "is the class Order, not a machine"),
        (["examples.orders.app:Nothing"], "It has this machine: examples.orders.app:Orders"),
        (["tests/model_files/Shop.rst"], "Name one of them: durably graph tests/model_files/Shop.rst:TypesTest"),
        (["nothing.rst"], "No such file"),
        (["tests/model_files/Order.rst", "--store", "sqlite:///app.db"], "module:Orders"),
        (["examples.orders.app:Orders", "--store", "sqlite:///nothing.db"], "is not there"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(Exception, match=told):
        printed(*arguments)


async def test_with_a_store_the_picture_tells_how_many_objects_are_in_each_state(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    async with Runtime(url, [Orders], dependencies={Carrier: Carrier()}) as app:
        for amount in range(3):
            await app.machine(Orders).create(amount=amount)
        live = await to_thread(printed, "examples.orders.app:Orders", "--store", url)
        await app.machine(Orders).create(amount=3)
    assert "Created (3)" in live, "the store of a runtime that runs"
    counted = await to_thread(printed, "examples.orders.app:Orders", "--store", url)
    assert 'state "Created (4)" as Created\n    state "Paid (0)" as Paid' in counted
    assert "Created (4)" in await to_thread(printed, "examples.orders.app:Orders", "--store", url, "-o", "svg")


def graphs() -> st.SearchStrategy[StateGraph]:
    def made(count: int, ways: list[tuple[int, int, int]]) -> StateGraph:
        named = ((None if a % 7 == 6 else STATES[a % count], STATES[b % count], "go" * (n + 1)) for a, b, n in ways)
        return StateGraph(name="Order", states=STATES[:count], arrows=arrows_of(named), counts={STATES[0]: 1_000})

    way = st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 3))
    return st.builds(made, st.integers(1, len(STATES)), st.lists(way, max_size=12, unique=True))


@given(graphs())
def test_all_states_and_transitions_are_in_the_picture_and_no_state_covers_another(graph: StateGraph) -> None:
    layout = lay_out(graph)
    boxes = list(layout.boxes.values())
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
    for box in [*boxes, *(one.label for one in layout.arrows)]:
        assert layout.left <= box.middle.x - box.width / 2
        assert box.middle.x + box.width / 2 <= layout.left + layout.width
        assert box.height / 2 <= box.middle.y <= layout.height - box.height / 2
    for arrow in layout.arrows:  # A line that passes over columns passes no state on its way.
        if len(arrow.curves) > 1:
            stops = [curve.end for curve in arrow.curves[:-1]]
            assert not any(
                abs(stop.x - box.middle.x) < box.width / 2 and abs(stop.y - box.middle.y) < box.height / 2
                for stop in stops
                for box in boxes
            )
    root = ElementTree.fromstring(to_svg(graph))
    texts = [str(one.text) for one in root.iter() if one.tag.endswith("text")]
    shown: Any = ["Order", *map(graph.caption, graph.states), *(arrow.label for arrow in graph.arrows)]
    assert sorted(texts) == sorted(shown)

"""How often a field is encoded and decoded: counted by an element that counts, whatever holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from durably import ObjectContext, Runtime, VirtualObject, handler, state
from durably.actors.definition.binding import bind
from durably.actors.protocol.coding import CodingMeter
from durably.actors.values.parts import Parts
from tests.actors.port import FakePort

CODINGS_PER_CHANGE = 3


class Item(BaseModel):
    """Counts how often it is encoded or decoded."""

    codings: ClassVar[int] = 0
    number: int

    @field_serializer("number")
    def _encoded(self, number: int) -> int:
        Item.codings += 1
        return number

    @field_validator("number")
    @classmethod
    def _decoded(cls, number: int) -> int:
        Item.codings += 1
        return number


class Basket(BaseModel):
    items: list[Item]


@dataclass
class Shelf:
    baskets: dict[str, list[Item]] = field(default_factory=dict[str, list[Item]])


class Shop(VirtualObject):
    items: list[Item] = state(default=[])
    by_name: dict[str, Item] = state(default={})
    basket: Basket = state(default=Basket(items=[]))
    shelf: Shelf = state(default=Shelf())

    @handler
    async def fill(self, ctx: ObjectContext, waits: int) -> int:
        self.items = [Item(number=0)]
        counted = Item.codings
        for number in range(waits):
            self.items[0].number = await ctx.run("look", looked_up, number)
        return Item.codings - counted

    @handler
    async def watch(self, ctx: ObjectContext, waits: int) -> int:
        assert self.items
        counted = Item.codings
        for number in range(waits):
            await ctx.run("look", looked_up, number)
        return Item.codings - counted


async def looked_up(number: int) -> int:
    return number


BOUND = bind(Shop, {})


def change_items(shop: Shop, number: int) -> None:
    shop.items[0].number = number


def change_by_name(shop: Shop, number: int) -> None:
    shop.by_name["a"].number = number


def change_basket(shop: Shop, number: int) -> None:
    shop.basket.items[0].number = number


def change_shelf(shop: Shop, number: int) -> None:
    shop.shelf.baskets["a"][0].number = number


FIELDS: list[tuple[str, Callable[[], Any], Callable[[Shop, int], None]]] = [
    ("items", lambda: [Item(number=0)], change_items),
    ("by_name", lambda: {"a": Item(number=0)}, change_by_name),
    ("basket", lambda: Basket(items=[Item(number=0)]), change_basket),
    ("shelf", lambda: Shelf({"a": [Item(number=0)]}), change_shelf),
]


def attempt(port: FakePort) -> Shop:
    made = BOUND.instance("mary", port, writable=True)
    assert isinstance(made, Shop)
    return made


def codings(action: Callable[[], object]) -> int:
    before = Item.codings
    action()
    return Item.codings - before


@pytest.mark.parametrize(("name", "make", "change"), FIELDS)
def test_a_change_in_place_costs_three_codings_and_no_change_costs_one(
    name: str, make: Callable[[], Any], change: Callable[[Shop, int], None]
) -> None:
    port = FakePort()
    shop = attempt(port)
    setattr(shop, name, make())
    for number in range(1, 4):
        change(shop, number)
        assert codings(port.flushed) <= CODINGS_PER_CHANGE
        assert codings(port.flushed) <= 1


@pytest.mark.parametrize(("name", "make", "change"), FIELDS)
def test_a_later_attempt_in_the_same_process_pays_no_more(
    name: str, make: Callable[[], Any], change: Callable[[Shop, int], None]
) -> None:
    first = FakePort()
    setattr(attempt(first), name, make())
    later = FakePort(first.state)
    change(attempt(later), 1)  # This reads it.
    assert codings(later.flushed) <= CODINGS_PER_CHANGE
    assert later.state != first.state


@pytest.mark.parametrize(("name", "make", "change"), FIELDS)
def test_the_words_of_older_code_are_asked_about_once(
    name: str, make: Callable[[], Any], change: Callable[[Shop, int], None]
) -> None:
    written = FakePort()
    setattr(attempt(written), name, make())
    port = FakePort({name: written.state[name].replace(b":", b": ")})
    shop = attempt(port)
    getattr(shop, name)
    assert port.flushed() == {}
    assert codings(port.flushed) == 1
    change(shop, 1)
    assert codings(port.flushed) <= CODINGS_PER_CHANGE


def test_a_replay_does_not_verify_again_what_was_recorded() -> None:
    port = FakePort()
    shop = attempt(port)
    shop.items = [Item(number=0)]
    change_items(shop, 1)
    (flush,) = port.flushes
    assert codings(lambda: flush(verify=False)) == 1


def test_of_a_large_collection_only_the_parts_that_changed_are_verified() -> None:
    size = 500
    port = FakePort()
    shop = attempt(port)
    shop.items = [Item(number=number) for number in range(size)]
    shop.by_name = {str(number): Item(number=number) for number in range(size)}
    changes: list[Callable[[], object]] = [
        lambda: change_items(shop, -1),
        lambda: shop.items.append(Item(number=-2)),
        lambda: shop.items.insert(3, Item(number=-3)),
        lambda: shop.items.pop(7),
        lambda: shop.by_name.update({"7": Item(number=-1), "new": Item(number=-2)}),
        lambda: shop.by_name.pop("9"),
    ]
    for change in changes:
        change()
        assert codings(port.flushed) <= 2 * size + 10  # Both fields are encoded, and at most a few items verified.


def refuse(*_: object) -> None:
    raise AssertionError("it was cut into its parts")


@pytest.mark.parametrize("is_known", [True, False], ids=["written-by-this-process", "by-an-earlier-one"])
def test_appending_to_a_large_collection_reads_it_once_and_writes_it_once(
    is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And cuts it into its parts never, which costs as much as ten codings."""
    size = 4_000
    port = FakePort()
    first = attempt(port)
    first.items = [Item(number=number) for number in range(size)]
    first.by_name = {str(number): Item(number=number) for number in range(size)}
    bound = BOUND if is_known else bind(Shop, {})
    later = FakePort(dict(port.state))
    shop = bound.instance("a", later, writable=True)
    assert isinstance(shop, Shop)
    monkeypatch.setattr(Parts, "_changed_places", refuse)

    def append() -> None:
        shop.items.append(Item(number=-1))
        shop.by_name["new"] = Item(number=-1)
        later.flushed()

    assert codings(append) <= 2 * 2 * size + 10
    assert codings(append) <= 2 * size + 10  # It need not be read again.
    assert later.state["items"].endswith(b'{"number":-1},{"number":-1}]')


async def test_the_cost_of_a_step_does_not_depend_on_how_many_there_were() -> None:
    steps = 20
    async with Runtime("memory:", [Shop]) as runtime:
        assert await runtime.object(Shop, "a").fill(steps) <= CODINGS_PER_CHANGE * steps
        assert await runtime.object(Shop, "a").watch(steps) <= steps


def test_the_meter_counts_the_time_of_large_codings_and_names_the_largest() -> None:
    moments = iter(range(0, 1_000_000, 10))
    meter = CodingMeter(lambda: next(moments))
    port = FakePort()
    port.coding = meter
    shop = attempt(port)
    shop.by_name = {"a": Item(number=0)}  # Too small to be worth measuring.
    shop.items = [Item(number=number) for number in range(2_000)]
    assert (meter.spent_us, meter.largest) == (10, "self.items")
    assert meter.largest_bytes == len(port.state["items"])
    port.flushed()
    assert meter.spent_us == 20
    later = FakePort(port.state)
    later.coding = meter
    meter.reset()
    assert attempt(later).by_name
    assert (meter.spent_us, meter.largest) == (0, "")
    assert attempt(later).items
    assert (meter.spent_us, meter.largest) == (10, "self.items")

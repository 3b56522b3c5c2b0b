from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from durably.actors import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.actors.definition.binding import bind
from durably.errors import (
    DefinitionError,
    HandlerMistakeError,
    SharedStateError,
    UndeclaredStateError,
    UndecodableError,
    UnencodableError,
    UnsetStateError,
    WrongContextError,
)
from tests.actors.port import FakePort


class Status(Enum):
    FREE = "free"
    SOLD = "sold"


@dataclass
class Profile:
    name: str
    tags: list[str] = field(default_factory=list[str])


class Cart(VirtualObject):
    tickets: list[str] = state(default=[])
    status: Status = state(default=Status.FREE)
    profile: Profile = state(default=Profile("nobody"))
    owner: str = state(name="owner_name")
    _visits = 0

    def __init__(self) -> None:
        self.helper = "from the constructor"

    @property
    def visits(self) -> int:
        return self._visits

    @handler
    async def add(self, ctx: ObjectContext) -> None: ...

    @shared
    async def look(self, ctx: SharedContext) -> None: ...


BOUND = bind(Cart, {})


def attempt(port: FakePort, *, writable: bool = True) -> Cart:
    made = BOUND.instance("mary", port, writable=writable)
    assert isinstance(made, Cart)
    return made


def test_a_field_has_its_default_until_it_is_written() -> None:
    port = FakePort()
    cart = attempt(port)
    assert (cart.tickets, cart.status, cart.key, cart.helper) == ([], Status.FREE, "mary", "from the constructor")
    cart.status = Status.SOLD
    assert cart.status is Status.SOLD
    assert port.state == {"status": b'"sold"'}


def test_the_default_is_copied_for_each_attempt() -> None:
    attempt(FakePort()).tickets.append("2B")
    assert attempt(FakePort()).tickets == []


COMMON: list[str] = []


class Made(VirtualObject):
    tags: list[str] = state(default_factory=list)
    by_name: dict[str, int] = state(default_factory=dict)
    seen: set[str] = state(default_factory=set)
    common: list[str] = state(default_factory=lambda: COMMON)
    wrong: int = state(default_factory=lambda: "none")  # type: ignore[assignment]

    @handler
    async def add(self, ctx: ObjectContext) -> None: ...


def made(port: FakePort, *, writable: bool = True) -> Made:
    instance = bind(Made, {}).instance("mary", port, writable=writable)
    assert isinstance(instance, Made)
    return instance


def test_an_empty_collection_by_a_factory_is_a_default_and_not_written() -> None:
    port = FakePort()
    actor = made(port)
    assert (actor.tags, actor.by_name, actor.seen) == ([], {}, set())
    assert (port.flushed(), port.state) == ({}, {})


def test_what_a_factory_gives_an_exclusive_handler_is_a_change_of_its_step() -> None:
    port = FakePort()
    actor = made(port)
    assert actor.common == []
    assert port.state == {"common": b"[]"}
    actor.common.append("x")
    assert port.flushed() == {"common": b'["x"]'}
    assert COMMON == []  # An attempt has a copy (rule V1).


def test_what_a_factory_gives_a_shared_handler_is_not_written_and_stays_for_its_attempt() -> None:
    port = FakePort()
    actor = made(port, writable=False)
    assert actor.common is actor.common
    assert port.state == {}


def test_a_factory_that_gives_another_type_is_named_where_it_is_read() -> None:
    with pytest.raises(UnencodableError, match=r"self\.wrong cannot be given this value"):
        _ = made(FakePort()).wrong


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"default": [], "default_factory": list}, "Leave one of them"),
        ({"default_factory": []}, "is no function"),
    ],
)
def test_a_factory_that_makes_no_sense_is_refused_at_definition(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        state(**options)


def test_a_coroutine_function_is_no_factory() -> None:
    async def later() -> int:
        return 1

    with pytest.raises(DefinitionError, match="async def"):
        _ = state(default_factory=later)


def test_reading_changes_nothing() -> None:
    port = FakePort({"tickets": b'["2B"]'})
    assert attempt(port).tickets == ["2B"]
    assert port.flushed() == {}


def test_a_change_in_place_is_found_at_the_end_of_the_step() -> None:
    port = FakePort()
    cart = attempt(port)
    cart.tickets.append("2B")
    cart.profile.tags.append("vip")
    assert port.state == {}
    assert port.flushed() == {"tickets": b'["2B"]', "profile": b'{"name":"nobody","tags":["vip"]}'}
    assert port.flushed() == {}
    cart.tickets.append("3C")
    assert port.flushed() == {"tickets": b'["2B","3C"]'}


def test_a_value_that_was_written_may_change_in_place_too() -> None:
    port = FakePort()
    cart = attempt(port)
    mine = ["a"]
    cart.tickets = mine
    mine.append("b")
    assert cart.tickets is mine
    assert port.flushed() == {"tickets": b'["a","b"]'}


def test_immutable_values_are_not_looked_at_again() -> None:
    port = FakePort()
    cart = attempt(port)
    cart.status = Status.SOLD
    assert cart.status is Status.SOLD
    assert port.flushes == []


def test_the_words_of_older_code_are_no_change() -> None:
    port = FakePort({"profile": b'{ "name": "mary" }', "tickets": b'[ "a" ]'})
    cart = attempt(port)
    assert cart.profile == Profile("mary")
    assert cart.tickets == ["a"]
    assert port.flushed() == {}


def test_deleting_returns_a_field_to_its_default() -> None:
    port = FakePort({"tickets": b'["2B"]'})
    cart = attempt(port)
    cart.tickets.append("3C")
    del cart.tickets
    assert cart.tickets == []
    assert port.state == {}
    assert port.flushed() == {}


def test_reading_what_has_no_value_and_no_default_says_so() -> None:
    cart = attempt(FakePort())
    with pytest.raises(UnsetStateError, match=r"self\.owner was read before it was written"):
        _ = cart.owner
    assert not hasattr(cart, "owner")
    cart.owner = "mary"
    assert cart.owner == "mary"


def test_the_stored_name_may_differ() -> None:
    port = FakePort()
    attempt(port).owner = "mary"
    assert port.state == {"owner_name": b'"mary"'}


def test_an_undeclared_attribute_is_refused() -> None:
    cart: Any = attempt(FakePort())
    with pytest.raises(UndeclaredStateError, match=r"self\.other was assigned .* Declare it in Cart"):
        cart.other = 1
    with pytest.raises(UndeclaredStateError, match=r"self\._visits"):
        cart._visits = 2
    with pytest.raises(UndeclaredStateError, match="which object or workflow this is"):
        cart.key = "joe"


def test_a_value_of_another_type_is_refused_where_it_is_written_and_named() -> None:
    port = FakePort()
    cart: Any = attempt(port)
    for name, value in (("tickets", [1]), ("status", "sold!"), ("profile", object()), ("owner", 3)):
        with pytest.raises(UnencodableError, match=rf"self\.{name} cannot be given this value"):
            setattr(cart, name, value)
    assert port.state == {}


def test_a_change_in_place_to_another_type_is_refused_and_named() -> None:
    port = FakePort()
    cart: Any = attempt(port)
    cart.tickets.append(1)
    with pytest.raises(UnencodableError, match=r"self\.tickets was changed in place"):
        port.flushed()


def test_stored_bytes_of_another_type_are_named() -> None:
    cart = attempt(FakePort({"tickets": b'{"a": 1}'}))
    with pytest.raises(UndecodableError, match=r"The stored value of self\.tickets does not fit"):
        _ = cart.tickets


def test_a_shared_handler_may_not_write() -> None:
    port = FakePort()
    cart = attempt(port, writable=False)
    with pytest.raises(SharedStateError, match=r"self\.status was changed in a shared handler"):
        cart.status = Status.SOLD
    with pytest.raises(SharedStateError):
        del cart.status
    assert port.state == {}


def test_a_shared_handler_sees_in_its_next_step_what_has_changed() -> None:
    port = FakePort({"tickets": b'["a"]'})
    cart = attempt(port, writable=False)
    assert cart.tickets == ["a"]
    assert port.flushed() == {}
    port.state["tickets"] = b'["a","b"]'
    assert cart.tickets == ["a", "b"]


def test_state_is_not_read_outside_its_handler() -> None:
    port = FakePort()
    cart = attempt(port)
    assert cart.tickets == []
    port.closed = True
    with pytest.raises(WrongContextError):
        _ = cart.tickets
    with pytest.raises(WrongContextError):
        cart.tickets = []
    with pytest.raises(WrongContextError):
        del cart.tickets


def test_state_is_not_used_in_the_constructor() -> None:
    class Eager(VirtualObject):
        count: int = state(default=0)

        def __init__(self) -> None:
            self.count = 1

    with pytest.raises(HandlerMistakeError, match=r"self\.count was assigned outside a handler"):
        bind(Eager, {})


def test_a_property_of_the_user_s_may_be_assigned() -> None:
    class Gauge(VirtualObject):
        raw: int = state(default=0)

        @property
        def percent(self) -> float:
            return self.raw / 100

        @percent.setter
        def percent(self, value: float) -> None:
            self.raw = int(value * 100)

    port = FakePort()
    made = bind(Gauge, {}).instance("g", port, writable=True)
    assert isinstance(made, Gauge)
    made.percent = 0.5
    assert port.state == {"raw": b"50"}


def test_the_class_gives_the_definition() -> None:
    assert repr(Cart.tickets) == "<state Cart.tickets>"

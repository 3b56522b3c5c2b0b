"""Type variables of generic bases stand for what the subclass binds them to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pydantic
import pytest

from durably.actors import ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.actors.definition.binding import bind
from durably.actors.values.descriptions import describe
from durably.errors import InvalidArgumentError, UnencodableError

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


@dataclass
class Item:
    name: str


@dataclass
class Box(Generic[T]):
    item: T


class Packet(pydantic.BaseModel, Generic[T]):
    item: T


class Repo(VirtualObject, Generic[T], abstract=True):
    items: list[T] = state(default=[])
    last: T | None = state(default=None)

    @handler
    async def put(self, ctx: ObjectContext, item: T, box: Box[T] | None = None, packet: Packet[T] | None = None) -> int:
        self.items.append(item)
        return len(self.items)

    @shared
    async def get(self, ctx: SharedContext, number: int) -> dict[str, T]:
        return {"it": self.items[number]}


class Items(Repo[Item]):
    pass


class Sub(Items):
    pass


class Half(Repo[dict[K, V]], Generic[K, V], abstract=True):
    pass


class ByName(Half[str, V], Generic[V], abstract=True):
    pass


class Full(ByName["Item"]):
    pass


class Numbers(Repo[int]):
    @handler
    async def put(
        self, ctx: ObjectContext, item: int, box: Box[int] | None = None, packet: Packet[int] | None = None
    ) -> int:
        return item


class Free(Repo):  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument]
    pass


def types_of(actor: type[VirtualObject]) -> tuple[str, str, str, str]:
    bound = bind(actor, {})
    put, get = bound.handlers["put"].signature, bound.handlers["get"].signature
    fields: dict[str, Any] = bound._fields  # type: ignore[assignment]  # pyright: ignore[reportPrivateUsage]
    return put.parameters["item"], put.parameters["packet"], get.returns, describe(fields["items"].codec.annotation)


@pytest.mark.parametrize("actor", [Items, Sub])
def test_a_variable_is_what_the_subclass_says(actor: type[VirtualObject]) -> None:
    assert types_of(actor) == ("Item", "Packet[Item] | None = None", "dict[str, Item]", "list[Item]")


def test_bindings_are_followed_through_several_classes() -> None:
    inner = "dict[str, Item]"
    assert types_of(Full) == (inner, f"Packet[{inner}] | None = None", f"dict[str, {inner}]", f"list[{inner}]")


def test_a_handler_that_is_written_anew_has_its_own_types() -> None:
    assert types_of(Numbers)[2:] == ("dict[str, int]", "list[int]")


def test_classes_defined_in_functions_work_too() -> None:
    @dataclass
    class Local:
        number: int

    class Here(Repo[Local]):
        pass

    class Quoted(Repo["Local"]):
        pass

    assert types_of(Here)[0] == types_of(Quoted)[0] == "Local"


def test_one_subclass_does_not_change_another_or_the_base() -> None:
    assert types_of(Items)[0] == "Item"
    assert types_of(Numbers)[0] == "int"
    assert types_of(Free)[0] == "~T"


def test_values_are_decoded_and_refused_by_the_bound_type() -> None:
    put = bind(Items, {}).handlers["put"]
    args, _ = put.signature.decode_arguments(put.admit(b'{"item": {"name": "a"}, "box": {"item": {"name": "b"}}}'))
    assert args == (Item("a"), Box(Item("b")), None)
    with pytest.raises(InvalidArgumentError, match=r"item: Item"):
        put.admit(b'{"item": 1}')
    with pytest.raises(UnencodableError, match="'item'"):
        put.signature.encode_arguments((5,), {})

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from durably.actors import Context, Service, handler
from durably.actors.definition.binding import bind
from durably.actors.values.unknown_keys import UnknownKeys
from durably.errors import InvalidArgumentError


@dataclass
class Seat:
    row: int
    note: str | None = None
    beside: Seat | None = None


@dataclass
class Item:
    name: str
    size: int = 0


class Pair(NamedTuple):
    left: Seat
    right: int


class Loose(TypedDict):
    seat: Seat


class Struct(msgspec.Struct):
    seat: Seat | None = None


class Model(pydantic.BaseModel):
    row: int = 1


@pydantic.dataclasses.dataclass
class Checked:
    row: int = 1


class Desk(Service):
    @handler
    async def seat(self, ctx: Context, seat: Seat) -> None: ...
    @handler
    async def maybe(self, ctx: Context, seat: Seat | int | None = None) -> None: ...
    @handler
    async def seats(self, ctx: Context, seats: list[Seat], by_name: dict[str, tuple[int, Seat]]) -> None: ...
    @handler
    async def pair(self, ctx: Context, pair: Pair) -> None: ...
    @handler
    async def loose(self, ctx: Context, loose: Loose) -> None: ...
    @handler
    async def struct(self, ctx: Context, struct: Struct) -> None: ...
    @handler
    async def model(self, ctx: Context, model: Model) -> None: ...
    @handler
    async def checked(self, ctx: Context, checked: Checked) -> None: ...
    @handler
    async def anything(self, ctx: Context, value: Any) -> None: ...
    @handler
    async def count(self, ctx: Context, row: int, by: int = 1) -> None: ...
    @handler
    async def mapping(self, ctx: Context, values: dict[str, int], by: int = 1) -> None: ...


def admit(name: str, body: bytes) -> bytes:
    return bind(Desk, {}).handlers[name].admit(body)


@pytest.mark.parametrize(
    ("name", "body", "key", "path"),
    [
        ("seat", b'{"row": 1, "nota": "x"}', "nota", "$"),
        ("seat", b'{"row": 1, "beside": {"row": 2, "beside": {"row": 3, "Note": 1}}}', "Note", "$.beside.beside"),
        ("maybe", b'{"row": 1, "nota": "x"}', "nota", "$"),
        ("seats", b'{"seats": [{"row": 1}, {"row": 2, "x": 1}], "by_name": {}}', "x", "$.seats[1]"),
        ("seats", b'{"seats": [], "by_name": {"a": [1, {"row": 2, "x": 1}]}}', "x", "$.by_name.a[1]"),
        ("pair", b'[{"row": 1, "x": 2}, 3]', "x", "$[0]"),
        ("loose", b'{"seat": {"row": 1, "x": 2}}', "x", "$.seat"),
        ("struct", b'{"seat": {"row": 1, "x": 2}}', "x", "$.seat"),
        ("seats", b'{"seats": [], "by_name": {}, "by_nam": {}}', "by_nam", "$"),
        ("count", b'{"row": 1, "byy": 2}', "byy", "$"),
    ],
)
def test_a_key_that_nothing_stands_for_is_refused_by_name(name: str, body: bytes, key: str, path: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"unknown.*[`']{key}[`']|[`']{key}[`'].*unknown") as refused:
        admit(name, body)
    assert refused.value.path == path


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("seat", b'{"row": 1, "note": null, "beside": {"row": 2}}'),
        ("maybe", b"5"),
        ("maybe", b""),
        ("loose", b'{"seat": {"row": 1}, "more": 1}'),
        ("struct", b'{"more": 1}'),
        ("model", b'{"row": 1, "more": 1}'),
        ("checked", b'{"row": 1, "more": 1}'),
        ("anything", b'{"row": 1, "more": {"x": 1}}'),
        ("mapping", b'{"values": 1, "more": 2}'),
        ("count", b'{"row": 1, "by": 2}'),
    ],
)
def test_what_a_type_allows_is_admitted(name: str, body: bytes) -> None:
    admit(name, body)


@pytest.mark.parametrize(("annotation", "given", "may_hold_one"), [
    (Item, b'{"name": "x"}', False),
    (Item, b'{"name": "x", "nam": 1}', True),
    (list[Item], b'[{"name": "x"}, {"nam": 1}]', True),
    (dict[str, Item], b'{"any key": {"name": "x"}}', False),
])  # fmt: skip
def test_most_values_are_cleared_without_a_search(annotation: Any, given: bytes, may_hold_one: bool) -> None:
    assert UnknownKeys(annotation).are_in(given) is may_hold_one

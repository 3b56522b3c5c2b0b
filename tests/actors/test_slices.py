"""Large values are read in slices as they are read at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeAlias, cast

import msgspec
import pydantic
import pytest

from durably.actors.values.json_portions import portions
from durably.actors.values.serde import codec_for
from durably.actors.values.slices import (
    ADMITTING,
    SLICE_BYTES,
    Reading,
    decode_in_slices,
    done,
    release_in_slices,
    value_in_slices,
)
from durably.actors.values.unknown_keys import UnknownKeys
from durably.errors import UndecodableError
from tests.levels import level

TEXTS = ("", "x", 'a"b', "\\", '\\"', "[{", "]},", "é" * 9, "a,b", "\\\\")


@dataclass
class Line:
    name: str
    price: float
    tags: list[str] = field(default_factory=list[str])


@dataclass
class Order:
    lines: list[Line]
    by_name: dict[str, Line]
    note: str | None = None


class Shelf(msgspec.Struct, rename="camel"):
    all_lines: list[Line]
    rows: int = 3


class Point(pydantic.BaseModel):
    x: int
    others: list[int] = []


def line(random: Random) -> dict[str, Any]:
    return {"name": random.choice(TEXTS), "price": random.random(), "tags": ["t"] * random.randrange(4)}


def lines(random: Random) -> list[Any]:
    return [line(random) for _ in range(random.randrange(30))]


def named_lines(random: Random) -> dict[str, Any]:
    return {f"{random.choice(TEXTS)}{number}": line(random) for number in range(random.randrange(20))}


Make: TypeAlias = Callable[[Random], Any]


def making(annotation: Any, make: Make) -> Any:
    return pytest.param(annotation, make, id=str(annotation))


MADE = [
    making(list[Line], lines),
    making(list[Line] | None, lines),
    making(dict[str, Line], named_lines),
    making(Order, lambda random: {"lines": lines(random), "by_name": named_lines(random)}),
    making(Shelf, lambda random: {"allLines": lines(random)}),
    making(tuple[int, ...], lambda random: list(range(random.randrange(200)))),
    making(set[str], lambda random: [str(number) for number in range(random.randrange(90))]),
    making(frozenset[int], lambda random: list(range(random.randrange(90)))),
    making(dict[int, list[int]], lambda random: {str(number): list(range(number)) for number in range(20)}),
    making(list[Point], lambda random: [{"x": number, "others": [1] * number} for number in range(20)]),
    making(list[pydantic.PositiveInt], lambda random: list(range(1, random.randrange(2, 90)))),
    making(list[list[list[int]]], lambda random: [[list(range(30)) for _ in range(6)]] * random.randrange(4)),
    making(Any, lambda random: {"a": lines(random), "b": {"c": [[1] * 20] * 9, "d": named_lines(random)}}),
]


def attempt(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UndecodableError:
        return UndecodableError


def admit(annotation: Any, data: bytes) -> bytes:
    admitted = codec_for(annotation).admit(data)
    unknown = UnknownKeys(annotation)
    if unknown.may_occur:
        unknown.refuse(msgspec.json.decode(data), "$")
    return admitted.strip()


@pytest.mark.parametrize(("annotation", "make"), MADE)
def test_a_value_is_read_in_slices_as_it_is_at_once_and_so_is_what_is_no_value(annotation: Any, make: Make) -> None:
    random = Random(7)
    codec = codec_for(annotation)
    for _ in range(level().examples):
        data = msgspec.json.encode(make(random))
        if random.random() < 0.3:
            data = msgspec.json.format(data, indent=1)
        if random.random() < 0.5:
            place = random.randrange(len(data))
            data = data[:place] + random.choice((b",", b'"', b"1", b"]", b"}", b"", b"null")) + data[place + 1 :]
        size = random.choice((1, 10, 50, 300))

        whole = attempt(partial(codec.decode, data))
        sliced = attempt(partial(done, decode_in_slices(codec.decode, data, size)))
        assert sliced == whole, data
        assert type(sliced) is type(whole), data

        whole = attempt(partial(admit, annotation, data))
        sliced = attempt(partial(done, value_in_slices(codec, data, size, ADMITTING)))
        assert (sliced if sliced is UndecodableError else sliced.strip()) == whole, data


@pytest.mark.parametrize(
    ("annotation", "data", "path"),
    [
        (list[Line], b'[{"name":"a","price":1},{"name":"b","price":2},{"name":"c","price":"d"}]', "$[2].price"),
        (list[list[int]], b"[[1,2,3],[4,5,6],[7,8,null]]", "$[2][2]"),
        (Order, b'{"lines":[],"by_name":{"a":{"name":1,"price":2}}}', "$.by_name.a.name"),
        (list[Point], b'[{"x":1},{"x":2},{"x":"y"}]', "$[2]"),
    ],
)
def test_a_refusal_says_the_same_place(annotation: Any, data: bytes, path: str) -> None:
    codec = codec_for(annotation)
    with pytest.raises(UndecodableError) as whole:
        codec.decode(data)
    for size in (1, 10, 30):
        with pytest.raises(UndecodableError) as sliced:
            done(decode_in_slices(codec.decode, data, size))
        assert sliced.value.path == path == whole.value.path
        assert str(sliced.value) == str(whole.value)


def test_no_slice_is_much_larger_than_asked_for_unless_one_text_is() -> None:
    random = Random(3)
    data = msgspec.json.encode({"a": lines(random) * 20, "b": ["x" * 900, *lines(random)]})
    read: list[int] = []

    class Measured:
        def __getattr__(self, name: str) -> Any:
            return getattr(ADMITTING, name)

        def read(self, codec: Any, data: bytes, levels: int) -> Any:
            read.append(len(data))
            return ADMITTING.read(codec, data, levels)

    done(value_in_slices(codec_for(Any), data, 100, cast("Reading", Measured())))
    assert max(read) <= 950
    assert sorted(read)[-2] < 400
    assert len(read) > len(data) / 400


def test_a_list_nested_deeper_than_can_be_stored_is_refused_in_slices_too() -> None:
    codec = codec_for(Any)
    fits, too_deep = (b"[" * levels + b"1,2,3" + b"]" * levels for levels in (254, 255))
    assert done(value_in_slices(codec, fits, 4, ADMITTING)) == codec.admit(fits)
    with pytest.raises(UndecodableError, match="deeper than 254"):
        done(value_in_slices(codec, too_deep, 4, ADMITTING))


def test_a_portion_ends_where_an_item_does_whatever_its_strings_hold() -> None:
    data = b'["a\\\\",",]\\"[{","}",[1,{"]":2}],3]'
    found = [data[portion.start : portion.end] for portion in portions(data, 1) if portion is not None]
    assert b",".join(found) == data[1:-1]
    assert [msgspec.json.decode(part) for part in found] == msgspec.json.decode(data)


def test_what_nothing_else_refers_to_is_freed_in_portions_and_what_is_shared_stays() -> None:
    shared = list(range(100_000))
    values: list[Any] = [shared, Order([Line("a", 1.0)] * 90_000, {}), dict.fromkeys(range(50000), 1)]
    turns = sum(1 for _ in release_in_slices(values))
    assert turns >= 5 + 3 - 1
    assert not values
    assert len(shared) == 100_000
    assert sys.getrefcount(shared) == 2


@dataclass
class Knot:
    items: list[int]
    next: Knot | None = None


@pytest.mark.parametrize("held", [(), (0,), (1,), (2,), (3,), (0, 1, 2, 3)])
def test_freeing_takes_the_same_turns_whatever_garbage_still_refers_to(held: tuple[int, ...]) -> None:
    knot = Knot([1] * 30_000)
    knot.next = knot
    values: list[Any] = [knot, [1] * 70_000, {"a": 1}, Order([Line("a", 1.0)] * 30_000, {"b": Line("b", 1.0)})]
    del knot
    garbage = [values[place] for place in held]
    assert sum(1 for _ in release_in_slices(values)) == 2 + 4 + 1 + 3
    assert not values
    assert len(garbage) == len(held)


def repeated(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


SHAPES: dict[str, Callable[[int], bytes]] = {
    "deep lists": lambda size: repeated(b"[", size // 2) + repeated(b"]", size // 2),
    "deep objects": lambda size: repeated(b'{"a":', size) + b"1" + b"}" * len(repeated(b'{"a":', size)[::5]),
    "brackets that only open": lambda size: repeated(b"[", size),
    "brackets that only close": lambda size: b"[" + repeated(b"]", size),
    "short and deep": lambda size: b"[" + repeated(b"[[[[]]]],", size) + b"1]",
    "deep among many": lambda size: b"[" + repeated(b"1,", size) + b"[" * 99 + b"1" + b"]" * 99 + b"]",
    "escaped backslashes": lambda size: b'["' + repeated(rb"\\", size) + b'"]',
    "escaped quotes": lambda size: b'["' + repeated(rb"\"", size) + b'"]',
    "a text that never ends": lambda size: b'["' + repeated(b"a,", size),
    "brackets in texts": lambda size: b"[" + repeated(b'"[[[[",', size) + b"1]",
    "spaces": lambda size: b"[" + repeated(b" ", size) + b"1]",
    "commas": lambda size: b"[" + repeated(b",", size) + b"]",
}
"""Bodies that somebody may send to hold a server up."""


def read_or_refused(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UndecodableError:
        return UndecodableError


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes_are_read_in_slices_as_at_once(shape: str) -> None:
    codec = codec_for(Any)
    for size, slice_bytes in (
        (200, 1),
        (200, 16),
        (300, 64),
        (20_000, 1_000),
        (400_000, SLICE_BYTES),
    ):  # Hours, if it is quadratic.
        data = SHAPES[shape](size)
        expected = read_or_refused(partial(codec.admit, data))
        in_slices = partial(done, value_in_slices(codec, data, slice_bytes, ADMITTING))
        assert read_or_refused(in_slices) == expected

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.actors.values.descriptions import MISSING, describe
from durably.actors.values.serde import BytesSerde, JsonSerde, codec_for
from durably.errors import DefinitionError, UndecodableError, UnencodableError


class Status(enum.Enum):
    FREE = "free"
    SOLD = "sold"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Seat:
    row: int
    labels: frozenset[str] = frozenset()


@dataclass
class Purchase:
    user: str
    seats: list[Seat]
    _note: str = ""
    paid: Optional[Decimal] = None  # noqa: UP045
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


class Point(NamedTuple):
    x: float
    y: float


class Movie(TypedDict):
    name: str
    year: int


class Circle(msgspec.Struct, tag=True, frozen=True):
    radius: float


class Square(msgspec.Struct, tag=True, rename="camel"):
    side_length: int
    tags: set[str] = set()


class Pair(msgspec.Struct, array_like=True, tag="pair"):
    left: int
    right: set[int]


class User(pydantic.BaseModel):
    name: str
    born: date | None = None
    groups: set[str] = set()
    by_group: dict[str, set[int]] = {}
    photo: bytes = b""


class Fixed(pydantic.BaseModel, frozen=True):
    number: int


Id = NewType("Id", int)

TEXT = some.text(some.characters(exclude_categories=["Cs"]))
FINITE = some.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**63), 2**63) | FINITE | TEXT,
    lambda parts: some.lists(parts) | some.dictionaries(TEXT, parts),
    max_leaves=8,
)
SEATS = some.builds(Seat, some.integers(), some.frozensets(TEXT))
DECIMALS = some.decimals(allow_nan=False, allow_infinity=False)


def without_fold(value: Any) -> Any:
    return value.replace(fold=0)


TYPES: list[tuple[Any, some.SearchStrategy[Any]]] = [
    (str, TEXT),
    (int, some.integers()),
    (bool, some.booleans()),
    (float, FINITE),
    (None, some.none()),
    (bytes, some.binary()),
    (Decimal, DECIMALS),
    (UUID, some.uuids()),
    (datetime, some.datetimes().map(without_fold) | some.datetimes(timezones=some.just(UTC))),
    (date, some.dates()),
    (time, some.times().map(without_fold)),
    (timedelta, some.timedeltas(timedelta(days=-10_000), timedelta(days=10_000))),
    (Status, some.sampled_from(Status)),
    (Level, some.sampled_from(Level)),
    (Id, some.integers()),
    (Literal["a", 1], some.sampled_from(["a", 1])),
    (int | None, some.integers() | some.none()),
    (list[str], some.lists(TEXT)),
    (tuple[int, ...], some.lists(some.integers()).map(tuple)),
    (tuple[int, str], some.tuples(some.integers(), TEXT)),
    (set[str], some.sets(TEXT)),
    (frozenset[int], some.frozensets(some.integers())),
    (set[tuple[int, str]], some.sets(some.tuples(some.integers(), TEXT))),
    (set[Decimal], some.sets(DECIMALS)),
    (dict[str, int], some.dictionaries(TEXT, some.integers())),
    (dict[int, str], some.dictionaries(some.integers(-(2**63), 2**63), TEXT)),
    (dict[UUID, set[int]], some.dictionaries(some.uuids(), some.sets(some.integers(-(2**63), 2**63)))),
    (dict[Status, bool], some.dictionaries(some.sampled_from(Status), some.booleans())),
    (dict[date, int], some.dictionaries(some.dates(), some.integers())),
    (Mapping[str, int], some.dictionaries(TEXT, some.integers())),
    (Sequence[int], some.lists(some.integers())),
    (Seat, SEATS),
    (
        Purchase,
        some.builds(
            Purchase, TEXT, some.lists(SEATS), TEXT, some.none() | DECIMALS, some.dictionaries(TEXT, JSON_VALUES)
        ),
    ),
    (Point, some.builds(Point, FINITE, FINITE)),
    (Movie, some.fixed_dictionaries({"name": TEXT, "year": some.integers()})),
    (Circle | Square, some.builds(Circle, FINITE) | some.builds(Square, some.integers(), some.sets(TEXT))),
    (Pair, some.builds(Pair, some.integers(), some.sets(some.integers()))),
    (
        list[User],
        some.lists(
            some.builds(
                User,
                name=TEXT,
                born=some.none() | some.dates(),
                groups=some.sets(TEXT),
                by_group=some.dictionaries(TEXT, some.sets(some.integers())),
                photo=TEXT.map(str.encode),
            )
        ),
    ),
    (Fixed, some.builds(Fixed, number=some.integers())),
    (Any, JSON_VALUES),
    (MISSING, JSON_VALUES),
]


@pytest.mark.parametrize(("annotation", "values"), TYPES, ids=[describe(annotation) for annotation, _ in TYPES])
@given(data=some.data())
def test_what_is_encoded_decodes_to_the_same(
    annotation: Any, values: some.SearchStrategy[Any], data: some.DataObject
) -> None:
    value = data.draw(values)
    codec = codec_for(annotation)
    decoded = codec.decode(codec.encode(value))
    assert decoded == value
    assert type(decoded) is type(value)
    assert codec.encode_exactly(value) == codec.encode(decoded)


SETS = """
import sys; sys.path.insert(0, "")
from tests.actors.test_serde import *
words = {f"word{n}" for n in range(50)}
for annotation, value in [
    (set[str], words), (Any, {"x": [words]}), (Seat, Seat(1, frozenset(words))), (Square, Square(1, words)),
    (User, User(name="a", groups=words, by_group={"b": {3, 1, 2**40}})), (Pair, Pair(1, {2**70, 5, 2**71})),
    (Any, Purchase("u", [Seat(1, frozenset(words))])), (set[Seat], {Seat(n, frozenset(words)) for n in range(9)}),
]:
    print(codec_for(annotation).encode(value))
"""


def test_sets_have_the_same_bytes_in_every_process() -> None:
    def output(seed: str) -> str:
        command = [sys.executable, "-c", SETS]
        return subprocess.run(command, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True).stdout

    assert output("1") == output("2") != ""


def test_dicts_keep_their_order() -> None:
    value = {"b": 1, "a": {"z": 1, "y": 2}}
    assert str(codec_for(Any).decode(codec_for(Any).encode(value))) == str(value)


@pytest.mark.parametrize(
    "annotation",
    [str, int, bytes, Decimal, Status, None, int | None, tuple[int, ...], frozenset[str], Seat, Point, Circle, Fixed],
)
def test_what_cannot_change_in_place_is_immutable(annotation: Any) -> None:
    assert codec_for(annotation).immutable


@pytest.mark.parametrize(
    "annotation",
    [list[str], set[int], dict[str, int], Purchase, Square, Movie, tuple[list[int], int], list[int] | None, Any, User],
)
def test_what_can_change_in_place_is_not(annotation: Any) -> None:
    assert not codec_for(annotation).immutable


@dataclass(frozen=True)
class FrozenAroundMutable:
    parts: list[int]


def test_a_frozen_class_around_something_mutable_is_mutable() -> None:
    assert not codec_for(FrozenAroundMutable).immutable


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (complex, "nothing is known of the fields of complex"),
        (Callable[[], int], "nothing is known of the fields"),
        (list[Iterable[int]], "nothing is known of the fields of Iterable"),
        (dict[tuple[int, int], str], "the keys of a dict are strings"),
        (dict[bool, str], "the keys of a dict are strings"),
        (list[int] | set[int], "may not contain more than one array-like"),
        (Rights, "is a flag"),
        (list[Rights], "is a flag"),
    ],
)
def test_a_type_that_cannot_work_is_found_early(annotation: Any, words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        codec_for(annotation)
    assert words in str(caught.value)
    assert describe(annotation) in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "data", "path", "words"),
    [
        (list[int], b'[1, "a"]', "$[1]", "Expected `int`, got `str`"),
        (Purchase, b'{"user": "u", "seats": [{"row": "x"}]}', "$.seats[0].row", "Expected `int`, got `str`"),
        (Purchase, b'{"user": "u"}', "$", "missing required field `seats`"),
        (int, b"", "$", "got nothing"),
        (int, b"1 2", "$", "trailing characters"),
        (str, b"\xff", "$", "Expected str"),
        (None, b"1", "$", "Expected nothing"),
        (Status, b'"lost"', "$", "Invalid enum value 'lost'"),
        (list[User], b'[{"name": 1}]', "$[0]", "name: Input should be a valid string"),
    ],
)
def test_bytes_that_do_not_fit_say_where(annotation: Any, data: bytes, path: str, words: str) -> None:
    with pytest.raises(UndecodableError) as caught:
        codec_for(annotation).decode(data)
    assert caught.value.path == path
    assert words in str(caught.value)


class Opaque:
    pass


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (Any, Opaque(), "an Opaque (Opaque) cannot be stored"),
        (Any, {"a": [1, Opaque()]}, "at $.a[1] (where $ is the whole value), cannot be stored"),
        (Any, Purchase("u", [], extra={"x": Opaque()}), "at $.extra.x"),
        (list[str], ["\ud800"], "at $[0]"),
        (str, "\ud800", "surrogates"),
        (int, "1", "'1' is not a value of int"),
        (bool, 1, "is not a value of bool"),
        (float, float("nan"), "no such number"),
        (float, float("-inf"), "no such number"),
        (None, 0, "None"),
    ],
)
def test_a_value_that_cannot_be_encoded_is_named(annotation: Any, value: Any, words: str) -> None:
    with pytest.raises(UnencodableError) as caught:
        codec_for(annotation).encode(value)
    assert words in str(caught.value)


def test_a_coroutine_is_told_that_its_await_is_missing_and_does_not_warn() -> None:
    async def fetch() -> int:
        return 1

    with pytest.raises(UnencodableError, match="Put `await` before"):
        codec_for(Any).encode({"x": fetch()})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(list[int], ["a"]), (Status, "lost"), (list[float], [float("nan")]), (Seat, 1), (User, {})],
)
def test_exact_encoding_refuses_what_would_not_decode_again(annotation: Any, value: Any) -> None:
    with pytest.raises(UnencodableError, match="is not a value of"):
        codec_for(annotation).encode_exactly(value)


class Text(str):
    __slots__ = ()


def test_subclasses_of_plain_types_are_written_as_those() -> None:
    assert codec_for(str).encode(Text("a")) == b'"a"'
    assert codec_for(list[str]).encode([Text("a")]) == b'["a"]'
    assert codec_for(int).encode(Level.HIGH) == b"2"
    assert codec_for(float).encode(3) == b"3"
    assert codec_for(Any).encode([Text("a"), Level.HIGH]) == b'["a",2]'


def test_an_annotation_that_cannot_be_hashed_works() -> None:
    annotation: Any = Annotated[int, []]
    assert codec_for(annotation).decode(b"3") == 3


def test_codecs_are_made_once() -> None:
    assert codec_for(list[Seat]) is codec_for(list[Seat])


def test_types_are_described_as_a_programmer_writes_them() -> None:
    annotations: list[Any] = [
        int,
        None,
        list[Seat],
        int | None,
        dict[str, list[Purchase]],
        Literal["a.b", 1],
        Any,
        MISSING,
    ]
    assert [describe(one) for one in annotations] == [
        "int",
        "None",
        "list[Seat]",
        "int | None",
        "dict[str, list[Purchase]]",
        "Literal['a.b', 1]",
        "Any",
        "anything",
    ]


def test_bytes_pass_unchanged_through_their_serde() -> None:
    serde = BytesSerde()
    assert serde.decode(serde.encode(b"\xff")) == b"\xff"
    wrong: Any = "text"
    with pytest.raises(UnencodableError, match="takes bytes"):
        serde.encode(wrong)


def test_the_json_serde_has_a_type() -> None:
    serde: JsonSerde[list[int]] = JsonSerde(list[int])
    assert serde.decode(serde.encode([1])) == [1]
    with pytest.raises(UndecodableError):
        serde.decode(b'["a"]')

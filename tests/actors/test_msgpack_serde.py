"""What MessagePack of one type promises: what is given arrives equal, or is refused where it is given."""

from __future__ import annotations

import collections
import enum
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as some

from durably import DefinitionError, MsgpackSerde, UndecodableError, UnencodableError
from durably.actors.values.type_checks import is_mapping, is_sequence
from tests.actors.test_round_trip import same
from tests.actors.typed_values import ODD, Strategy, of, typed


@MsgpackSerde.register
@dataclass
class Point:
    x: int
    y: Any = None


@MsgpackSerde.register
class Mood(enum.Enum):
    GLAD = "glad"


@MsgpackSerde.register
class Grade(enum.IntEnum):
    TOP = 1


@MsgpackSerde.register
class Card(pydantic.BaseModel):
    number: int
    spent: Decimal = Decimal(0)


@dataclass
class Unknown:
    x: int


@dataclass
class Order:
    lines: list[Point]
    at: datetime | None = None
    notes: dict[str, Any] = field(default_factory=dict[str, Any])


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(typed(), some.booleans(), some.data())
def test_what_is_written_is_read_as_it_was_or_refused(
    drawn: tuple[Any, Strategy], is_odd: bool, data: some.DataObject
) -> None:
    annotation, values = drawn
    try:
        serde = MsgpackSerde[Any](annotation)
    except DefinitionError:
        assume(False)
        raise
    value = data.draw(ODD if is_odd else values)
    try:
        written = serde.encode(value)
    except UnencodableError as error:
        note(error.message)
        return
    read = serde.decode(written)
    assert same(read, serde.decode(serde.encode(read)))  # An int where a float is declared is written as one.
    assert same(value, read)
    assert classes(value) == classes(read)


@MsgpackSerde.register
class Pair(NamedTuple):
    left: Any
    right: Any = None


class Rank(enum.IntEnum):
    LOW = 1


class Shade(enum.StrEnum):
    DARK = "dark"


class Access(enum.IntFlag):
    READ = 1


class Spot(NamedTuple):
    x: int


SUBCLASSES: list[Any] = [
    *(Rank.LOW, Shade.DARK, Access.READ, Spot(1), bytearray(b"a"), memoryview(b"a"), collections.UserString("a")),
    *(collections.OrderedDict[str, int](a=1), collections.defaultdict(int, a=1), collections.Counter("a")),
    *(
        type(f"My{base.__name__}", (base,), {})(value)
        for base, value in [
            (int, 1),
            (str, "a"),
            (float, 1.0),
            (bytes, b"a"),
            (list, [1]),
            (tuple, (1,)),
            (dict, {"a": 1}),
            (set, {1}),
        ]
    ),
    type("MyMoment", (datetime,), {})(2026, 1, 1),
    type("MyDecimal", (Decimal,), {})(1),
]
BASES: list[Any] = [
    Any, object, int, str, float, bytes, list, tuple, dict, set, datetime, Decimal, int | str | None,
    dict[str, int], Mapping[str, Any], Sequence[int], list[Any], tuple[int, ...],
]  # fmt: skip
AROUND: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (lambda base: base, lambda value: value),
    (lambda base: of(list, base), lambda value: [value]),
    (lambda base: of(dict, str, base), lambda value: {"a": value}),
    (lambda base: of(dict, base, int) if base is not object else Any, lambda value: {value: 1}),
    (lambda base: of(set, base) if base is not object else Any, lambda value: {value}),
    (lambda base: of(tuple, int, base), lambda value: (1, value)),
]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("value", SUBCLASSES, ids=lambda value: str(value.__class__.__name__))
def test_an_instance_of_a_subclass_is_refused_where_its_base_or_nothing_is_declared(value: Any, base: Any) -> None:
    for annotate, wrap in AROUND:
        try:
            serde = MsgpackSerde[Any](annotate(base))
            whole = wrap(value)
        except (DefinitionError, TypeError):  # A value, or a type, that is no key.
            continue
        with pytest.raises(UnencodableError):
            serde.encode(whole)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Rank.LOW, r"LOW: 1> \(Rank\), at \$\.a\[0\].*would be read as 1 \(int\).*MsgpackSerde\.register"),
        (Spot(1), r"would be read as \(1,\) \(tuple\).*MsgpackSerde\.register"),
        (collections.OrderedDict[str, int](a=1), r"would be read as \{'a': 1\} \(dict\).*Give dict\(value\)"),
    ],
)
def test_the_refusal_of_a_subclass_says_what_it_would_be_and_what_to_do(value: Any, sentence: str) -> None:
    with pytest.raises(UnencodableError, match=sentence):
        MsgpackSerde().encode({"a": [value]})


@pytest.mark.parametrize("value", [Rank.LOW, Shade.DARK, Access.READ, Spot(1), bytearray(b"a")])
def test_a_subclass_that_is_declared_comes_back(value: Any) -> None:
    serde = MsgpackSerde[Any](value.__class__)
    read: Any = serde.decode(serde.encode(value))
    assert read == value
    assert type(read) is type(value)


KEYS: Strategy = some.text() | some.integers() | some.uuids() | some.dates() | some.tuples(some.integers(), some.text())
UNTYPED: Strategy = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**80), 2**80)
    | some.floats(allow_nan=False)
    | some.text(some.characters(exclude_categories=["Cs"]))
    | some.binary()
    | some.datetimes(timezones=some.none() | some.just(UTC) | some.just(timezone(timedelta(seconds=7))))
    | some.dates()
    | some.times()
    | some.timedeltas()
    | some.decimals(allow_nan=False)
    | some.uuids()
    | some.sampled_from([Mood.GLAD, Grade.TOP])
    | some.builds(Card, number=some.integers(-(2**63), 2**63 - 1)),
    lambda parts: (
        some.lists(parts, max_size=3)
        | some.tuples(parts, parts)
        | some.dictionaries(KEYS, parts, max_size=3)
        | some.sets(KEYS, max_size=3)
        | some.frozensets(KEYS, max_size=3)
        | some.builds(Point, some.integers(), parts)
        | some.builds(Pair, parts, parts)
    ),
    max_leaves=8,
)


def classes(value: Any) -> Any:
    """The classes in a value: `True == 1` and `{1} == frozenset({1})`, and neither is the other."""
    if is_mapping(value):
        return type(value), [(classes(name), classes(part)) for name, part in value.items()]
    if is_sequence(value):
        return type(value), [classes(part) for part in value]
    if isinstance(value, Point):
        return Point, classes(value.y)
    return value.__class__


@given(UNTYPED)
def test_an_untyped_value_comes_back_as_what_it_was(value: Any) -> None:
    serde = MsgpackSerde()
    read = serde.decode(serde.encode(value))
    assert read == value
    assert classes(read) == classes(value)


def test_equal_sets_have_one_encoding_whatever_their_order() -> None:
    serde = MsgpackSerde()
    assert serde.encode({"a", "b", "c"}) == serde.encode({"c", "b", "a"})


def test_an_annotation_needs_no_registration() -> None:
    serde = MsgpackSerde(Order)
    order = Order([Point(1, {2})], datetime(2026, 1, 1, tzinfo=UTC), {"due": date(2026, 2, 1), "at": time(1, 2)})
    assert serde.decode(serde.encode(order)) == order


def test_an_instance_of_an_unknown_class_is_refused_with_its_place() -> None:
    with pytest.raises(UnencodableError, match=r"Unknown.*at \$\.notes\.x.*register") as refused:
        MsgpackSerde(Order).encode(Order([], None, {"x": Unknown(1)}))
    assert refused.value.path == "$.notes.x"


@pytest.mark.parametrize("value", [object(), lambda: 1, {"x": object()}])
def test_what_has_no_form_is_refused_with_its_class(value: Any) -> None:
    with pytest.raises(UnencodableError, match=r"cannot be written as MessagePack: its class"):
        MsgpackSerde().encode(value)


def test_what_is_nested_too_deep_is_refused() -> None:
    value: Any = []
    for _ in range(300):
        value = [value]
    with pytest.raises(UnencodableError, match="deeper than"):
        MsgpackSerde().encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(msgspec.msgpack.Ext(127, b"x")),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(11, msgspec.msgpack.encode(["os.system", 1]))),
    ],
)
def test_bytes_of_something_else_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        MsgpackSerde().decode(data)


@given(some.binary(max_size=40))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    serde = MsgpackSerde()
    try:
        read = serde.decode(data)
    except UndecodableError:
        return
    try:
        assert same(serde.decode(serde.encode(read)), read)
    except UnencodableError as error:
        note(error.message)


def test_only_classes_with_parts_are_registered_and_a_name_belongs_to_one() -> None:
    with pytest.raises(DefinitionError, match="no dataclass"):
        MsgpackSerde.register(uuid.UUID)
    other: type = msgspec.defstruct("Other", [("x", int)], module="elsewhere")
    MsgpackSerde.register(Unknown, name="taken-by-unknown")
    with pytest.raises(DefinitionError, match="another name"):
        MsgpackSerde.register(other, name="taken-by-unknown")
    beside: type = msgspec.defstruct("Beside", [("x", int)], module=Unknown.__module__)
    with pytest.raises(DefinitionError, match="another name"):
        MsgpackSerde.register(beside, name="taken-by-unknown")
    name: Any
    for name in ("", 5, "\ud800"):
        with pytest.raises(DefinitionError, match="printable text"):
            MsgpackSerde.register(beside, name=name)
    again: type = msgspec.defstruct(Unknown.__qualname__, [("x", int)], module=Unknown.__module__)
    assert MsgpackSerde.register(again, name="taken-by-unknown") is again  # Its module is read once more.


@dataclass
class Sounding(Point):
    depth: int = 0


@MsgpackSerde.register
@dataclass
class Peak(Point):
    height: int = 0


@pytest.mark.parametrize(
    ("declared", "value", "alone"),
    [(Point, Peak(1), Peak(1)), (list[Point], [Peak(1)], Peak(1)), (Point | None, Peak(1), Peak(1)),
     (dict[str, Point], {"a": Peak(1)}, Peak(1)), (int, Grade.TOP, Grade.TOP), (list[int], [Grade.TOP], Grade.TOP),
     (int | str, Grade.TOP, Grade.TOP)],
)  # fmt: skip
def test_a_registered_class_that_does_not_come_back_is_told_where_it_would(
    declared: Any, value: Any, alone: Peak | Grade
) -> None:
    name = type(alone).__name__
    sentence = f"{name} is registered, and comes back where {name} or Any is annotated, not as another type\\.$"
    with pytest.raises(UnencodableError, match=sentence):
        MsgpackSerde(declared).encode(value)
    assert same(value, MsgpackSerde(Any).decode(MsgpackSerde(Any).encode(value)))
    own: MsgpackSerde[Any] = MsgpackSerde(type(alone))
    assert same(alone, own.decode(own.encode(alone)))


def test_the_refusal_of_an_unregistered_class_names_both_ways_out_and_both_work() -> None:
    sentence = r"Annotate its class; or annotate Any, and register its class with MsgpackSerde\.register\.$"
    for declared in (Point, Any, list[Point], list[Any]):
        value: Any = Sounding(1) if declared in (Point, Any) else [Sounding(1)]
        with pytest.raises(UnencodableError, match=sentence):
            MsgpackSerde(declared).encode(value)
    assert MsgpackSerde(Sounding).decode(MsgpackSerde(Sounding).encode(Sounding(1))) == Sounding(1)
    MsgpackSerde.register(Sounding)
    assert MsgpackSerde(list[Any]).decode(MsgpackSerde(list[Any]).encode([Sounding(1)])) == [Sounding(1)]


def test_a_place_ends_the_sentence_about_what_is_read() -> None:
    with pytest.raises(UndecodableError, match=r"got `str` at \$\[0\]\.$"):
        MsgpackSerde(list[int]).decode(msgspec.msgpack.encode(["a"]))

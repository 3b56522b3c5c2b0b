"""Types of every kind that a border may declare, and values for them: fitting, nearly fitting and odd ones."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import annotated_types
import msgspec
import pydantic
from hypothesis import reject
from hypothesis import strategies as some

T = TypeVar("T")
Strategy = some.SearchStrategy[Any]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shade(enum.StrEnum):
    DARK = "dark"


class Text(str):
    __slots__ = ()


@dataclass
class Box(Generic[T]):
    item: T
    note: str = ""


@dataclass
class LabelledBox(Box[T]):
    label: str = "a box"


@dataclass(frozen=True)
class Loose(Generic[T]):
    """Equal whatever it holds."""

    item: T = field(compare=False)


class Crate(msgspec.Struct, Generic[T]):
    item: T
    weight: float | None = None


class HeavyCrate(Crate[T]):
    seals: int = 0


class Packet(pydantic.BaseModel, Generic[T]):
    item: T
    stamp: float | None = None


class Letter(Packet[T]):
    text: str = ""


class Sealed(pydantic.BaseModel, Generic[T]):
    """Loses what is in it."""

    item: T
    secret: pydantic.SecretStr = pydantic.SecretStr("")
    cached: int = pydantic.Field(default=0, exclude=True)


class Growing(pydantic.BaseModel):
    """Its validator is not idempotent."""

    price: int

    @pydantic.field_validator("price")
    @classmethod
    def _with_tax(cls, price: int) -> int:
        return price + 1 if price > 5 else price


@pydantic.dataclasses.dataclass
class Aliased:
    count: pydantic.PositiveInt = pydantic.Field(alias="Count")


class Pair(NamedTuple):
    left: int
    right: float


class Movie(TypedDict, total=False):
    name: str
    year: int | None


@dataclass
class Cat:
    name: str
    kind: Literal["cat"] = "cat"


@dataclass
class Dog:
    name: str
    age: int = 0


Id = NewType("Id", int)
Positive = Annotated[int, annotated_types.Gt(0)]
Short = Annotated[list[int], annotated_types.Len(0, 3)]

ZONES = [UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(seconds=7))]
TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=5)


def _folded(moment: datetime, fold: int) -> datetime:
    return moment.replace(fold=fold)


MOMENTS = some.builds(
    _folded,
    some.datetimes(timezones=some.none() | some.sampled_from(ZONES), allow_imaginary=True),
    some.sampled_from([0, 0, 1]),
)

LEAVES: dict[Any, Strategy] = {
    str: TEXT | some.text(max_size=3) | TEXT.map(Text) | some.just(Shade.DARK),
    int: some.integers() | some.integers(-(2**70), 2**70) | some.just(Level.HIGH),
    float: some.floats(),
    bool: some.booleans(),
    None: some.none(),
    bytes: some.binary(max_size=5),
    datetime: MOMENTS,
    date: some.dates(),
    time: some.times(timezones=some.none() | some.sampled_from(ZONES)),
    timedelta: some.timedeltas(),
    UUID: some.uuids(),
    Decimal: some.decimals().filter(lambda number: not number.is_snan()),  # Cannot be hashed.
    Color: some.sampled_from(Color),
    Level: some.sampled_from(Level),
    Shade: some.sampled_from(Shade),
    Literal["a", 1]: some.sampled_from(["a", 1, "b", True]),
    Id: some.integers(),
    Positive: some.integers(-2, 5),
    Short: some.lists(some.integers(), max_size=5),
    Pair: some.builds(Pair, some.integers(), some.floats()),
    Movie: some.fixed_dictionaries({}, optional={"name": TEXT, "year": some.none() | some.integers(), "x": TEXT}),
    Growing: some.builds(Growing.model_construct, price=some.integers(0, 9)),
    Aliased: some.builds(Aliased, Count=some.integers(1, 9)),
    Cat | Dog: some.builds(Cat, TEXT) | some.builds(Dog, TEXT, some.integers(0, 9)),
    str | datetime: TEXT | MOMENTS | some.datetimes().map(datetime.isoformat),
    str | UUID | Color | None: TEXT | some.uuids() | some.sampled_from(Color) | some.none(),
    datetime | date: MOMENTS | some.dates(),
    Cat | Packet[int] | int: some.builds(Cat, TEXT) | some.builds(Packet[int], item=some.integers()) | some.integers(),
}
HASHABLE = (str, int, float, bytes, date, datetime, UUID, Decimal, Color, Level, Positive)
KEYS = (str, int, float, date, UUID, Color, Level)
JSON_VALUES: Strategy = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**70), 2**70) | some.floats() | TEXT,
    lambda parts: some.lists(parts, max_size=3) | some.dictionaries(TEXT, parts, max_size=3),
    max_leaves=6,
)
ODD: Strategy = some.one_of(
    some.sampled_from([LabelledBox(1), Letter(item=1), HeavyCrate(1), Text("x"), Loose(float("nan")), object()]),
    some.builds(Sealed[int], item=some.integers(), secret=some.just(pydantic.SecretStr("x"))),
    some.builds(Sealed[int], item=some.integers(), cached=some.just(3)),
    some.dictionaries(TEXT | some.integers(0, 3) | some.sampled_from(["0", "1"]), some.integers(), max_size=4),
    some.sets(some.integers() | TEXT, max_size=4),
    some.tuples(some.integers(), some.floats()),
    some.builds(Box, some.floats() | some.sets(some.integers(), max_size=3)),
    some.sampled_from([Color.RED, b"x", date(2026, 1, 1), Decimal("NaN"), UUID(int=1), timedelta(1)]),
    *LEAVES.values(),
)

ANY: Strategy = some.recursive(
    JSON_VALUES | ODD, lambda parts: some.lists(parts, max_size=2) | some.dictionaries(TEXT, parts, max_size=2)
)


def of(generic: Any, argument: Any, *more: Any) -> Any:
    """`Box[int]`, where the parts are variables."""
    return generic[(argument, *more)] if more else generic[argument]


@some.composite
def typed(draw: some.DrawFn, depth: int = 2) -> tuple[Any, Strategy]:
    """A type, and a strategy of values for it. Values of generic records are sometimes of a subclass."""
    kind = draw(some.integers(0, 11)) if depth else 0
    if kind <= 1:
        leaf = draw(some.sampled_from(list(LEAVES)))
        return leaf, LEAVES[leaf]
    if kind == 2:
        return Any, ANY
    if kind == 3:
        key = draw(some.sampled_from(KEYS))
        value, values = draw(typed(depth - 1))
        return of(dict, key, value), some.dictionaries(LEAVES[key], values, max_size=3)
    if kind == 4:
        item = draw(some.sampled_from(HASHABLE))
        items = some.sets(LEAVES[item], max_size=3)
        is_frozen = draw(some.booleans())
        return (of(frozenset, item), items.map(frozenset)) if is_frozen else (of(set, item), items)
    item, items = draw(typed(depth - 1))
    if kind == 5:
        return of(list, item), some.lists(items, max_size=3)
    if kind == 6:
        return of(tuple, item, ...), some.lists(items, max_size=3).map(tuple)
    if kind == 7:
        return of(Optional, item), some.none() | items
    if kind == 8:
        return of(Box, item), some.builds(Box, items) | some.builds(LabelledBox, items)
    if kind == 9:
        return of(Crate, item), some.builds(Crate, items, some.none() | some.floats()) | some.builds(HeavyCrate, items)
    if kind == 10:
        return of(Loose, item), some.builds(Loose, items)
    try:
        model = of(Packet, item)
    except pydantic.errors.PydanticUserError:  # It holds what pydantic does not know: a Struct, a typing.TypedDict.
        reject()
    return model, some.builds(model.model_construct, item=items, stamp=some.none() | some.floats())

"""What is written can be read and is what was given, or it is refused where it is given (rule V5)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as some

from durably.actors.values import round_trip
from durably.actors.values.msgpack_serde import MsgpackSerde
from durably.actors.values.serde import TypeCodec, codec_for
from durably.errors import DefinitionError, UndecodableError, UnencodableError
from tests.actors.typed_values import (
    ODD,
    TEXT,
    Box,
    Cat,
    Color,
    Crate,
    Dog,
    Growing,
    HeavyCrate,
    LabelledBox,
    Letter,
    Loose,
    Movie,
    Packet,
    Sealed,
    Shade,
    Strategy,
    typed,
)

NAN = math.nan
BERLIN = ZoneInfo("Europe/Berlin")


def same(value: Any, read: Any) -> bool:
    """Equal, or written alike in Python: NaN equals nothing, and some classes are equal when their fields are not."""
    if type(value) is type(read) is Loose:
        return same(value.item, read.item)
    return bool(value == read) or sorted(repr(value)) == sorted(repr(read))


def codec_or_reject(annotation: Any) -> TypeCodec[Any]:
    try:
        return codec_for(annotation)
    except DefinitionError:  # A Struct around what only pydantic reads.
        assume(False)
        raise


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(typed(), some.booleans(), some.data())
def test_what_is_written_is_read_as_it_was_or_refused(
    drawn: tuple[Any, Strategy], is_odd: bool, data: some.DataObject
) -> None:
    annotation, values = drawn
    codec = codec_or_reject(annotation)
    value = data.draw(ODD if is_odd else values)
    try:
        written = codec.encode_exactly(value)
    except UnencodableError as error:
        note(error.message)
        return
    read = codec.decode(written)
    codec.encode_exactly(read)
    assert codec.admit(written) == written or codec.decode(codec.admit(written)) == read
    if "Any" not in repr(annotation):
        assert same(value, read)


NAMES = TEXT | some.sampled_from(["item", "note", "price", "stamp", "Count", "name", "kind", "NaN", "1", "1.0"])
BODIES: Strategy = some.recursive(
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | TEXT
    | some.sampled_from(["NaN", "inf", "-Infinity", "sNaN", "1e5", "red", "2026-01-01", "2026-01-01T00:00:00Z"]),
    lambda parts: some.lists(parts, max_size=3) | some.dictionaries(NAMES, parts, max_size=4),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(typed(), some.data(), some.sampled_from([b'"NaN"', b"NaN", b"1e5", b'"inf"', b"null"]))
def test_what_is_admitted_can_be_stored(drawn: tuple[Any, Strategy], data: some.DataObject, instead: bytes) -> None:
    annotation, values = drawn
    codec = codec_or_reject(annotation)
    body = data.draw(BODIES | values.map(lambda value: encoded_or_nothing(codec, value).replace(b"null", instead)))
    try:
        stored = codec.admit(body)
    except UndecodableError:
        return
    codec.decode(codec.encode_exactly(codec.decode(stored)))


def encoded_or_nothing(codec: TypeCodec[Any], value: Any) -> bytes:
    try:
        return codec.encode(value)
    except UnencodableError:
        return b""


class Meeting(pydantic.BaseModel):
    at: float | None = None
    extra: Any = None


class Open(pydantic.BaseModel, extra="allow"):
    number: int


class Priced(pydantic.BaseModel):
    price: float


class Base(pydantic.BaseModel):
    name: str


class Derived(Base):
    more: int = 0


class Team(pydantic.BaseModel):
    members: list[Base] = []


@dataclass
class Named:
    base: Base


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@dataclass
class Tree:
    branches: list[Tree] = field(default_factory=list["Tree"])


def tree(levels: int) -> Tree:
    value = Tree()
    for _ in range(levels - 1):
        value = Tree([value])
    return value


REFUSED: list[tuple[Any, Any, str]] = [
    (list[float], [1.0, NAN], "$[1]"),
    (list[float], [1.0, math.inf], "$[1]"),
    (dict[str, list[float]], {"a": [NAN]}, "$.a[0]"),
    (float | None, NAN, "$"),
    (list[float | None], [None, NAN], "$[1]"),
    (Crate[int], Crate(1, NAN), "$.weight"),
    (Meeting, Meeting(at=NAN), "$.at"),
    (Any, {"a": [1.0, NAN]}, "$.a[1]"),
    (Any, [Meeting(at=NAN)], "$[0].at"),
    (Any, {"a": [Priced(price=NAN)]}, "$.a[0].price"),
    (Any, [Crate(1, NAN)], "$[0].weight"),
    (Any, {1: "a", "1": "b"}, "$"),
    (Any, {"x": {1.0: "a", "1.0": "b"}}, "$.x"),
    (Any, {NAN: 1}, "$"),
    (dict[Any, int], {float("inf"): 1}, "$"),
    (list[Any], [{"a": {-float("inf"): 1}}], "$[0].a"),
    (dict[str, Any], {"a": {None: 1, "null": 2}}, "$.a"),
    (float, 2**60 + 1, "$"),
    (list[float], [2**60 + 1], "$[0]"),
    (Sealed[int], Sealed[int](item=1, secret=pydantic.SecretStr("x")), "$.secret"),
    (Sealed[int], Sealed[int](item=1, cached=3), "$.cached"),
    (Any, {"a": Sealed[int](item=1, secret=pydantic.SecretStr("x"))}, "$.a.secret"),
    (pydantic.SecretStr, pydantic.SecretStr("x"), "$"),
    (Box[int], LabelledBox(1), "$"),
    (list[Box[int]], [Box(1), LabelledBox(1)], "$[1]"),
    (Crate[int], HeavyCrate(1), "$"),
    (Packet[int], Letter[int](item=1, text="x"), "$"),
    (Team, Team(members=[Derived(name="x", more=1)]), "$.members[0]"),
    (Named, Named(Derived(name="x")), "$.base"),
    (Growing, Growing.model_construct(price=7), "$.price"),
    (Movie, {"name": "x", "author": "y"}, "$"),
    (Loose[float | None], Loose(NAN), "$.item"),
    (tuple[int, ...], [1], "$"),
    (list[int], {1}, "$"),
    (Color, "red", "$"),
    (datetime, datetime(1800, 1, 1, tzinfo=BERLIN), "$"),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=7))), "$"),
    (time, time(1, tzinfo=BERLIN), "$"),
    (str | datetime, "2026-01-01T00:00:00Z", "$"),
    (Any, nested(300), "$"),
    (Any, {"a": nested(254)}, "$"),
    (Tree, tree(200), "$"),
    (int, 10**5000, "$"),
    (Any, [10**5000], "$[0]"),
    (str, "\ud800", "$"),
    (dict[str, int], {"\ud800": 1}, "$"),
]


@pytest.mark.parametrize(("annotation", "value", "path"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_a_value_that_would_be_read_as_something_else_is_refused_by_its_path(
    annotation: Any, value: Any, path: str
) -> None:
    with pytest.raises(UnencodableError) as caught:
        codec_for(annotation).encode_exactly(value)
    assert caught.value.path == path


ACCEPTED: list[tuple[Any, Any, Any]] = [
    (Any, (1, (2, 3)), [1, [2, 3]]),
    (Any, {1: {2: "x"}}, {"1": {"2": "x"}}),
    (Any, {"a": {3, 1}}, {"a": [1, 3]}),
    (Any, [UUID(int=1), Color.RED, b"x"], ["00000000-0000-0000-0000-000000000001", "red", "eA=="]),
    (Any, Box(LabelledBox(1)), {"item": {"item": 1, "note": "", "label": "a box"}, "note": ""}),
    (Any, [2**70, {2**70}], [2**70, [2**70]]),
    (Any, nested(254), nested(254)),
    (Tree, tree(120), tree(120)),
    (Meeting, Meeting(extra=(1, {2})), Meeting(extra=[1, [2]])),
    (Sequence[int], (1, 2), [1, 2]),
    (Collection[int], {2, 1}, [1, 2]),
    (Decimal, Decimal("NaN"), None),
    (list[Decimal], [Decimal("sNaN"), Decimal("1.10")], None),
    (datetime, datetime(2026, 1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC)),
    (str | datetime, "2026", "2026"),
    (str | datetime, "123", "123"),
    (str | datetime, datetime.fromisoformat("2026-01-01T00:00:00"), datetime.fromisoformat("2026-01-01T00:00:00")),
    (datetime | str, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    (Color | Shade | UUID | str, Shade.DARK, Shade.DARK),
    (Cat | Dog | None, Dog("x", 3), Dog("x", 3)),
    (Base | Team, Team(), Team()),
    (Base | str | int, "x", "x"),
    (Packet[int], Packet(item=1), Packet[int](item=1)),
    (Open, Open.model_validate({"number": 1, "more": (1,)}), Open.model_validate({"number": 1, "more": [1]})),
    (float, 3, 3.0),
]


@pytest.mark.parametrize(("annotation", "value", "read"), ACCEPTED, ids=[str(n) for n in range(len(ACCEPTED))])
def test_what_means_the_same_is_accepted(annotation: Any, value: Any, read: Any) -> None:
    codec = codec_for(annotation)
    decoded = codec.decode(codec.encode_exactly(value))
    assert repr(decoded) == repr(value) or decoded == value if read is None else decoded == read


@pytest.mark.parametrize(
    ("annotation", "body", "path"),
    [
        (Meeting, b'{"at": "NaN"}', "$.at"),
        (list[Meeting], b'[{"at": 1}, {"at": "-inf"}]', "$[1].at"),
        (Any, b"[" * 300 + b"]" * 300, "$"),
        (dict[str, Any], b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "$"),
        (Tree, b'{"branches":[' * 200 + b"]}" * 200, "$"),
        (Growing, b'{"price": 7}', "$.price"),
        (list[Priced], b'[{"price": "NaN"}]', "$[0].price"),
        (int, b"1" * 5000, "$"),
        (Any, b"1" * 5000, "$"),
        (float, b"1e999", "$"),
        (str, b'"\\ud800"', "$"),
    ],
)
def test_what_could_not_be_stored_is_not_admitted(annotation: Any, body: bytes, path: str) -> None:
    with pytest.raises(UndecodableError) as caught:
        codec_for(annotation).admit(body)
    assert caught.value.path == path


class Order(pydantic.BaseModel):
    id: UUID = pydantic.Field(default_factory=uuid4)
    note: str | None = None


@dataclass
class Parcel:
    id: UUID = field(default_factory=uuid4)
    tags: list[str] = field(default_factory=list[str])


@pytest.mark.parametrize("annotation", [Order, Parcel, list[Order], dict[str, Parcel]])
def test_a_default_that_is_drawn_is_drawn_once(annotation: Any) -> None:
    codec = codec_for(annotation)
    body = {list[Order]: b"[{}]", dict[str, Parcel]: b'{"a": {}}'}.get(annotation, b"{}")
    stored = codec.admit(body)
    assert codec.decode(stored) == codec.decode(stored)


def test_a_body_without_such_defaults_is_stored_as_it_came() -> None:
    assert codec_for(Meeting).admit(b' {"at": 1}') == b' {"at": 1}'
    read = codec_for(Meeting).decode(codec_for(Meeting).admit(b'{"at": 1}'))
    assert read.model_fields_set == {"at"}


def test_a_value_is_not_decoded_where_its_classes_prove_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Job:
        name: str
        steps: list[int]
        owner: tuple[str, bool] | None = None
        by_day: dict[str, Color] = field(default_factory=dict[str, Color])

    codec = codec_for(dict[int, list[Job]])
    value = {1: [Job("a", [1], ("b", True), {"x": Color.RED}), Job("b", [])]}
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", pytest.fail)
    written = codec.encode_exactly(value)
    codec.verify(value, written)
    assert decode(written) == value


def test_equal_bytes_are_ambiguous_only_where_something_can_hide_in_them() -> None:
    assert codec_for(list[float | None]).is_ambiguous(b"[null]")
    assert not codec_for(list[float | None]).is_ambiguous(b"[1.0]")
    assert not codec_for(list[int | None]).is_ambiguous(b"[null]")
    assert codec_for(Sealed[int]).is_ambiguous(b"{}")


def test_a_sentence_says_what_is_lost_and_what_to_do() -> None:
    with pytest.raises(UnencodableError, match=r"at \$\[0\].*would be read as Box\(.*Declare LabelledBox"):
        codec_for(list[Box[int]]).encode_exactly([LabelledBox(1)])
    with pytest.raises(UnencodableError, match=r"nan \(float\).*no such number"):
        codec_for(float | None).encode_exactly(NAN)
    with pytest.raises(UnencodableError, match="same text in JSON"):
        codec_for(Any).encode_exactly({1: "a", "1": "b"})
    with pytest.raises(UnencodableError, match=r"7 \(int\), at \$\.price.*validator"):
        codec_for(Growing).encode_exactly(Growing.model_construct(price=7))
    with pytest.raises(UnencodableError, match="deeper than 254 levels"):
        codec_for(Any).encode_exactly(nested(300))


def test_a_struct_with_unset_fields_passes() -> None:
    class Patch(msgspec.Struct):
        name: str | msgspec.UnsetType = msgspec.UNSET

    codec = codec_for(Patch)
    assert codec.decode(codec.encode_exactly(Patch())) == Patch()


class Booking(pydantic.BaseModel):
    begins: datetime
    others: dict[datetime, int] = {}


ZONED = [
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2026, 10, 24, 12, tzinfo=BERLIN),
    datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/London")),  # Its offset at that moment is that of UTC.
]
FIXED = [
    UTC,
    timezone(timedelta(hours=2)),
    ZoneInfo("UTC"),
    pydantic.TypeAdapter(datetime).validate_json(b'"2026-01-01T00:00:00+01:00"').tzinfo,
]


AROUND: list[tuple[Any, Callable[[datetime], Any]]] = [
    (datetime, lambda value: value),
    (list[datetime], lambda value: [value]),
    (set[datetime], lambda value: {value}),
    (set[tuple[str, datetime]], lambda value: {("a", value)}),
    (dict[datetime, int], lambda value: {value: 1}),
    (dict[str, datetime | None], lambda value: {"a": value}),
    (Sequence[datetime], lambda value: [value]),
    (Booking, lambda value: Booking(begins=value)),
    (Booking, lambda value: Booking(begins=datetime(2026, 1, 1, tzinfo=UTC), others={value: 1})),
]


@pytest.mark.parametrize("codec", [codec_for, MsgpackSerde])
@pytest.mark.parametrize(("annotation", "around"), AROUND)
def test_a_zone_whose_offset_changes_is_refused_and_a_fixed_one_is_kept(
    codec: Any, annotation: Any, around: Any
) -> None:
    write = codec(annotation)
    encode, decode = getattr(write, "encode_exactly", write.encode), write.decode
    for moment in ZONED:
        with pytest.raises(UnencodableError, match=r"value\.astimezone\(UTC\)"):
            encode(around(moment))
    for zone in FIXED:
        moment = datetime(2026, 10, 24, 12, tzinfo=zone)
        read = decode(encode(around(moment)))
        assert read == around(moment)
        if annotation is datetime:
            assert read + timedelta(days=2) == moment + timedelta(days=2)


TWICE = datetime(2026, 10, 25, 2, 30, fold=1)  # noqa: DTZ001 - a naive one
"""The second of two equal times on the clock."""
AROUND_NAIVE: list[tuple[Any, Callable[[datetime], Any]]] = [
    *AROUND,
    (Any, lambda value: [value]),
    (Any, lambda value: {value: 1}),
    (Any, lambda value: {value}),
]


@pytest.mark.parametrize(("annotation", "around"), AROUND_NAIVE)
def test_json_refuses_a_fold_that_it_would_lose(annotation: Any, around: Any) -> None:
    encode = codec_for(annotation).encode_exactly
    encode(around(TWICE.replace(fold=0)))
    encode(around(TWICE.replace(tzinfo=UTC)))
    with pytest.raises(UnencodableError, match=r"fold=1.*astimezone\(UTC\)"):
        encode(around(TWICE))


@pytest.mark.parametrize("annotation", [time, time | None, Any])
def test_json_refuses_the_fold_of_a_time_of_day(annotation: Any) -> None:
    with pytest.raises(UnencodableError, match="fold"):
        codec_for(annotation).encode_exactly(TWICE.time())


@pytest.mark.parametrize(("annotation", "around"), [*AROUND_NAIVE, (Any, datetime.time), (time, datetime.time)])
def test_messagepack_keeps_a_fold(annotation: Any, around: Any) -> None:
    serde = MsgpackSerde[Any](annotation)
    for moment in (TWICE, TWICE.replace(fold=0), TWICE.replace(tzinfo=UTC)):
        assert repr(serde.decode(serde.encode(around(moment)))) == repr(around(moment))


def test_places_are_named_only_where_something_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming the place of each part took ten times as long as encoding and decoding all of them."""
    named: list[object] = []

    def below(path: str, key: object) -> str:
        named.append(key)
        return f"{path}.{key}"

    monkeypatch.setattr(round_trip, "below", below)
    codec = codec_for(dict[str, Any])
    value: dict[str, Any] = {
        str(number): {"at": datetime(2026, 1, 1, tzinfo=UTC), "keys": {number: None}} for number in range(50)
    }
    codec.encode_exactly(value)
    assert named == []
    with pytest.raises(UnencodableError, match=r"\$\.49\.keys"):
        codec.encode_exactly({**value, "49": {"keys": NAN}})
    assert named == ["keys", "49"]

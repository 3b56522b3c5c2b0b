"""Declared constraints are enforced, or refused by a sentence that names them (rule V5)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, NewType
from uuid import UUID

import annotated_types as at
import msgspec
import pydantic
import pytest
from pydantic.dataclasses import dataclass as pydantic_dataclass

from durably.actors import Context, Service, handler
from durably.actors.definition.binding import bind
from durably.actors.values import serde
from durably.actors.values.serde import codec_for
from durably.errors import DefinitionError, InvalidArgumentError, UndecodableError, UnencodableError

Age = NewType("Age", Annotated[int, at.Gt(0)])  # pyright: ignore[reportGeneralTypeIssues]


@pydantic_dataclass
class Seat:
    row: pydantic.PositiveInt = pydantic.Field(alias="Row")
    label: str = ""

    @pydantic.field_validator("label")
    @classmethod
    def _is_short(cls, label: str) -> str:
        if len(label) > 3:
            raise ValueError("too long")
        return label


@dataclass
class Order:
    seats: list[Annotated[int, at.Gt(0)]]
    note: Annotated[str, pydantic.Field(max_length=3)] = ""


@dataclass
class Around:
    order: Order


class Pair(NamedTuple):
    left: pydantic.PositiveInt
    right: int


@dataclass
class Checked:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("it is negative")


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "path"),
    [
        (pydantic.PositiveInt, b"1", b"0", "$"),
        (Annotated[int, pydantic.Field(gt=0)], b"1", b"0", "$"),
        (Annotated[int, at.Gt(0)], b"1", b"-1", "$"),
        (Annotated[int, at.Interval(ge=0, lt=3)], b"2", b"3", "$"),
        (Annotated[list[int], at.Len(1, 2)], b"[1]", b"[]", "$"),
        (Annotated[str, at.Predicate(str.islower)], b'"a"', b'"A"', "$"),
        (pydantic.conint(ge=3), b"3", b"2", "$"),
        (pydantic.constr(pattern="^a"), b'"ab"', b'"b"', "$"),
        (pydantic.conlist(int, max_length=1), b"[1]", b"[1,2]", "$"),
        (pydantic.StrictInt, b"1", b"1.0", "$"),
        (pydantic.UUID4, b'"c0a8f0b4-1f0e-4a2e-9d5b-7b5e7a0e6d11"', b'"00000000-0000-1000-8000-000000000000"', "$"),
        (pydantic.AwareDatetime, b'"2026-01-01T00:00:00Z"', b'"2026-01-01T00:00:00"', "$"),
        (Age, b"1", b"0", "$"),
        (list[pydantic.PositiveInt], b"[1]", b"[1,0]", "$[1]"),
        (dict[str, list[pydantic.PositiveInt]], b'{"a":[1]}', b'{"a":[0]}', "$.a[0]"),
        (pydantic.PositiveInt | None, b"null", b"0", "$"),
        (tuple[int, Annotated[int, at.Gt(0)]], b"[0,1]", b"[1,0]", "$[1]"),
        (Order, b'{"seats":[1],"note":"abc"}', b'{"seats":[1],"note":"abcd"}', "$.note"),
        (Around, b'{"order":{"seats":[1]}}', b'{"order":{"seats":[0]}}', "$.order.seats[0]"),
        (Pair, b"[1,0]", b"[0,0]", "$[0]"),
        (Seat, b'{"Row":1}', b'{"Row":0}', "$.Row"),
        (list[Seat], b'[{"Row":1}]', b'[{"row":1}]', "$[0].Row"),
        (Seat, b'{"Row":1,"label":"abc"}', b'{"Row":1,"label":"abcd"}', "$.label"),
        (Annotated[int, msgspec.Meta(gt=0)], b"1", b"0", "$"),
        (Checked, b'{"number":1}', b'{"number":-1}', "$"),
        (pydantic.PositiveInt, b"1", b'"1"', "$"),
        (dict[str, pydantic.PositiveInt | str | datetime], b'{"a":"x"}', b'{"a":true}', "$"),
    ],
)
def test_a_constraint_is_enforced_in_both_directions(annotation: Any, good: bytes, bad: bytes, path: str) -> None:
    codec = codec_for(annotation)
    value = codec.decode(good)
    assert codec.decode(codec.encode_exactly(value)) == value
    with pytest.raises(UndecodableError) as caught:
        codec.admit(bad)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("annotation", "bad", "path"),
    [
        (pydantic.PositiveInt, 0, "$"),
        (list[Annotated[int, at.Gt(0)]], [1, 0], "$[1]"),
        (Order, Order([1], "abcd"), "$.note"),
        (Around, Around(Order([0])), "$.order.seats[0]"),
        (Annotated[list[int], msgspec.Meta(max_length=1)], [1, 2], "$"),
        (pydantic.PositiveInt, "1", "$"),
    ],
)
def test_a_value_that_breaks_a_constraint_is_refused_where_it_is_given(annotation: Any, bad: Any, path: str) -> None:
    with pytest.raises(UnencodableError) as caught:
        codec_for(annotation).encode_exactly(bad)
    assert caught.value.path == path


def test_a_pydantic_dataclass_is_written_by_its_aliases() -> None:
    codec = codec_for(dict[str, Seat])
    assert codec.encode_exactly({"a": Seat(Row=2, label="x")}) == b'{"a":{"Row":2,"label":"x"}}'


class Crate(msgspec.Struct):
    weight: Annotated[int, at.Gt(0)]


class Tagged(msgspec.Struct):
    seat: Seat


class Mixed(pydantic.BaseModel):
    number: Annotated[int, msgspec.Meta(gt=0)]


@dataclass
class BothKinds:
    left: Annotated[int, msgspec.Meta(gt=0)]
    right: pydantic.PositiveInt


class Deadline(pydantic.BaseModel):
    at: pydantic.FutureDatetime


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Crate, r"Gt\(gt=0\) of Crate\.weight.*pydantic does not know the Struct Crate.*msgspec\.Meta"),
        (list[Tagged], r"the pydantic dataclass Seat.*Struct Tagged"),
        (Mixed, r"Meta\(gt=0\) of Mixed\.number.*pydantic\.Field"),
        (BothKinds, r"Meta\(gt=0\) of BothKinds\.left.*Gt\(gt=0\) of BothKinds\.right.*one of the two"),
        (Annotated[datetime, at.Timezone(None)], r"Timezone\(tz=None\).*NaiveDatetime"),
        (Deadline, r"FutureDatetime is valid only until.*ctx\.now\(\)"),
        (bytes | str, "bytes as text"),
        (Crate | Order, "Struct Crate"),
    ],
)
def test_what_nothing_would_enforce_is_refused_by_name(annotation: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        codec_for(annotation)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(list[Annotated[int, at.Gt(5)]], r"Gt\(gt=5\).*pip install pydantic"), (Order | Checked, "pip install pydantic")],
)
def test_without_pydantic_the_sentence_names_it(annotation: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serde, "has_pydantic", lambda: False)
    with pytest.raises(DefinitionError, match=words):
        codec_for(annotation)


def test_what_says_nothing_of_values_leaves_a_type_as_it_is() -> None:
    assert codec_for(Annotated[int, pydantic.Field(description="how many")]).is_certain
    assert codec_for(Annotated[list[str], "names", at.Unit("m")]).is_certain


UNIMPORTED = """
import sys
from dataclasses import dataclass
import durably
from durably.actors.values.serde import codec_for
@dataclass
class Seat:
    row: int
assert codec_for(dict[str, list[Seat]]).encode_exactly({"a": [Seat(1)]})
sys.exit("pydantic" in sys.modules)
"""


def test_pydantic_is_not_imported_where_no_type_needs_it() -> None:
    subprocess.run([sys.executable, "-c", UNIMPORTED], check=True)


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    bone: str | None = None


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


@dataclass
class Owner:
    pets: list[Pet] = field(default_factory=list[Pet])
    since: datetime | str = ""


class Limits(Service):
    @handler
    async def take(
        self, ctx: Context, number: pydantic.PositiveInt, pet: Pet | None = None, of: Owner | None = None
    ) -> Pet:
        return pet or Dog()


@pytest.mark.parametrize(
    "value", [Cat(lives=3), Dog(bone="x"), Owner([Dog(), Cat()], "monday"), Owner([], datetime(2026, 1, 1, tzinfo=UTC))]
)
def test_unions_are_told_apart_by_what_they_hold(value: Any) -> None:
    codec = codec_for(Owner if isinstance(value, Owner) else Pet)
    assert codec.decode(codec.encode_exactly(value)) == value


def test_arguments_are_checked_one_by_one_and_the_path_says_which() -> None:
    bound = bind(Limits, {}).handlers["take"]
    body = b'{"number": 1, "pet": {"kind": "dog", "bone": "b"}}'
    args, _ = bound.signature.decode_arguments(bound.admit(body))
    assert args[:2] == (1, Dog(bone="b"))
    for body, path in [
        (b"0", "$"),
        (b'{"number": 0}', "$.number"),
        (b'{"number": 1, "pet": {"kind": "cow"}}', "$.pet"),
        (b'{"number": 1, "of": {"pets": [{"kind": "cat", "lives": "x"}]}}', "$.of.pets[0].cat.lives"),
        (b'{"number": 1, "of": {"pest": []}}', "$.of.pest"),
    ]:
        with pytest.raises(InvalidArgumentError, match="Handler 'take'") as caught:
            bound.admit(body)
        assert caught.value.path == path
    with pytest.raises(UnencodableError, match="The argument 'number'"):
        bound.signature.encode_arguments((0,), {})


def test_what_is_stored_may_have_keys_that_a_dataclass_has_no_more() -> None:
    assert codec_for(Order).decode(b'{"seats":[1],"gone":2}') == Order([1])
    with pytest.raises(UndecodableError, match="gone"):
        codec_for(Order).admit(b'{"seats":[1],"gone":2}')


class Defaulted(Service):
    @handler
    async def take(self, ctx: Context, number: int = pydantic.Field(gt=0)) -> UUID:
        raise NotImplementedError


def test_a_field_as_a_default_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"default of the parameter 'number'.*Annotated\[int, Field"):
        bind(Defaulted, {})

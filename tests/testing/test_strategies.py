"""What the strategies give fits the handler, reads as code, and is what the user said where the user said something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import annotated_types
import msgspec
import pydantic
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from durably import BytesSerde, Context, ObjectContext, Service, VirtualObject, handler, shared, state
from durably.actors.values.descriptions import MISSING
from durably.actors.values.serde import codec_for
from durably.actors.values.type_checks import is_mapping, is_sequence, is_set
from durably.errors import DefinitionError, UnencodableError
from durably.testing import Harness, Simulation
from durably.testing.generation.strategies import ActorCall, NoStrategyError, arguments, calls
from durably.testing.generation.values import Values

T = TypeVar("T")
UserId = NewType("UserId", str)


class Seat(Enum):
    FREE = "free"
    SOLD = "sold"


class Place(NamedTuple):
    row: int
    price: float


class Options(TypedDict):
    user: UserId
    weight: NotRequired[float]


@dataclass(frozen=True)
class Box(Generic[T]):
    content: T


@dataclass
class Order:
    user: UserId
    seats: list[Seat]
    price: float = 1.0
    parts: list[Order] = field(default_factory=list["Order"])
    box: Box[float] | None = None

    def __post_init__(self) -> None:
        if self.price < 0:
            raise ValueError("Nobody is paid for an order.")


class Parcel(msgspec.Struct, kw_only=True):
    weight: Annotated[float, msgspec.Meta(gt=0, le=30)]
    code: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    count: Annotated[int, msgspec.Meta(ge=3, lt=20, multiple_of=4)] = 4
    notes: list[str] = []


class Guest(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1)
    age: int = pydantic.Field(ge=18)
    score: float = 0.0

    @pydantic.field_validator("age")
    @classmethod
    def even(cls, age: int) -> int:
        if age % 2:
            raise ValueError("odd")
        return age


class Everything(Service):
    """A handler with everything that can be declared."""

    @handler
    async def take(
        self,
        ctx: Context,
        text: str,
        number: int,
        real: float,
        seat: Seat,
        order: Order,
        options: Options,
        place: Place,
        parcel: Parcel,
        guest: Guest,
        when: datetime,
        day: date,
        hour: time,
        spell: timedelta,
        money: Decimal,
        name: UUID,
        literal: Literal["a", 1],
        maybe: int | None,
        anything: Any,
        some: Annotated[list[float], msgspec.Meta(min_length=1, max_length=3)],
        few: Annotated[int, annotated_types.Interval(ge=1, le=5)],
        fewer: Annotated[int, pydantic.Field(gt=2, lt=5, description="how many")],
        given: Annotated[str, st.just("given")],
        pair: tuple[int, float],
        many: tuple[float, ...],
        single: tuple[int],
        kinds: set[Seat],
        frozen: frozenset[tuple[int, str]],
        table: Mapping[int, Sequence[float]],
        data: bytes,
        *,
        limit: int = 10,
    ) -> None:
        """Nothing."""

    @handler(accepts=BytesSerde(), returns=BytesSerde())
    async def upload(self, ctx: Context, body: bytes) -> bytes:
        return body

    @handler
    async def short(self, ctx: Context, code: Annotated[str, msgspec.Meta(pattern="^a*$", max_length=2)]) -> None:
        """A short one."""

    @handler(private=True)
    async def inside(self, ctx: Context) -> None:
        """For other actors."""


class Cart(VirtualObject, name="StrategyCart"):
    tickets: list[str] = state(default=[])

    @handler
    async def add_ticket(self, ctx: ObjectContext, ticket_id: str, n: int = 1) -> int:
        self.tickets.extend([ticket_id] * n)
        return len(self.tickets)

    @shared
    async def seat(self, ctx: Context, seat: Seat) -> Seat:
        return seat


class Hidden(Service, private=True):
    @handler
    async def go(self, ctx: Context) -> None:
        """For other actors."""


def floats_in(value: object) -> Iterator[float]:
    parts: list[Any] = []
    if isinstance(value, float):
        yield value
    elif is_sequence(value) or is_set(value):
        parts = [*value]
    elif is_mapping(value):
        parts = [*value.values()]
    elif not isinstance(value, Enum) and hasattr(value, "__dict__"):
        parts = [*vars(value).values()]
    for part in parts:
        yield from floats_in(part)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(arguments(Everything.take))
def test_whatever_is_declared_comes_and_is_carried_as_it_is(given: dict[str, Any]) -> None:
    signature = Everything.take.signature
    positional, by_name = signature.decode_arguments(signature.encode_arguments((), given))
    names = [one.name for one in signature.types.parameters]
    assert dict(zip(names, positional, strict=False)) | by_name == {"limit": 10} | given
    assert all(map(isfinite, floats_in(given)))
    assert given["when"].tzinfo is UTC
    assert 0 < given["parcel"].weight <= 30
    assert given["parcel"].count in (4, 8, 12, 16)
    assert given["guest"].age >= 18
    assert given["guest"].age % 2 == 0
    assert 1 <= len(given["some"]) <= 3
    assert 1 <= given["few"] <= 5
    assert 2 < given["fewer"] < 5
    assert given["given"] == "given"
    assert len(given["single"]) == 1
    assert given["order"].price >= 0


def test_what_has_a_default_may_be_missing_and_is_at_first() -> None:
    assert find(arguments(Cart.add_ticket), lambda _: True) == {"ticket_id": ""}
    assert "n" in find(arguments(Cart.add_ticket), lambda given: given.get("n", 1) > 1)


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(arguments(Everything.take, {UserId: st.just("mary"), float: st.just(2.5)}, few=st.just(3)))
def test_what_the_user_says_of_a_type_holds_in_all_its_parts(given: dict[str, Any]) -> None:
    assert given["order"].user == given["options"]["user"] == "mary"
    assert all(part.user == "mary" for part in given["order"].parts)
    assert set(floats_in([given["many"], given["table"], given["order"], given["place"]])) <= {2.5, 1.0}
    assert given["few"] == 3


@pytest.mark.parametrize("bare", [MISSING, Any, list, tuple, dict, set, frozenset, Sequence, Mapping])
def test_what_is_not_declared_is_what_json_can_say(bare: Any) -> None:
    codec = codec_for(bare)

    @settings(max_examples=20, derandomize=True, deadline=None, database=None)
    @given(Values({}).of(bare))
    def is_carried(value: Any) -> None:
        assert codec.encode(codec.decode(codec.encode(value))) == codec.encode(value)

    is_carried()


@pytest.mark.parametrize("number", [float, Decimal])
def test_numbers_are_finite(number: Any) -> None:
    with pytest.raises(NoSuchExample):
        find(Values({}).of(number), lambda value: not isfinite(value), settings=settings(database=None))


def test_what_no_strategy_knows_of_a_type_is_left_to_its_codec() -> None:
    codes = arguments(Everything.short)
    with pytest.raises(NoSuchExample):
        find(codes, lambda given: len(given["code"]) > 2, settings=settings(database=None))


def test_an_argument_in_a_serde_of_its_own() -> None:
    assert find(arguments(Everything.upload), lambda given: len(given["body"]) > 1) == {"body": b"\0\0"}


class Unknown:
    def __init__(self, thing: Any) -> None:
        self.thing = thing


class Opaque(Service):
    @handler(accepts=BytesSerde())
    async def take(self, ctx: Context, body: Unknown) -> None:
        """Nobody knows what."""


def test_a_type_without_a_strategy_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        NoStrategyError, match=r"The parameter 'body' of Handler 'Opaque.take': nothing is known of .*Unknown"
    ):
        arguments(Opaque.take)


def test_a_parameter_that_is_not_there_is_refused_with_a_sentence() -> None:
    with pytest.raises(DefinitionError, match=r"'Cart.add_ticket' has no parameter 'seat'"):
        arguments(Cart.add_ticket, seat=st.just(1))


def test_overrides_of_the_wrong_form_are_refused_with_a_sentence() -> None:
    with pytest.raises(DefinitionError, match="a mapping of its parameters to strategies should be"):
        calls(Cart, overrides={Cart.add_ticket: st.just("A")})
    with pytest.raises(DefinitionError, match="a strategy should be"):
        calls(Cart, overrides={str: {"ticket_id": st.just("A")}})


def test_what_the_user_gives_and_does_not_fit_is_told_by_the_codec() -> None:
    with pytest.raises(UnencodableError, match="The argument 'ticket_id' of handler 'add_ticket'"):
        find(arguments(Cart.add_ticket, ticket_id=st.just(3)), lambda _: True)


@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(calls(Cart, Everything, Hidden, keys={Cart: ["mary"]}, overrides={Cart.add_ticket: {"n": st.just(7)}}))
def test_calls_are_of_public_handlers_on_the_keys_given(call: ActorCall) -> None:
    assert call.handler != "inside"
    assert call.actor is not Hidden
    assert call.key == ("mary" if call.actor is Cart else None)
    if call.handler == "add_ticket":
        assert call.arguments.get("n", 7) == 7


def test_the_repr_of_a_call_is_the_code() -> None:
    assert repr(ActorCall(Cart, "mary", "add_ticket", {"ticket_id": "A"})) == "Cart('mary').add_ticket(ticket_id='A')"
    assert repr(ActorCall(Cart, "mary", "seat", {"seat": Seat.SOLD})) == "Cart('mary').seat(seat=Seat.SOLD)"
    assert repr(ActorCall(Everything, None, "upload", {"body": b"x"})) == "Everything().upload(body=b'x')"


async def test_a_call_is_made_and_sent_on_whatever_gives_references() -> None:
    call = ActorCall(Cart, "mary", "add_ticket", {"ticket_id": "A", "n": 2})
    async with Harness(Cart) as app:
        assert await call.on(app) == 2
        assert await (await call.send_on(app)).result() == 4
        await call.send_on(app, after=60)
        await app.settle()
        assert len((await app.state(Cart, "mary"))["tickets"]) == 4
        await app.advance(60)
        assert len((await app.state(Cart, "mary"))["tickets"]) == 6


def test_a_call_is_made_on_a_simulation() -> None:
    async def program(sim: Simulation) -> Any:
        return await ActorCall(Everything, None, "upload", {"body": b"x"}).on(sim)

    with Simulation(Everything) as sim:
        assert sim.run(program(sim)) == b"x"


@pytest.mark.parametrize("module", ["generation", "generation.strategies"])
def test_without_hypothesis_the_kit_imports_and_says_what_to_install(module: str) -> None:
    program = (
        "import sys\n"
        "import durably.testing\n"
        "assert 'hypothesis' not in sys.modules\n"
        "sys.modules['hypothesis'] = None\n"
        f"import durably.testing.{module}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "needs the extra `testing`: pip install 'durably[testing]'" in done.stderr

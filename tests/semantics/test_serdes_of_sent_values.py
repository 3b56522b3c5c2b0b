"""Serdes of awakeables, signals and promises: what is sent arrives equal, or is refused where it is sent, live, after a
crash, replayed, and over HTTP (rule V5).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably import (
    BytesSerde,
    Context,
    DefinitionError,
    DurablePromise,
    InvalidArgumentError,
    JsonSerde,
    MsgpackSerde,
    Serde,
    Service,
    SharedWorkflowContext,
    UnencodableError,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
)
from durably.actors.sent_values import decoding, sent_value
from durably.ids import awakeable_id
from durably.ingress import Ingress
from durably.testing import Harness
from tests.actors.typed_values import typed
from tests.semantics.support import begin

RICH: dict[Any, Any] = {
    "at": datetime(2026, 11, 27, 12, tzinfo=UTC),
    "price": Decimal("9.90"),
    "id": UUID(int=7),
    "seats": {"2B", "2C"},
    3: (1, b"\xff"),
}


@dataclass
class Point:
    x: int
    y: float


class Shift:
    """A Serde of the user's: each byte one further."""

    content_type = "application/x-shift"

    def encode(self, value: bytes, /) -> bytes:
        return bytes((byte + 1) % 256 for byte in value)

    def decode(self, data: bytes, /) -> bytes:
        return bytes((byte - 1) % 256 for byte in data)


INFINITY = float("inf")
CASES: dict[str, tuple[Serde[Any], Any]] = {
    "msgpack": (MsgpackSerde(), RICH),
    "bytes": (BytesSerde(), b"\x00\xff\xfe"),
    "json": (JsonSerde(Point), Point(1, 2.5)),
    "own": (Shift(), b"\x00abc\xff"),
}
serde: Serde[Any] = BytesSerde()
"""That of the case that is tried: handlers are defined once."""


class Board:
    """Where handlers tell tests the ids of their awakeables."""

    def __init__(self) -> None:
        self.ids: list[str] = []


class Waiter(Service):
    def __init__(self, board: Board) -> None:
        self.board = board

    @handler(returns=MsgpackSerde())
    async def approve(self, ctx: Context) -> Any:
        awakeable = ctx.awakeable(serde=serde)
        await ctx.run("tell", self.board.ids.append, awakeable.id)
        return await awakeable

    @handler(returns=MsgpackSerde())
    async def own(self, ctx: Context) -> Any:
        awakeable = ctx.awakeable(serde)
        await awakeable.resolve(VALUES["now"], serde=serde)
        return await awakeable

    @handler(returns=MsgpackSerde())
    async def listen(self, ctx: Context) -> Any:
        return await ctx.signal("go", serde=serde)


class Teller(Service):
    @handler
    async def resolve(self, ctx: Context, id: str) -> None:
        await ctx.resolve_awakeable(id, VALUES["now"], serde=serde)

    @handler
    async def signal(self, ctx: Context, id: str) -> None:
        await ctx.invocation(id, MsgpackSerde()).signal("go", VALUES["now"], serde=serde)


class Flow(Workflow):
    declared: DurablePromise[Any] = promise(serde=MsgpackSerde())

    @handler(returns=MsgpackSerde())
    async def run(self, ctx: WorkflowContext) -> Any:
        return await self.declared, await ctx.promise("named", serde=serde)

    @shared
    async def resolve(self, ctx: SharedWorkflowContext) -> None:
        await self.declared.resolve(RICH)
        await ctx.promise("named", serde=serde).resolve(VALUES["now"])


VALUES: dict[str, Any] = {}


@pytest.fixture(params=[*CASES])
def value(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    used, value = CASES[request.param]
    monkeypatch.setitem(globals(), "serde", used)
    monkeypatch.setitem(VALUES, "now", value)
    MsgpackSerde.register(Point)
    return value


@pytest.mark.parametrize("way", ["runtime", "handler", "http", "itself"])
async def test_an_awakeable_is_resolved_by_the_serde_with_which_it_is_awaited(value: Any, way: str) -> None:
    board = Board()
    async with Harness(Waiter, Teller, dependencies={Board: board}, nothing_resident=True) as app:
        if way == "itself":
            assert await app.service(Waiter).own() == value
            return
        sent = await app.service(Waiter).approve.send()
        await app.settle()
        (id,) = board.ids
        await app.crash()
        if way == "runtime":
            await app.resolve_awakeable(id, value, serde=serde)
        elif way == "handler":
            await app.service(Teller).resolve(id)
        else:
            await post(app, f"/restate/awakeables/{id}/resolve", serde.encode(value), serde.content_type)
        await app.crash()
        assert await sent.result() == value


@pytest.mark.parametrize("way", ["before", "after", "handler", "http"])
async def test_a_signal_is_read_by_the_serde_that_wrote_it(value: Any, way: str) -> None:
    async with Harness(Waiter, Teller, dependencies={Board: Board()}, nothing_resident=True) as app:
        sent = await app.service(Waiter).listen.send()
        if way != "before":
            await app.settle()
        if way == "handler":
            await app.service(Teller).signal(sent.id)
        elif way == "http":
            await post(app, f"/restate/invocations/{sent.id}/signals/go", serde.encode(value), serde.content_type)
        else:
            await sent.signal("go", value, serde=serde)
        await app.crash()
        assert await sent.result() == value


async def test_promises_have_serdes_declared_or_named(value: Any) -> None:
    async with Harness(Flow, nothing_resident=True) as app:
        running = begin(app.workflow(Flow, "1").run())
        await app.settle()
        await app.workflow(Flow, "1").resolve()
        await app.crash()
        assert await running == [RICH, value] or await running == (RICH, value)


async def post(app: Harness, path: str, body: bytes, content_type: str | None, status: int = 202) -> None:
    transport = httpx.ASGITransport(app=Ingress(app))
    headers = {} if content_type is None else {"content-type": content_type}
    async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
        response = await client.post(path, content=body, headers=headers)
    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/json; charset=utf-8", "text/plain",
                     "application/x-www-form-urlencoded", "application/vnd.own+json"]
)  # fmt: skip
async def test_a_body_of_json_is_json_and_what_is_none_is_refused(content_type: str | None) -> None:
    class Plain(Service):
        @handler
        async def listen(self, ctx: Context) -> list[int]:
            return await ctx.signal("go", list[int])

    async with Harness(Plain) as app:
        sent = await app.service(Plain).listen.send()
        path = f"/restate/invocations/{sent.id}/signals/go"
        await post(app, path, b"[1, 2", content_type, 400)
        await post(app, path, b"[1, 2]", content_type)
        assert await sent.result() == [1, 2]


async def test_what_its_serde_cannot_read_is_a_failure_where_it_is_awaited() -> None:
    class Plain(Service):
        @handler
        async def listen(self, ctx: Context) -> Any:
            return await ctx.signal("go", int, serde=MsgpackSerde(int))

    async with Harness(Plain) as app:
        sent = await app.service(Plain).listen.send()
        await post(app, f"/restate/invocations/{sent.id}/signals/go", b"\xc1", "application/msgpack")
        with pytest.raises(InvalidArgumentError, match=r"the signal 'go' is not what its handler awaits"):
            await sent.result()


@given(typed(), some.data())
def test_what_is_sent_without_a_serde_is_read_as_the_same_or_refused(case: Any, data: some.DataObject) -> None:
    """The sender does not know the type; what does not fit it is refused where it is awaited (rule E5)."""
    annotation, values = case
    value = data.draw(values)
    try:
        expected = JsonSerde(annotation).encode(value)
        sent = sent_value(value).value
    except (DefinitionError, UnencodableError):
        return
    try:
        read = decoding(annotation, "it")(sent)
    except InvalidArgumentError:
        return
    assert JsonSerde(annotation).encode(read) == expected


@given(some.recursive(
    some.none() | some.booleans() | some.floats() | some.text() | some.binary() | some.integers() | some.dates()
    | some.decimals(allow_nan=False) | some.uuids(),
    lambda parts: some.lists(parts) | some.dictionaries(some.text() | some.integers(), parts) | some.tuples(parts),
    max_leaves=6,
))  # fmt: skip
def test_with_msgpack_everything_arrives_as_what_it_was(value: Any) -> None:
    sent = sent_value(value, MsgpackSerde()).value
    read = decoding(Any, "it", MsgpackSerde())(sent)
    assert repr(read) == repr(value)


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


class Counted(pydantic.BaseModel):
    count: int = 0
    hidden: int = pydantic.Field(default=0, exclude=True)

    @pydantic.field_serializer("count")
    def more(self, count: int) -> int:
        return count * 2


class Listener(Service):
    @handler
    async def listen(self, ctx: Context) -> Any:
        return await ctx.signal("go")


LOGIN = Login(password=pydantic.SecretStr("x"))
RING: list[Any] = []
RING.append(RING)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), {"a": [float("inf")]}, {1: 1, "1": 2}, Point(1, float("nan")), {"p": Point(1, -INFINITY)},
        {float("nan"): 1}, {True: 1, "true": 2}, {None: 1, "null": 2}, LOGIN, {"a": [LOGIN]}, LOGIN.password,
        Counted(count=1), [Counted(hidden=1)], "\ud800", RING, nested(2_000),
    ],
)  # fmt: skip
async def test_what_json_would_change_is_refused_where_it_is_sent(value: Any) -> None:
    async with Harness(Waiter, dependencies={Board: Board()}) as app:
        sent = await app.service(Waiter).listen.send()
        with pytest.raises(UnencodableError):
            await sent.signal("go", value)
        with pytest.raises(UnencodableError):
            await app.resolve_awakeable(awakeable_id(sent.id, bytes(16), 1), value)
        await sent.cancel()


class Words(pydantic.RootModel[list[str]]):
    pass


async def test_models_and_keys_that_json_keeps_are_sent_without_a_serde() -> None:
    async with Harness(Listener) as app:
        cases: list[tuple[Any, Any]] = [
            (Words(["a"]), ["a"]),
            ({"w": Words([])}, {"w": []}),
            ({True: 1}, {"true": 1}),
        ]
        for value, read in cases:
            sent = await app.service(Listener).listen.send()
            await sent.signal("go", value)
            assert await sent.result() == read


async def test_a_class_of_serdes_in_place_of_one_is_refused_with_what_to_write() -> None:
    async with Harness(Waiter, dependencies={Board: Board()}) as app:
        with pytest.raises(TypeError, match=r"serde=BytesSerde\(\)"):
            await app.invocation("inv_1", int).signal("go", 1, serde=BytesSerde)  # type: ignore[arg-type]

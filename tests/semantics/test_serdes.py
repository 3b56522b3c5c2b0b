"""Serdes of handlers, classes, fields, operations and runtimes: at every border what is given arrives equal, or is
refused where it is given, live, replayed, after a crash, and over HTTP (rules V1 and V5).
"""

from __future__ import annotations

import asyncio
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID

import httpx
import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from durably import (
    BytesSerde,
    Context,
    DefinitionError,
    DurablePromise,
    InvalidArgumentError,
    JsonSerde,
    MsgpackSerde,
    ObjectContext,
    PausedInvocationError,
    Runtime,
    Service,
    SharedContext,
    SharedWorkflowContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.actors.values.descriptions import describe
from durably.actors.values.serde import encode_by
from durably.errors import UnencodableError
from durably.ingress import Ingress
from durably.storage.memory import MemoryStore
from durably.testing import Harness

T = TypeVar("T")

RICH: dict[Any, Any] = {
    "at": datetime(2026, 11, 27, 12, tzinfo=UTC),
    "price": Decimal("9.90"),
    "id": UUID(int=7),
    "seats": {"2B", "2C"},
    "raw": b"\xff\x00",
    "pair": (1, 2.5),
    3: frozenset({1}),
}
"""What JSON has no types for."""


class Desk(VirtualObject):
    """Keeps and hands on whatever it is given; says nothing of Serdes."""

    held: Any = state(default=None)
    kept: dict[str, Any] = state(default_factory=dict)

    @handler
    async def hold(self, ctx: ObjectContext, value: Any) -> Any:
        self.held = await ctx.run("look", _itself, value)
        ctx.set("by-name", value)
        await ctx.sleep(1)
        return await ctx.object(Desk, "other").keep(value, name="x")

    @handler
    async def keep(self, ctx: ObjectContext, value: Any, *, name: str = "y", times: int = 1) -> Any:
        self.kept[name] = [value] * times
        return self.kept[name][0]

    @shared
    async def look(self, ctx: SharedContext) -> Any:
        return self.held, ctx.get("by-name", object), self.kept

    @shared
    async def nothing(self, ctx: SharedContext) -> None: ...


async def _itself(value: Any) -> Any:
    return value


class RichDesk(Desk, serde=MsgpackSerde):
    """The same class with Serdes of its own."""

    @handler
    async def hold(self, ctx: ObjectContext, value: Any) -> Any:
        self.held = await ctx.run("look", _itself, value)
        ctx.set("by-name", value)
        await ctx.sleep(1)
        return await ctx.object(RichDesk, "other").keep(value, name="x")


@pytest.mark.parametrize(("actor", "serde"), [(Desk, MsgpackSerde), (RichDesk, None), (RichDesk, JsonSerde)])
@pytest.mark.parametrize("suspend_after", [0, 60])
async def test_what_a_serde_writes_arrives_equal_at_every_border(
    actor: type[Desk], serde: Any, suspend_after: float
) -> None:
    async with Harness(actor, serde=serde, suspend_after=suspend_after) as app:
        desk = app.object(actor, "front")
        begun = await desk.hold.options(idempotency_key="k").send(RICH)
        await app.settle()
        await app.crash()
        await app.advance(1)
        assert await begun.result() == RICH
        assert await desk.hold.options(idempotency_key="k").attach() == RICH
        held, by_name, _ = await desk.look()
        assert (held, by_name) == (RICH, RICH)
        _, _, kept = await app.object(actor, "other").look()
        assert kept == {"x": [RICH]}
        assert await app.object(actor, "other").keep(RICH, times=2) == RICH
        await desk.nothing()


async def test_a_runtime_with_its_own_serde_answers_over_http_in_it() -> None:
    async with Runtime(MemoryStore(), [Desk], serde=MsgpackSerde) as runtime:
        transport = httpx.ASGITransport(Ingress(runtime))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            body = MsgpackSerde().encode({"value": RICH, "name": "z"})
            typed = {"content-type": "application/msgpack"}
            kept = await client.post("/Desk/a/keep", content=body, headers=typed)
            assert kept.headers["content-type"] == "application/msgpack"
            assert MsgpackSerde().decode(kept.content) == RICH
            refused = await client.post("/Desk/a/keep", content=b"\xc1", headers=typed)
            assert (refused.status_code, refused.json()["source"]) == (400, "ingress")
            assert (await client.post("/Desk/a/nothing")).content == b""


@dataclass
class Tensor:
    rows: list[float]


class PickleSerde(Generic[T]):
    """As a user would write one."""

    content_type = "application/x-python"

    def encode(self, value: T, /) -> bytes:
        return pickle.dumps(value)

    def decode(self, data: bytes, /) -> T:
        value: T = pickle.loads(data)
        return value


class Upper:
    """Reads something else than it wrote."""

    content_type = "text/plain"

    def encode(self, value: str, /) -> bytes:
        return value.upper().encode()

    def decode(self, data: bytes, /) -> str:
        return data.decode()


class Files(VirtualObject):
    raw: bytes = state(default=b"", serde=BytesSerde())
    tensor: Tensor = state(default=Tensor([]), serde=PickleSerde())
    loud: str = state(default="", serde=Upper())

    @handler(accepts=BytesSerde(), returns=BytesSerde("image/png"))
    async def put(self, ctx: ObjectContext, raw: bytes) -> bytes:
        self.raw = raw
        self.tensor.rows.append(float(len(raw)))
        ctx.set("copy", raw, serde=BytesSerde())
        return raw[::-1]

    @shared(returns=PickleSerde())
    async def look(self, ctx: SharedContext) -> tuple[bytes, Tensor, bytes | None]:
        return self.raw, self.tensor, ctx.get("copy", BytesSerde())

    @handler
    async def shout(self, ctx: ObjectContext, text: str) -> None:
        self.loud = text


async def test_a_field_and_an_operation_have_serdes_of_their_own() -> None:
    async with Harness(Files) as app:
        files = app.object(Files, "f")
        for raw in (b"null", b"\xff\xfe", b""):
            assert await files.put(raw) == raw[::-1]
            await app.crash()
        assert await files.look() == (b"", Tensor([4.0, 2.0, 0.0]), b"")
        assert app.snapshots.of(Files)["f"].raw == b""


class Meter(Workflow):
    """Its values are other numbers as JSON: 53 is written as the digit 5."""

    total: int = state(default=53, serde=MsgpackSerde(int))
    final: DurablePromise[int] = promise(serde=MsgpackSerde(int))

    @handler
    async def run(self, ctx: WorkflowContext) -> list[Any]:
        self.total = 53
        read = [ctx.get("total", int), ctx.get("total", MsgpackSerde(int)), ctx.get("total", JsonSerde(int))]
        ctx.set("total", 54)
        return [*read, self.total, await self.final, await ctx.promise("final", int)]

    @shared
    async def end(self, ctx: SharedWorkflowContext, value: int) -> None:
        await ctx.promise("final", int).resolve(value)


async def test_by_name_what_is_declared_with_a_serde_is_written_and_read_by_it() -> None:
    async with Harness(Meter) as app:
        meter = app.workflow(Meter, "m")
        await meter.end(53)
        assert await meter.run() == [53, 53, 5, 54, 53, 53]


class Scan(Workflow):
    page: bytes = state(default=b"", serde=BytesSerde())
    whole: DurablePromise[bytes] = promise(serde=BytesSerde())

    @handler
    async def run(self, ctx: WorkflowContext, kind: str) -> str:
        self.page = b"\xff"
        return repr(ctx.get("page", TYPES[kind]))

    @shared
    async def wait(self, ctx: SharedWorkflowContext, kind: str) -> str:
        return str(len(await ctx.promise("whole", TYPES[kind])))

    @shared
    async def peek(self, ctx: SharedWorkflowContext, kind: str) -> str:
        return repr(await ctx.promise("whole", TYPES[kind]).peek())

    @shared
    async def end(self, ctx: SharedWorkflowContext, size_bytes: int) -> None:
        await self.whole.resolve(b"a" * size_bytes)


TYPES: dict[str, Any] = {
    "bytes": bytes, "object": object, "any": Any, "optional": bytes | None, "sequence": Sequence[int], "str": str,
    "int": int, "list": list[int], "none": None,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "fits"), [(kind, place < 5) for place, kind in enumerate(TYPES)])
async def test_what_a_serde_of_the_declaration_reads_is_of_the_type_that_is_asked_for_by_name(
    kind: str, fits: bool
) -> None:
    sentence = f"is declared as bytes, and was read as {re.escape(describe(TYPES[kind]))}"
    async with Harness(Scan) as app:
        scan = app.workflow(Scan, "s")
        await scan.end(3)
        if fits:
            assert await scan.run(kind) == r"b'\xff'"
            assert await scan.peek(kind) == "b'aaa'"
            assert await scan.wait(kind) == "3"
            return
        with pytest.raises(PausedInvocationError, match=f"The state 'page' {sentence}"):
            await scan.run(kind)
        for asked in (scan.wait, scan.peek):
            with pytest.raises(PausedInvocationError, match=rf"The promise 'whole' {sentence}.* ctx\.promise\("):
                await asked(kind)


async def test_a_large_promise_of_another_type_is_told_like_a_small_one() -> None:
    async with Harness(Scan) as app:
        scan = app.workflow(Scan, "s")
        await scan.end(3_000_000)
        with pytest.raises(PausedInvocationError, match="'whole' is declared as bytes, and was read as str"):
            await scan.wait("str")
        assert await scan.wait("bytes") == "3000000"


def test_a_promise_of_messages_has_a_serde_that_writes_them() -> None:
    class Forecast(Workflow):
        made: DurablePromise[Timestamp] = promise(serde=BytesSerde())

        @handler
        async def run(self, ctx: WorkflowContext) -> None: ...

    with pytest.raises(DefinitionError, match=r"the promise Forecast\.made is Timestamp, a protobuf message"):
        Runtime("memory:", [Forecast])


async def test_a_serde_that_reads_something_else_is_found_out_where_the_value_is_given() -> None:
    async with Harness(Files) as app:
        with pytest.raises(
            PausedInvocationError, match=r"self\.loud cannot be given this value: Upper reads 'x' as 'X'"
        ):
            await app.object(Files, "f").shout("x")
        await app.object(Files, "g").shout("X")


class Refusing:
    """Does not read what it wrote."""

    content_type = "text/plain"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def encode(self, value: str, /) -> bytes:
        return value.encode()

    def decode(self, data: bytes, /) -> str:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason"),
    [(KeyError("x"), "KeyError: 'x'"), (asyncio.CancelledError(), "CancelledError"), (ValueError("odd."), "odd")],
)
def test_a_serde_that_refuses_what_it_wrote_is_told_with_its_reason(error: BaseException, reason: str) -> None:
    with pytest.raises(UnencodableError, match=rf"Refusing cannot decode again what it made of 'a': {reason}\.$"):
        encode_by(Refusing(error), "a")


class Contract(VirtualObject, abstract=True, name="Stock", serde=MsgpackSerde):
    @handler
    async def add(self, ctx: ObjectContext, item: Any) -> Any: ...


class Stock(Contract):
    items: list[Any] = state(default_factory=list)

    @handler
    async def add(self, ctx: ObjectContext, item: Any) -> Any:
        self.items.append(item)
        return self.items


async def test_an_implementation_is_written_as_its_contract_says() -> None:
    async with Harness(Stock) as app:
        assert await app.object(Contract, "s").add(RICH) == [RICH]
    options = {"__module__": __name__, "__qualname__": "Other"}
    with pytest.raises(DefinitionError, match="another serde= than Contract"):
        type("Other", (Contract,), options, serde=JsonSerde)


class Teller(Service):
    """Calls a class with Serdes, and one without, from a runtime that has some."""

    @handler
    async def both(self, ctx: Context) -> Any:
        return await ctx.object(Stock, "s").add(RICH), await ctx.object(Desk, "d").keep(RICH)


async def test_callers_write_what_the_callee_reads() -> None:
    async with Harness(Teller, Stock, Desk, serde=MsgpackSerde) as app:
        assert list(await app.service(Teller).both()) == [[RICH], RICH]


def test_what_makes_no_serde_is_refused_at_definition_with_what_to_write() -> None:
    with pytest.raises(TypeError, match="without parentheses"):
        Runtime(MemoryStore(), [Desk], serde=MsgpackSerde())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="makes a Serde for each type"):
        type("Wrong", (VirtualObject,), {"__module__": __name__, "__qualname__": "Wrong"}, serde="msgpack")
    with pytest.raises(DefinitionError, match="no Serde"):
        Runtime(MemoryStore(), [Desk], serde=lambda _: "x")  # type: ignore[arg-type, return-value]
    with pytest.raises(DefinitionError, match="parameter 'value' of handler"):
        Runtime(MemoryStore(), [Desk], serde=_refuses_any)


def _refuses_any(annotation: Any) -> Any:
    raise ValueError(f"nothing for {annotation}")


async def test_a_stored_value_of_another_serde_is_named() -> None:
    store = MemoryStore()
    async with Runtime(store, [Desk]) as runtime:
        await runtime.object(Desk, "d").keep("plain", name="x")
    async with Runtime(store, [Desk], serde=MsgpackSerde) as runtime:
        with pytest.raises(PausedInvocationError, match=r"self\.kept does not fit its type"):
            await runtime.object(Desk, "d").keep("plain", name="x")


async def test_a_body_that_a_serde_refuses_is_the_callers_error() -> None:
    async with Harness(RichDesk) as app:
        with pytest.raises(InvalidArgumentError, match="application/msgpack"):
            await app.call("RichDesk", "hold", json.dumps({"x": 1}).encode() + b"\xc1", key="a")
        assert (
            msgspec.msgpack.decode(await app.call("RichDesk", "keep", MsgpackSerde().encode({"value": 1}), key="a"))
            == 1
        )

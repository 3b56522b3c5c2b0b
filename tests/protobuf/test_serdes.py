"""A message arrives equal at every border, or is refused where it is given (rules V1 and V5)."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from durably import (
    BytesSerde,
    Context,
    DefinitionError,
    DurablyError,
    InvalidArgumentError,
    JsonSerde,
    MsgpackSerde,
    ObjectContext,
    Runtime,
    Service,
    SharedContext,
    UndecodableError,
    UnencodableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.values.serde import admit
from durably.protobuf import ProtobufJsonSerde, ProtobufSerde
from durably.storage.memory import MemoryStore
from durably.testing import Harness
from tests.levels import level
from tests.protobuf.compiled import ROOT, Order, Ticket, shop, strict
from tests.protobuf.messages import is_repeated, messages

JOURNEYS = max(3, level().examples // 20)

SERDES: list[Any] = [ProtobufSerde, ProtobufJsonSerde]
FULL = shop.Ticket(
    seat="2B", large=-(2**63), raw=b"\xff\x00", note="", price=float("nan"), attachments={"b": b"1", "a": b"2"}
)
UNKNOWN = shop.Ticket.FromString(FULL.SerializeToString() + b"\xba\x3e\x01x")


def the_bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def unless_refused(refusal: type[DurablyError], code: Callable[[Any], bytes], given: Any) -> bytes | None:
    """None: it is refused, with a sentence that names the class."""
    try:
        return code(given)
    except refusal as error:
        sentence = error.message
    if "Ticket" not in sentence:
        pytest.fail(sentence)
    return None


def with_one_nan(message: Any) -> bytes:
    """The bytes of a message, in which all NaN are the same: floats have many."""
    same = type(message)()
    same.CopyFrom(message)
    stack = [same]
    while stack:
        part = stack.pop()
        for field, value in part.ListFields():
            if field.message_type is not None:
                is_map = field.message_type.GetOptions().map_entry
                items = value.values() if is_map else value if is_repeated(field) else [value]
                stack += [item for item in items if isinstance(item, Message)]
            elif is_repeated(field):
                value[:] = [math.nan if item != item else item for item in value]
            elif value != value:
                setattr(part, field.name, math.nan)
    return the_bytes(same)


def nested(depth: int) -> Any:
    made = innermost = shop.Ticket()
    for _ in range(depth):
        innermost = innermost.companions.add()
    return made


@pytest.mark.parametrize("of", SERDES)
@given(message=messages(shop.Ticket))
@example(message=FULL)
@example(message=UNKNOWN)
@example(message=shop.Ticket(price=float("inf") - float("inf"), ratio=float("nan"), prices=[-float("nan")]))
@example(message=nested(200))
@example(message=shop.Ticket())
def test_a_message_is_read_as_it_was_or_is_refused(of: Any, message: Any) -> None:
    serde = of(shop.Ticket)
    data = unless_refused(UnencodableError, serde.encode, message)
    if data is None:
        assert of is ProtobufJsonSerde or message == nested(200)
        return
    assert with_one_nan(serde.decode(data)) == with_one_nan(message)
    assert serde.encode(serde.decode(data)) == data
    again = shop.Ticket()
    again.CopyFrom(message)
    assert serde.encode(again) == data


def test_a_field_that_json_would_lose_is_shown() -> None:
    with pytest.raises(UnencodableError, match=r"\(.*1001: .*\) would be \("):
        ProtobufJsonSerde(shop.Ticket).encode(shop.Ticket.FromString(b"\xc8\x3e\x05"))


@given(st.binary() | st.sampled_from([b"[]", b'""', b"null", b'{"extra": []}', b'{"companions": [[]]}']))
@example(b'{"extra": {"inner": {"1": []}}}')
@example(b'{"seat": "a", "seat": "b"}')
@example(b'{"seet": "a"}')
@example(b'{"at": "yesterday"}')
@example(b'{"companions": {}}')
@example(b"{" * 100_000)
@example(b'{"price": NaN}')
@example(b'{"anyJson": [], "free": {}, "at": "2026-11-27T12:00:00Z", "companions": [{"seat": "x"}], "wrapped": "x"}')
def test_bytes_from_outside_are_a_message_or_are_refused(data: bytes) -> None:
    for of in SERDES:
        serde = of(shop.Ticket)
        stored = unless_refused(UndecodableError, partial(admit, serde), data)
        if stored is None:
            continue
        assert the_bytes(serde.decode(serde.encode(serde.decode(stored)))) == the_bytes(serde.decode(stored))
        if of is ProtobufJsonSerde:
            assert data.strip().startswith(b"{")
            assert not any(part in data for part in (b": []}", b"[[]]", b"seet", b'"companions": {}'))


def test_keys_that_are_unknown_are_refused_from_outside_and_passed_over_in_what_is_stored() -> None:
    serde: Any = ProtobufJsonSerde(shop.OldTicket)
    data = ProtobufJsonSerde[Any](shop.Ticket).encode(shop.Ticket(seat="2B", small=3))
    assert serde.decode(data) == shop.OldTicket(seat="2B")
    with pytest.raises(UndecodableError, match="small"):
        serde.admit(data)
    binary: Any = ProtobufSerde(shop.OldTicket)
    newer = shop.Ticket(seat="2B", small=3)
    assert binary.encode(binary.decode(the_bytes(newer))) == the_bytes(newer)


@pytest.mark.parametrize("of", SERDES)
def test_a_message_without_its_required_fields_is_refused(of: Any) -> None:
    serde = of(strict.Order)
    for incomplete in (strict.Order(), strict.Order(id="1", part=strict.Order.Part())):
        with pytest.raises(UnencodableError, match=r"missing required fields: (id|part\.name)"):
            serde.encode(incomplete)
        data = incomplete.SerializePartialToString() if of is ProtobufSerde else _json(incomplete)
        with pytest.raises(UndecodableError, match=r"missing required fields: (id|part\.name)"):
            serde.decode(data)
    order = strict.Order(id="1", count=0)
    order.Extensions[strict.color] = "red"
    assert serde.decode(serde.encode(order)) == order


def _json(message: Any) -> bytes:
    return json_format.MessageToJson(message).encode()


@pytest.mark.parametrize("of", SERDES)
def test_a_message_of_another_class_is_refused(of: Any) -> None:
    for other in (shop.OldTicket(seat="x"), "x", None, {"seat": "x"}):
        with pytest.raises(UnencodableError, match="writes Ticket only"):
            of(shop.Ticket).encode(other)


UNTYPED: list[Any] = [JsonSerde(), MsgpackSerde(), ProtobufSerde.for_type(Any)]


@pytest.mark.parametrize("serde", UNTYPED)
def test_a_message_that_no_annotation_names_is_refused_where_it_is_given(serde: Any) -> None:
    for value in (shop.Ticket(seat="x"), {"tickets": [shop.Ticket()]}):
        with pytest.raises(UnencodableError, match=r"it is a protobuf message.*ProtobufSerde"):
            serde.encode(value)


class Desk(VirtualObject):
    """Hands messages on, and keeps them."""

    held: Ticket = state()
    count: int = state(default=0)

    @handler
    async def hold(self, ctx: ObjectContext, ticket: Ticket) -> Ticket:
        self.held = await ctx.run("look", _itself, ticket)
        ctx.set("by-name", await ctx.run.options(serde=ProtobufSerde(shop.Ticket))("again", lambda: ticket),
                serde=ProtobufJsonSerde(shop.Ticket) if _is_json(ctx) else ProtobufSerde(shop.Ticket))  # fmt: skip
        self.count += 1
        await ctx.sleep(1)
        return await ctx.object(type(self), "other").keep(ticket)

    @handler
    async def keep(self, ctx: ObjectContext, ticket: Ticket) -> Ticket:
        self.held = ticket
        return self.held

    @handler
    async def mark(self, ctx: ObjectContext, label: str, times: int = 1) -> list[str]:
        held: Any = self.held
        held.labels.extend([label] * times)
        return list(held.labels)

    @shared
    async def look(self, ctx: SharedContext) -> Ticket:
        assert ctx.get("by-name", ProtobufJsonSerde(shop.Ticket) if _is_json(ctx) else ProtobufSerde(shop.Ticket))
        return self.held

    @shared
    async def nothing(self, ctx: SharedContext) -> None: ...


async def _itself(ticket: Ticket) -> Ticket:
    return ticket


def _is_json(ctx: SharedContext) -> bool:
    return ctx.key == "json"


class BinaryDesk(Desk, serde=ProtobufSerde): ...


class JsonDesk(Desk, serde=ProtobufJsonSerde): ...


def serde_of(actor: Any, default: Any) -> Any:
    own: Any = {BinaryDesk: ProtobufSerde, JsonDesk: ProtobufJsonSerde}.get(actor, default)
    return own(shop.Ticket)


@pytest.mark.parametrize(
    ("actor", "default"),
    [(Desk, ProtobufSerde), (Desk, ProtobufJsonSerde), (BinaryDesk, None), (JsonDesk, MsgpackSerde)],
)
@settings(max_examples=JOURNEYS)
@given(message=messages(shop.Ticket), suspend_after=st.sampled_from([0, 60]))
@example(message=FULL, suspend_after=0)
def test_a_message_arrives_equal_live_replayed_after_a_crash_and_over_http(
    actor: Any, default: Any, message: Any, suspend_after: float
) -> None:
    serde = serde_of(actor, default)
    try:
        expected = serde.encode(message)
    except UnencodableError:
        expected = None

    async def journey() -> None:
        async with Harness(actor, serde=default, suspend_after=suspend_after) as app:
            desk = app.object(actor, "json" if serde.content_type == "application/json" else "binary")
            sending = desk.hold.options(idempotency_key="k")
            if expected is None:
                with pytest.raises(UnencodableError):
                    await sending.send(message)
                return
            begun = await sending.send(message)
            await app.settle()
            await app.crash()
            await app.advance(1)
            for held in (await begun.result(), await sending.attach(), await desk.look()):
                assert with_one_nan(held) == with_one_nan(message)
            assert with_one_nan(await app.object(actor, "other").keep(message)) == with_one_nan(message)
            labels = list(message.labels)
            assert await app.object(actor, "other").mark("x", 2) == [*labels, "x", "x"]
            assert await app.object(actor, "other").mark("y") == [*labels, "x", "x", "y"]
            await app.object(actor, "other").nothing()
        async with Runtime(MemoryStore(), [actor], serde=default) as runtime, serving(runtime) as client:
            typed = {"content-type": serde.content_type}
            kept = await client.post(f"/{actor.__name__}/a/keep", content=expected, headers=typed)
            assert kept.headers["content-type"] == serde.content_type
            assert with_one_nan(serde.decode(kept.content)) == with_one_nan(message)

    asyncio.run(journey())


def serving(runtime: Runtime) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(runtime.asgi()), base_url="http://localhost")


class Counter(Service):
    @handler(accepts=ProtobufSerde(shop.Ticket), returns=ProtobufJsonSerde(shop.Ticket))
    async def both(self, ctx: Context, ticket: Ticket) -> Ticket:
        return ticket


async def test_a_handler_takes_the_content_type_of_its_serde_and_no_other() -> None:
    ticket = shop.Ticket(seat="2B")
    async with Runtime(MemoryStore(), [Counter]) as runtime, serving(runtime) as client:
        for content_type, status in (("application/protobuf", 200), ("application/json", 400), (None, 400)):
            headers = {} if content_type is None else {"content-type": content_type}
            answer = await client.post("/Counter/both", content=the_bytes(ticket), headers=headers)
            assert answer.status_code == status, answer.text
            if status == 200:
                assert (answer.json(), answer.headers["content-type"]) == ({"seat": "2B"}, "application/json")
            else:
                assert "application/protobuf" in answer.json()["message"]
        typed = {"content-type": "application/protobuf"}
        broken = await client.post("/Counter/both", content=b"\xff", headers=typed)
        assert (broken.status_code, broken.json()["source"]) == (400, "ingress")
        assert "Ticket as application/protobuf" in broken.json()["message"]
        empty = await client.post("/Counter/both", headers=typed)
        assert (empty.status_code, empty.json()) == (200, {})


async def test_the_empty_message_has_no_bytes_and_a_content_type() -> None:
    async with Runtime(MemoryStore(), [BinaryDesk]) as runtime, serving(runtime) as client:
        answer = await client.post("/BinaryDesk/a/keep", headers={"content-type": "application/protobuf"})
        assert (answer.content, answer.headers["content-type"]) == (b"", "application/protobuf")


async def test_a_body_that_is_no_message_is_the_callers_error() -> None:
    async with Harness(JsonDesk) as app:
        with pytest.raises(InvalidArgumentError, match="Ticket as application/json"):
            await app.call("JsonDesk", "keep", b"[]", key="a")


@pytest.mark.parametrize("factory", [JsonSerde, MsgpackSerde])
def test_a_class_whose_serde_writes_no_messages_is_refused_with_its_first_message(factory: Any) -> None:
    for parameters in ({"ticket": Ticket}, {"ticket": list[Ticket]}, {"n": int, "ticket": Ticket | None}):
        with pytest.raises(DefinitionError, match=r"handler 'hold'.* Ticket is a protobuf message.*ProtobufSerde"):
            made_class(annotated(parameters, None), serde=factory)
    with pytest.raises(DefinitionError, match=r"result of handler 'hold'.*Ticket is a protobuf message"):
        made_class(annotated({}, Ticket), serde=factory)
    with pytest.raises(DefinitionError, match=r"state Made\.held.*Ticket is a protobuf message"):
        made_class(None, serde=factory)


def test_a_message_without_a_serde_is_refused_by_the_runtime() -> None:
    made = made_class(annotated({"ticket": Ticket}, Ticket))
    with pytest.raises(DefinitionError, match="Ticket is a protobuf message"):
        Runtime(MemoryStore(), [made])
    Runtime(MemoryStore(), [made], serde=ProtobufSerde)


@pytest.mark.parametrize(
    ("serde", "annotation", "sentence"),
    [
        (lambda: ProtobufSerde(shop.Ticket), Order, "writes Ticket only"),
        (lambda: ProtobufJsonSerde(shop.Ticket), str, "writes Ticket only"),
        (JsonSerde, Ticket, "writes none"),
        (BytesSerde, Ticket, "writes none"),
        (MsgpackSerde, Ticket, "writes none"),
    ],
)
def test_a_serde_for_another_type_than_the_declared_one_is_refused_at_definition(
    serde: Callable[[], Any], annotation: Any, sentence: str
) -> None:
    with pytest.raises(DefinitionError, match=f"parameter 'ticket' of handler 'hold'.*{sentence}"):
        made_class(annotated({"ticket": annotation}, None), accepts=serde())
    with pytest.raises(DefinitionError, match=f"result of handler 'hold'.*{sentence}"):
        made_class(annotated({}, annotation), returns=serde())
    with pytest.raises(DefinitionError, match=f"the state Made.held.*{sentence}"):
        made_class(None, field=(annotation, serde()))


def annotated(parameters: dict[str, Any], returned: Any) -> Any:
    names = ", ".join(parameters)
    names_in: dict[str, Any] = {}
    exec(f"async def hold(self, ctx, {names}): ...", names_in)
    names_in["hold"].__annotations__ = {"ctx": ObjectContext, **parameters, "return": returned}
    return names_in["hold"]


def made_class(function: Any, *, serde: Any = None, field: Any = (Ticket, None), **options: Any) -> Any:
    """As `class Made(VirtualObject, serde=...)` would be, with a handler, or with a field."""
    body: dict[str, Any] = {"__module__": __name__, "__qualname__": "Made"}
    if function is None:
        body |= {"held": state(serde=field[1]), "__annotations__": {"held": field[0]}}
    else:
        body["hold"] = handler(**options)(function)
    return type("Made", (VirtualObject,), body, serde=serde)


@pytest.mark.parametrize("of", SERDES)
@pytest.mark.parametrize("cls", [int, str, Any, list[Ticket], dict, "Ticket"])
def test_a_serde_of_what_is_no_message_is_refused(of: Any, cls: Any) -> None:
    with pytest.raises(DefinitionError, match="of a class that protoc generated"):
        of(cls)


def test_without_protobuf_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['google.protobuf'] = None\nimport durably\nimport durably.protobuf"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: durably.protobuf needs protobuf: pip install 'durably[protobuf]'."
    )

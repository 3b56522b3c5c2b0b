"""A value of any type arrives equal at every border, or is refused where it is given (rules V1 and V5): as an argument,
result, field and result of an action, live, replayed, after a crash and over HTTP, with each Serde.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as some

from durably import (
    BytesSerde,
    DefinitionError,
    JsonSerde,
    MsgpackSerde,
    ObjectContext,
    Serde,
    SharedContext,
    UnencodableError,
    VirtualObject,
    handler,
    shared,
    state,
)  # fmt: skip
from durably.testing import Harness
from tests.actors.test_round_trip import same
from tests.actors.typed_values import ODD, Strategy, typed
from tests.levels import level

JOURNEYS = max(8, level().examples // 6)


def _bytes_or_json(annotation: Any) -> Serde[Any]:
    """As somebody would choose a Serde by the type."""
    return BytesSerde() if annotation is bytes else JsonSerde(annotation)


FACTORIES: dict[str, Callable[[Any], Serde[Any]]] = {
    "json": JsonSerde,
    "messagepack": MsgpackSerde,
    "bytes": _bytes_or_json,
}


def carrier_of(annotation: Any, **options: Any) -> type[VirtualObject]:
    """A class whose handlers take, keep and give values of this type."""

    async def itself(value: Any) -> Any:
        return value

    async def hold(self: Any, ctx: ObjectContext, value: Any) -> Any:
        self.held = await ctx.run("look", itself, value)
        await ctx.sleep(1)
        return await ctx.object(made, "other").keep(self.held)

    async def keep(self: Any, ctx: ObjectContext, value: Any) -> Any:
        self.held = value
        return self.held

    async def look(self: Any, ctx: SharedContext) -> Any:
        return self.held

    itself.__annotations__ = {"value": annotation, "return": annotation}
    for function in (hold, keep):
        function.__annotations__ = {"ctx": ObjectContext, "value": annotation, "return": annotation}
    look.__annotations__ = {"ctx": SharedContext, "return": annotation}
    members = {
        "__annotations__": {"held": annotation}, "held": state(),
        "hold": handler(hold), "keep": handler(keep), "look": shared(look),
    }  # fmt: skip
    made: Any = type("Carrier", (VirtualObject,), members, **options)
    actor: type[VirtualObject] = made
    return actor


async def travel(actor: Any, serde: Serde[Any], value: Any, arrived: Callable[[Any], bool], options: Any) -> None:
    async with Harness(actor, **options) as app:
        sending = app.object(actor, "a").hold.options(idempotency_key="k")
        begun = await sending.send(value)
        await app.settle()
        await app.crash()
        await app.advance(1)
        for read in (await begun.result(), await sending.attach(), await app.object(actor, "a").look()):
            assert arrived(read), read
        assert arrived(await app.object(actor, "other").look())
        transport = httpx.ASGITransport(app.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
            headers = {"content-type": serde.content_type}
            answer = await client.post("/Carrier/b/keep", content=serde.encode(value), headers=headers)
            assert answer.status_code == 200, answer.text
            read = None if not answer.content and value is None else serde.decode(answer.content)
            assert arrived(read), read


async def is_refused(actor: Any, value: Any, options: Any) -> None:
    async with Harness(actor, **options) as app:
        with pytest.raises(UnencodableError):
            await app.object(actor, "a").hold.send(value)
        assert [one async for one in app.invocations()] == []


@pytest.mark.parametrize("way", ["class", "runtime"])
@pytest.mark.parametrize("name", FACTORIES)
@settings(
    max_examples=JOURNEYS,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawn=typed(), is_odd=some.booleans(), suspend_after=some.sampled_from([0, 60]), data=some.data())
def test_a_value_arrives_equal_at_every_border_or_is_refused_where_it_is_given(
    name: str, way: str, drawn: tuple[Any, Strategy], is_odd: bool, suspend_after: int, data: some.DataObject
) -> None:
    annotation, values = (bytes, some.binary(max_size=9)) if name == "bytes" else drawn
    value = data.draw(ODD if is_odd and name != "bytes" else values)
    note(f"{annotation} {value!r}")
    factory = FACTORIES[name]
    try:
        serde = factory(annotation)
        actor = carrier_of(annotation, **({"serde": factory} if way == "class" else {}))
        Harness(actor, serde=factory)
    except DefinitionError:  # A Struct around what only pydantic reads.
        assume(False)
        raise
    options = {"suspend_after": suspend_after} | ({"serde": factory} if way == "runtime" else {})
    try:
        written = serde.encode(value)
    except UnencodableError:
        asyncio.run(is_refused(actor, value, options))
        return

    def arrived(read: Any) -> bool:
        if name == "json" and "Any" in repr(annotation):  # It is read as plain JSON.
            return bool(msgspec.json.decode(serde.encode(read)) == msgspec.json.decode(written))
        return same(value, read)

    asyncio.run(travel(actor, serde, value, arrived, options))

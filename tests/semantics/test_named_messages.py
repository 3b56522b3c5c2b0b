"""Calls and sends by name, without a class: values, raw bytes, options, and names that lead nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import pytest

from durably import (
    BytesSerde,
    Caller,
    Context,
    DeadlineExceededError,
    InvalidArgumentError,
    InvocationStatus,
    JsonSerde,
    MsgpackSerde,
    NotReadyError,
    ObjectContext,
    Service,
    SharedContext,
    SharedWorkflowContext,
    UndecodableError,
    UnencodableError,
    UnknownTargetError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.test_awakeables import WAYS


@dataclass(frozen=True)
class Line:
    seat: str
    price: int = 40


class Cart(VirtualObject, name="CartObject"):
    lines: list[Line] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, line: Line) -> Line:
        self.lines.append(line)
        return line

    @handler
    async def add_many(self, ctx: ObjectContext, lines: list[Line], times: int) -> int:
        self.lines += lines * times
        return len(self.lines)

    @handler
    async def clear(self, ctx: ObjectContext) -> None:
        self.lines = []

    @shared
    async def seats(self, ctx: SharedContext) -> list[str]:
        return [line.seat for line in self.lines]


class Signup(Workflow):
    email: str = state(default="")

    @handler
    async def run(self, ctx: WorkflowContext, email: str) -> str:
        self.email = email
        await ctx.sleep(60)
        return email.upper()

    @shared
    async def look(self, ctx: SharedWorkflowContext) -> str:
        return self.email


class Echo(Service):
    @handler(accepts=BytesSerde(), returns=BytesSerde())
    async def raw(self, ctx: Context, data: bytes) -> bytes:
        return data

    @handler
    async def headers(self, ctx: Context) -> dict[str, str]:
        return dict(ctx.request.headers)

    @handler
    async def never(self, ctx: Context) -> None:
        await ctx.sleep(days=1)


async def everything(caller: Caller) -> list[Any]:
    """What a program types on `Caller` and names as text."""
    line = await caller.call("CartObject", "add", key="mary", argument=Line("2B"), returns=Line)
    many = await caller.call(
        "CartObject", "add_many", key="mary", argument={"lines": [Line("3C", 5)], "times": 2}, returns=int
    )
    seats = await caller.call("CartObject", "seats", key="mary", returns=list[str])
    serde: JsonSerde[list[str]] = JsonSerde(list[str])
    by_serde = await caller.call("CartObject", "seats", key="mary", returns=serde)
    raw = await caller.call("CartObject", "add", b'{"seat":"4D","price":40}', key="mary")
    nothing: Any = await caller.call("CartObject", "clear", key="mary", returns=None)  # type: ignore[func-returns-value]
    octets = await caller.call("Echo", "raw", b"\x00\xff")
    headers = await caller.call("Echo", "headers", headers={"X-Tenant": "a"}, returns=dict[str, str])
    first = await caller.send("Signup", "run", key="ann", argument="a@example.org", returns=str)
    second = await caller.send("Signup", "run", key="ann", argument="b@example.org")
    later = await caller.send("CartObject", "add", key="joe", argument=Line("5E"), after=30, returns=Line)
    waits = await later.status()
    try:
        early = await caller.output("Signup", "run", key="ann", returns=str)
    except NotReadyError:
        early = "is not ready"
    ended = await first
    attached = await caller.attach("Signup", "run", key="ann", returns=str)
    await caller.call("Echo", "raw", b"once", idempotency_key="k")
    kept = [
        await caller.attach("Echo", "raw", idempotency_key="k"),
        await caller.output("Echo", "raw", idempotency_key="k"),
    ]
    looked = await caller.call("Signup", "look", key="ann", returns=str)
    same = first.id == second.id and second.previously_accepted
    await later
    return [
        line, many, seats, by_serde, raw, nothing, octets, headers, waits, early, ended, attached, kept, looked, same,
    ]  # fmt: skip


EXPECTED: list[Any] = [
    Line("2B", 40), 3, ["2B", "3C", "3C"], ["2B", "3C", "3C"], b'{"seat":"4D","price":40}', None, b"\x00\xff",
    {"x-tenant": "a"}, InvocationStatus.SCHEDULED, "is not ready", "A@EXAMPLE.ORG", "A@EXAMPLE.ORG",
    [b"once", b"once"], "a@example.org", True,
]  # fmt: skip


class Inside(Service):
    @handler
    async def go(self, ctx: Context) -> bool:
        return await everything(ctx) == EXPECTED


@pytest.mark.parametrize("way", [*WAYS])
async def test_all_that_references_call_is_called_by_name_from_handlers(way: str) -> None:
    async with Harness(Cart, Signup, Echo, Inside, **WAYS[way]) as app:
        sent = await app.service(Inside).go.send()
        await app.advance(minutes=2)
        assert await sent.output()


async def test_all_that_references_call_is_called_by_name_from_outside() -> None:
    async with Harness(Cart, Signup, Echo) as app:
        asked = asyncio.create_task(everything(app))
        await app.advance(minutes=2)
        assert await asked == EXPECTED


class Unknown(Service):
    @handler
    async def go(self, ctx: Context, service: str, name: str, key: str | None, argument: Any) -> str:
        return await refusal(lambda: ctx.call(service, name, key=key, argument=argument))


async def refusal(call: Callable[[], Awaitable[Any]]) -> str:
    try:
        await call()
    except (UnknownTargetError, InvalidArgumentError) as error:
        return str(error)
    return "was called"


@pytest.mark.parametrize(
    ("service", "name", "key", "argument", "words"),
    [
        ("Wagon", "add", "mary", 1, "There is no service, object or workflow 'Wagon' here. There are: CartObject"),
        ("CartObject", "ad", "mary", 1, "CartObject has no handler 'ad'. It has: add, add_many, clear, seats"),
        ("CartObject", "clear", None, {}, "CartObject is a virtual object and needs a key"),
        ("Echo", "headers", "k", {}, "Echo is a service and takes no key"),
        ("Signup", "look", None, {}, "Signup is a workflow and needs an id"),
        ("CartObject", "add", "mary", {"seat": 5}, "Expected `str`, got `int`"),
        ("CartObject", "clear", "mary", 5, "clear"),
    ],
)
async def test_names_that_lead_nowhere_say_what_there_is(
    service: str, name: str, key: str | None, argument: Any, words: str
) -> None:
    async with Harness(Cart, Echo, Signup, Unknown) as app:
        inside = await app.service(Unknown).go(service, name, key, argument)
        outside = await refusal(lambda: app.call(service, name, key=key, argument=argument))
        assert words in inside
        assert inside == outside


async def test_what_cannot_be_said_raises_where_it_is_said() -> None:
    wrong: Any = 5
    async with Harness(Cart, Echo) as app:
        with pytest.raises(TypeError, match="Leave one out"):
            app.call("CartObject", "add", b"{}", key="mary", argument={}).close()
        with pytest.raises(TypeError, match="body of a message by name is bytes"):
            app.call("CartObject", "add", wrong).close()
        for names in ((wrong, "add"), ("", "add"), ("CartObject", wrong), ("CartObject", "")):
            with pytest.raises(TypeError, match="of a message by name is Unicode text"):
                app.call(*names).close()
        for key in ("", wrong, "a\0"):
            with pytest.raises(TypeError, match="The key of a message by name"):
                app.send("CartObject", "clear", key=key).close()
        for asked in (app.attach, app.output):
            with pytest.raises(TypeError, match=rf"{asked.__name__}\(\) of CartObject/add does not say of which"):
                asked("CartObject", "add", key="mary").close()
            with pytest.raises(UnknownTargetError):
                await asked("Signup", "run", key="nobody")
        with pytest.raises(TypeError, match="The idempotency_key of a message by name"):
            app.call("CartObject", "clear", key="mary", idempotency_key="").close()
        with pytest.raises(UnencodableError, match=r"The argument of handler 'add': .*nan"):
            app.call("CartObject", "add", key="mary", argument=float("nan")).close()
        with pytest.raises(UndecodableError, match=r"^The answer to CartObject/seats: .*Expected `int`"):
            await app.call("CartObject", "seats", key="mary", returns=int)
        with pytest.raises(UndecodableError, match="declared to return None"):
            await app.call("CartObject", "seats", key="mary", returns=None)
        assert app.actions() == []


async def test_a_result_of_any_type_may_be_that_of_a_handler_without_one() -> None:
    async with Harness(Cart, Echo) as app:
        any_type = cast("type[object]", Any)
        assert await app.call("CartObject", "clear", key="mary", returns=any_type) is None
        sent = await app.send("CartObject", "clear", key="mary", returns=any_type)
        assert await sent.result() is None
        assert await app.invocation(sent.id).result() is None
        assert await app.invocation(sent.id, any_type).output() is None
        with pytest.raises(UndecodableError):
            await app.invocation(sent.id, int).result()


async def test_options_of_a_message_by_name_are_those_of_a_reference() -> None:
    async with Harness(Cart, Echo) as app:
        late = asyncio.create_task(app.call("Echo", "never", timeout=5, returns=None))
        keyed = [app.call("CartObject", "add", key="k", argument=Line(seat), idempotency_key="once") for seat in "AB"]
        assert [msgspec.json.decode(answer, type=Line).seat for answer in [await one for one in keyed]] == ["A", "A"]
        await app.advance(seconds=5)
        with pytest.raises(DeadlineExceededError):
            await late


@pytest.mark.parametrize("value", [7, "x", [1, 2], {"a": 1}, None, (1, 2)])
async def test_arguments_are_written_as_the_runtime_writes_values(value: Any) -> None:
    class Any1(Service):
        @handler
        async def one(self, ctx: Context, value: Any) -> Any:
            return value

        @handler
        async def two(self, ctx: Context, value: int | str | list[int] | dict[str, int] | None, times: int) -> Any:
            return [value] * times

    async with Harness(Any1, serde=MsgpackSerde) as app:
        expected: Any = [*value] if isinstance(value, tuple) else value
        assert await app.call("Any1", "one", argument=value, returns=MsgpackSerde(Any)) in (expected, value)
        twice = await app.call("Any1", "two", argument={"value": expected, "times": 2}, returns=list[Any])
        assert twice == [expected] * 2

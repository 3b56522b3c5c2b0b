"""The middleware that is shipped does what docs/middleware.md says, around whatever handler it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import pytest

from durably import (
    CancelledInvocationError,
    Context,
    DefinitionError,
    HandlerInfo,
    InvalidArgumentError,
    PausedInvocationError,
    Request,
    Service,
    TerminalError,
    WrongContextError,
    handler,
)
from durably.events import subscribe
from durably.middleware import Authentication, Logging, Measurement, Metrics, UnauthenticatedError, Validation
from durably.testing import Harness


class User(NamedTuple):
    name: str
    admin: bool = False


ASKED: list[str] = []


async def check_token(request: Request) -> User | None:
    ASKED.append(request.id)
    known = {"Bearer mary": User("mary"), "Bearer root": User("root", admin=True)}
    return known.get(request.headers.get("authorization", ""))


AUTHENTICATION = Authentication(check_token)


class Shop(Service, forward_headers=["authorization"]):
    @handler
    async def who(self, ctx: Context) -> str:
        await ctx.sleep(5)
        return AUTHENTICATION.principal().name

    @handler
    async def ask(self, ctx: Context) -> str:
        return await ctx.service(Shop).who()

    @handler(private=True)
    async def inside(self, ctx: Context) -> str:
        return AUTHENTICATION.principal().name

    @handler
    async def ask_inside(self, ctx: Context) -> str:
        return await ctx.service(Shop).inside()

    @handler
    async def buy(self, ctx: Context, count: int) -> int:
        return count

    @handler
    async def fail(self, ctx: Context, how: str) -> None:
        await ctx.sleep(2)
        if how == "terminal":
            raise TerminalError("sold out")
        if how == "error":
            raise OSError("no route")
        await ctx.sleep(600)


def at_most_ten(arguments: Mapping[str, Any], handler: HandlerInfo) -> str | None:
    return f"{handler.name} takes at most 10" if arguments.get("count", 0) > 10 else None


@pytest.mark.parametrize("way", [{}, {"nothing_resident": True}])
async def test_only_those_whom_the_callable_knows_are_let_in(way: dict[str, Any]) -> None:
    ASKED.clear()
    async with Harness(Shop, middleware=[AUTHENTICATION], **way) as app:

        async def ask(name: str, token: str) -> Any:
            called = app.call("Shop", name, headers={"Authorization": token}, returns=str)
            task = asyncio.ensure_future(called)
            await app.advance(10)
            return await task

        assert await ask("who", "Bearer mary") == "mary"
        assert len(ASKED) == 1
        assert await ask("ask", "Bearer root") == "root"
        with pytest.raises(UnauthenticatedError, match="Shop/who was called without credentials") as refused:
            await ask("who", "Bearer nobody")
        assert refused.value.code == 401
        with pytest.raises(PausedInvocationError, match="nothing was authenticated"):
            await ask("ask_inside", "Bearer mary")
    with pytest.raises(WrongContextError):
        AUTHENTICATION.principal()
    with pytest.raises(DefinitionError, match="takes a function of a request"):
        Authentication(cast(Any, 3))


@pytest.mark.parametrize("way", [{}, {"nothing_resident": True}])
async def test_each_end_is_measured_and_logged_once(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    measured: list[Measurement] = []

    def record(measurement: Measurement) -> None:
        asyncio.get_running_loop().time()  # It is outside of the handler.
        measured.append(measurement)

    with caplog.at_level("INFO", logger="durably"):
        async with Harness(Shop, middleware=[Metrics(record), Logging(headers=("X-Tenant",))], **way) as app:
            await app.call("Shop", "buy", argument=1, headers={"X-Tenant": "acme", "Authorization": "secret"})
            for how, error in (("terminal", TerminalError), ("error", PausedInvocationError)):
                task = asyncio.ensure_future(app.service(Shop).fail(how))
                await app.advance(5)
                with pytest.raises(error):
                    await task
            sent = await app.service(Shop).fail.send("wait")
            await app.advance(7)
            await sent.cancel()
            with pytest.raises(CancelledInvocationError):
                await sent.result()
    told = [(one.handler, one.outcome, one.error, one.seconds) for one in measured]
    assert told == [
        ("buy", "result", None, 0),
        ("fail", "failure", "TerminalError", 2),
        ("fail", "error", "OSError", 2),
        ("fail", "cancelled", "CancelledError", 7),
    ]
    assert caplog.text.count("begins") == caplog.text.count("has ended") == 4
    assert "acme" in caplog.text
    assert "secret" not in caplog.text


async def test_what_a_recorder_raises_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def record(measurement: Measurement) -> None:
        raise OSError("no route")

    async with Harness(Shop, middleware=[Metrics(record)]) as app:
        assert await app.service(Shop).buy(1) == 1
    assert "could not take Measurement(service='Shop', handler='buy'" in caplog.text


async def test_arguments_are_refused_by_a_rule() -> None:
    async with Harness(Shop, middleware=[Validation(at_most_ten)]) as app:
        assert await app.service(Shop).buy(10) == 10
        with pytest.raises(InvalidArgumentError, match="Shop/buy are refused: buy takes at most 10") as refused:
            await app.service(Shop).buy(11)
        assert refused.value.code == 400


@dataclass
class Sold:
    item: str


async def test_a_publication_from_outside_is_authenticated_by_its_headers() -> None:
    heard: list[str] = []

    class Listener(Service):
        @subscribe(Sold)
        async def hear(self, ctx: Context, event: Sold) -> None:
            await ctx.run("hear", heard.append, event.item)

        @handler
        async def sell(self, ctx: Context) -> None:
            with pytest.raises(TypeError, match="headers"):
                await ctx.publish(Sold("hat"), headers={"authorization": "Bearer mary"})
            await ctx.publish(Sold("shoe"))

    known = {"authorization": "Bearer mary"}
    async with Harness(Listener, middleware=[AUTHENTICATION]) as app:
        with pytest.raises(UnauthenticatedError):
            await app.publish(Sold("hat"))
        await app.publish(Sold("cap"), headers=known, idempotency_key="k")
        await app.service(Listener).sell.options(headers=known)()
        await app.settle()
        assert sorted(heard) == ["cap", "shoe"]

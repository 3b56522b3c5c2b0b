"""`Client`: what a program does through a runtime it does over HTTP too, with the same values and errors."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably import (
    AlreadyStartedError,
    CancelledInvocationError,
    Context,
    DeadlineExceededError,
    InvalidArgumentError,
    InvocationStatus,
    InvocationStatusError,
    MsgpackSerde,
    NotReadyError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    ServerUnreachableError,
    Service,
    TerminalError,
    UnencodableError,
    UnknownTargetError,
    VirtualObject,
    handler,
    state,
)
from durably.client import Client
from durably.testing import Harness
from tests.semantics.test_named_messages import EXPECTED, Cart, Echo, Signup, everything

ONCE = RetryPolicy(max_attempts=1)
Moment = datetime(2027, 1, 2, 3, 4, 5, 600, tzinfo=UTC)


@dataclass(frozen=True)
class Seat:
    row: int
    letter: str = "A"


@dataclass(eq=False)
class SeatTakenError(TerminalError):
    seat: Seat
    since: datetime

    code = 409

    @property
    def message(self) -> str:  # type: ignore[override]
        return f"{self.seat} is taken"


class Shapes(Service):
    """Handlers of each number and kind of parameters. Each answers with what it got."""

    @handler
    async def none(self, ctx: Context) -> None: ...

    @handler
    async def one(self, ctx: Context, seat: Seat) -> Seat:
        return seat

    @handler
    async def optional(self, ctx: Context, seat: Seat | None = None) -> Seat | None:
        return seat

    @handler
    async def two(self, ctx: Context, seat: Seat, note: str) -> tuple[Seat, str]:
        return seat, note

    @handler
    async def one_and_more(
        self, ctx: Context, seat: Seat, note: str = "-", *, at: datetime = Moment
    ) -> tuple[Seat, str, datetime]:
        return seat, note, at

    @handler
    async def all_optional(self, ctx: Context, note: str = "-", *, tags: frozenset[int] = frozenset()) -> list[Any]:
        return [note, sorted(tags)]

    @handler
    async def mapping(self, ctx: Context, given: dict[str, Any]) -> dict[str, Any]:
        return given


class Packed(Service, serde=MsgpackSerde):
    @handler
    async def one(self, ctx: Context, moment: datetime) -> datetime:
        return moment

    @handler
    async def two(self, ctx: Context, seat: Seat, data: bytes = b"") -> tuple[Seat, bytes]:
        return seat, data


class Desk(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, amount: int) -> int:
        self.total += amount
        return self.total

    @handler
    async def take(self, ctx: ObjectContext, seat: Seat) -> None:
        raise SeatTakenError(seat, Moment)

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        raise TerminalError("no", code=418, metadata={"why": "teapot"})

    @handler
    async def act(self, ctx: ObjectContext) -> None:
        await ctx.run("charge", refuse)

    @handler
    async def crash(self, ctx: ObjectContext) -> None:
        raise RuntimeError("a mistake")

    @handler
    async def headers(self, ctx: ObjectContext) -> dict[str, str]:
        return dict(ctx.request.headers)

    @handler
    async def sleep(self, ctx: ObjectContext, seconds: int) -> str:
        await ctx.sleep(seconds)
        return "slept"

    @handler
    async def ask(self, ctx: ObjectContext) -> str:
        question = ctx.awakeable(str)
        await ctx.object(Desk, "questions").keep(question.id)
        return await question

    @handler
    async def keep(self, ctx: ObjectContext, id: str) -> None:
        ctx.set("question", id)

    @handler
    async def listen(self, ctx: ObjectContext) -> list[str]:
        return [await ctx.signal("go", str), await ctx.signal("go", str)]


async def refuse() -> None:
    raise TerminalError("declined", code=402)


@asynccontextmanager
async def over_http(*actors: type[Any], **options: Any) -> AsyncGenerator[tuple[Harness, Client]]:
    """A runtime in virtual time, and a client of it."""
    async with Harness(*actors) as app:
        mounts = {
            "all://app": httpx.ASGITransport(app.asgi()),
            "all://admin": httpx.ASGITransport(app.asgi(admin=True)),
        }
        async with httpx.AsyncClient(mounts=mounts) as http:
            for name in ("accept", "accept-encoding", "user-agent"):
                del http.headers[name]
            yield app, Client("http://app", admin_url="http://admin/", http=http, **options)


async def test_what_a_program_does_by_name_it_does_over_http_too() -> None:
    async with over_http(Cart, Echo, Signup) as (app, client):
        asked = asyncio.create_task(everything(client))
        await app.advance(minutes=2)
        found = await asked
        headers = found[EXPECTED.index({"x-tenant": "a"})]
        assert headers.pop("content-length") == "0"
        assert headers.pop("x-restate-ingress-path") == "/restate/call/Echo/headers"
        assert found == EXPECTED


seats = st.builds(Seat, st.integers(-9, 9), st.text(max_size=5))
plain = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3) | st.none(), max_size=3)
moments = st.datetimes(timezones=st.just(UTC))


def test_arguments_and_results_arrive_as_they_were_given() -> None:
    with asyncio.Runner() as runner:
        context = over_http(Shapes, Packed)
        _, client = runner.run(context.__aenter__())
        shapes, packed = client.service(Shapes), client.service(Packed)

        @given(seats, st.text(max_size=5), moments, st.frozensets(st.integers(), max_size=3), plain, st.binary())
        def law(seat: Seat, note: str, at: datetime, tags: frozenset[int], given: dict[str, Any], data: bytes) -> None:
            async def ask() -> None:
                assert await shapes.one(seat) == seat
                assert [await shapes.optional(), await shapes.optional(seat), await shapes.optional(None)] == [
                    None, seat, None,
                ]  # fmt: skip
                assert await shapes.two(seat, note=note) == (seat, note)
                assert await shapes.one_and_more(seat) == (seat, "-", Moment)
                assert await shapes.one_and_more(seat, note, at=at) == (seat, note, at)
                assert await shapes.all_optional() == ["-", []]
                assert await shapes.all_optional(note, tags=tags) == [note, sorted(tags)]
                assert await shapes.all_optional(tags=tags) == ["-", sorted(tags)]
                assert await shapes.mapping(given) == given
                assert await packed.one(at) == at
                assert await packed.two(seat) == (seat, b"")
                assert await packed.two(seat, data) == (seat, data)

            runner.run(ask())

        law()
        nothing: Any = runner.run(shapes.none())
        assert nothing is None
        runner.run(context.__aexit__(None, None, None))


async def error_of(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except Exception as error:
        return error


async def test_errors_arrive_in_their_class_with_their_fields() -> None:
    async with over_http(Desk, Signup) as (app, client):
        desk = client.object(Desk, "a/b ..")
        taken = await error_of(desk.take(Seat(2, "B")))
        assert isinstance(taken, SeatTakenError)
        assert (taken.seat, taken.since, taken.code) == (Seat(2, "B"), Moment, 409)
        assert str(taken) == "Seat(row=2, letter='B') is taken"
        failed = await error_of(desk.fail())
        assert type(failed) is TerminalError
        assert (failed.code, failed.message, failed.metadata) == (418, "no", {"why": "teapot"})
        declined = await error_of(desk.act())
        assert (type(declined), declined.code) == (TerminalError, 402)
        paused = await error_of(client.object(Desk, "bad").crash())
        assert isinstance(paused, PausedInvocationError)
        assert paused.id.startswith("inv_1")
        assert "a mistake" in str(paused)

        wrong = await error_of(client.call("Desk", "take", key="a", argument={"row": "x"}))
        assert isinstance(wrong, InvalidArgumentError)
        assert wrong.path == "$.row"
        unknown_job = client.invocation("inv_1" + "0" * 33)
        for unknown in (client.call("Desk", "nothing", key="a"), client.call("Unknown", "x"), unknown_job.result()):
            assert isinstance(await error_of(unknown), UnknownTargetError)

        signup = client.workflow(Signup, "ann")
        job = await signup.run.send("a@example.org")
        again = await signup.run.send("b@example.org")
        assert (job.id, job.previously_accepted, again.id, again.previously_accepted) == (job.id, False, job.id, True)
        assert isinstance(await error_of(signup.run("c@example.org")), AlreadyStartedError)
        assert isinstance(await error_of(signup.run.output()), NotReadyError)
        assert isinstance(await error_of(job.output()), NotReadyError)
        attached = [asyncio.create_task(error_of(one)) for one in (signup.run.attach(), job, job.result())]
        await app.advance(minutes=2)
        assert [await one for one in attached] == ["A@EXAMPLE.ORG"] * 3


async def test_options_of_messages_hold_over_http() -> None:
    async with over_http(Desk) as (app, client):
        desk = client.object(Desk, "é/ü")
        assert await desk.add.options(idempotency_key="schlüssel")(1) == 1
        assert await desk.add.options(idempotency_key="schlüssel")(1) == 1
        assert await desk.add.options(idempotency_key="schlüssel").attach() == 1
        later = await desk.add.after(minutes=5).send(10)
        at = await desk.add.at(datetime.now(UTC) + timedelta(days=365)).send(100)
        assert [await later.status(), await at.status()] == [InvocationStatus.SCHEDULED] * 2
        await app.advance(minutes=6)
        assert await desk.add(0) == 11

        seen = await desk.headers.options(headers={"X-Tenant": "é b"})()
        assert seen["x-tenant"] == "é b"
        assert not {"x-durably-errors", "x-durably-timeout", "idempotency-key"} & seen.keys()
        for name, value in (("x-tenant", "漢"), ("x tenant", "a"), ("x-tenant", "a\0"), ("x-tenant", " a")):
            with pytest.raises(TypeError, match=r"cannot be sent over HTTP|Headers are"):
                await desk.headers.options(headers={name: value})()

        late = asyncio.create_task(error_of(desk.sleep.options(timeout=5)(60)))
        await app.advance(seconds=6)
        assert isinstance(await late, DeadlineExceededError)


async def test_handles_signal_cancel_and_look() -> None:
    async with over_http(Desk) as (app, client):
        job = await client.object(Desk, "a").listen.send()
        await job.signal("go", "first")
        await job.reject_signal("go", "enough", code=403)
        ended = await error_of(job)
        assert (type(ended), ended.code, ended.message) == (TerminalError, 403, "enough")
        assert await job.status() is InvocationStatus.COMPLETED

        for key, expected in (("b", "yes"), ("c", 451)):
            asked = asyncio.create_task(error_of(client.object(Desk, key).ask()))
            await app.settle()
            id = (await app.state(Desk, "questions"))["question"]
            await (client.resolve_awakeable(id, "yes") if key == "b" else client.reject_awakeable(id, "no", code=451))
            answer = await asked
            assert getattr(answer, "code", answer) == expected

        sleeper = await client.object(Desk, "d").sleep.send(60)
        await app.settle()
        await sleeper.cancel()
        assert isinstance(await error_of(sleeper), CancelledInvocationError)
        assert isinstance(await error_of(sleeper.cancel()), InvocationStatusError | TerminalError)


async def test_what_cannot_be_asked_over_http_says_what_to_do() -> None:
    async with over_http(Desk) as (_, client):
        call = client.object(Desk, "a").add(1)
        with pytest.raises(TypeError, match="Send it instead"):
            await client.invocation_of(call)
        call.close()
        alone = Client("http://app/", http=httpx.AsyncClient(transport=httpx.ASGITransport(_not_found)))
        with pytest.raises(TypeError, match=r"admin_url="):
            await alone.invocation("inv_1" + "0" * 33).cancel()
        with pytest.raises(ServerUnreachableError, match="which no ingress says"):
            await alone.object(Desk, "a").add(1)
        wrong: Any = object()
        with pytest.raises(UnencodableError):
            await client.object(Desk, "a").add(wrong)
        for url in ("localhost:8080", "ftp://a", "http://", "http://a?b", ""):
            with pytest.raises(ValueError, match="is no address of a server"):
                Client(url)
        async with Client("http://127.0.0.1:9", retry=ONCE) as disconnected:
            with pytest.raises(ServerUnreachableError, match="cannot be reached for Desk/add") as refused:
                await disconnected.object(Desk, "a").add(1)
        assert refused.value.nothing_accepted


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"<html>"})


class EmptyError(TerminalError):
    """Its callers hear no such text."""


class Wordless(Service):
    @handler
    async def fail(self, ctx: Context, kind: str) -> None:
        raise (EmptyError("") if kind == "own" else TerminalError("", code=409))

    @handler
    async def fail_in_action(self, ctx: Context) -> None:
        def act() -> None:
            raise EmptyError("")

        await ctx.run("act", act)

    @handler
    async def through(self, ctx: Context, kind: str) -> str:
        try:
            await ctx.service(Wordless).fail(kind)
        except TerminalError as error:
            await ctx.sleep(1)
            return f"{type(error).__name__} {error.code} {error.message!r} {error}"
        return ""


@pytest.mark.parametrize(("kind", "name", "code"), [("own", "EmptyError", 500), ("plain", "TerminalError", 409)])
async def test_an_empty_message_stays_empty_through_calls_over_http_and_after_a_crash(
    kind: str, name: str, code: int
) -> None:
    async with over_http(Wordless) as (app, client):
        kept = await app.service(Wordless).fail.options(idempotency_key="k").send(kind)
        through = await app.service(Wordless).through.send(kind)
        await app.settle()
        await app.crash()
        await app.advance(2)
        assert await app.invocation(through.id, str).result() == f"{name} {code} '' "
        for fail in (
            app.service(Wordless).fail(kind),
            client.service(Wordless).fail(kind),
            app.invocation(kept.id).result(),
            client.invocation(kept.id).result(),
            *([app.service(Wordless).fail_in_action()] if kind == "own" else []),
        ):
            with pytest.raises(TerminalError) as caught:
                await fail
            assert (type(caught.value).__name__, caught.value.code, caught.value.message) == (name, code, "")


async def test_a_password_in_the_address_is_sent_as_a_header_and_told_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) > 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={"status": "running", "id": "inv_1x"})

    transport = httpx.MockTransport(answer)
    once = RetryPolicy(max_attempts=1)
    for token, header in ((None, f"Basic {b64encode(b'ann:hush').decode()}"), ("hush-token", "Bearer hush-token")):
        http = httpx.AsyncClient(transport=transport)
        async with Client("http://ann:h%75sh@db:1", token=token, http=http, retry=once) as client:
            assert repr(client) == "<client of http://db:1>"
            await client.call("Cart", "add", key="mary", argument=1)
            assert asked[-1].headers["authorization"] == header
            assert str(asked[-1].url).startswith("http://db:1/")
    async with Client("http://ann:h%75sh@db:1", http=httpx.AsyncClient(transport=transport), retry=once) as client:
        with pytest.raises(ServerUnreachableError) as away:
            await client.call("Cart", "add", key="mary", argument=1)
    for told in (str(away.value), caplog.text):
        assert "hush" not in told
        assert "h%75sh" not in told
    for url in ("ann:hush@db", "ftp://ann:hush@db", "http://ann:hush@[::1", "http://ann:hush@db:x"):
        with pytest.raises(ValueError, match=r"is no address of a server") as refused:
            Client(url)
        assert "hush" not in str(refused.value)


async def test_what_httpx_says_of_a_lost_connection_stands_in_one_sentence() -> None:
    said = "Server disconnected without sending a response."

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError(said)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with Client("http://app", http=http, retry=RetryPolicy(max_attempts=1)) as client:
        for key in (None, "once"):
            with pytest.raises(ServerUnreachableError) as lost:
                await client.call("Cart", "add", key="mary", argument=1, idempotency_key=key)
            assert f"{said} It" in str(lost.value)
            assert ".." not in str(lost.value)

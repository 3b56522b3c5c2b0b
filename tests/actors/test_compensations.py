"""`ctx.compensations()`: last first, on whatever ends the invocation for good, and on nothing else."""

from __future__ import annotations

import asyncio

import pytest

from durably import (
    CancelledInvocationError,
    Context,
    PausedInvocationError,
    RetryPolicy,
    Service,
    TerminalError,
    VirtualObject,
    WrongContextError,
    handler,
    state,
)
from durably.actors.context import ObjectContext
from durably.testing import Harness


class Seats(VirtualObject):
    log: list[str] = state(default=[])

    @handler
    async def note(self, ctx: ObjectContext, what: str) -> None:
        self.log.append(what)

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        await ctx.sleep(100)

    @handler
    async def refuse(self, ctx: ObjectContext) -> None:
        raise TerminalError("cannot be undone")


class Trips(Service):
    attempts = 0

    @handler(retry=RetryPolicy(initial=1.0, max_attempts=3))
    async def book(self, ctx: Context, how: str) -> str:
        note = ctx.object(Seats, "log").note
        async with ctx.compensations() as undo:
            undo.add(note, "undo 1")
            await note("1")
            undo.add(ctx.run, "refund", self.refund)
            if how == "undo fails":
                undo.add(ctx.object(Seats, "log").refuse)
            undo.add(note.send, "undo 2")
            await note("2")
            match how:
                case "terminal" | "undo fails":
                    raise TerminalError("sold out")
                case "timeout":
                    async with asyncio.timeout(5):
                        await ctx.sleep(100)
                case "group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self.fail())
                case "retry":
                    Trips.attempts += 1
                    if Trips.attempts == 1:
                        raise RuntimeError("try again")
                case "wait":
                    await ctx.sleep(100)
                case _:
                    pass
        return "booked"

    async def fail(self) -> None:
        raise TerminalError("in a group")

    async def refund(self) -> str:
        return "refunded"

    @handler
    async def add_in_an_action(self, ctx: Context) -> None:
        async with ctx.compensations() as undo:

            async def act() -> None:
                undo.add(self.refund)

            await ctx.run("act", act)


UNDONE = ["1", "2", "undo 1", "undo 2"]


@pytest.mark.parametrize("suspend_after", [60, 0])
@pytest.mark.parametrize("how", ["terminal", "timeout", "group", "wait", "undo fails"])
async def test_what_was_added_runs_last_first_and_the_error_goes_on(how: str, suspend_after: float) -> None:
    async with Harness(Seats, Trips, suspend_after=suspend_after) as app:
        sent = await app.service(Trips).book.send(how)
        await app.settle()
        if how == "wait":
            await sent.cancel()
        await app.advance(10)
        expected = CancelledInvocationError if how == "wait" else TerminalError
        with pytest.raises(expected) as told:
            await sent.result()
        assert told.value.code == {"wait": 409, "timeout": 408}.get(how, 500)
        assert sorted((await app.state(Seats, "log"))["log"]) == UNDONE
        assert app.actions() == ["refund"]


@pytest.mark.parametrize("how", ["nothing", "retry"])
async def test_nothing_is_undone_if_it_goes_well_in_the_end(how: str) -> None:
    Trips.attempts = 0
    async with Harness(Seats, Trips, retry=RetryPolicy()) as app:
        sent = await app.service(Trips).book.send(how)
        await app.advance(10)
        assert await sent.result() == "booked"
        assert (await app.state(Seats, "log"))["log"] == ["1", "2"]


async def test_the_order_is_last_first() -> None:
    class Orders(Service, name="OrdersOfUndo"):
        @handler
        async def go(self, ctx: Context) -> None:
            async with ctx.compensations() as undo:
                for number in range(3):
                    undo.add(ctx.object(Seats, "order").note, f"{number}")
                raise TerminalError("no")

    async with Harness(Seats, Orders) as app:
        with pytest.raises(TerminalError, match="no"):
            await app.service(Orders).go()
        assert (await app.state(Seats, "order"))["log"] == ["2", "1", "0"]


class Outage(Service):
    """Its compensation does not work at first, and its block breaks when it is told to end."""

    tries = 0

    @handler(retry=RetryPolicy(initial=1.0, maximum=1.0))
    async def go(self, ctx: Context, calls: bool) -> None:
        note = ctx.object(Seats, "outage").note
        async with ctx.compensations() as undo:
            undo.add(note, "undo 1")
            undo.add(self.undo, ctx)
            try:
                await (ctx.object(Seats, "other").wait() if calls else ctx.sleep(100))
            except asyncio.CancelledError:
                raise RuntimeError("breaks when it is told") from None

    async def undo(self, ctx: Context) -> None:
        Outage.tries += 1
        if Outage.tries < 4:
            raise RuntimeError("not yet")
        await ctx.object(Seats, "outage").note("undo 2")
        await ctx.sleep(5)


@pytest.mark.parametrize("suspend_after", [60, 0])
@pytest.mark.parametrize("calls", [False, True])
@pytest.mark.parametrize("cancels", [1, 6])
async def test_cancels_do_not_break_off_what_undoes_and_an_outage_is_waited_for(
    cancels: int, calls: bool, suspend_after: float
) -> None:
    Outage.tries = 0
    async with Harness(Seats, Outage, suspend_after=suspend_after) as app:
        sent = await app.service(Outage).go.send(calls)
        await app.settle()
        await sent.cancel()
        for _ in range(1, cancels):  # The first two are taken in by one step; some come while it backs off.
            await asyncio.gather(sent.cancel(), sent.cancel())
            await app.advance(1)
        await app.advance(10)
        with pytest.raises(CancelledInvocationError):
            await sent.result()
        assert (await app.state(Seats, "outage"))["log"] == ["undo 2", "undo 1"]


async def test_it_belongs_to_its_handler() -> None:
    async with Harness(Seats, Trips) as app:
        call = asyncio.create_task(_result(app))
        with pytest.raises(Exception, match=r"undo\.add") as told:
            await call
        assert isinstance(told.value.__cause__ or told.value, WrongContextError)


async def _result(app: Harness) -> None:
    await app.service(Trips).add_in_an_action()


class Hasty(Service):
    """Adds what does not undo anything when the block fails."""

    @handler
    async def add(self, ctx: Context, what: str) -> None:
        note = ctx.object(Seats, "log").note
        async with ctx.compensations() as undo:
            if what == "a call":
                undo.add(note("at once"))  # type: ignore[arg-type]
            elif what == "a coroutine":
                undo.add(asyncio.sleep(0))  # type: ignore[arg-type]
            elif what == "nothing":
                undo.add(None)  # type: ignore[arg-type]
            elif what == "a plain function":
                undo.add(print, "undone")  # type: ignore[arg-type]
            raise TerminalError("sold out")


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("a call", "begun already"),
        ("a coroutine", "begun already"),
        ("nothing", "takes a function and its arguments, not None"),
        ("a plain function", "no coroutine function"),
    ],
)
async def test_what_cannot_undo_anything_pauses_with_a_sentence(what: str, sentence: str) -> None:
    async with Harness(Hasty, Seats) as app:
        with pytest.raises(PausedInvocationError, match=sentence):
            await app.service(Hasty).add(what)

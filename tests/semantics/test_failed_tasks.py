"""A task of a handler that fails, and that nothing awaits, is reported as asyncio reports it: once, never on replay."""

from __future__ import annotations

import asyncio
import logging

import pytest

from durably import (
    Context,
    ForgottenAwaitError,
    MemoryStore,
    ObjectContext,
    PausedInvocationError,
    Runtime,
    Service,
    TerminalError,
    UnsetStateError,
    VirtualObject,
    handler,
    select,
    state,
)
from durably.testing import Harness
from tests.semantics.support import World, begin, tuned, turns, wait_a_little


async def fail(text: str = "in a task") -> None:
    raise ValueError(text)


class Careless(VirtualObject):
    unset: int = state()

    def __init__(self, world: World) -> None:
        self.world = world

    @handler
    async def leave(self, ctx: ObjectContext) -> str:
        task = asyncio.create_task(fail())
        await ctx.sleep(1)
        return f"done {task.done()}"

    @handler
    async def drop(self, ctx: ObjectContext) -> str:
        asyncio.create_task(fail())  # noqa: RUF006
        await ctx.sleep(1)
        await ctx.sleep(1)
        return "done"

    @handler
    async def fail_beside(self, ctx: ObjectContext) -> None:
        task = asyncio.create_task(fail())
        await ctx.sleep(1)
        raise TerminalError(f"the handler {task.done()}")

    @handler
    async def mistake(self, ctx: ObjectContext) -> str:
        async def read() -> int:
            return self.unset

        task = asyncio.create_task(read())
        await ctx.sleep(1)
        return f"done {task.done()}"

    @handler
    async def hear(self, ctx: ObjectContext) -> list[str]:
        """Every way to hear of an error that asyncio takes for one."""
        heard: list[str] = []

        async def fail_later(seconds: float) -> None:
            await ctx.sleep(seconds)
            raise ValueError(f"after {seconds}")

        gathered = await asyncio.gather(fail("a"), fail("b"), return_exceptions=True)
        heard += [str(error) for error in gathered]
        try:
            await asyncio.gather(fail_later(1), fail_later(1), fail_later(2))
        except ValueError as error:
            heard.append(str(error))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail("c"))
                group.create_task(fail("d"))
        except* ValueError as errors:
            heard += [str(error) for error in errors.exceptions]
        done, _ = await asyncio.wait([asyncio.create_task(fail("e"))])
        heard += [str(task.exception()) for task in done]
        try:
            await select(a=fail("f"), b=fail("g"))
        except ValueError as error:
            heard.append(str(error))
        try:
            await asyncio.shield(fail("h"))
        except ValueError as error:
            heard.append(str(error))
        for task in asyncio.as_completed([asyncio.create_task(fail("i"))]):
            try:
                await task
            except ValueError as error:
                heard.append(str(error))
        return heard

    @handler
    async def fail_in_a_callback(self, ctx: ObjectContext) -> str:
        asyncio.get_running_loop().call_soon(lambda: int("no number"))
        await ctx.sleep(1)
        return "done"

    @handler
    async def fail_in_a_last_callback(self, ctx: ObjectContext) -> str:
        asyncio.get_running_loop().call_soon(lambda: int("no number"))
        await asyncio.sleep(0)
        return "done"

    @handler
    async def fail_in_a_callback_that_wakes(self, ctx: ObjectContext) -> None:
        woken = asyncio.Event()
        asyncio.get_running_loop().call_soon(lambda: woken.set() if int("no number") else None)
        await woken.wait()

    @handler
    async def fail_in_a_future(self, ctx: ObjectContext) -> str:
        asyncio.get_running_loop().create_future().set_exception(ValueError("in a future"))
        return "done"

    @handler
    async def fail_in_a_future_that_lives_on(self, ctx: ObjectContext) -> str:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("in a future"))
        await ctx.sleep(1)
        return "done"

    @handler
    async def hear_a_future(self, ctx: ObjectContext) -> str:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("in a future"))
        await ctx.sleep(1)
        try:
            return str(await future)
        except ValueError:
            return "heard"

    @handler
    async def fail_together(self, ctx: ObjectContext) -> None:
        """The handler ends before the group has heard of the second."""
        await asyncio.gather(fail("first"), fail("second"))


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "never retrieved" in record.getMessage()]


@pytest.mark.parametrize("suspend_after", [60.0, 0.0], ids=["in-memory", "suspended"])
@pytest.mark.parametrize("how", ["leave", "drop", "fail_beside"])
async def test_it_is_reported_once(
    how: str, suspend_after: float, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = Harness(Careless, dependencies={World: world}, suspend_after=suspend_after)
    async with tuned(app, forgotten_await="warn"):
        call = begin(getattr(app.object(Careless, "c"), how)())
        await turns()
        await wait_a_little(app, 1)
        await app.crash()
        await wait_a_little(app, 1)
        await asyncio.gather(call, return_exceptions=True)
    told = reports(caplog)
    assert len(told) == 1
    assert told[0].startswith("Task exception was never retrieved ")
    assert "(fail)" in told[0]
    assert "ValueError: in a task" in told[0]
    assert __file__ in told[0]


async def test_a_task_without_any_reference_is_reported_when_it_fails(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = Harness(Careless, dependencies={World: world})
    async with tuned(app, forgotten_await="warn"):
        call = begin(app.object(Careless, "c").drop())
        await turns()
        assert len(reports(caplog)) == 1
        await wait_a_little(app, 2)
        assert await call == "done"
    assert len(reports(caplog)) == 1


@pytest.mark.parametrize("how", ["leave", "drop", "fail_beside"])
async def test_it_is_a_failure_in_a_harness(how: str, world: World) -> None:
    async with Harness(Careless, dependencies={World: world}) as app:
        call = begin(getattr(app.object(Careless, "c"), how)())
        await turns()
        await wait_a_little(app, 2)
        with pytest.raises(PausedInvocationError, match="its exception was never retrieved: task-1 ") as told:
            await call
        assert isinstance(told.value.__cause__, ForgottenAwaitError)
        assert isinstance(told.value.__cause__.__cause__, ValueError)


LOST_OTHERWISE = {
    "fail_in_a_callback": "A callback of the loop in .* raised .*no number",
    "fail_in_a_last_callback": "A callback of the loop in .* raised .*no number",
    "fail_in_a_callback_that_wakes": "A callback of the loop in .* raised .*no number",
    "fail_in_a_future": "A future of .* was given an exception.*in a future",
    "fail_in_a_future_that_lives_on": "A future of .* was given an exception.*in a future",
}


@pytest.mark.parametrize("how", LOST_OTHERWISE)
async def test_so_is_one_of_a_callback_or_a_future(how: str, world: World) -> None:
    async with Harness(Careless, dependencies={World: world}) as app:
        call = begin(getattr(app.object(Careless, "c"), how)())
        await turns()
        await wait_a_little(app, 2)
        with pytest.raises(PausedInvocationError, match=LOST_OTHERWISE[how]) as told:
            await call
        assert isinstance(told.value.__cause__, ForgottenAwaitError)


async def test_a_future_that_is_awaited_later_is_none(world: World) -> None:
    async with Harness(Careless, dependencies={World: world}) as app:
        call = begin(app.object(Careless, "c").hear_a_future())
        await turns()
        await wait_a_little(app, 2)
        assert await call == "heard"


async def test_a_mistake_in_a_task_pauses_everywhere(world: World) -> None:
    async with tuned(Harness(Careless, dependencies={World: world}), forgotten_await="warn") as app:
        call = begin(app.object(Careless, "c").mistake())
        await turns()
        await wait_a_little(app, 2)
        with pytest.raises(PausedInvocationError) as told:
            await call
        assert isinstance(told.value.__cause__, UnsetStateError)


async def test_an_error_that_something_hears_of_is_not_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(Careless, dependencies={World: world}) as app:
        call = begin(app.object(Careless, "c").hear())
        await turns()
        await wait_a_little(app, 3)
        assert await call == ["a", "b", "after 1", "c", "d", "e", "f", "h", "i"]
        with pytest.raises(PausedInvocationError) as told:
            await app.object(Careless, "d").fail_together()
        assert str(told.value.__cause__) == "first"
    assert reports(caplog) == []


async def test_a_runtime_logs_it_as_an_error(caplog: pytest.LogCaptureFixture, world: World) -> None:
    class Plain(Service):
        @handler
        async def go(self, ctx: Context) -> None:
            asyncio.create_task(fail())  # noqa: RUF006
            await ctx.sleep(0)

    async with Runtime(MemoryStore(), [Plain]) as runtime:
        await runtime.service(Plain).go()
    assert [record.levelno for record in caplog.records if "never retrieved" in record.getMessage()] == [logging.ERROR]

"""docs/combinators.md tells the truth: each tool of asyncio does what the table says, however often it replays."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durably import BlockingIOInHandlerError, Context, Service, TerminalError, first_success, handler, select, settled
from durably.testing import Harness, Simulation, for_each_crash_point
from tests.processes import ROOT
from tests.semantics.test_awakeables import WAYS


class Clock(Service, name="CombinedClock"):
    """Answers after a while, or fails."""

    @handler
    async def after(self, ctx: Context, seconds: float) -> float:
        await ctx.sleep(seconds)
        return seconds

    @handler
    async def fail_after(self, ctx: Context, seconds: float) -> float:
        await ctx.sleep(seconds)
        raise TerminalError(f"failed after {seconds}")


Use = Callable[[Context], Awaitable[Any]]
TOOLS: dict[str, tuple[Use, Any]] = {}
"""By the name in the table: what a handler does with it, and what comes of it."""


def tool(name: str, expected: Any) -> Callable[[Use], Use]:
    def register(use: Use) -> Use:
        TOOLS[name] = use, expected
        return use

    return register


@tool("await", [1.0, 1.0])
async def _await(ctx: Context) -> Any:
    call = ctx.service(Clock).after(1)
    return [await call, await call]


@tool("asyncio.gather", [2.0, "made", 1.0, "failed after 1.0"])
async def _gather(ctx: Context) -> Any:
    clock = ctx.service(Clock)
    good = await asyncio.gather(clock.after(2), ctx.run("make", lambda: "made"), clock.after(1))
    settled = await asyncio.gather(clock.fail_after(1), return_exceptions=True)
    return [*good, str(settled[0])]


@tool("asyncio.TaskGroup", [[1.0, 2.0], ["failed after 1.0"], True])
async def _task_group(ctx: Context) -> Any:
    clock = ctx.service(Clock)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(clock.after(seconds)) for seconds in (1, 2)]
    slow: list[asyncio.Task[float]] = []
    failed: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            slow.append(group.create_task(clock.after(100)))
            group.create_task(clock.fail_after(1))
    except* TerminalError as errors:
        failed += [str(error) for error in errors.exceptions]
    return [[task.result() for task in tasks], failed, slow[0].cancelled()]


@tool("asyncio.create_task", ["second", "first"])
async def _create_task(ctx: Context) -> Any:
    order: list[str] = []

    async def branch(name: str, seconds: float) -> None:
        await ctx.sleep(seconds)
        order.append(name)

    tasks = [asyncio.create_task(branch("first", 2)), asyncio.create_task(branch("second", 1))]
    for task in tasks:
        await task
    return order


@tool("asyncio.wait", [[1.0], 2.0, "Passing coroutines is forbidden"])
async def _wait(ctx: Context) -> Any:
    clock = ctx.service(Clock)
    tasks = [asyncio.create_task(_answer(clock.after(seconds))) for seconds in (2, 1)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    bare: Any = clock.after(1)
    refused = "nothing was refused"
    try:
        await asyncio.wait([bare])
    except TypeError as error:
        refused = str(error).partition(",")[0]
    await bare
    return [[task.result() for task in done], await pending.pop(), refused]


async def _answer(call: Awaitable[float]) -> float:
    return await call


@tool("asyncio.as_completed", [1.0, 2.0, 3.0])
async def _as_completed(ctx: Context) -> Any:
    tasks = [asyncio.create_task(_answer(ctx.service(Clock).after(seconds))) for seconds in (3, 1, 2)]
    return [await one for one in asyncio.as_completed(tasks)]


@tool("asyncio.wait_for", ["late", 1.0])
async def _wait_for(ctx: Context) -> Any:
    try:
        await asyncio.wait_for(ctx.service(Clock).after(100), 1)
    except TimeoutError:
        return ["late", await asyncio.wait_for(ctx.service(Clock).after(1), 100)]


@tool("asyncio.timeout", ["late", "still there"])
async def _timeout(ctx: Context) -> Any:
    word = ctx.awakeable(str)
    try:
        async with asyncio.timeout(1):
            await word
    except TimeoutError:
        await word.resolve("still there")
        return ["late", await word]


@tool("asyncio.timeout_at", "late")
async def _timeout_at(ctx: Context) -> Any:
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + 1):
            await ctx.sleep(100)
    except TimeoutError:
        return "late"


@tool("asyncio.shield", ["late", 3.0])
async def _shield(ctx: Context) -> Any:
    call = ctx.service(Clock).after(3)
    try:
        async with asyncio.timeout(1):
            await asyncio.shield(call)
    except TimeoutError:
        return ["late", await call]


@tool("asyncio.sleep", True)
async def _sleep(ctx: Context) -> Any:
    began = ctx.now()
    await asyncio.sleep(0)
    await asyncio.sleep(5)
    return (ctx.now() - began).total_seconds() >= 5


@tool("asyncio.Event", ["waits", "set", "went on"])
async def _event(ctx: Context) -> Any:
    event, said = asyncio.Event(), ["waits"]

    async def wait() -> None:
        await event.wait()
        said.append("went on")

    task = asyncio.create_task(wait())
    await ctx.sleep(1)
    said.append("set")
    event.set()
    await task
    return said


@tool("asyncio.Queue", [1.0, 2.0, 3.0])
async def _queue(ctx: Context) -> Any:
    queue: asyncio.Queue[float] = asyncio.Queue(1)

    async def produce() -> None:
        for seconds in (1, 2, 3):
            await queue.put(await ctx.service(Clock).after(seconds))

    task = asyncio.create_task(produce())
    got = [await queue.get() for _ in range(3)]
    await task
    return got


@tool("asyncio.Future", "set by a task")
async def _future(ctx: Context) -> Any:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def complete() -> None:
        await ctx.sleep(1)
        future.set_result("set by a task")

    task = asyncio.create_task(complete())
    result = await future
    await task
    return result


@tool("asyncio.to_thread", "refused")
async def _to_thread(ctx: Context) -> Any:
    try:
        await asyncio.to_thread(len, "abc")
    except BlockingIOInHandlerError as error:
        return "refused" if "ctx.run" in str(error) else str(error)


@tool("durably.select", ["quick", 1.0, 3.0])
async def _select(ctx: Context) -> Any:
    slow = ctx.service(Clock).after(3)
    name, value = await select(slow=slow, quick=ctx.service(Clock).after(1), late=ctx.sleep(60))
    return [name, value, await slow]


@tool("durably.first_success", ["quick", 2.0, ["failed after 1.0", "failed after 2.0"]])
async def _first_success(ctx: Context) -> Any:
    clock = ctx.service(Clock)
    name, value = await first_success(broken=clock.fail_after(1), quick=clock.after(2), slow=clock.after(9))
    try:
        await first_success(one=clock.fail_after(1), two=clock.fail_after(2))
    except ExceptionGroup as errors:
        return [name, value, [str(error) for error in errors.exceptions]]


@tool("durably.settled", {"good": 2.0, "bad": "failed after 1.0"})
async def _settled(ctx: Context) -> Any:
    clock = ctx.service(Clock)
    results = await settled(good=clock.after(2), bad=clock.fail_after(1))
    return {name: str(result) if isinstance(result, Exception) else result for name, result in results.items()}


class Combined(Service):
    """Uses one of them."""

    @handler
    async def use(self, ctx: Context, name: str) -> Any:
        result = await TOOLS[name][0](ctx)
        await ctx.sleep(1)  # What comes after it is replayed, too.
        return result


def test_the_chapter_and_these_tests_know_the_same_tools() -> None:
    chapter = (ROOT / "docs" / "combinators.md").read_text("utf-8")
    assert re.findall(r"^\| `([\w.]+)` \|", chapter, re.MULTILINE) == [*TOOLS]


@pytest.mark.parametrize("way", [*WAYS])
async def test_each_tool_does_what_the_chapter_says(way: str) -> None:
    async with Harness(Combined, Clock, **WAYS[way]) as app:
        for name, (_, expected) in TOOLS.items():
            used = await app.service(Combined).use.send(name)
            await app.advance(minutes=3)
            assert await used.result() == expected, name


@pytest.mark.parametrize("name", [*TOOLS])
def test_each_tool_replays_whichever_commit_dies(name: str) -> None:
    async def program(sim: Simulation) -> Any:
        result = await sim.client("user").service(Combined).use(name)
        assert result == TOOLS[name][1]
        return result

    for_each_crash_point(program, Combined, Clock, place=("before_commit", "after_commit"))


async def test_bare_coroutines_in_as_completed_are_refused() -> None:
    class Bare(Service):
        @handler
        async def use(self, ctx: Context) -> list[float]:
            return [await one for one in asyncio.as_completed([_answer(ctx.service(Clock).after(1))])]

    async with Harness(Bare, Clock) as app:
        with pytest.raises(Exception, match="Give it tasks"):
            await app.service(Bare).use()

"""Each tool of asyncio takes an operation in each form: as it is, from `ensure_future` and from `create_task`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durably import BareOperationError, Context, PausedInvocationError, Service, TerminalError, handler
from durably.testing import Faults, Harness, Simulation, simulate

Make = Callable[[], Any]
FORMS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda call: call,
    "ensure_future": asyncio.ensure_future,
    "create_task": asyncio.create_task,
}


async def _gather(one: Any, other: Any) -> list[Any]:
    return [*await asyncio.gather(one, other)]


async def _wait(one: Any, other: Any) -> list[Any]:
    done, pending = await asyncio.wait([one, other])
    assert done == {one, other}
    assert not pending
    return [one.result(), other.result()]


async def _wait_for_the_first(one: Any, other: Any) -> list[Any]:
    left, results = {one, other}, dict[Any, Any]()
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        results.update((future, future.result()) for future in done)
    return [results[one], results[other]]


async def _wait_for(one: Any, other: Any) -> list[Any]:
    return [await asyncio.wait_for(one, 600), await asyncio.wait_for(other, 600)]


async def _shield(one: Any, other: Any) -> list[Any]:
    return [await asyncio.shield(one), await asyncio.shield(other)]


async def _as_completed(one: Any, other: Any) -> list[Any]:
    return sorted([await ended for ended in asyncio.as_completed([one, other])], key=str)


async def _timeout(one: Any, other: Any) -> list[Any]:
    async with asyncio.timeout(600):
        return [await one, await other]


async def _group(one: Any, other: Any) -> list[Any]:
    async def _awaited(future: Awaitable[Any]) -> Any:
        return await future

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(one)), group.create_task(_awaited(other))]
    return [task.result() for task in tasks]


async def _callback(one: Any, other: Any) -> list[Any]:
    ended = asyncio.Event()

    def end(_: object) -> None:
        ended.set()

    one.add_done_callback(end)
    await ended.wait()
    return [one.result(), await other]


TOOLS = [_gather, _wait, _wait_for_the_first, _wait_for, _shield, _as_completed, _timeout, _group, _callback]
BY_NAME = {tool.__name__: tool for tool in TOOLS}


class Callee(Service, name="FormsCallee"):
    @handler
    async def answer(self, ctx: Context, answer: str, seconds: float) -> str:
        if seconds:
            await ctx.sleep(seconds)
        if answer == "fail":
            raise TerminalError("failed")
        return answer


class Caller(Service, name="FormsCaller"):
    @handler
    async def use(self, ctx: Context, tool: str, form: str, kind: str) -> list[Any]:
        shape = FORMS[form]
        kinds: dict[str, Callable[[str, float], Any]] = {
            "call": lambda answer, seconds: ctx.service(Callee).answer(answer, seconds),
            "run": lambda answer, seconds: ctx.run(answer, lambda: answer),
            "sleep": lambda answer, seconds: ctx.sleep(seconds),
        }
        made = kinds[kind]
        return await BY_NAME[tool](shape(made("a", 2)), shape(made("b", 1)))

    @handler
    async def loses(self, ctx: Context, form: str) -> str:
        late = FORMS[form](ctx.service(Callee).answer("late", 50))
        try:
            await asyncio.wait_for(late, 1)
        except TimeoutError:
            return await ctx.service(Callee).answer("given up", 0)
        return "in time"


REFUSED = [("_wait", "as it is"), ("_wait_for_the_first", "as it is")]
TABLE = [pair for pair in itertools.product(BY_NAME, FORMS) if pair not in REFUSED]


async def program(sim: Simulation) -> None:
    """All that works, at once."""

    async def use(tool: str, form: str) -> None:
        for kind, expected in (("call", ["a", "b"]), ("run", ["a", "b"]), ("sleep", [None, None])):
            assert await sim.service(Caller).use(tool, form, kind) == expected, (tool, form, kind)

    await asyncio.gather(*(use(*pair) for pair in TABLE), *(_loses(sim, form) for form in FORMS))


async def _loses(sim: Simulation, form: str) -> None:
    assert await sim.service(Caller).loses(form) == "given up"


def test_each_tool_takes_each_form_in_a_handler_and_replays_wherever_the_process_dies() -> None:
    simulate(program, Caller, Callee, runs=3, faults=Faults.any() - Faults.clock_jumps())


@pytest.mark.parametrize("tool", ["_wait", "_wait_for_the_first"])
async def test_what_asyncio_refuses_is_a_mistake_that_pauses_with_a_sentence(tool: str) -> None:
    async with Harness(Caller, Callee) as app:
        with pytest.raises(PausedInvocationError, match=r"asyncio\.wait was given .*ensure_future") as paused:
            await app.service(Caller).use(tool, "as it is", "call")
        assert isinstance(paused.value.__cause__, BareOperationError)


@pytest.mark.parametrize(("tool", "form"), [pair for pair in TABLE if pair != ("_callback", "as it is")])
async def test_each_tool_takes_each_form_outside_handlers(tool: str, form: str) -> None:
    shape = FORMS[form]
    async with Harness(Callee) as app:
        callee = app.service(Callee)
        assert await BY_NAME[tool](shape(callee.answer("a", 0)), shape(callee.answer("b", 0))) == ["a", "b"]
        with pytest.raises((TerminalError, ExceptionGroup)):
            await BY_NAME[tool](shape(callee.answer("a", 0)), shape(callee.answer("fail", 0)))

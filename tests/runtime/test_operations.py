"""What a runtime's calls return, outside handlers: every way in which asyncio waits works, or says why not.

And a call that was handed to asyncio is not forgotten, whether its answer is awaited or not.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from durably import Context, MemoryStore, Runtime, Service, TerminalError, handler, select
from durably.actors.protocol.operations import HostOperation

Call = Coroutine[Any, Any, int]


class Doubler(Service):
    @handler
    async def double(self, ctx: Context, number: int) -> int:
        if number < 0:
            raise TerminalError("negative")
        return 2 * number

    @handler
    async def double_slowly(self, ctx: Context, number: int) -> int:
        await ctx.sleep(0.01)
        return 2 * number


async def _in_a_group(call: Call) -> int:
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call)
    except* TerminalError as errors:
        raise errors.exceptions[0] from None
    return task.result()


async def _waited(call: Call) -> int:
    done, _ = await asyncio.wait([asyncio.ensure_future(call)])
    return done.pop().result()


async def _waited_for_a_set(call: Call) -> int:
    task = asyncio.create_task(call)
    done, _ = await asyncio.wait({task}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    assert done == {task}
    return task.result()


async def _completed(call: Call) -> int:
    for one in asyncio.as_completed([call]):
        return await one
    raise AssertionError


async def _timed(call: Call) -> int:
    async with asyncio.timeout(60):
        return await call


async def _gathered_twice(call: Call) -> int:
    first, second = await asyncio.gather(call, call)
    assert first == second
    return first


async def _selected(call: Call) -> int:
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    _, answer = await select(call=call, never=never)
    return answer


async def _awaited_twice(call: Call) -> int:
    await asyncio.wait([asyncio.create_task(call)])
    return await call


async def _called_back(call: Any) -> int:
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def tell(done: Any) -> None:
        if done.exception() is None:
            told.set_result(done.result())
        else:
            told.set_exception(done.exception())

    call.add_done_callback(tell)
    return await told


async def _awaited(call: Awaitable[int]) -> int:
    return await call


WAYS: dict[str, Callable[[Call], Awaitable[int]]] = {
    "await": _awaited,
    "await-twice": _awaited_twice,
    "create_task": asyncio.create_task,
    "ensure_future": asyncio.ensure_future,
    "TaskGroup": _in_a_group,
    "gather": lambda call: _first(asyncio.gather(call)),
    "gather-twice": _gathered_twice,
    "shield": asyncio.shield,
    "wait": _waited,
    "wait-set": _waited_for_a_set,
    "as_completed": _completed,
    "wait_for": lambda call: asyncio.wait_for(call, 60),
    "timeout": _timed,
    "select": _selected,
    "add_done_callback": _called_back,
}


async def _first(gathered: Awaitable[Sequence[int]]) -> int:
    return (await gathered)[0]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_every_way_to_wait_gives_the_answer_and_the_error(way: Callable[[Call], Awaitable[int]]) -> None:
    async with Runtime(MemoryStore(), [Doubler]) as runtime:
        doubler = runtime.service(Doubler)
        assert await way(doubler.double(21)) == 42
        done = doubler.double(1)
        await asyncio.wait([asyncio.create_task(done)])
        assert await way(done) == 2
        with pytest.raises(TerminalError, match="negative"):
            await way(doubler.double(-1))


HANDED_OVER: dict[str, Callable[[Call], object]] = {
    "create_task": asyncio.create_task,
    "ensure_future": asyncio.ensure_future,
    "gather": asyncio.gather,
    "shield": asyncio.shield,
}


@pytest.mark.parametrize("hand_over", HANDED_OVER.values(), ids=HANDED_OVER)
async def test_a_call_that_was_handed_to_asyncio_is_not_forgotten(hand_over: Callable[[Call], object]) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        async with Runtime(MemoryStore(), [Doubler]) as runtime:
            hand_over(runtime.service(Doubler).double(1))
            await runtime.service(Doubler).double(2)
        gc.collect()
    assert [str(warning.message) for warning in told] == []


async def test_one_that_was_not_is_named_and_so_is_what_asyncio_refuses() -> None:
    async with Runtime(MemoryStore(), [Doubler]) as runtime:
        call = runtime.service(Doubler).double(1)
        await runtime.service(Doubler).double(2)
        with pytest.warns(RuntimeWarning, match="Doubler/double was never awaited, at .*test_operations"):
            del call
        call = runtime.service(Doubler).double(1)
        with pytest.raises(TypeError, match="use tasks explicitly"):
            await asyncio.wait([call])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
        assert await call == 2


async def test_cancelling_the_task_abandons_the_answer_and_the_others_go_on() -> None:
    async with Runtime(MemoryStore(), [Doubler]) as runtime:
        call = runtime.service(Doubler).double_slowly(1)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(call, HostOperation)
        assert call.cancelled()
        shielded = runtime.service(Doubler).double_slowly(3)
        outer = asyncio.shield(shielded)
        await asyncio.sleep(0)
        outer.cancel()
        assert await shielded == 6

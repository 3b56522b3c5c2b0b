from __future__ import annotations

import asyncio

import pytest

from durably.actors import first_success, select, settled


async def test_the_first_to_finish_wins_by_name() -> None:
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    soon: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(soon.set_result, 3)
    assert await select(never=never, soon=soon) == ("soon", 3)
    assert not never.done()


async def test_of_several_the_first_argument_wins() -> None:
    async def value(number: int) -> int:
        return number

    assert await select(b=value(1), a=value(2)) == ("b", 1)


async def test_a_coroutine_that_lost_has_ended_and_a_future_stays_awaitable() -> None:
    ended: list[str] = []
    loop = asyncio.get_running_loop()

    async def slow() -> int:
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")
        return 1

    first: asyncio.Future[int] = loop.create_future()
    other: asyncio.Future[int] = loop.create_future()
    first.set_result(5)
    assert await select(slow=slow(), first=first, other=other) == ("first", 5)
    assert ended == ["slow"]
    other.set_result(6)
    assert await other == 6


async def test_a_loser_that_fails_while_it_ends_is_nobody_s_business() -> None:
    loop = asyncio.get_running_loop()

    async def sour() -> int:
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            raise ValueError("sour") from None
        return 1

    first: asyncio.Future[int] = loop.create_future()
    first.set_result(5)
    assert await select(sour=sour(), first=first) == ("first", 5)


async def test_the_error_of_the_winner_is_raised() -> None:
    async def failing() -> int:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await select(failing=failing())


async def test_cancelling_a_select_ends_its_coroutines() -> None:
    ended: list[str] = []

    async def slow() -> int:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("slow")
        return 1

    task = asyncio.ensure_future(select(slow=slow()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["slow"]


async def test_nothing_to_wait_for_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="at least one"):
        await select()


async def test_the_first_that_succeeds_wins_and_failures_before_it_are_passed_over() -> None:
    loop = asyncio.get_running_loop()
    failed, late, never = (loop.create_future() for _ in range(3))
    failed.set_exception(ValueError("no"))
    loop.call_soon(late.set_result, 7)
    assert await first_success(failed=failed, late=late, never=never) == ("late", 7)
    assert not never.done()


async def test_if_none_succeeds_all_errors_are_raised_in_the_order_of_the_arguments() -> None:
    async def fail(error: Exception) -> int:
        raise error

    with pytest.raises(ExceptionGroup) as failed:
        await first_success(a=fail(ValueError("a")), b=fail(KeyError("b")))
    assert [repr(error) for error in failed.value.exceptions] == ["ValueError('a')", "KeyError('b')"]
    with pytest.raises(TypeError, match=r"first_success\(\) needs at least one"):
        await first_success()


async def test_settled_has_every_result_and_every_error_by_name() -> None:
    async def give(value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return value

    results = await settled(a=give(1), b=give(-1), c=give(2))
    assert (results["a"], results["c"]) == (1, 2)
    assert isinstance(results["b"], ValueError)
    assert [*results] == ["a", "b", "c"]
    assert await settled() == {}

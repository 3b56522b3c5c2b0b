from __future__ import annotations

import asyncio

import pytest

from durably.actors import select


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

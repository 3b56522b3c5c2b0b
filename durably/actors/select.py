"""`select`: the first of several awaitables, by name, on nothing but asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from durably.actors.protocol.operations import HostOperation, Operation

T = TypeVar("T")


async def select(**racers: Awaitable[T]) -> tuple[str, T]:
    """The name and the result of the first to finish; of several at once, the first in the order of the arguments.

    Futures and tasks that lost stay awaitable (so do calls, runs and sleeps: nothing is abandoned); coroutines that
    lost are cancelled, and have ended when this returns. If the first to finish failed, its error is raised.
    """
    if not racers:
        raise TypeError("select() needs at least one thing to wait for: select(answer=..., timeout=...).")
    futures: dict[str, asyncio.Future[T]] = {}
    own: list[asyncio.Future[T]] = []
    for name, racer in racers.items():
        if isinstance(racer, Operation):
            futures[name] = racer
        elif isinstance(racer, HostOperation):
            futures[name] = racer.taken_over()
        else:
            futures[name] = asyncio.ensure_future(racer)
            if futures[name] is not racer:
                own.append(futures[name])
    try:
        await _first_done(futures.values())
        name = next(name for name, future in futures.items() if future.done())
    finally:
        await _end(own)
    return name, futures[name].result()


async def _first_done(futures: Iterable[asyncio.Future[T]]) -> None:
    """What `asyncio.wait` does, which refuses whatever is also a coroutine, as operations are."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: asyncio.Future[T]) -> None:
        if not woken.done():
            woken.set_result(None)

    racers = list(futures)
    for racer in racers:
        racer.add_done_callback(wake)
    try:
        await woken
    finally:
        for racer in racers:
            racer.remove_done_callback(wake)


async def _end(tasks: Iterable[asyncio.Future[T]]) -> None:
    """Cancel those that are not done, and let them end. The errors of those that lost are of no interest."""
    own = list(tasks)
    losers = [task for task in own if not task.done()]
    for task in losers:
        task.cancel()
    if losers:
        await asyncio.wait(losers)
    for task in own:
        if not task.cancelled():
            task.exception()

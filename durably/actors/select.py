"""Combinators by name, on nothing but asyncio: `select` (the first), `first_success`, `settled` (all)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, TypeVar

from durably.actors.protocol.operations import Operation

T = TypeVar("T")


async def select(**racers: Awaitable[T]) -> tuple[str, T]:
    """The name and the result of the first to finish; of several at once, the first in the order of the arguments.

    Futures and tasks that lost stay awaitable (so do calls, runs and sleeps: nothing is abandoned); coroutines that
    lost are cancelled, and have ended when this returns. If the first to finish failed, its error is raised.
    """
    if not racers:
        raise TypeError("select() needs at least one thing to wait for: select(answer=..., timeout=...).")
    futures = _futures(racers)
    own = [future for name, future in futures.items() if future is not racers[name]]
    try:
        await _first_done(futures.values())
        name = next(name for name, future in futures.items() if future.done())
    finally:
        await _end(own)
    return name, futures[name].result()


async def first_success(**racers: Awaitable[T]) -> tuple[str, T]:
    """The name and the result of the first that succeeds; what fails before it is passed over.

    What has not finished by then is left as `select` leaves it. If none succeeds, their errors are raised as an
    ExceptionGroup, in the order of the arguments: terminal if all of them are (rule E3).
    """
    if not racers:
        raise TypeError("first_success() needs at least one thing to wait for: first_success(here=..., there=...).")
    futures = _futures(racers)
    own = [future for name, future in futures.items() if future is not racers[name]]
    try:
        waiting = dict(futures)
        while waiting:
            await _first_done(waiting.values())
            for name in [name for name, future in waiting.items() if future.done()]:
                future = waiting.pop(name)
                if not future.cancelled() and future.exception() is None:
                    return name, future.result()
    finally:
        await _end(own)
    errors = [_error_of(future) for future in futures.values()]
    raise BaseExceptionGroup("none of them succeeded", errors)


async def settled(**racers: Awaitable[T]) -> dict[str, T | BaseException]:
    """All of them by name, when all have ended: the result, or the error that it raised."""
    futures = _futures(racers)
    results = await asyncio.gather(*futures.values(), return_exceptions=True)
    return dict(zip(futures, results, strict=True))


def _futures(racers: Mapping[str, Awaitable[T]]) -> dict[str, asyncio.Future[T]]:
    return {
        name: racer if isinstance(racer, Operation) else asyncio.ensure_future(racer) for name, racer in racers.items()
    }


def _error_of(future: asyncio.Future[Any]) -> BaseException:
    if future.cancelled():
        return asyncio.CancelledError()
    error = future.exception()
    assert error is not None
    return error


async def _first_done(futures: Iterable[asyncio.Future[T]]) -> None:
    """Does the work of `asyncio.wait`, which refuses every future that is also a coroutine, as operations are."""
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

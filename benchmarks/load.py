"""Load: callers that wait for each answer (closed loop), arrivals that wait for nothing (open loop), and the burner.

The guarantee: both sides of a comparison are driven by this code, so what it costs is in both. Arrivals of the open
loop are timed from the moment they were meant for, not from when the loop got round to them: no coordinated omission.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from time import perf_counter, perf_counter_ns
from typing import Any, TypeAlias

from benchmarks.measurement import NANOSECONDS

Operation: TypeAlias = Callable[[int], Awaitable[object]]
"""Does the work once. The argument numbers the operations, so that they spread over keys and lanes."""

PATIENCE_SECONDS = 5.0
"""How long answers may still come after the window before they count as unfinished."""
TICK_SECONDS = 0.001
"""How often arrivals are let in. Finer timers would keep the loop from ever being idle."""
BURNER_ITERATION_SECONDS = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time in which answers count."""

    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / NANOSECONDS


def window_from_now(warm_up_seconds: float, seconds: float) -> Window:
    begin_ns = perf_counter_ns() + int(warm_up_seconds * NANOSECONDS)
    return Window(begin_ns=begin_ns, end_ns=begin_ns + int(seconds * NANOSECONDS))


@dataclass(slots=True, kw_only=True)
class Observed:
    """What the callers of one window have seen."""

    latencies_ns: list[int] = field(default_factory=list[int])
    ended: int = 0
    """Operations that ended in the window; those of an open loop may have been meant for a time before it."""
    unfinished: int = 0


async def closed_loop(operation: Operation, *, callers: int, window: Window) -> Observed:
    """`callers` tasks that each do one operation after the other until the window closes."""
    observed = Observed()
    tasks = [
        asyncio.create_task(_call_repeatedly(operation, caller, callers, window, observed.latencies_ns))
        for caller in range(callers)
    ]
    observed.unfinished = await _outlast(tasks, window)
    observed.ended = len(observed.latencies_ns)
    return observed


async def _call_repeatedly(
    operation: Operation, number: int, stride: int, window: Window, latencies_ns: list[int]
) -> None:
    begin_ns, end_ns = window.begin_ns, window.end_ns
    started_ns = perf_counter_ns()
    while started_ns < end_ns:
        await operation(number)
        now_ns = perf_counter_ns()
        if begin_ns <= now_ns < end_ns:
            latencies_ns.append(now_ns - started_ns)
        number += stride
        started_ns = now_ns


async def open_loop(operation: Operation, *, rate_per_second: float, window: Window, random: Random) -> Observed:
    """Poisson arrivals, each a task of its own."""
    observed = Observed()
    tasks: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failures.append(error)

    number, meant_ns = 0, perf_counter_ns()
    while meant_ns < window.end_ns and not failures:
        now_ns = perf_counter_ns()
        while meant_ns <= now_ns and meant_ns < window.end_ns:
            task = asyncio.create_task(_arrive(operation, number, meant_ns, window, observed))
            tasks.add(task)
            task.add_done_callback(ended)
            number += 1
            meant_ns += int(random.expovariate(rate_per_second) * NANOSECONDS)
        await asyncio.sleep(TICK_SECONDS)
    observed.unfinished = await _outlast(tasks, window)
    if failures:
        raise failures[0]
    return observed


async def _arrive(operation: Operation, number: int, meant_ns: int, window: Window, observed: Observed) -> None:
    await operation(number)
    now_ns = perf_counter_ns()
    if window.begin_ns <= meant_ns:
        observed.latencies_ns.append(now_ns - meant_ns)
    if window.begin_ns <= now_ns < window.end_ns:
        observed.ended += 1


async def _outlast(tasks: Iterable[asyncio.Task[None]], window: Window) -> int:
    """Wait for the callers, and a little longer; how many had no answer even then."""
    waiting = set(tasks)
    if not waiting:
        return 0
    left = (window.end_ns - perf_counter_ns()) / NANOSECONDS
    done, late = await asyncio.wait(
        waiting, timeout=max(left, 0.0) + PATIENCE_SECONDS, return_when=asyncio.FIRST_EXCEPTION
    )
    failed = [task for task in done if task.exception() is not None]
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in failed:
        task.result()
    return len(late)


async def prepare(operation: Operation, operations: int, *, at_once: int) -> None:
    """Do it so often, with nobody looking: what happens only at first has happened then."""
    numbers = iter(range(operations))

    async def work() -> None:
        for number in numbers:
            await operation(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


def burn(seconds: float) -> None:
    """Keep the processor busy."""
    until = perf_counter() + seconds
    while perf_counter() < until:
        pass


async def never_idle() -> None:
    """A host task as programs have them: it works for a while, lets others run, and never waits."""
    while True:
        burn(BURNER_ITERATION_SECONDS)
        await asyncio.sleep(0)


@asynccontextmanager
async def beside(task: Callable[[], Any] | None) -> AsyncGenerator[None]:
    """Run a coroutine function beside the block."""
    if task is None:
        yield
        return
    running = asyncio.ensure_future(task())
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

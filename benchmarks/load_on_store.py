"""`load`: so many callers for some seconds, for comparisons of stores and engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Final, NamedTuple

SECONDS: Final = 2.0

Operation = Callable[[int], Awaitable[object]]


class Figures(NamedTuple):
    """Of one workload in one round."""

    median_ms: float
    per_second: float


async def load(operation: Operation, callers: int, *, seconds: float = SECONDS) -> Figures:
    """So many callers, each of whom calls again once it has been answered."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def call(caller: int) -> None:
        number = caller
        while (start := time.perf_counter()) - began < seconds:
            await operation(number)
            latencies.append(time.perf_counter() - start)
            number += callers

    await asyncio.gather(*map(call, range(callers)))
    return Figures(1000 * median(latencies), len(latencies) / (time.perf_counter() - began))

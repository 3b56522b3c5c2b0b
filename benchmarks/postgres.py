"""`python -m benchmarks.postgres postgresql://…`: the same calls on a SQLite file and on PostgreSQL, in turns.

The schema `durably_benchmark` of the database is dropped before and after. Of each workload the median of the latencies
and the rate are those of the best of the rounds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import psycopg

from benchmarks.actors import Counter, Steps
from durably.runtime.runtime import Runtime

SCHEMA: Final = "durably_benchmark"
SECONDS: Final = 2.0
ROUNDS: Final = 3
KEYS: Final = 256

Operation = Callable[[int], Awaitable[object]]


class Figures(NamedTuple):
    """Of one workload in one round."""

    median_ms: float
    per_second: float


async def load(operation: Operation, callers: int) -> Figures:
    """So many callers, each of whom calls again once it has been answered."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def call(caller: int) -> None:
        number = caller
        while (start := time.perf_counter()) - began < SECONDS:
            await operation(number)
            latencies.append(time.perf_counter() - start)
            number += callers

    await asyncio.gather(*map(call, range(callers)))
    return Figures(1000 * median(latencies), len(latencies) / (time.perf_counter() - began))


async def measure(url: str) -> dict[str, Figures]:
    async with Runtime(url, [Counter, Steps]) as runtime:
        counters = [runtime.object(Counter, str(number)) for number in range(KEYS)]

        def add(number: int) -> Awaitable[object]:
            return counters[number % KEYS].add(1)

        def steps(number: int) -> Awaitable[object]:
            return runtime.service(Steps).three(number)

        await asyncio.gather(*map(add, range(KEYS)))  # Connections, statements and objects are warm.
        return {
            "a call, one caller": await load(add, 1),
            "calls, 64 callers": await load(add, 64),
            "three steps, one caller": await load(steps, 1),
            "three steps, 64 callers": await load(steps, 64),
        }


def drop(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {SCHEMA} cascade".encode())


def main(url: str) -> None:
    best: dict[tuple[str, str], Figures] = {}
    drop(url)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        stores = {
            "SQLite": f"sqlite:///{folder}/benchmark.db",
            "PostgreSQL": f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}",
        }
        for _ in range(ROUNDS):
            for store, place in stores.items():
                for workload, found in asyncio.run(measure(place)).items():
                    before = best.get((workload, store), found)
                    best[workload, store] = Figures(
                        min(before.median_ms, found.median_ms), max(before.per_second, found.per_second)
                    )
    drop(url)
    for (workload, store), found in sorted(best.items()):
        print(f"{workload:26} {store:12} p50 {found.median_ms:8.2f} ms {found.per_second:10,.0f} /s")


if __name__ == "__main__":
    main(sys.argv[1])

"""`python -m benchmarks.postgres postgresql://…`: the same calls on a SQLite file and on PostgreSQL, in turns.

Where DBOS is installed (`pip install dbos`), so is the same load on DBOS, on the same server. The schema
`durably_benchmark` and the database `durably_benchmark_dbos` are dropped before and after. Of each workload the median
of the latencies and the rate are those of the best of the rounds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks import with_dbos
from benchmarks.actors import Counter, Steps
from benchmarks.load_on_store import Figures, load
from durably.runtime.runtime import Runtime

SCHEMA: Final = "durably_benchmark"
ROUNDS: Final = 3
KEYS: Final = 256


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
        measured: dict[str, Callable[[], Coroutine[Any, Any, dict[str, Figures]]]] = {
            "SQLite": partial(measure, f"sqlite:///{folder}/benchmark.db"),
            "PostgreSQL": partial(measure, f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}"),
        }
        if with_dbos.is_here():
            with_dbos.make(url)
            measured["DBOS"] = partial(with_dbos.measure, url)
        for _ in range(ROUNDS):
            for store, one in measured.items():
                for workload, found in asyncio.run(one()).items():
                    before = best.get((workload, store), found)
                    best[workload, store] = Figures(
                        min(before.median_ms, found.median_ms), max(before.per_second, found.per_second)
                    )
    drop(url)
    if with_dbos.is_here():
        with_dbos.drop(url)
    for (workload, store), found in sorted(best.items()):
        print(f"{workload:26} {store:12} p50 {found.median_ms:8.2f} ms {found.per_second:10,.0f} /s")


if __name__ == "__main__":
    main(sys.argv[1])

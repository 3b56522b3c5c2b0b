"""durably, embedded: a `Runtime` on a SQLite file in the loop of its callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.actors import Counter, Large, Link, Steps
from benchmarks.inside import counts_of
from benchmarks.load import Operation
from benchmarks.subject import BURN_SECONDS, CHAIN_CALLS, FIELD_BYTES, KEYS, LANES, InProcess, Running, large_body
from durably.runtime.runtime import Runtime
from durably.storage import SqliteStore


@asynccontextmanager
async def _open(folder: Path, workload: str) -> AsyncGenerator[Running]:
    async with Runtime(SqliteStore(folder / "durably.db"), [Counter, Steps, Link, Large]) as runtime:
        if workload == "call-beside-field":
            await runtime.object(Large, "field").keep(FIELD_BYTES)
        sized = workload.startswith("size-")
        operation = _sized(runtime, int(workload.removeprefix("size-"))) if sized else operations_on(runtime)[workload]
        yield Running(operation=operation, counts=lambda: counts_of(runtime), prepared=1 if sized else None)


def _sized(runtime: Runtime, size_mb: int) -> Operation:
    body = large_body(size_mb)
    return lambda number: runtime.call("Large", "take", body, key="one")


def operations_on(runtime: Runtime) -> dict[str, Operation]:
    """What the callers of each workload do."""
    keys = [f"counter-{number}" for number in range(KEYS)]
    lanes = [f"{number}/0" for number in range(LANES)]
    return {
        "call": lambda number: runtime.object(Counter, keys[number % KEYS]).add(1),
        "call-beside-field": lambda number: runtime.object(Counter, keys[number % KEYS]).add(1),
        "burning": lambda number: runtime.object(Counter, keys[number % KEYS]).burn(BURN_SECONDS),
        "steps": lambda number: runtime.service(Steps).three(number),
        "chain": lambda number: runtime.object(Link, lanes[number % LANES]).pass_on(CHAIN_CALLS),
    }


subject = InProcess(open=_open)

"""durably, embedded: a `Runtime` on a SQLite file in the loop of its callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.actors import Counter, Link, Steps
from benchmarks.inside import counts_of
from benchmarks.load import Operation
from benchmarks.subject import BURN_SECONDS, CHAIN_CALLS, KEYS, LANES, InProcess, Running
from durably.runtime.runtime import Runtime
from durably.storage import SqliteStore


@asynccontextmanager
async def _open(folder: Path, workload: str) -> AsyncGenerator[Running]:
    async with Runtime(SqliteStore(folder / "durably.db"), [Counter, Steps, Link]) as runtime:
        yield Running(operation=operations_on(runtime)[workload], counts=lambda: counts_of(runtime))


def operations_on(runtime: Runtime) -> dict[str, Operation]:
    """What the callers of each workload do."""
    keys = [f"counter-{number}" for number in range(KEYS)]
    lanes = [f"{number}/0" for number in range(LANES)]
    return {
        "call": lambda number: runtime.object(Counter, keys[number % KEYS]).add(1),
        "burning": lambda number: runtime.object(Counter, keys[number % KEYS]).burn(BURN_SECONDS),
        "steps": lambda number: runtime.service(Steps).three(number),
        "chain": lambda number: runtime.object(Link, lanes[number % LANES]).pass_on(CHAIN_CALLS),
    }


subject = InProcess(open=_open)

"""The process whose instructions are counted: `python -m benchmarks.counted <folder> <part> ...`, under callgrind.

Callgrind writes a file of counts whenever `getppid` is called: before a part, for everything that went before, and
behind it. Under it the processor seems some fifty times slower, so the runtime's clock runs slower too and limits in
time mean what they mean otherwise, also that after which the ingress looks for its client. It makes no room for
threads (rule X8): that depends on time alone.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks.actors import Counter, Link, Steps
from benchmarks.child import fastest_loop
from benchmarks.load import prepare
from benchmarks.subject import KEYS
from benchmarks.subjects.durably_in_process import operations_on
from durably.ingress import app as ingress
from durably.runtime.clock import Cancellable, SystemClock
from durably.runtime.environment import Environment
from durably.runtime.runtime import Runtime
from durably.runtime.settings import Settings
from durably.storage import SqliteStore
from workloads import WORKLOADS

SLOWER: Final = 50
"""How many times slower callgrind makes a program, roughly."""
WARM_UP_CALLS: Final = 100
"""Enough for each lane of the chains to have been there once."""
SIMULATED_RUNS: Final = 3
MARK: Final = "getppid"
"""The function of the C library whose call is a mark: nothing else calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """So many callers that each ask so often, one call at a time."""

    title: str
    workload: str
    callers: int
    calls_each: int

    @property
    def calls(self) -> int:
        return self.callers * self.calls_each


PARTS: Final = {
    "calls-1": Part(title="one call, one caller", workload="call", callers=1, calls_each=100),
    "calls-64": Part(title="calls, 64 callers", workload="call", callers=64, calls_each=16),
    "ingress-64": Part(title="calls through the ingress, 64 callers", workload="ingress", callers=64, calls_each=16),
    "calls-1024": Part(title="calls, 1,024 callers", workload="call", callers=1024, calls_each=3),
    "steps-1024": Part(title="three steps, 1,024 callers", workload="steps", callers=1024, calls_each=1),
    "simulation": Part(title="a simulated run", workload="simulation", callers=1, calls_each=SIMULATED_RUNS),
    "chain-20": Part(title="chain of ten, 20 callers", workload="chain", callers=20, calls_each=8),
}
"""What is counted. Of 100 chains at once a batch may take some in the middle, or not: that depends on time."""


class SlowClock(SystemClock):
    """Counts the processor time of a program that does everything slower; a busy machine does not make it run ahead."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        super().__init__()
        self._started = super().now()

    def now(self) -> int:
        return self._started + self.monotonic()

    def monotonic(self) -> int:
        return time.process_time_ns() // (1000 * SLOWER)

    def call_later(self, delay_us: int, callback: Callable[..., Any], /, *args: Any) -> Cancellable:
        return super().call_later(delay_us * SLOWER, callback, *args)

    async def sleep(self, delay_us: int, /) -> None:
        await super().sleep(delay_us * SLOWER)


async def count(folder: Path, names: list[str]) -> None:
    """Do each part once unseen, so that all is warm, and once between two marks."""
    environment = Environment(clock=SlowClock(), settings=Settings(give_way_us=None))
    actors = [Counter, Steps, Link]
    async with Runtime(SqliteStore(folder / "counted.db"), actors, environment=environment) as runtime:
        operations = operations_on(runtime) | {"ingress": through_the_ingress(runtime), "simulation": in_simulation}
        await prepare(operations["call"], KEYS, at_once=64)
        for name in names:
            part = PARTS[name]
            operation = operations[part.workload]
            await prepare(operation, min(part.calls, WARM_UP_CALLS), at_once=64)
            gc.collect()
            gc.freeze()  # A full collection would go through all that was imported, once more or once less.
            mark()
            await asyncio.gather(*[_call_repeatedly(operation, caller, part) for caller in range(part.callers)])
            mark()


def through_the_ingress(runtime: Runtime) -> Callable[[int], Any]:
    """A call as a server hands it over; what the server itself does for it is not in it."""
    application = runtime.asgi()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"1")]
    head = {"type": "http", "http_version": "1.1", "method": "POST", "root_path": "", "query_string": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message.get("status", 200) == 200, message

    async def call(number: int) -> None:
        bodies = [b"1"]

        async def receive() -> dict[str, Any]:
            if not bodies:  # The ingress looks for its client, which waits.
                await asyncio.get_running_loop().create_future()
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        path = f"/Counter/counter-{number % KEYS}/add"
        await application({**head, "path": path, "raw_path": path.encode(), "headers": headers}, receive, send)

    return call


async def in_simulation(number: int) -> None:
    """A run of the kit for tests, with faults; its event loop cannot run on this one's thread."""
    await asyncio.to_thread(WORKLOADS["promises"].run, number)


async def _call_repeatedly(operation: Callable[[int], Any], caller: int, part: Part) -> None:
    for number in range(caller, part.calls, part.callers):
        await operation(number)


def mark() -> None:
    """Callgrind writes what it has counted since the last mark."""
    os.getppid()


def main() -> None:
    with (
        patch.object(ingress, "PATIENCE_SECONDS", ingress.PATIENCE_SECONDS * SLOWER),
        asyncio.Runner(loop_factory=fastest_loop()) as runner,
    ):
        runner.run(count(Path(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()

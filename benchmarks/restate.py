"""`python -m benchmarks.restate http://127.0.0.1:8080 http://127.0.0.1:9070`: the same calls on SQLite and on Restate.

The server at these addresses, its ingress and its admin API, runs already. SQLite is called within the process, Restate
over HTTP, as each is used. Both engines are measured, in deployments of their own. Of each workload the median of the
latencies and the rate are those of the best of the rounds.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import durably.restate
from benchmarks.actors import Counter, Steps
from benchmarks.load_on_store import Figures, load
from durably.actors.caller import Caller
from durably.runtime.runtime import Runtime

SECONDS: Final = 3.0
ROUNDS: Final = 2
KEYS: Final = 256
ACTORS: Final = (Counter, Steps)


def public() -> durably.restate.Deployment:
    """What is served with the default engine."""
    return durably.restate.app(*ACTORS)


def vm() -> durably.restate.Deployment:
    """What is served with the other one."""
    return durably.restate.app(*ACTORS, engine="vm")


async def measure(caller: Caller) -> dict[str, Figures]:
    def add(number: int) -> Awaitable[object]:
        return caller.object(Counter, str(number % KEYS)).add(1)

    def steps(number: int) -> Awaitable[object]:
        return caller.service(Steps).three(number)

    await asyncio.gather(*map(add, range(16)))  # Connections and code are warm.
    return {
        "a call, one caller": await load(add, 1, seconds=SECONDS),
        "calls, 16 callers": await load(add, 16, seconds=SECONDS),
        "three steps, one caller": await load(steps, 1, seconds=SECONDS),
        "three steps, 16 callers": await load(steps, 16, seconds=SECONDS),
    }


@contextmanager
def deployed(engine: Literal["public", "vm"], admin_url: str) -> Generator[None, None, None]:
    """A deployment in a process of its own, registered."""
    command = [
        sys.executable, "-m", "durably.cli", "serve-restate", f"benchmarks.restate:{engine}", "--port", "0",
        "--register", admin_url, "--yes",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            if not any(line.startswith("Registered") for line in process.stderr):
                raise SystemExit("The deployment could not be registered.")
            yield
        finally:
            process.terminate()


async def measure_runtime() -> dict[str, Figures]:
    with tempfile.TemporaryDirectory() as folder:
        async with Runtime(Path(folder) / "benchmark.db", ACTORS) as runtime:
            return await measure(runtime)


async def measure_restate(ingress_url: str) -> dict[str, Figures]:
    async with durably.restate.Client(ingress_url) as client:
        return await measure(client)


def main(ingress_url: str, admin_url: str) -> None:
    best: dict[tuple[str, str], Figures] = {}

    def keep(subject: str, found: dict[str, Figures]) -> None:
        for workload, figures in found.items():
            known = best.get((workload, subject), figures)
            best[workload, subject] = max(known, figures, key=lambda one: one.per_second)

    for _ in range(ROUNDS):
        keep("SQLite", asyncio.run(measure_runtime()))
        for engine in ("public", "vm"):
            with deployed(engine, admin_url):
                keep(f"Restate, {engine}", asyncio.run(measure_restate(ingress_url)))
    for (workload, subject), figures in sorted(best.items()):
        print(f"{workload:<26} {subject:<16} {figures.median_ms:8.2f} ms {figures.per_second:9,.0f}/s")


if __name__ == "__main__":
    main(*sys.argv[1:3])

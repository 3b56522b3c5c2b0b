"""Cold objects under a memory limit: `python -m benchmarks.cold_objects --objects 100000`.

Each object is written once and read twice, in two rounds, so each is loaded from the store again. What the process
takes up must not grow with their number. A line for each tenth of the way says how much that is.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from durably import Limits, ObjectContext, Runtime, SqliteStore, VirtualObject, handler, state

AT_ONCE = 64
MIB = 1 << 20
STATE_BYTES = 2_000
FLAT_MIB = 48.0
"""How much more it may take up in the last round than when a tenth of the first was done."""


class Cold(VirtualObject, name="BenchmarkCold"):
    """Some text."""

    text: str = state(default="")

    @handler
    async def write(self, ctx: ObjectContext) -> None:
        self.text = self.key * (STATE_BYTES // len(self.key))

    @handler
    async def size(self, ctx: ObjectContext) -> int:
        return len(self.text)


def resident_mib() -> float:
    """What this process takes up in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / MIB


async def visit(runtime: Runtime, keys: list[str], *, writes: bool) -> None:
    async def visit_some(some: list[str]) -> None:
        for key in some:
            cold = runtime.object(Cold, key)
            await (cold.write() if writes else cold.size())

    await asyncio.gather(*(visit_some(keys[lane::AT_ONCE]) for lane in range(AT_ONCE)))


async def measure(objects: int, limits: Limits) -> list[float]:
    """What the process took up after each tenth of each round, in MiB."""
    taken: list[float] = []
    keys = [f"object-{number:07}" for number in range(objects)]
    tenth = max(1, objects // 10)
    with tempfile.TemporaryDirectory() as folder:
        async with Runtime(SqliteStore(Path(folder) / "cold.db"), [Cold], limits=limits) as runtime:
            for title in ("written", "read", "read again"):
                for first in range(0, objects, tenth):
                    began = time.perf_counter()
                    some = keys[first : first + tenth]
                    await visit(runtime, some, writes=title == "written")
                    rate = len(some) / (time.perf_counter() - began)
                    taken.append(resident_mib())
                    print(f"{first + len(some):8} objects {title:10} {rate:8.0f}/s {taken[-1]:8.1f} MiB", flush=True)
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--active-objects", type=int, default=100_000)
    parser.add_argument("--active-mib", type=int, default=8)
    chosen = parser.parse_args()
    limits = Limits(active_objects=chosen.active_objects, active_bytes=chosen.active_mib * MIB)
    taken = asyncio.run(measure(chosen.objects, limits))
    grown = taken[-1] - taken[0]
    print(f"it grew by {grown:.1f} MiB after the first tenth; at most {FLAT_MIB} are flat")
    return 0 if grown <= FLAT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())

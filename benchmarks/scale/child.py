"""One life of a case, in a new process; `python -m benchmarks.scale.child NAME LIFE SIZE FOLDER` prints its phases."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.child import fastest_loop
from benchmarks.scale.cases import case_named
from benchmarks.scale.meter import Meter


async def live(name: str, life: int, size: int, folder: Path) -> None:
    meter = Meter()
    await case_named(name).lives[life](meter, folder, size)
    meter.tell()


def main() -> None:
    name, life, size, folder = sys.argv[1:]
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(live(name, int(life), int(size), Path(folder)))


if __name__ == "__main__":
    main()

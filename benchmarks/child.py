"""The process that measures: `python -m benchmarks.child <spec as JSON> <folder>` prints one sample as JSON.

A fresh interpreter for each measurement: nothing is warm but what production has warm, garbage is collected as in
production, and nothing is imported but what is measured. It may be run by hand under a profiler.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.measure import measure
from benchmarks.measurement import Spec


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        sample = runner.run(measure(spec, Path(sys.argv[2])))
    print(msgspec.json.encode(sample).decode())


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop, where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()

"""Run as a program: the digests of some runs of each workload, which must not depend on the process.

Arguments: the first seed, the last one plus one, and after how many new containers Python's garbage collector looks.
"""

from __future__ import annotations

import gc
import sys

from durably.testing import Faults, Simulation
from workloads import WORKLOADS


def digests(first: int, last: int) -> list[str]:
    """One for each workload and seed."""
    found: list[str] = []
    for name, workload in WORKLOADS.items():
        for seed in range(first, last):
            with Simulation(*workload.actors, seed=seed, faults=Faults.any(), **workload.options) as sim:
                sim.run(workload.program(sim))
                sim.finish()
                found.append(f"{name} {seed} {sim.trace.digest()}")
    return found


if __name__ == "__main__":
    gc.set_threshold(int(sys.argv[3]))
    print("\n".join(digests(int(sys.argv[1]), int(sys.argv[2]))))

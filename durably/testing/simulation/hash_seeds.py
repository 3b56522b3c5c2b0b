"""`compare_hash_seeds`: whether runs are the same in processes with other hash seeds.

Python gives text another hash in each process, so what is iterated over in a set comes in another order after a
restart. All runs in one process share that order and cannot show it. So the same seeds run in two processes, with
`PYTHONHASHSEED` 1 and 2, and what happened is compared to the letter.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import zip_longest
from typing import Any, Unpack

from durably.actors.actor import Actor
from durably.testing.simulation.campaign import Campaign, Program, check_program
from durably.testing.simulation.faults import Faults
from durably.testing.simulation.options import Options

HASH_SEEDS = ("1", "2")


class HashSeedError(AssertionError):
    """A run is another one in a process with another hash seed, so a replay after a restart may be, too."""


def compare_hash_seeds(
    program: Program,
    *actors: type[Actor],
    runs: int = 20,
    faults: Faults | None = None,
    **options: Unpack[Options],
) -> int:
    """Run a program in two processes with other hash seeds, and compare all that happened. How many runs that were.

    The program, the actors and the options are found in the other processes by their names, so they stand at the top
    of their modules.

    Raises:
        HashSeedError: a run differs; shows the first difference.
        TypeError: something has no name by which it can be found.
    """
    check_program(program, actors, runs, faults)
    chosen = Faults.any() if faults is None else faults
    try:
        work = pickle.dumps((program, actors, runs, chosen, options))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"Other processes find a program, its actors and its options by their names: {error}. Write them at the "
            "top of a module, as functions and classes."
        ) from error
    first, second = (_in_a_process(work, hash_seed) for hash_seed in HASH_SEEDS)
    for seed, (one, other) in enumerate(zip(first, second, strict=True)):
        for left, right in zip_longest(one, other, fillvalue="(nothing more)"):
            if left != right:
                raise HashSeedError(
                    f"The run with seed {seed} depends on the hash of text, which is another one in each process. With "
                    f"PYTHONHASHSEED={HASH_SEEDS[0]} and {HASH_SEEDS[1]}:\n    {left}\n    {right}\n"
                    "Most likely a handler iterates over a set of strings: sort it first."
                )
    return len(first)


def _in_a_process(work: bytes, hash_seed: str) -> list[list[str]]:
    """What happened in each run, a line each."""
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=work,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError(f"The other process failed: {done.stderr.decode(errors='replace').strip()}")
    found: list[list[str]] = pickle.loads(done.stdout)
    return found


def _main() -> None:
    """In another process: make the runs, and tell what happened."""
    program, actors, runs, faults, options = pickle.load(sys.stdin.buffer)
    campaign = Campaign("simulate", program, actors, options)
    told: list[list[str]] = []
    for seed in range(runs):
        attempt: Any = campaign.attempt_seed(seed, faults)
        told.append([str(tuple(entry)) for entry in attempt.simulation.trace.entries])
    sys.stdout.buffer.write(pickle.dumps(told))


if __name__ == "__main__":
    _main()

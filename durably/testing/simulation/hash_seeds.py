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
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

from durably.actors.actor import Actor
from durably.testing.simulation.campaign import Campaign, Program, check_program
from durably.testing.simulation.failures import FOLDER_VARIABLE
from durably.testing.simulation.faults import Faults
from durably.testing.simulation.options import Options
from durably.testing.simulation.recording import TRACES_VARIABLE, Recorded, recorded

HASH_SEEDS = ("1", "2")


class HashSeedError(AssertionError):
    """A run differs in a process with another hash seed, so a replay after a restart may differ, too."""


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
    first, second = (_in_a_process([sys.executable, "-m", __name__], work, hash_seed) for hash_seed in HASH_SEEDS)
    return _compared(first, second)


def compare_hash_seeds_of_command(command: Sequence[str], folder: Path) -> int:
    """Run a command that makes simulated runs in two processes with other hash seeds, and compare all that happened.

    How many runs that were. The command is run in a folder, and has to succeed.

    Raises:
        HashSeedError: a run differs; shows the first difference.
        RuntimeError: the command failed.
    """
    first, second = (_in_a_process(command, b"", hash_seed, folder) for hash_seed in HASH_SEEDS)
    return _compared(first, second)


def _compared(first: Sequence[Recorded], second: Sequence[Recorded]) -> int:
    for (seed, one), (_, other) in zip(first, second, strict=True):
        for left, right in zip_longest(one, other, fillvalue="(nothing more)"):
            if left != right:
                raise HashSeedError(
                    f"The run with seed {seed} depends on the hash of text, which differs from process to process. "
                    f"With PYTHONHASHSEED={HASH_SEEDS[0]} and {HASH_SEEDS[1]}:\n    {left}\n    {right}\n"
                    "Most likely a handler iterates over a set of strings: sort it first."
                )
    return len(first)


def _in_a_process(
    command: Sequence[str], work: bytes, hash_seed: str, folder: Path | None = None
) -> Sequence[Recorded]:
    """What happened in each run."""
    with TemporaryDirectory(prefix="durably-") as place:
        traces = Path(place) / "traces"
        done = subprocess.run(
            command,
            input=work,
            capture_output=True,
            check=False,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                TRACES_VARIABLE: str(traces),
                FOLDER_VARIABLE: "",
            },
        )
        if done.returncode:
            told = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise RuntimeError(f"The process with PYTHONHASHSEED={hash_seed} failed: {told}")
        return recorded(traces)


def _main() -> None:
    """In another process: make the runs, which are recorded."""
    program, actors, runs, faults, options = pickle.load(sys.stdin.buffer)
    campaign = Campaign("simulate", program, actors, options)
    for seed in range(runs):
        campaign.attempt_seed(seed, faults)


if __name__ == "__main__":
    _main()

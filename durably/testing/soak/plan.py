"""What is to be run: workloads by name, and which seed of which workload comes when."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from pkgutil import resolve_name

import durably
from durably.testing.simulation.workload import Workload

RUNS_PER_TASK = 8
"""What a process is given at once: enough to keep it busy, and little enough to end soon when asked to."""


class UnknownWorkloadError(ValueError):
    """A workload cannot be had under this name; the message says why, and what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Seeds of one workload, one after the other."""

    workload: str
    seeds: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The workloads take turns, each with the seeds from `first_seed` on."""

    workloads: Sequence[str]
    first_seed: int
    runs: int | None = None
    """How many in all; None is without end."""

    def tasks(self) -> Iterator[Runs]:
        """All runs, in portions."""
        left = self.runs
        for turn in count():
            for place, workload in enumerate(self.workloads):
                share = RUNS_PER_TASK
                if left is not None:  # The last portions are shared out evenly.
                    share = min(share, -(-left // (len(self.workloads) - place)))
                    left -= share
                if share:
                    first = self.first_seed + turn * RUNS_PER_TASK
                    yield Runs(workload=workload, seeds=range(first, first + share))
            if left == 0:
                return


def default_workloads() -> Mapping[str, Workload]:
    """Durably's own workloads by name. They lie beside the package in a checkout, and are not installed.

    Raises:
        UnknownWorkloadError: this is not a checkout.
    """
    checkout = Path(durably.__file__).parents[1]
    if not ((checkout / "workloads").is_dir() and (checkout / "pyproject.toml").is_file()):
        raise UnknownWorkloadError(
            "Durably's own workloads are not installed with it; they are in its source tree. Name one of yours: "
            "--workload module:attribute, such as --workload tests.soak:WORKLOAD."
        )
    _make_importable(checkout)
    found: Mapping[str, Workload] = import_module("workloads").WORKLOADS
    return found


def load_workload(name: str) -> Workload:
    """One of durably's own by its name, or any by `module:attribute`, searched in the current folder first.

    Raises:
        UnknownWorkloadError: there is none.
    """
    if ":" not in name:
        ours = default_workloads()
        if name in ours:
            return ours[name]
        raise UnknownWorkloadError(
            f"There is no workload {name!r}. There are {', '.join(ours)}; "
            "one of your own is named as module:attribute, such as tests.soak:workload."
        )
    _make_importable(Path.cwd())
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownWorkloadError(f"The workload {name!r} cannot be had: {error}.") from error
    if not isinstance(found, Workload):
        raise UnknownWorkloadError(
            f"{name} is of type {type(found).__name__}, not a durably.testing.Workload. Write "
            f"{name.rpartition(':')[2]} = Workload(program=..., actors=(...,))."
        )
    return found


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

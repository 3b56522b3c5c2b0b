"""`Meter`: the phases of one life of a process, each with its time and with how much memory it has taken up."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Literal, TypeAlias

import msgspec

from benchmarks.cold_objects import resident_mib

Shape: TypeAlias = Literal["flat", "linear"]
"""How the time of a phase may grow with the size: not at all, or as much as the size."""
STEADY_MIB: Final = 64.0
"""What a process may take up more at ten times the size, where its memory must not grow."""


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a life that is measured."""

    title: str
    shape: Shape
    operations: int
    """What the time is divided by."""
    seconds: float
    grown_mib: float
    """What the process takes up at its end beyond what it took up at its begin."""
    holds_all: bool
    """What there is has to be in memory, so that may grow."""


class Meter:
    """Measures the phases of one life."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []

    @contextmanager
    def phase(self, title: str, shape: Shape, operations: int = 1, *, holds_all: bool = False) -> Generator[None]:
        gc.collect()
        before_mib, began = resident_mib(), perf_counter()
        yield
        seconds = perf_counter() - began
        gc.collect()
        grown_mib = max(0.0, resident_mib() - before_mib)
        grown = Phase(
            title=title, shape=shape, operations=operations, seconds=seconds, grown_mib=grown_mib, holds_all=holds_all
        )
        self.phases.append(grown)

    def tell(self) -> None:
        """Print the phases, for the process that reads them."""
        print(msgspec.json.encode(self.phases).decode(), flush=True)

    def crash(self) -> None:
        """Tell, and end this process as a kill does."""
        self.tell()
        sys.stdout.flush()
        os._exit(0)

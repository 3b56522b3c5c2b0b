"""What may be chosen about simulations besides their seed, their faults and their order, and what a campaign knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.testing.simulation.faults import Extent
from durably.testing.simulation.process_memory import ProcessMemory

Dependencies: TypeAlias = Mapping[Any, Any] | Callable[[], Mapping[Any, Any]]


class Options(TypedDict, total=False):
    """How simulations are made, besides their seeds."""

    dependencies: Dependencies | None
    """Should be a function that makes them, unless they remember nothing."""
    retry: RetryPolicy
    """Of handlers and actions without a policy of their own. By default each invocation gets one attempt."""
    suspend_after: Duration | None
    """How long an attempt waits in memory; None: as the seed says."""
    longest: Duration
    """Virtual time after which a program that has not ended is given up."""
    allow: Collection[str]
    """Modules that may read clocks and roll dice in handlers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What earlier runs have shown of a program."""

    extent: Extent | None = None
    """How many opportunities for faults it has; None: faults that the seed places lie where it guesses."""
    memory: ProcessMemory | None = None
    """What the actors' code has in globals; None: it is looked for when the first program runs."""


NOTHING_KNOWN = Known()

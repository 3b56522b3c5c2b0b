"""`Workload`: a program with its actors, as a value: what a soak runs again and again, each time with another seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from durably.actors.actor import Actor
from durably.actors.retry import RetryPolicy
from durably.testing.harness.harness import ONE_ATTEMPT
from durably.testing.report import Report
from durably.testing.simulation.campaign import Program, simulate
from durably.testing.simulation.faults import Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What `simulate` takes, in one value with a name: `python -m durably.testing soak --workload app.tests:name`.

    `program` takes its choices from the module `random`, which each run seeds, and checks at its end what must be true
    then. `dependencies` makes the world outside of one run. `faults` is None for all kinds, chosen by each run's seed.
    """

    program: Program
    actors: tuple[type[Actor], ...]
    dependencies: Callable[[], Mapping[Any, Any]] | None = None
    retry: RetryPolicy = ONE_ATTEMPT
    faults: Faults | None = None

    def run(self, seed: int) -> Report:
        """One run.

        Raises:
            SimulationFailedError: it failed.
        """
        return simulate(
            self.program,
            *self.actors,
            seed=seed,
            faults=self.faults,
            dependencies=self.dependencies,
            retry=self.retry,
        )

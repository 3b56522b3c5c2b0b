"""`Workload`: a program with its actors, as a value: what a soak runs again and again, each time with another seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from durably.actors.actor import Actor
from durably.actors.limits import Limit
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy
from durably.testing.harness.harness import ONE_ATTEMPT
from durably.testing.report import Report
from durably.testing.simulation.campaign import Campaign, Program
from durably.testing.simulation.faults import Faults
from durably.testing.simulation.options import MAILBOX_MESSAGES, Options, Sources


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What `simulate` takes, in one value with a name: `python -m durably.testing soak --workload app.tests:name`.

    `program` takes its choices from the module `random`, which each run seeds, and checks at its end what must be true
    then. `dependencies` makes the world outside of one run. `faults` is None for all kinds, chosen by each run's seed.
    """

    program: Program
    actors: tuple[type[Actor], ...]
    dependencies: Callable[[], Mapping[Any, Any]] | None = None
    middleware: tuple[MiddlewareGiven, ...] = ()
    sources: Sources | None = None
    retry: RetryPolicy = ONE_ATTEMPT
    limits: Mapping[str, Limit] = field(default_factory=lambda: dict[str, Limit]())
    mailbox_messages: int = MAILBOX_MESSAGES
    faults: Faults | None = None
    shrink: bool = True
    """Of a run that fails, the plainest is told that fails like it."""

    def run(self, seed: int) -> Report:
        """One run.

        Raises:
            SimulationFailedError: it failed.
        """
        return self._campaign.run(seed, Faults.any() if self.faults is None else self.faults)

    @cached_property
    def _campaign(self) -> Campaign:
        """Knows how long the program is, once it has run undisturbed."""
        return Campaign("simulate", self.program, self.actors, self.options, shrink=self.shrink)

    @property
    def options(self) -> Options:
        """How its simulations are made: `Simulation(*workload.actors, seed=7, **workload.options)`."""
        return Options(
            dependencies=self.dependencies, middleware=self.middleware, sources=self.sources, retry=self.retry,
            limits=self.limits, mailbox_messages=self.mailbox_messages,
        )  # fmt: skip

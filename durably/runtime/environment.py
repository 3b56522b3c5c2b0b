"""`Environment`: everything that a runtime takes from the world around it, as one value.

Production, tests with virtual time and simulated worlds differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from durably.ids import Entropy, SystemEntropy
from durably.runtime.clock import Clock, SystemClock
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Time, randomness, who listens, and the numbers that the machine runs by."""

    clock: Clock = field(default_factory=SystemClock)
    entropy: Entropy = field(default_factory=SystemEntropy)
    logger: Callable[[], Observer] = RuntimeLogger
    """Makes what writes the log when a runtime starts: until then the host may configure logging."""
    observer: Observer = field(default_factory=Observer)
    """Hears what the log hears. Once a runtime has started: both."""
    settings: Settings = field(default_factory=Settings)
    """What a runtime's own arguments do not say."""

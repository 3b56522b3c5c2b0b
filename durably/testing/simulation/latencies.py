"""`Latencies`: how long commits, reads and messages take in a run: some time each, or none at all.

In a run without latencies what is asked at a round time happens at that very time. So a request meets the timer that is
due at the same moment, and two requests of one moment meet each other: ties, which never come when all takes its time.
"""

from __future__ import annotations

from random import Random
from typing import Literal, TypeAlias

Style: TypeAlias = Literal["some", "none"]


class Latencies:
    """The ordinary delays of one run; what faults add comes on top."""

    def __init__(self, random: Random, style: Style) -> None:
        self.style = style
        self._random = random

    def roll_anew(self, text: str) -> None:
        """From here on, chance depends on this text."""
        self._random.seed(text)

    def one_of(self, between_us: tuple[int, int]) -> int:
        """Microseconds: from the first number up to the second, or none."""
        return 0 if self.style == "none" else self._random.randrange(*between_us)

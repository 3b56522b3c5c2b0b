"""`CodingMeter`: how much of a step durably itself has spent on encoding and decoding, and on what most.

A step that holds up the event loop is the handler's doing only for the rest of its time.
"""

from __future__ import annotations

from collections.abc import Callable

MEASURED_BYTES = 16 * 1024
"""Encoding or decoding less than this takes too little time to be worth measuring."""


class CodingMeter:
    """One per engine, since one step runs at a time. The engine resets it after each step."""

    __slots__ = ("largest", "largest_bytes", "monotonic", "spent_us")

    def __init__(self, monotonic: Callable[[], int]) -> None:
        self.monotonic = monotonic
        """Microseconds, as the engine's clock counts them."""
        self.spent_us = 0
        self.largest = ""
        """The largest value that was coded, for sentences: `self.tickets`."""
        self.largest_bytes = 0

    def add(self, what: str, size_bytes: int, began_us: int) -> None:
        """Note a coding that has just ended."""
        self.spent_us += self.monotonic() - began_us
        if size_bytes > self.largest_bytes:
            self.largest, self.largest_bytes = what, size_bytes

    def reset(self) -> None:
        self.spent_us = self.largest_bytes = 0
        self.largest = ""

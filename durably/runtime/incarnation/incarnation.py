"""`Incarnation`: one life of the machine on an open store, as every part of it sees it.

A part never holds the engine. It asks here whether this life still goes on (rule X3) and whether it may start anything
(rule T4), and reports here what ends it.
"""

from __future__ import annotations

from collections.abc import Callable

NO_SAMPLE = (-1, "", "")


class Incarnation:
    """Alive until the first failure, or until the supervisor ends it."""

    __slots__ = ("_on_failure", "_on_progress", "advancing_since", "dead", "sample", "stopping", "suspect")

    def __init__(
        self, on_failure: Callable[[Incarnation, BaseException], None], on_progress: Callable[[], None]
    ) -> None:
        self.dead = False
        """It is over: late callbacks do nothing (rule X3)."""
        self.stopping = False
        """Nothing starts any more (rule T4)."""
        self.suspect = ""
        """The id of the invocation that is being advanced."""
        self.advancing_since = 0
        """When the last advance began, by the monotonic clock."""
        self.sample: tuple[int, str, str] = NO_SAMPLE
        """Where the code of a slow advance was when a thread looked: when the advance began, the place, the stack."""
        self._on_failure = on_failure
        self._on_progress = on_progress

    def fail(self, error: BaseException) -> None:
        """The store failed, or the machine made a mistake: this life cannot go on. The first failure counts."""
        if not self.dead:
            self._on_failure(self, error)

    def progressed(self) -> None:
        """Its first batch is durable."""
        self._on_progress()

"""`PgConnection`: a connection that waits for no server for ever, and takes no local commit for a durable one.

Two failures of a server come without an error. One that stands still, or that a network swallows, just does not answer:
TCP keeps acknowledging for a process that was stopped, so the limit is kept here. And a commit whose wait for its
synchronous replica was cancelled succeeds with a warning, though a failover may lose it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeAlias, TypeVar

import psycopg
from psycopg.errors import Diagnostic
from typing_extensions import override

T = TypeVar("T")

# What waits for the server: it says what for, and hears what is ready; nothing is after each interval.
Waiting: TypeAlias = Generator[Any, Any, T]

LOOK_EVERY_SECONDS: Final = 0.1
_REPLICATION: Final = ("syncrep.c", "synchronous replication")
"""Where in the server the warning comes from, and words of it; which words depends on the server's language."""


class NoAnswerError(psycopg.OperationalError):
    """The server has been silent for too long. Whether it has done what it was told is unknown."""


class LocalCommitError(psycopg.OperationalError):
    """A commit is durable on the server alone, since its wait for a synchronous replica was cancelled.

    Every later commit that does wait for the replica makes this one durable there, too.
    """


class PgConnection(psycopg.Connection[tuple[Any, ...]]):
    """Closes itself, and raises, when the server is silent for longer than its limit."""

    silence_limit_seconds: float = 30.0
    """Between any two signs of the server, within a statement."""
    _is_local: bool = False

    def refuse_local_commits(self) -> None:
        """From now on, a commit that was not replicated as configured raises `LocalCommitError`."""
        self.add_notice_handler(self._hear)

    def _hear(self, notice: Diagnostic) -> None:
        file, words = _REPLICATION
        is_of_replication = (notice.source_file or "").endswith(file) or words in (notice.message_primary or "")
        if is_of_replication and notice.severity_nonlocalized != "NOTICE":
            self._is_local = True

    @override
    def wait(self, gen: Waiting[T], interval: float = LOOK_EVERY_SECONDS, timeout: float | None = None) -> T:
        """Every statement and every other exchange with the server waits here."""
        try:
            answer = super().wait(self._limited(gen, interval), interval)
        except NoAnswerError:
            self.close()
            raise
        if self._is_local:
            self._is_local = False
            raise LocalCommitError("a commit did not wait for its synchronous replica, because the wait was cancelled")
        return answer

    def _limited(self, waiting: Waiting[T], interval: float) -> Waiting[T]:
        """Count the intervals without an answer. So a process that itself stood still does not blame the server."""
        silent_seconds = 0.0
        try:
            wanted = next(waiting)
            while True:
                ready = yield wanted
                silent_seconds = 0.0 if ready else silent_seconds + interval
                if silent_seconds >= self.silence_limit_seconds:
                    raise NoAnswerError(f"the server has been silent for {self.silence_limit_seconds:g} seconds")
                wanted = waiting.send(ready)
        except StopIteration as ended:
            answer: T = ended.value
            return answer

"""`Polls`: notices a client that asks the same again and again, gets the same answer, and would do so for ever.

Virtual time costs nothing, so a program that polls for what never comes would go on for years of it. While the state of
no object changes, so many equal answers in a row end the run, with a sentence that says who asks what, and since when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from durably.testing.simulation.loop import US_PER_SECOND, SimulatedLoop, SimulationStuckError

MOST_EQUAL_ANSWERS = 1_000


@dataclass(slots=True)
class Poll:
    """A question that one client has asked more than once."""

    answer: str
    since_us: int
    times: int = 1


class Polls:
    """Those of one run."""

    def __init__(self, loop: SimulatedLoop, most: int, fail: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._most = most
        self._fail = fail
        self._polls: dict[tuple[str, str], Poll] = {}

    def answered(self, client: str, what: str, answer: str) -> None:
        """A client has its answer, or the error that it got instead."""
        poll = self._polls.get((client, what))
        if poll is None or poll.answer != answer:
            self._polls[client, what] = Poll(answer, self._loop.elapsed_us)
            return
        poll.times += 1
        if poll.times == self._most:
            self._fail(
                SimulationStuckError(
                    f"{self._sentence(client, what, poll)} Meanwhile the state of no object changed, so most likely "
                    "it asks for what never comes. To wait for something, use `await sim.until(...)`; if so many "
                    f"questions are meant, give simulate(..., most_polls={10 * self._most})."
                )
            )

    def state_changed(self) -> None:
        """The answers to come may be others."""
        self._polls.clear()

    def busiest(self) -> str:
        """The question that was repeated most, for a run that does not end; empty, if none was."""
        found = max(self._polls.items(), key=lambda item: item[1].times, default=None)
        if found is None or found[1].times == 1:
            return ""
        (client, what), poll = found
        return self._sentence(client, what, poll)

    def _sentence(self, client: str, what: str, poll: Poll) -> str:
        since, now = poll.since_us / US_PER_SECOND, self._loop.elapsed_us / US_PER_SECOND
        return (
            f"The client {client!r} polls: it {what} {poll.times:,} times, from {since:,.3f} s to {now:,.3f} s of "
            f"virtual time, and always gets {poll.answer}."
        )

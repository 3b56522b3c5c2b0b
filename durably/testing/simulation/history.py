"""`History`: every invocation of a run, with when it was asked for, began and ended, and how.

Times are logical: a counter that grows with each event. An end that a crash took back has not happened. What somebody
outside was told has, whatever the machine says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from durably.actors.binding import BoundActorHandler
from durably.ids import Address
from durably.runtime.invocation import Invocation
from durably.runtime.journal import Outcome


@dataclass(slots=True)
class Happening:
    """One invocation, as the run saw it."""

    id: str
    address: Address
    handler: BoundActorHandler
    argument: bytes
    began: int
    ended: int | None = None
    """None: it has no outcome that is there to stay."""
    outcome: Outcome | None = None
    is_told: bool = False
    """Somebody outside knows the outcome."""


@dataclass(slots=True)
class Asking:
    """Somebody outside asked for an invocation."""

    who: str
    began: int
    ended: int | None = None
    """When the answer arrived; None: it never did."""


class History:
    """All invocations of a run, in the order in which they began."""

    def __init__(self) -> None:
        self._happenings: dict[str, Happening] = {}
        self._askings: dict[str, Asking] = {}
        self._time = 0

    def __iter__(self) -> Iterator[Happening]:
        return iter(self._happenings.values())

    def __len__(self) -> int:
        return len(self._happenings)

    def tick(self) -> int:
        """The next moment."""
        self._time += 1
        return self._time

    def begins(self, invocation: Invocation) -> None:
        """Its code runs; only the first time counts."""
        if invocation.id not in self._happenings:
            self._happenings[invocation.id] = Happening(
                invocation.id, invocation.address, invocation.handler, invocation.argument, self.tick()
            )

    def ended(self, invocation: Invocation) -> None:
        happening = self._happenings.get(invocation.id)
        if happening is not None:
            happening.ended, happening.outcome = self.tick(), invocation.outcome

    def taken_back(self, id: str) -> None:
        """The end was not durable, and is lost."""
        happening = self._happenings.get(id)
        if happening is not None and not happening.is_told:
            happening.ended = happening.outcome = None

    def told(self, id: str, outcome: Outcome) -> None:
        """Somebody outside knows of the end, so it has happened."""
        happening = self._happenings.get(id)
        if happening is not None:
            happening.is_told = True
            if happening.outcome is None:
                happening.ended, happening.outcome = self.tick(), outcome

    def asked(self, id: str, who: str, began: int) -> None:
        """The request of somebody outside became this invocation."""
        asking = self._askings.get(id)
        if asking is None:
            self._askings[id] = Asking(who, began)

    def asker(self, id: str) -> str:
        """Who asked for it: somebody outside, or another invocation (then it is empty)."""
        asking = self._askings.get(id)
        return "" if asking is None else asking.who

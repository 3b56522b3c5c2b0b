"""`History`: every invocation of a run, with when it was asked for, began and ended, and how.

Times are logical: a counter that grows with each event. An end that a crash took back has not happened. An end that a
client was told of has happened, even if the runtime has lost it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.values.error_envelopes import decode_failure
from durably.errors import CancelledInvocationError, DeadlineExceededError, InvalidArgumentError
from durably.ids import Address
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.testing.histories.calls import HistoryCall
from durably.testing.simulation.trace import shown_id


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


class History:
    """All invocations of a run, in the order in which they began."""

    def __init__(self) -> None:
        self._happenings: dict[str, Happening] = {}
        self._askers: dict[str, str] = {}
        """Who outside asked for an invocation, by its id."""
        self._time = 0

    def __iter__(self) -> Iterator[Happening]:
        return iter(self._happenings.values())

    def __len__(self) -> int:
        return len(self._happenings)

    def begins(self, invocation: InvocationRun) -> None:
        """Its code runs; only the first time counts."""
        if invocation.id not in self._happenings:
            self._happenings[invocation.id] = Happening(
                invocation.id, invocation.address, invocation.handler, invocation.argument, self._tick()
            )

    def ended(self, invocation: InvocationRun) -> None:
        happening = self._happenings.get(invocation.id)
        if happening is not None:
            happening.ended, happening.outcome = self._tick(), invocation.outcome

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
                happening.ended, happening.outcome = self._tick(), outcome

    def asked(self, id: str, who: str) -> None:
        """The request of somebody outside became this invocation, or joined it."""
        self._askers.setdefault(id, who)

    def calls(self, service: str) -> dict[str, list[HistoryCall]]:
        """What the objects of one class were asked, and what they answered, by key.

        A call takes effect between the moment when its code first ran and its end. One that a crash took back, or whose
        deadline passed, may have taken effect or not.
        """
        found: dict[str, list[HistoryCall]] = {}
        for happening in self:
            if happening.address.service == service:
                call = self._call(happening)
                if call is not None:
                    found.setdefault(happening.address.key, []).append(call)
        return found

    def _tick(self) -> int:
        """The next moment."""
        self._time += 1
        return self._time

    def _call(self, happening: Happening) -> HistoryCall | None:
        signature = happening.handler.signature
        try:
            args, kwargs = signature.decode_arguments(happening.argument)
        except InvalidArgumentError:  # The handler was never begun.
            return None
        result, error = None, None
        ended, outcome = happening.ended, happening.outcome
        if outcome is None:
            ended = None
        elif outcome.failed:
            error = decode_failure(outcome.value)
            if isinstance(error, DeadlineExceededError | CancelledInvocationError):
                ended = error = None
        else:
            result = signature.decode_result(outcome.value)
        return HistoryCall(
            handler=signature.function.__name__,
            args=args,
            kwargs=kwargs,
            began=happening.began,
            ended=ended,
            result=result,
            error=error,
            who=self._askers.get(happening.id, shown_id(happening.id)),
        )

"""`SpanObserver`: one span for each invocation, attempt and command, told once it is on disk.

Spans follow from the journal: what a replay does again is not told again, and what a crash took back never was. The
spans of an invocation's attempts and commands hang below its own, because a command may outlive the attempt that issued
it. The span of an invocation is told at its end, that of a command when a step takes its answer in.

An attempt that left memory while it waited, or that ended with its process, is told when the next one begins: by then
it is known to be over, and the process that made it may be gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from durably.actors.protocol.commands import HELD_BY_ATOMIC, Call, Command, Run, Send
from durably.actors.values.error_envelopes import decode_failure
from durably.runtime.clock import Clock
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.execution.step import Delivery, Outcome, Step
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import Journal, is_answered
from durably.runtime.observation.observer import Observer
from durably.runtime.observation.tracing.trace_context import Sampler, TraceContext, command_span_id, trace_context

SpanKind: TypeAlias = Literal["server", "client", "producer", "internal"]
Attributes: TypeAlias = Mapping[str, Any]

PAYLOAD_CHARACTERS: Final = 4_096
"""So much of an argument or a result is shown, where that is asked for."""
ATTEMPTS_REMEMBERED: Final = 10_000
"""Of so many attempts that left memory the exact times are known when the next one begins."""

SUSPENDED: Final = "suspended"
INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that has ended. Times are microseconds since 1970 UTC."""

    name: str
    kind: SpanKind
    trace_id: int
    span_id: int
    parent_id: int | None
    state: str
    began_us: int
    ended_us: int
    attributes: Attributes
    error: str | None = None
    """Why it did not end well."""


@dataclass(slots=True)
class _Attempt:
    began_us: int
    replayed_steps: int
    failed_before: int


@dataclass(slots=True)
class _Traced:
    """What is known of an invocation in memory."""

    context: TraceContext
    seed: bytes
    """Of its execution: `continue_as_new` gives another one."""
    is_loaded: bool
    """It came from the store, so an earlier attempt may have no span."""
    attempt: _Attempt | None = None
    open: dict[int, tuple[Command, int]] = field(default_factory=dict[int, "tuple[Command, int]"])
    """Commands that wait for an answer, by number, each with the time of its step."""
    next_command: int = 0
    steps: int = 0
    is_concluding: bool = False
    """Its last step is told, and the transition to which that belongs is not filled yet."""
    held: list[Span] = field(default_factory=list[Span])
    """Spans of that step."""

    def take(self, step: Step) -> None:
        """Follow a step of which has been told before."""
        for number in (*step.deliveries, *step.abandoned):
            self.open.pop(number, None)
        for number, command in enumerate(step.commands, self.next_command):
            if is_answered(command) and number not in step.abandoned:
                self.open[number] = (command, step.at)
        self.next_command += len(step.commands)
        self.steps += 1


@dataclass(slots=True)
class _Action:
    """One that runs or may run."""

    context: TraceContext
    span_id: int
    given: Attributes = field(default_factory=dict[str, Any])
    """What its last attempt has said of itself."""


class SpanObserver(Observer):
    """Turns what happens to invocations into spans."""

    detailed = True

    def __init__(
        self,
        *,
        clock: Clock,
        sampler: Sampler,
        tell: Callable[[Span], None],
        enter: Callable[[int, int, int, str], Attributes],
        new_span_id: Callable[[], int],
        shows_payloads: bool = False,
    ) -> None:
        """`enter` makes a span (trace, span, flags, state) the current one of an action that begins. What it gives back
        will hold the attributes that the action sets.
        """
        self._clock = clock
        self._sampler = sampler
        self._tell = tell
        self._enter = enter
        self._new_span_id = new_span_id
        self._shows_payloads = shows_payloads
        self._waiting: deque[tuple[int, Span]] = deque()
        """Spans that are not on disk yet, each with its position in the log."""
        self._left: dict[int, tuple[_Attempt, int]] = {}
        """Attempts that left memory, by the number of their invocation, and when; oldest first."""
        self._actions: dict[tuple[str, int], _Action] = {}

    # ------------------------------------------------------------------ events

    def invoked(self, invocation: InvocationRun) -> None:
        if invocation.execution is not None:  # A replay that only compares.
            return
        traced = self._of(invocation)
        self._tell_earlier(invocation, traced)
        traced.attempt = _Attempt(self._clock.now(), traced.steps, invocation.attempts)

    def journaled(self, invocation: InvocationRun, step: Step) -> None:
        traced: _Traced = invocation.traced  # `invoked` made it, and the journal has the step already.
        self._step(invocation, traced, step)

    def concluded(self, invocation: InvocationRun, last: Step) -> None:
        traced = self._of(invocation)
        traced.is_concluding = True
        self._step(invocation, traced, last)
        self._give_up_open(invocation, traced, last.at)

    def suspended(self, invocation: InvocationRun) -> None:
        traced = self._of(invocation)
        if traced.attempt is not None:
            self._left[invocation.number] = (traced.attempt, self._clock.now())
            traced.attempt = None
            if len(self._left) > ATTEMPTS_REMEMBERED:
                del self._left[next(iter(self._left))]
        for number in traced.open:
            self._actions.pop((invocation.id, number), None)

    def retries(self, invocation: InvocationRun, error: BaseException, delay_us: int, due: int) -> None:
        self._end_attempt(invocation, "failed", describe_failure(error))

    def paused(self, invocation: InvocationRun, error: BaseException) -> None:
        self._end_attempt(invocation, "paused", describe_failure(error))

    def continued(self, invocation: InvocationRun, previous: int) -> None:
        traced = self._of(invocation)
        self._conclude(invocation, traced)
        self._give_up_open(invocation, traced, self._clock.now())
        self._end_attempt(invocation, "continued")
        invocation.traced = _Traced(traced.context, invocation.seed, False)

    def ended(self, invocation: InvocationRun) -> None:
        outcome = invocation.outcome
        assert outcome is not None
        traced, now = self._of(invocation), self._clock.now()
        self._conclude(invocation, traced)
        self._give_up_open(invocation, traced, now)
        error = _error(outcome)
        if traced.attempt is None:
            self._tell_earlier(invocation, traced)
        else:
            self._end_attempt(invocation, "completed" if error is None else "failed", error, now)
        service, handler = invocation.address.service, invocation.handler.name
        context = traced.context
        attributes = self._described(invocation, "invocation", outcome="failed" if outcome.failed else "completed")
        if self._shows_payloads:
            attributes["durably.argument"] = _shown(invocation.argument)
            if not outcome.failed:
                attributes["durably.result"] = _shown(outcome.value)
        self._add(
            invocation, traced, f"durably.invocation {service}/{handler}", context.span_id, context.parent_id,
            began_us=max(invocation.accepted_at, invocation.due or 0), ended_us=now, kind="server", error=error,
            attributes=attributes,
        )  # fmt: skip

    def action_attempt_started(self, id: str, command: int, name: str) -> None:
        found = self._actions.get((id, command))
        if found is not None:
            context = found.context
            found.given = self._enter(context.trace_id, found.span_id, context.flags, context.state)

    def committed(self, position: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= position:
            self._tell(waiting.popleft()[1])

    def incarnation_failed(self, error: BaseException) -> None:
        """What was not on disk has not happened."""
        self._waiting.clear()
        self._actions.clear()

    # ------------------------------------------------------------------ inside

    def _of(self, invocation: InvocationRun) -> _Traced:
        traced: _Traced | None = invocation.traced
        if traced is None:
            context = trace_context(invocation.id, invocation.headers, self._sampler)
            traced = invocation.traced = _Traced(context, invocation.seed, True)
        journal = invocation.journal
        if journal is not None and not traced.steps and journal.steps:  # It comes from the store, or was restarted.
            for step in journal.steps:
                traced.take(step)
            for number, (command, _) in traced.open.items():
                self._note_action(invocation, traced, number, command)
        return traced

    def _step(self, invocation: InvocationRun, traced: _Traced, step: Step) -> None:
        journal = invocation.journal
        for number in step.deliveries:
            issued = traced.open.pop(number, None)
            if issued is not None:
                answer = None if journal is None else _answer(journal, number)
                self._tell_command(invocation, traced, number, *issued, step.at, answer)
        for number in step.abandoned:
            issued = traced.open.pop(number, None)
            if issued is not None:
                self._tell_command(invocation, traced, number, *issued, step.at, None, is_given_up=True)
        for number, command in enumerate(step.commands, traced.next_command):
            if number in step.abandoned:
                self._tell_command(invocation, traced, number, command, step.at, step.at, None, is_given_up=True)
            elif is_answered(command):
                traced.open[number] = (command, step.at)
                self._note_action(invocation, traced, number, command)
            else:
                self._tell_command(invocation, traced, number, command, step.at, step.at, None)
        traced.next_command += len(step.commands)
        traced.steps += 1

    def _conclude(self, invocation: InvocationRun, traced: _Traced) -> None:
        """The transition of the last step is known."""
        traced.is_concluding = False
        self._waiting += [(_position(invocation), span) for span in traced.held]
        traced.held.clear()

    def _note_action(self, invocation: InvocationRun, traced: _Traced, number: int, command: Command) -> None:
        if type(command) is Run:
            span_id = command_span_id(invocation.id, traced.seed, number)
            self._actions[invocation.id, number] = _Action(traced.context, span_id)

    def _give_up_open(self, invocation: InvocationRun, traced: _Traced, now: int) -> None:
        for number, issued in traced.open.items():
            self._tell_command(invocation, traced, number, *issued, now, None, is_given_up=True)
        traced.open.clear()

    def _tell_command(
        self,
        invocation: InvocationRun,
        traced: _Traced,
        number: int,
        command: Command,
        began_us: int,
        ended_us: int,
        answer: Delivery | None,
        *,
        is_given_up: bool = False,
    ) -> None:
        action = self._actions.pop((invocation.id, number), None)
        attributes: dict[str, Any] = {} if action is None else {**action.given}
        attributes.update(self._described(invocation, "command"))
        attributes["durably.command.number"] = number
        attributes["durably.command.type"] = _type_of(command)
        attributes["durably.command.abandoned"] = is_given_up and not isinstance(command, HELD_BY_ATOMIC)
        if self._shows_payloads:
            if isinstance(command, Call | Send):
                attributes["durably.argument"] = _shown(command.argument)
            if answer is not None and not answer.failed:
                attributes["durably.result"] = _shown(answer.value)
        self._add(
            invocation, traced, f"durably.{_named(command)}", command_span_id(invocation.id, traced.seed, number),
            traced.context.span_id, began_us=began_us, ended_us=ended_us, attributes=attributes,
            kind="client" if isinstance(command, Call) else "producer" if isinstance(command, Send) else "internal",
            error=None if answer is None else _error(answer),
        )  # fmt: skip

    def _end_attempt(
        self, invocation: InvocationRun, result: str, error: str | None = None, now: int | None = None
    ) -> None:
        traced = self._of(invocation)
        if traced.attempt is not None:
            now = self._clock.now() if now is None else now
            self._tell_attempt(invocation, traced, traced.attempt, now, result, error)
            traced.attempt = None

    def _tell_earlier(self, invocation: InvocationRun, traced: _Traced) -> None:
        """Makes the span of the attempt before, if there is none yet."""
        left, is_loaded = self._left.pop(invocation.number, None), traced.is_loaded
        traced.is_loaded = False
        if traced.attempt is not None:
            self._end_attempt(invocation, SUSPENDED)
        elif left is not None:
            self._tell_attempt(invocation, traced, left[0], left[1], SUSPENDED)
        elif is_loaded and traced.steps and not invocation.attempts and invocation.failure is None:
            # Steps were recorded, and no failure or pause since. Another process made them: the journal has its times.
            journal = invocation.journal
            assert journal is not None
            began_us, ended_us = journal.steps[0].at, journal.steps[-1].at
            self._tell_attempt(invocation, traced, _Attempt(began_us, 0, 0), ended_us, INTERRUPTED)

    def _tell_attempt(
        self,
        invocation: InvocationRun,
        traced: _Traced,
        attempt: _Attempt,
        ended_us: int,
        result: str,
        error: str | None = None,
    ) -> None:
        attributes = self._described(invocation, "attempt", result=result)
        attributes["durably.attempt.replayed_steps"] = attempt.replayed_steps
        attributes["durably.attempt.failed_before"] = attempt.failed_before
        self._add(
            invocation, traced, "durably.attempt", self._new_span_id(), traced.context.span_id,
            began_us=attempt.began_us, ended_us=ended_us, attributes=attributes, kind="internal", error=error,
        )  # fmt: skip

    def _described(self, invocation: InvocationRun, what: str, **more: str) -> dict[str, str | int | bool]:
        service, key = invocation.address
        described: dict[str, str | int | bool] = {
            "durably.span": what,
            "durably.invocation.id": invocation.id,
            "durably.service": service,
            "durably.handler": invocation.handler.name,
        }
        if key != invocation.id:
            described["durably.key"] = key
        described.update({f"durably.{what}.{name}": value for name, value in more.items()})
        return described

    def _add(
        self,
        invocation: InvocationRun,
        traced: _Traced,
        name: str,
        span_id: int,
        parent_id: int | None,
        *,
        began_us: int,
        ended_us: int,
        attributes: Attributes,
        kind: SpanKind,
        error: str | None,
    ) -> None:
        context = traced.context
        if not context.is_sampled:
            return
        span = Span(
            name=name, kind=kind, trace_id=context.trace_id, span_id=span_id, parent_id=parent_id, state=context.state,
            began_us=began_us, ended_us=max(began_us, ended_us), attributes=attributes, error=error,
        )  # fmt: skip
        if traced.is_concluding:
            traced.held.append(span)
        else:
            self._waiting.append((_position(invocation), span))


def _position(invocation: InvocationRun) -> int:
    """Where in the log its last transition is, or a later one of its object."""
    return max(invocation.position, invocation.activation.changed_at)


def _type_of(command: Command) -> str:
    """As the journal has it."""
    return str(type(command).__struct_config__.tag)


def _named(command: Command) -> str:
    """What is asked for; without keys, so that there are few names."""
    match command:
        case Call():
            return f"call {command.service}/{command.handler}"
        case Send():
            return f"send {command.service}/{command.handler}"
        case Run():
            return f"run {command.name}"
        case _:
            return _type_of(command)


def _answer(journal: Journal, number: int) -> Delivery | None:
    """What a step took in; None where it is kept no longer (reads of entries)."""
    found = journal.deliveries.get(number)
    if found is None:
        found = next((delivery for delivery in journal.undelivered if delivery.command == number), None)
    return found


def _error(ended: Outcome | Delivery) -> str | None:
    return describe_failure(decode_failure(ended.value)) if ended.failed else None


def _shown(payload: bytes) -> str:
    return payload[: 4 * PAYLOAD_CHARACTERS].decode(errors="replace")[:PAYLOAD_CHARACTERS]

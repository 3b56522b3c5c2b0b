"""Why something waits, read from the memory of a running engine at one moment, without waiting for anything.

For those who cannot wait: an error about a test that stands still. What is not in memory is not told.
"""

from __future__ import annotations

from dataclasses import replace

from durably.ids import Address, InvocationStatus
from durably.runtime.actions.actions import Actions
from durably.runtime.clock import Clock
from durably.runtime.engine.engine import Engine
from durably.runtime.execution.failure_text import describe_failure, known_attempt_failure
from durably.runtime.inspection.facts import (
    ActionFact,
    ActionOf,
    ById,
    ByScope,
    DueOf,
    Fact,
    LimitFact,
    LimitOf,
    MailboxFact,
    MailboxOf,
    Question,
    Subject,
)
from durably.runtime.inspection.reasons import Walk
from durably.runtime.inspection.waits import WaitingInvocation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.limits.named_limits import NamedLimits


class LiveFacts:
    """Answers from memory."""

    def __init__(self, engine: Engine, actions: Actions, clock: Clock) -> None:
        self._engine = engine
        self._actions = actions
        self._clock = clock

    def why(self, invocation: InvocationRun) -> WaitingInvocation:
        """What an invocation in memory waits for."""
        asking = Walk().described(self._subject(invocation))
        answer: object = None
        while True:
            try:
                question = asking.send(answer)
            except StopIteration as told:
                found: WaitingInvocation = told.value
                return found
            answer = self.answer(question)

    def answer(self, question: Question) -> Fact:
        registry = self._engine.parts.registry
        match question:
            case ById(id):
                return self._optional(registry.live.get(id))
            case ByScope(scope):
                return self._optional(registry.keyed.get(scope))
            case MailboxOf(address, before):
                return self._mailbox(address, before)
            case DueOf(number, kind):
                return self._engine.parts.timers.due_of(number, kind)
            case ActionOf(id, command):
                return action_fact(self._actions, self._clock, id, command)
            case LimitOf(subject):
                return limit_fact(self._engine.parts.named_limits, self._clock, subject.number)

    def _optional(self, invocation: InvocationRun | None) -> Subject | None:
        return None if invocation is None else self._subject(invocation)

    def _subject(self, invocation: InvocationRun) -> Subject:
        subject = subject_in_memory(invocation)
        waits_for_limit = invocation.number in self._engine.parts.named_limits.waits_in
        return replace(subject, status=InvocationStatus.PENDING) if waits_for_limit else subject

    def _mailbox(self, address: Address, before: int) -> MailboxFact:
        activation = self._engine.parts.activations.by_address.get(address)
        if activation is None or (activation.loading and not activation.is_rehydrated):
            return MailboxFact(is_held=True, holder=None, ahead=0)
        ahead = sum((one.mailbox_position or 0) < before for one in activation.mailbox)
        return MailboxFact(activation.current is not None, self._optional(activation.current), ahead)


def action_fact(actions: Actions, clock: Clock, id: str, command: int) -> ActionFact | None:
    """How an action stands in this process; None: it is not under way here."""
    state = actions.state_of((id, command))
    if state is None:
        return None
    ahead_us = clock.now() - clock.monotonic()
    next_at = None if state.tried_again_at is None else state.tried_again_at + ahead_us
    return ActionFact(state.failures + 1, next_at, state.error)


def limit_fact(limits: NamedLimits, clock: Clock, number: int) -> LimitFact | None:
    """What the invocation of this number waits for in this process before it starts; None if that is no limit."""
    pool = limits.waits_in.get(number)
    if pool is None or pool.limit is None:
        return None
    ahead, allows = pool.ahead_of(number), pool.limit.describe()
    if pool.has_room():
        return LimitFact(pool.name, pool.key, allows, (), clock.now() + pool.delay_us(clock.monotonic()), ahead)
    return LimitFact(pool.name, pool.key, allows, tuple(one.id for one in pool.holders()), None, ahead)


def has_its_turn(invocation: InvocationRun) -> bool:
    """Its code runs, or is about to: also while nothing of that is stored."""
    is_current = invocation.status is InvocationStatus.PENDING and invocation.activation.current is invocation
    return is_current or invocation.status is InvocationStatus.RUNNING


def subject_in_memory(invocation: InvocationRun) -> Subject:
    """What memory says of an invocation."""
    journal = invocation.journal
    is_started = invocation.status is not InvocationStatus.PENDING or invocation.activation.current is invocation
    error = invocation.load_error or invocation.activation.load_error
    return Subject(
        number=invocation.number,
        id=invocation.id,
        address=invocation.address,
        handler=invocation.handler.name,
        # One that has its turn, and no step yet, is no longer queued.
        status=InvocationStatus.RUNNING if is_started and invocation.status is InvocationStatus.PENDING
        else invocation.status,
        seed=invocation.seed,
        mailbox_position=invocation.mailbox_position,
        due=invocation.due,
        deadline=invocation.deadline,
        attempts=invocation.attempts,
        failure=_failure(invocation),
        pending={} if journal is None else journal.pending,
        is_waiting=journal is not None
        and not (journal.undelivered or invocation.held_step is not None or invocation.is_preparing),
        load_error=None if error is None else str(error),
    )  # fmt: skip


def _failure(invocation: InvocationRun) -> str:
    if invocation.paused_error is not None:
        return describe_failure(invocation.paused_error)
    if invocation.failure is None:
        return ""
    known = known_attempt_failure(invocation.failure)
    return f"{known.type}: {known.message}"

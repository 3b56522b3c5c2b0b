"""Why an invocation does not go on: one function for each reason.

To add a reason for which a message does not start, such as a limit that it waits for, add a function to `TO_START`; for
a new command that is awaited, add one to `TO_ANSWER`. Each asks what it needs to know, so it works on a stopped store
as on a running one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from durably.actors.protocol.commands import (
    Attach,
    AwaitSignal,
    Call,
    Command,
    GetPromise,
    MakeAwakeable,
    Run,
    Sleep,
    key_scope,
)
from durably.actors.values.durations import moment
from durably.ids import InvocationStatus, KeyScope, awakeable_id, derived_invocation_id
from durably.runtime.inspection.facts import (
    ActionFact,
    ActionOf,
    Asking,
    ById,
    ByScope,
    DueOf,
    LimitFact,
    LimitOf,
    MailboxFact,
    MailboxOf,
    Subject,
)
from durably.runtime.inspection.waits import (
    ActionWait,
    AnswerWait,
    AttachWait,
    AwakeableWait,
    BackoffWait,
    CallWait,
    DelayWait,
    LimitWait,
    MailboxWait,
    PauseWait,
    PromiseWait,
    SignalWait,
    TimerWait,
    TurnWait,
    UnreadableWait,
    Wait,
    WaitingInvocation,
)
from durably.runtime.observation.logs import describe_command
from durably.storage.records import TimerKind

T = TypeVar("T")

MOST_WAITS = 50
"""Of one invocation that are told; the newest of them."""
MOST_INVOCATIONS = 200
"""Of one tree that are told with what they wait for."""


MOST_LINKS = 100
"""How long a way from one to the next may be."""


def _known(found: T) -> Asking[T]:
    """What needs no question."""
    yield from ()
    return found


class Walk:
    """How far a walk through the graph has come."""

    def __init__(self, most_invocations: int = MOST_INVOCATIONS) -> None:
        self.told: set[int] = set()
        """The numbers of those that stand in the tree with what they wait for."""
        self.way: set[int] = set()
        """Those between the first one and the one that is being looked at."""
        self.most_invocations = most_invocations

    def described(self, subject: Subject) -> Asking[WaitingInvocation]:
        """An invocation with what it waits for, unless that is told elsewhere."""
        is_beyond = len(self.told) >= self.most_invocations or len(self.way) >= MOST_LINKS
        if subject.number in self.told or is_beyond:
            return _invocation(subject, closes_circle=subject.number in self.way, is_repeated=True)
        self.told.add(subject.number)
        self.way.add(subject.number)
        waits = yield from BY_STATUS[subject.status](subject, self)
        self.way.discard(subject.number)
        there_are = waits[0].places_taken if waits and isinstance(waits[0], LimitWait) else len(subject.pending)
        left_out = there_are - MOST_WAITS if len(waits) == MOST_WAITS else 0
        return _invocation(subject, tuple(waits), waits_left_out=left_out)

    def found(self, subject: Subject | None) -> Asking[WaitingInvocation | None]:
        return None if subject is None else (yield from self.described(subject))


def _invocation(
    subject: Subject,
    waits: tuple[Wait, ...] = (),
    *,
    waits_left_out: int = 0,
    is_repeated: bool = False,
    closes_circle: bool = False,
) -> WaitingInvocation:
    return WaitingInvocation(
        id=subject.id,
        service=subject.address.service,
        key=subject.key,
        handler=subject.handler,
        status=subject.status,
        deadline=None if subject.deadline is None else moment(subject.deadline),
        waits=waits,
        waits_left_out=waits_left_out,
        is_repeated=is_repeated,
        closes_circle=closes_circle,
    )


# ---------------------------------------------------------------------- before it starts


def delayed(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    """It was sent with a delay that has not passed."""
    if subject.status is not InvocationStatus.SCHEDULED:
        return []
    due: int | None = yield DueOf(subject.number, TimerKind.START)
    return [DelayWait(until=None if due is None else moment(due))]


def limited(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    """It has its turn, and its limit has no room: it starts as soon as any place is free (rule C9)."""
    fact: LimitFact | None = None
    if subject.status is InvocationStatus.PENDING:
        fact = yield LimitOf(subject)
    if fact is None:
        return []
    until = None if fact.next_start_at is None else moment(fact.next_start_at)
    waits: list[Wait] = []
    for id in fact.held_by[:MOST_WAITS] or (None,):
        holder: Subject | None = None
        if id is not None:
            holder = yield ById(id)
        waits.append(
            LimitWait(
                name=fact.name,
                key=fact.key,
                allows=fact.allows,
                places_taken=len(fact.held_by),
                until=until,
                ahead=fact.ahead,
                holder=(yield from walk.found(holder)),
            )
        )
    return waits


def queued(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    """Its mailbox is held, or has other messages before it."""
    if subject.status is not InvocationStatus.PENDING or subject.mailbox_position is None:
        return []
    mailbox: MailboxFact = yield MailboxOf(subject.address, subject.mailbox_position)
    if not mailbox.is_held:
        return [TurnWait(ahead=mailbox.ahead)]
    return [MailboxWait(behind=(yield from walk.found(mailbox.holder)), ahead=mailbox.ahead)]


StartReason: TypeAlias = Callable[[Subject, Walk], Asking[list[Wait]]]
TO_START: Sequence[StartReason] = (delayed, limited, queued)
"""Reasons for which a message does not start: the first one that holds is told."""


def _to_start(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    for reason in TO_START:
        waits = yield from reason(subject, walk)
        if waits:
            return waits
    return []


# ---------------------------------------------------------------------- after it has failed


def _backing_off(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    due: int | None = yield DueOf(subject.number, TimerKind.RETRY)
    until = None if due is None else moment(due)
    return [BackoffWait(until=until, failed_attempts=subject.attempts, error=subject.failure)]


def _paused(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    paused: list[Wait] = [PauseWait(error=subject.failure)]
    return _known(paused)


# ---------------------------------------------------------------------- while it waits for answers


def _sleeps(subject: Subject, number: int, command: Sleep, walk: Walk) -> Asking[Wait]:
    return _known(TimerWait(command=number, until=moment(command.due)))


def _runs_action(subject: Subject, number: int, command: Run, walk: Walk) -> Asking[Wait]:
    known: ActionFact | None = yield ActionOf(subject.id, number)
    if known is None:
        return ActionWait(command=number, name=command.name, attempt=None, next_attempt_at=None, error=None)
    next_at = None if known.next_attempt_at is None else moment(known.next_attempt_at)
    return ActionWait(
        command=number, name=command.name, attempt=known.attempt, next_attempt_at=next_at, error=known.error
    )


def _calls(subject: Subject, number: int, command: Call, walk: Walk) -> Asking[Wait]:
    if command.idempotency_key is None:
        id = derived_invocation_id(subject.id, subject.seed, number, command.service, command.key)
        found: Subject | None = yield ById(id)
    else:
        found = yield ByScope(key_scope(command))
    if found is None and command.idempotency_key is None:  # A call of a workflow's `run` joins what has its id.
        found = yield ByScope(KeyScope(command.service, command.key or "", command.handler, ""))
    key = "" if command.key is None else f"{command.key}/"
    target = f"{command.service}/{key}{command.handler}"
    return CallWait(command=number, target=target, callee=(yield from walk.found(found)))


def _attached(subject: Subject, number: int, command: Attach, walk: Walk) -> Asking[Wait]:
    if command.invocation_id is not None:
        found: Subject | None = yield ById(command.invocation_id)
        target = command.invocation_id
    else:
        scope = key_scope(command)
        found = yield ByScope(scope)
        target = "/".join(part for part in scope if part)
    return AttachWait(command=number, target=target, invocation=(yield from walk.found(found)))


def _awaits_promise(subject: Subject, number: int, command: GetPromise, walk: Walk) -> Asking[Wait]:
    return _known(PromiseWait(command=number, name=command.name))


def _awaits_awakeable(subject: Subject, number: int, command: MakeAwakeable, walk: Walk) -> Asking[Wait]:
    return _known(AwakeableWait(command=number, id=awakeable_id(subject.id, subject.seed, number)))


def _awaits_signal(subject: Subject, number: int, command: AwaitSignal, walk: Walk) -> Asking[Wait]:
    return _known(SignalWait(command=number, name=command.name))


def _awaits_runtime(subject: Subject, number: int, command: Command, walk: Walk) -> Asking[Wait]:
    return _known(AnswerWait(command=number, to=describe_command(command)))


AnswerReason: TypeAlias = Callable[[Subject, int, Any, Walk], Asking[Wait]]
TO_ANSWER: Mapping[type[Command], AnswerReason] = {
    Attach: _attached,
    AwaitSignal: _awaits_signal,
    Call: _calls,
    GetPromise: _awaits_promise,
    MakeAwakeable: _awaits_awakeable,
    Run: _runs_action,
    Sleep: _sleeps,
}
"""What an answer that is awaited depends on; the runtime itself gives every other one."""


def _answers(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    if subject.load_error is not None:
        return [UnreadableWait(error=subject.load_error)]
    if not subject.is_waiting:
        return []
    waits: list[Wait] = []
    for number, command in list(subject.pending.items())[-MOST_WAITS:]:
        reason = TO_ANSWER.get(type(command), _awaits_runtime)
        waits.append((yield from reason(subject, number, command, walk)))
    return waits


def _nothing(subject: Subject, walk: Walk) -> Asking[list[Wait]]:
    return _known(list[Wait]())


BY_STATUS: Mapping[InvocationStatus, Callable[[Subject, Walk], Asking[list[Wait]]]] = {
    InvocationStatus.SCHEDULED: _to_start,
    InvocationStatus.PENDING: _to_start,
    InvocationStatus.RUNNING: _answers,
    InvocationStatus.SUSPENDED: _answers,
    InvocationStatus.BACKING_OFF: _backing_off,
    InvocationStatus.PAUSED: _paused,
    InvocationStatus.COMPLETED: _nothing,
}

"""Accepting a message: it becomes an invocation, in the transition of the handler that sent it or in one of its own."""

from __future__ import annotations

import msgspec

from durably.actors.definition.binding import BoundActorHandler
from durably.ids import Address, InvocationStatus, KeyScope
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import CallerRecord, TimerKind

PENDING, RUNNING = InvocationStatus.PENDING, InvocationStatus.RUNNING


class Message(msgspec.Struct, gc=False):
    """A message that has been understood: it can be accepted."""

    handler: BoundActorHandler
    key: str | None
    """None: of a service."""
    argument: bytes
    id: str
    seed: bytes
    headers: dict[str, str]
    timeout_us: int | None
    scope: KeyScope | None = None
    due: int | None = None
    """When it joins its mailbox; None: now."""
    keep_outcome_us: int | None = None
    caller: CallerRecord | None = None
    """Who is answered when it ends."""
    sender_id: str | None = None
    """Who sent it and may still ask for its outcome."""
    not_before: int = 0
    """The time of the step that sends it: `due` counts from there if the clock says less (rule T1)."""
    deadline: int | None = None
    """Of the handler that calls (rule E7)."""


class Acceptance:
    """The way into a mailbox."""

    def __init__(
        self,
        *,
        activations: Activations,
        clock: Clock,
        committer: Committer,
        observer: Observer,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
        timers: TimerService,
    ) -> None:
        self._activations = activations
        self._clock = clock
        self._committer = committer
        self._observer = observer
        self._registry = registry
        self._scheduled = scheduled
        self._timers = timers

    def accept(self, transition: Transition, message: Message) -> InvocationRun:
        """The message is in the log, and in its mailbox if it is due.

        The position of the transition becomes the number of the invocation, so each message needs another one.
        """
        handler, due = message.handler, message.due
        key = message.id if message.key is None else message.key
        is_exclusive = handler.is_exclusive
        number = transition.position
        now = self._clock.now()
        if due is not None:
            status, activation = InvocationStatus.SCHEDULED, self._activations.detached(Address(handler.service, key))
        else:
            status = PENDING if is_exclusive or handler.limit is not None else RUNNING  # Rule C9
            activation = self._activations.receiving(handler, key)
        invocation = InvocationRun(
            number,
            message.id,
            activation,
            activation.address,
            handler,
            message.seed,
            message.argument,
            message.headers,
            message.scope,
            message.caller,
            message.sender_id,
            message.deadline if message.timeout_us is None and handler.timeout_us is None else _deadline(message, now),
            now,
            message.keep_outcome_us,
            status,
            number if is_exclusive and due is None else None,
        )
        self._registry.enter(invocation)
        transition.accept(invocation)
        if self._observer.detailed:
            self._observer.accepted(invocation)
        if invocation.deadline is not None:
            self._timers.set(transition, invocation, TimerKind.DEADLINE, invocation.deadline)
        if due is None:
            self._activations.admit(invocation)
        else:
            invocation.due = due
            self._schedule(transition, invocation, due, message.not_before)
        return invocation

    def join_mailbox(self, transition: Transition, invocation: InvocationRun) -> None:
        """The time of a scheduled message has come: it goes behind what is there (rule C6)."""
        invocation.activation = self._activations.receiving(invocation.handler, invocation.address.key)
        invocation.mailbox_position = transition.position if invocation.is_exclusive else None
        transition.clear_timer(invocation.number, TimerKind.START)
        transition.move(invocation, _first_status(invocation.handler))
        self._registry.enter(invocation)
        self._activations.admit(invocation)

    def _schedule(self, transition: Transition, invocation: InvocationRun, due: int, not_before: int) -> None:
        """It is accepted durably at once, and joins its mailbox when it is due (rule C6)."""
        if self._timers.set(transition, invocation, TimerKind.START, due, not_before=not_before):
            self._scheduled.keep(invocation)
        else:
            self._committer.when_durable(self._registry.forget, invocation)


def _first_status(handler: BoundActorHandler) -> InvocationStatus:
    """Once it is due: what waits for nothing runs (rule C9)."""
    return PENDING if handler.is_exclusive or handler.limit is not None else RUNNING


def _deadline(message: Message, now: int) -> int | None:
    """Rule E7: the earlier of the caller's and its own, which counts from when it joins its mailbox."""
    timeout_us = message.handler.timeout_us if message.timeout_us is None else message.timeout_us
    if timeout_us is None:
        return message.deadline
    own = (now if message.due is None else max(message.due, now)) + timeout_us
    return own if message.deadline is None else min(own, message.deadline)

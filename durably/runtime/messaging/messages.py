"""`Messages`: requests on their way to a mailbox, from handlers and from outside.

A message is checked before it is accepted; it is accepted in the transition of the handler that sent it, or in one of
its own. A duplicate joins the first with its idempotency key, in whatever phase that is (rule C7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.protocol.commands import Call, Command, Send
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import InvalidArgumentError, TerminalError, UnknownTargetError
from durably.ids import Address, Entropy, InvocationStatus, KeyScope, derived_invocation_id, is_storable, new_seed
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.completions import Completions
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.runtime.timers.timer_service import TimerService
from durably.storage.records import DEADLINE_TIMER, START_TIMER, CallerRecord, InvocationRecord

KeysFound: TypeAlias = Mapping[KeyScope, InvocationRecord | None]
"""What the store said of idempotency keys that a step uses."""

NO_KEYS: KeysFound = {}


class Messages:
    """What is accepted, and where it goes."""

    def __init__(
        self,
        *,
        actors: Mapping[str, BoundActor],
        timers: TimerService,
        clock: Clock,
        committer: Committer,
        completions: Completions,
        scheduled: ScheduledMessages,
        registry: InvocationRegistry,
        entropy: Entropy,
        log: RuntimeLogger,
        activations: Activations,
        settings: Settings,
    ) -> None:
        self._actors = actors
        self._timers = timers
        self._clock = clock
        self._committer = committer
        self._completions = completions
        self._scheduled = scheduled
        self._registry = registry
        self._entropy = entropy
        self._log = log
        self._activations = activations
        self._settings = settings

    def target(self, service: str, key: str | None, handler: str) -> BoundActorHandler:
        """The handler that a message is for.

        Raises:
            UnknownTargetError: there is none; says what there is.
            InvalidArgumentError: no store can keep the key.
        """
        actor = self._actors.get(service)
        if actor is None:
            known = sorted(self._actors)
            raise UnknownTargetError(
                f"There is no service or object {service!r} here. There are: {', '.join(known)}.", known=known
            )
        bound = actor.handlers.get(handler)
        if bound is None:
            known = sorted(actor.handlers)
            raise UnknownTargetError(f"{service} has no handler {handler!r}. It has: {', '.join(known)}.", known=known)
        if key is not None and not is_storable(key):
            raise InvalidArgumentError(
                f"The key {key!r} of {service} is not Unicode text without NUL, so it cannot be stored."
            )
        if (key is None) != (bound.kind == "service"):
            need = "is a service and takes no key" if key is not None else "is a virtual object and needs a key"
            raise UnknownTargetError(f"{service} {need}.", known=[service])
        return bound

    def retention_us(self, handler: BoundActorHandler) -> int:
        """How long outcomes of a handler are kept."""
        return self._settings.retention_us if handler.retention_us is None else handler.retention_us

    def accept(
        self,
        handler: BoundActorHandler,
        key: str | None,
        argument: bytes,
        id: str,
        seed: bytes,
        headers: dict[str, str],
        scope: KeyScope | None,
        caller: CallerRecord | None,
        sender_id: str | None,
        timeout_us: int | None,
        due: int | None,
        keep_outcome_us: int | None,
    ) -> InvocationRun:
        """Accept a message into the open batch and its mailbox. Part of the sender's transition, or one of its own."""
        now = self._clock.now()
        committer = self._committer
        number = committer.next_position()
        is_exclusive = handler.kind == "exclusive"
        if timeout_us is None:
            timeout_us = handler.timeout_us
        if due is not None:
            status = InvocationStatus.SCHEDULED
        else:
            status = InvocationStatus.PENDING if is_exclusive else InvocationStatus.RUNNING
        invocation = InvocationRun(
            number,
            id,
            Address(handler.service, id if key is None else key),
            handler,
            seed,
            argument,
            headers,
            scope,
            caller,
            sender_id,
            None if timeout_us is None else now + timeout_us,
            now,
            keep_outcome_us,
            status,
            number if is_exclusive and due is None else None,
        )
        self._registry.enter(invocation)
        committer.batch.accept(invocation)
        if invocation.deadline is not None:
            self._timers.set(invocation, DEADLINE_TIMER, invocation.deadline)
        if due is None:
            self._activations.admit(invocation)
        else:
            self._delay(invocation, due)
        return invocation

    def join_mailbox(self, invocation: InvocationRun) -> None:
        """The time of a delayed message has come: it goes behind what is there (rule C6)."""
        position = self._committer.next_position()
        invocation.status = InvocationStatus.PENDING if invocation.is_exclusive else InvocationStatus.RUNNING
        invocation.mailbox_position = position if invocation.is_exclusive else None
        self._committer.batch.clear_timer(invocation.number, START_TIMER)
        self._committer.batch.change(invocation)
        self._registry.enter(invocation)
        self._activations.admit(invocation)

    def send(
        self,
        sender: InvocationRun,
        number: int,
        command: Call | Send,
        caller: CallerRecord | None,
        due: int | None,
        found: KeysFound,
    ) -> None:
        """Accept a message from a handler, in its transition; a refusal is its answer."""
        try:
            handler = self.target(command.service, command.key, command.handler)
            argument = handler.admit(command.argument) if command.wire else command.argument
        except TerminalError as error:
            if caller is not None:
                self._completions.answer(caller, Outcome(True, encode_failure(error)))
            else:
                self._log.undeliverable(sender, command, error)
            return
        id = derived_invocation_id(sender.id, sender.seed, number, command.service, command.key)
        scope = None if command.idempotency_key is None else scope_of(command)
        if scope is not None and self._join_first(id, scope, caller, found):
            return
        self.accept(
            handler,
            command.key,
            argument,
            id,
            new_seed(self._entropy),
            command.headers,
            scope,
            caller,
            sender.id if caller is None else None,
            command.timeout_us,
            due,
            None if scope is None else self.retention_us(handler),
        )

    def _delay(self, invocation: InvocationRun, due: int) -> None:
        """It is accepted durably at once, and joins its mailbox when it is due (rule C6)."""
        if self._timers.set(invocation, START_TIMER, due):
            self._scheduled.keep(invocation)
        else:
            self._committer.when_durable(self._registry.forget, invocation)

    def _join_first(self, id: str, scope: KeyScope, caller: CallerRecord | None, found: KeysFound) -> bool:
        """Let a duplicate join the first, if there is one; the id that the sender was given leads there (rule C7)."""
        first = self._registry.keyed.get(scope)
        if first is not None:
            self._committer.batch.alias(id, first.number)
            self._registry.alias(id, first)
            if caller is not None:
                self._completions.attach_to_known(caller, first)
            return True
        record = found.get(scope)
        if record is None:
            return False
        self._committer.batch.alias(id, record.number)
        if caller is not None:
            self._completions.attach_to_stored(caller, record)
        return True


def has_key(command: Command) -> bool:
    """It is a message with an idempotency key."""
    return isinstance(command, Call | Send) and command.idempotency_key is not None


def scope_of(command: Command) -> KeyScope | None:
    """What the idempotency key of a message is unique in, if it has one."""
    if isinstance(command, Call | Send) and command.idempotency_key is not None:
        return KeyScope(command.service, command.key or "", command.handler, command.idempotency_key)
    return None

"""`Outside`: the way in for host code and ingresses.

Nothing is accepted that could not be understood, and what is refused raises before anything is accepted (rules V5, C8).
What is accepted is told only when it is durable (rule X1); who waits for it is in `host_operations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from durably.actors.bound_handlers import Delay
from durably.actors.definition.binding import BoundActorHandler
from durably.errors import InvalidArgumentError, OverloadedError, UnknownTargetError
from durably.ids import Address, Entropy, InvocationStatus, KeyScope, is_storable, new_identity
from durably.runtime.engine.engine import Engine
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    OutcomeOperation,
    PendingRequest,
    QuestionOperation,
    unknown_outcome,
)
from durably.runtime.gateway.requests import Acceptance
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.records import InvocationRecord

OVERLOAD_RETRY_SECONDS = 1.0


class Message(Protocol):
    """What references and ingresses say in common of a message."""

    @property
    def service(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def handler(self) -> str: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def idempotency_key(self) -> str | None: ...
    @property
    def timeout_us(self) -> int | None: ...


class Gateway:
    """The way in for everybody who is not a handler."""

    def __init__(self, engine: Callable[[], Engine], entropy: Entropy) -> None:
        self.waiting: dict[PendingRequest[Any], None] = {}
        """In the order in which they came, so that they hear of a failure in the same order in every process."""
        self.failure: BaseException | None = None
        self.host = asyncio.get_running_loop()
        self._engine = engine
        self._entropy = entropy

    def lost(self) -> BaseException:
        """What somebody hears whose request may or may not have been accepted."""
        return unknown_outcome(self.failure)

    # ------------------------------------------------------------------ calls and sends

    def call(self, operation: OutcomeOperation[Any], request: Message, body: bytes, *, wire: bool) -> None:
        """Accept a call, or join the one with the same idempotency key."""
        try:
            engine = self._engine()
            handler, argument = self._understand(engine, request, body, wire=wire)
        except Exception as error:
            operation.refuse(error)
            return
        if request.idempotency_key is None:
            self._accept_call(engine, operation, handler, argument, request, None)
        else:
            scope = _scope(request)
            engine.registry.by_key(
                scope, partial(self._call_keyed, engine, operation, handler, argument, request, scope)
            )

    def _call_keyed(
        self,
        engine: Engine,
        operation: OutcomeOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: Message,
        scope: KeyScope,
        known: InvocationRun | None,
        record: InvocationRecord | None,
    ) -> None:
        if known is None and record is None:
            self._accept_call(engine, operation, handler, argument, request, scope)
        else:
            operation.attach_to(engine, known, record)

    def _accept_call(
        self,
        engine: Engine,
        operation: OutcomeOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: Message,
        scope: KeyScope | None,
    ) -> None:
        id, seed = new_identity(self._entropy)
        operation.id = id
        keep_us = None if scope is None else engine.messages.retention_us(handler)
        invocation = engine.messages.accept(
            handler, request.key, argument, id, seed, request.headers, scope, None, None, request.timeout_us, None,
            keep_us,
        )  # fmt: skip
        engine.registry.waiters[invocation.number] = [operation]
        engine.schedule()

    def send(
        self, operation: AcceptanceOperation[Any], request: Message, body: bytes, delay: Delay, *, wire: bool
    ) -> None:
        """Accept a message, or find the one with the same idempotency key; told when it is durable."""
        try:
            engine = self._engine()
            handler, argument = self._understand(engine, request, body, wire=wire)
        except Exception as error:
            operation.refuse(error)
            return
        if request.idempotency_key is None:
            self._send(engine, operation, handler, argument, request, delay, None, None, None)
        else:
            scope = _scope(request)
            engine.registry.by_key(
                scope, partial(self._send, engine, operation, handler, argument, request, delay, scope)
            )

    def _send(
        self,
        engine: Engine,
        operation: AcceptanceOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: Message,
        delay: Delay,
        scope: KeyScope | None,
        known: InvocationRun | None,
        record: InvocationRecord | None,
    ) -> None:
        found = known if known is not None else record
        due = None
        if found is None:
            due = delay.at_us if delay.after_us is None else engine.clock.now() + delay.after_us
            id, seed = new_identity(self._entropy)
            operation.id = id
            keep_us = engine.messages.retention_us(handler)
            engine.messages.accept(
                handler, request.key, argument, id, seed, request.headers, scope, None, None, request.timeout_us, due,
                keep_us,
            )  # fmt: skip
        else:
            operation.id = found.id
        acceptance = Acceptance(id=operation.id, previously_accepted=found is not None, due=due)
        engine.when_durable(operation.accepted, acceptance)
        engine.schedule()

    def _understand(
        self, engine: Engine, request: Message, body: bytes, *, wire: bool
    ) -> tuple[BoundActorHandler, bytes]:
        """Find the handler and check the argument: what is not understood is not accepted (rule V5)."""
        handler = engine.messages.target(request.service, request.key, request.handler)
        if request.headers or request.idempotency_key is not None:
            _check_names(request)
        limits = engine.settings
        if len(body) > limits.payload_bytes:
            raise InvalidArgumentError(
                f"The argument of {request.service}/{request.handler} has {len(body)} bytes; at most "
                f"{limits.payload_bytes} are allowed. Keep large things elsewhere and pass their name."
            )
        if engine.committer.is_behind():  # Rule X2
            raise OverloadedError(
                "More is waiting to be written than the store keeps up with. Try again later.",
                retry_after=OVERLOAD_RETRY_SECONDS,
            )
        congestion = engine.committer.congestion()
        if congestion is not None:  # Rule X6
            raise OverloadedError(congestion, retry_after=OVERLOAD_RETRY_SECONDS)
        if request.key is not None:
            waiting = engine.activations.waiting(Address(request.service, request.key))
            if waiting >= limits.mailbox_messages:  # Rule C8
                raise OverloadedError(
                    f"{request.service}/{request.key} has {waiting} messages waiting, which is its limit. Try again "
                    "later.",
                    retry_after=OVERLOAD_RETRY_SECONDS,
                )
        if wire:
            return handler, handler.admit(body)
        handler.check(body)
        return handler, body

    # ------------------------------------------------------------------ questions

    def attach(self, operation: OutcomeOperation[Any], scope: KeyScope) -> None:
        """Wait for the invocation with this idempotency key."""
        name = f"of {scope.service}/{scope.handler} with the idempotency key {scope.idempotency_key!r}"
        self._ask(operation, name, lambda engine, then: engine.registry.by_key(scope, then))

    def result(self, operation: OutcomeOperation[Any], id: str) -> None:
        """Wait for the outcome of the invocation with this id."""
        self._ask(operation, id, lambda engine, then: engine.registry.by_id(id, then))

    def status(self, operation: QuestionOperation[InvocationStatus], id: str) -> None:
        """Tell where an invocation stands, once that is durable (rule X1)."""

        def told(engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
            found = known if known is not None else record
            assert found is not None
            engine.when_durable(operation.finish, found.status)
            engine.schedule()

        self._ask(operation, id, lambda engine, then: engine.registry.by_id(id, then), told)

    def resume(self, operation: QuestionOperation[None], id: str) -> None:
        """Let a paused invocation try again."""

        def told(engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
            if known is None and record is not None and not engine.activations.hosts(record.address):
                operation.refuse(
                    UnknownTargetError(
                        f"This runtime does not have {record.address.service}, so {id} cannot go on here."
                    )
                )
            elif known is None and record is not None:
                engine.activations.with_loaded(
                    record.address, lambda _: resume(engine, engine.registry.live.get(record.id))
                )
            else:
                resume(engine, known)

        def resume(engine: Engine, invocation: InvocationRun | None) -> None:
            if invocation is not None:
                engine.pauses.resume(invocation)
            engine.when_durable(operation.finish, None)
            engine.schedule()

        self._ask(operation, id, lambda engine, then: engine.registry.by_id(id, then), told)

    def _ask(
        self,
        operation: PendingRequest[Any],
        name: str,
        ask: Callable[[Engine, Callable[[InvocationRun | None, InvocationRecord | None], None]], None],
        told: Callable[[Engine, InvocationRun | None, InvocationRecord | None], None] | None = None,
    ) -> None:
        """Look an invocation up and go on with it, or say that there is none."""
        try:
            engine = self._engine()
        except Exception as error:
            operation.refuse(error)
            return

        def found(known: InvocationRun | None, record: InvocationRecord | None) -> None:
            if known is None and record is None:
                engine.when_durable(operation.refuse, unknown)
            else:
                (operation.attach_to if told is None else told)(engine, known, record)

        unknown = UnknownTargetError(f"There is no invocation {name}, or its outcome is no longer kept.")
        if is_storable(name):
            ask(engine, found)
        else:
            operation.refuse(unknown)


def _check_names(request: Message) -> None:
    names = {**request.headers, "idempotency-key": request.idempotency_key or ""}
    for name, value in names.items():
        if not is_storable(name) or not is_storable(value):
            raise InvalidArgumentError(f"The header {name!r} is not Unicode text without NUL, so it cannot be stored.")


def _scope(request: Message) -> KeyScope:
    assert request.idempotency_key is not None
    return KeyScope(request.service, request.key or "", request.handler, request.idempotency_key)

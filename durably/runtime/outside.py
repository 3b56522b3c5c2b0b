"""`Outside`: requests of host code and ingresses, and everybody out there who waits.

Nothing is accepted that could not be understood; what is accepted is told only when it is durable; nobody's future hangs:
when an incarnation ends, each waiting operation finds its invocation in the store again, or hears that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from durably.actors.binding import BoundActorHandler
from durably.actors.failures import decode_failure
from durably.actors.operations import CallSite, Operation
from durably.actors.references import Delay
from durably.errors import InvalidArgumentError, OverloadedError, StoreUnavailableError, UnknownTargetError
from durably.ids import Address, Entropy, InvocationStatus, KeyScope, is_storable, new_invocation_id
from durably.runtime.engine import Engine, paused_error
from durably.runtime.failures import decode_attempt_failure
from durably.runtime.invocation import Invocation, decode_outcome
from durably.runtime.journal import Outcome
from durably.runtime.requests import Acceptance, Reply
from durably.storage.records import InvocationRecord

R = TypeVar("R")

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


class HostOperation(Operation[R]):
    """An operation on the host's loop, open until it has been told its result.

    Cancelling it abandons the reply, never the invocation (rule D6).
    """

    id: str = ""
    """Of the invocation, once one was accepted or found."""

    def __init__(self, outside: Outside, what: object, site: CallSite | None) -> None:
        self._outside = outside
        super().__init__(loop=outside.host, what=what, site=site)
        outside.waiting.add(self)

    def __del__(self) -> None:
        if not self.taken and self.site is not None:
            warnings.warn(
                f"{self.what} was never awaited, at {self.site}. It was issued all the same; write `await` before it.",
                RuntimeWarning,
                stacklevel=2,
            )
        super().__del__()  # type: ignore[misc]

    def finish(self, result: R) -> None:
        self._outside.waiting.discard(self)
        if not self.done():
            self.set_result(result)

    def refuse(self, error: BaseException, /) -> None:
        self._outside.waiting.discard(self)
        if not self.done():
            self.set_exception(error)

    def recover(self, engine: Engine) -> None:
        """The store is back after a failure: find out how things stand."""
        if self.done():
            self._outside.waiting.discard(self)
        elif not self.id:  # Nothing had been accepted for it.
            self.refuse(self._outside.lost())
        else:
            engine.directory.by_id(self.id, partial(self._found_again, engine))

    def _found_again(self, engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
        if known is None and record is None:
            self.refuse(self._outside.lost())
        else:
            self.stands(engine, known, record)

    def stands(self, engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
        """The invocation that this one asks about exists."""
        raise NotImplementedError


class ReplyOperation(HostOperation[R]):
    """Waits for an outcome, and makes of it what was asked for."""

    def __init__(
        self, outside: Outside, what: object, site: CallSite | None, make: Callable[[str, Outcome, int | None], R]
    ) -> None:
        super().__init__(outside, what, site)
        self._make = make

    def answer(self, outcome: Outcome, expires_at: int | None, /) -> None:
        if self.done():
            self._outside.waiting.discard(self)
            return
        try:
            result = self._make(self.id, outcome, expires_at)
        except Exception as error:
            self.refuse(error)
        else:
            self.finish(result)

    def stands(self, engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
        """If it has ended or is paused, hear of it once that is durable; otherwise wait."""
        waiters = engine.directory.waiters
        if known is not None:
            self.id = known.id
            if known.outcome is not None:
                engine.when_durable(self._tell_known, known)
            elif known.status is InvocationStatus.PAUSED:
                engine.when_durable(
                    self.refuse, paused_error(known, known.paused_error or _recorded_failure(known.failure))
                )
            else:
                waiters.setdefault(known.number, []).append(self)
        elif record is not None:
            self.id = record.id
            if record.outcome is not None:
                engine.when_durable(self._tell_recorded, record)
            else:
                # In the store only: it is suspended, scheduled, far back in a mailbox, or waits for a person.
                waiters.setdefault(record.number, []).append(self)
                if record.status is InvocationStatus.PAUSED:
                    engine.tell_stored_pause(record)

    def _tell_known(self, known: Invocation) -> None:
        assert known.outcome is not None
        self.answer(known.outcome, known.expires_at)

    def _tell_recorded(self, record: InvocationRecord) -> None:
        assert record.outcome is not None
        self.answer(decode_outcome(record.outcome), record.expires_at)


class TypedCall(ReplyOperation[R]):
    """The call of a reference: its result is decoded by the handler's annotation. The most frequent operation of all."""

    def __init__(self, outside: Outside, what: object, site: CallSite, decode: Callable[[bytes], R]) -> None:
        HostOperation.__init__(self, outside, what, site)
        self._decode = decode

    def answer(self, outcome: Outcome, expires_at: int | None, /) -> None:
        if outcome.failed:
            self.refuse(decode_failure(outcome.value))
            return
        try:
            result = self._decode(outcome.value)
        except Exception as error:
            self.refuse(error)
        else:
            self.finish(result)


class AcceptanceOperation(HostOperation[R]):
    """Waits until a message is durable."""

    def __init__(self, outside: Outside, what: object, site: CallSite | None, make: Callable[[Acceptance], R]) -> None:
        super().__init__(outside, what, site)
        self._make = make

    def accepted(self, acceptance: Acceptance) -> None:
        self.finish(self._make(acceptance))

    def stands(self, engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
        engine.when_durable(self.accepted, Acceptance(id=self.id, previously_accepted=False, due=None))


class QuestionOperation(HostOperation[R]):
    """Waits for the answer to a question; after a failure it must be asked again."""

    def stands(self, engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
        self.refuse(self._outside.lost())


class Outside:
    """The way in for everybody who is not a handler."""

    def __init__(self, engine: Callable[[], Engine], entropy: Entropy) -> None:
        self.waiting: set[HostOperation[Any]] = set()
        self.failure: BaseException | None = None
        self.host = asyncio.get_running_loop()
        self._engine = engine
        self._entropy = entropy

    def lost(self) -> BaseException:
        """What somebody hears whose request may or may not have been accepted."""
        return unknown_outcome(self.failure)

    # ------------------------------------------------------------------ calls and sends

    def call(self, operation: ReplyOperation[Any], request: Message, body: bytes, *, wire: bool) -> None:
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
            engine.directory.by_key(
                scope, partial(self._call_keyed, engine, operation, handler, argument, request, scope)
            )

    def _call_keyed(
        self,
        engine: Engine,
        operation: ReplyOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: Message,
        scope: KeyScope,
        known: Invocation | None,
        record: InvocationRecord | None,
    ) -> None:
        if known is None and record is None:
            self._accept_call(engine, operation, handler, argument, request, scope)
        else:
            operation.stands(engine, known, record)

    def _accept_call(
        self,
        engine: Engine,
        operation: ReplyOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: Message,
        scope: KeyScope | None,
    ) -> None:
        id = operation.id = new_invocation_id(self._entropy)
        keep_us = None if scope is None else engine.retention_us(handler)
        invocation = engine.accept(
            handler, request.key, argument, id, request.headers, scope, None, None, request.timeout_us, None, keep_us
        )
        engine.directory.waiters[invocation.number] = [operation]
        engine.poke()

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
            engine.directory.by_key(scope, partial(self._send, engine, operation, handler, argument, request, delay, scope))

    def _send(
        self,
        engine: Engine,
        operation: AcceptanceOperation[Any],
        handler: BoundActorHandler,
        argument: bytes,
        request: Message,
        delay: Delay,
        scope: KeyScope | None,
        known: Invocation | None,
        record: InvocationRecord | None,
    ) -> None:
        found = known if known is not None else record
        due = None
        if found is None:
            due = delay.at_us if delay.after_us is None else engine.clock.now() + delay.after_us
            id = operation.id = new_invocation_id(self._entropy)
            keep_us = engine.retention_us(handler)
            engine.accept(
                handler, request.key, argument, id, request.headers, scope, None, None, request.timeout_us, due, keep_us
            )
        else:
            operation.id = found.id
        acceptance = Acceptance(id=operation.id, previously_accepted=found is not None, due=due)
        engine.when_durable(operation.accepted, acceptance)
        engine.poke()

    def _understand(self, engine: Engine, request: Message, body: bytes, *, wire: bool) -> tuple[BoundActorHandler, bytes]:
        """Find the handler and check the argument against its types: what is not understood is not accepted (rule V5)."""
        handler = engine.target(request.service, request.key, request.handler)
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
        if request.key is not None:
            waiting = engine.residence.waiting(Address(request.service, request.key))
            if waiting >= limits.mailbox_messages:  # Rule C8
                raise OverloadedError(
                    f"{request.service}/{request.key} has {waiting} messages waiting, which is its limit. Try again later.",
                    retry_after=OVERLOAD_RETRY_SECONDS,
                )
        if wire:
            return handler, handler.admit(body)
        handler.check(body)
        return handler, body

    # ------------------------------------------------------------------ questions

    def attach(self, operation: ReplyOperation[Any], scope: KeyScope) -> None:
        """Wait for the invocation with this idempotency key."""
        name = f"of {scope.service}/{scope.handler} with the idempotency key {scope.idempotency_key!r}"
        self._ask(operation, name, lambda engine, then: engine.directory.by_key(scope, then))

    def result(self, operation: ReplyOperation[Any], id: str) -> None:
        """Wait for the outcome of the invocation with this id."""
        self._ask(operation, id, lambda engine, then: engine.directory.by_id(id, then))

    def status(self, operation: QuestionOperation[InvocationStatus], id: str) -> None:
        """Tell where an invocation stands, once that is durable (rule X1)."""

        def told(engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
            found = known if known is not None else record
            assert found is not None
            engine.when_durable(operation.finish, found.status)
            engine.poke()

        self._ask(operation, id, lambda engine, then: engine.directory.by_id(id, then), told)

    def resume(self, operation: QuestionOperation[None], id: str) -> None:
        """Let a paused invocation try again."""

        def told(engine: Engine, known: Invocation | None, record: InvocationRecord | None) -> None:
            if known is None and record is not None:
                engine.residence.with_loaded(
                    record.address, lambda _: resume(engine, engine.directory.live.get(record.id))
                )
            else:
                resume(engine, known)

        def resume(engine: Engine, invocation: Invocation | None) -> None:
            if invocation is not None:
                engine.resume(invocation)
            engine.when_durable(operation.finish, None)
            engine.poke()

        self._ask(operation, id, lambda engine, then: engine.directory.by_id(id, then), told)

    def _ask(
        self,
        operation: HostOperation[Any],
        name: str,
        ask: Callable[[Engine, Callable[[Invocation | None, InvocationRecord | None], None]], None],
        told: Callable[[Engine, Invocation | None, InvocationRecord | None], None] | None = None,
    ) -> None:
        """Look an invocation up and go on with it, or say that there is none."""
        try:
            engine = self._engine()
        except Exception as error:
            operation.refuse(error)
            return

        def found(known: Invocation | None, record: InvocationRecord | None) -> None:
            if known is None and record is None:
                operation.refuse(
                    UnknownTargetError(f"There is no invocation {name}, or its outcome is no longer kept.")
                )
            else:
                (operation.stands if told is None else told)(engine, known, record)

        ask(engine, found)


def make_result(decode: Callable[[bytes], R]) -> Callable[[str, Outcome, int | None], R]:
    """For typed callers: the value, or the handler's error raised."""

    def make(id: str, outcome: Outcome, expires_at: int | None) -> R:
        if outcome.failed:
            raise decode_failure(outcome.value)
        return decode(outcome.value)

    return make


def make_reply(content_type: str | None, *, keyed: bool) -> Callable[[str, Outcome, int | None], Reply]:
    """For ingresses: bytes, and failures as values."""

    def make(id: str, outcome: Outcome, expires_at: int | None) -> Reply:
        failure = decode_failure(outcome.value) if outcome.failed else None
        body = b"" if outcome.failed else outcome.value
        return Reply(
            id=id,
            body=body,
            content_type=content_type if body else None,
            failure=failure,
            expires_at=expires_at if keyed else None,
        )

    return make


def unknown_outcome(error: BaseException | None) -> StoreUnavailableError:
    """What is said of a request that was under way when the store failed."""
    reason = "it was closed." if error is None else str(error)
    told = StoreUnavailableError(
        f"The store failed, so the outcome is unknown. With an idempotency key it is safe to ask again. {reason}"
    )
    told.__cause__ = error
    return told


def _check_names(request: Message) -> None:
    names = {**request.headers, "idempotency-key": request.idempotency_key or ""}
    for name, value in names.items():
        if not is_storable(name) or not is_storable(value):
            raise InvalidArgumentError(f"The header {name!r} is not Unicode text without NUL, so it cannot be stored.")


def _scope(request: Message) -> KeyScope:
    assert request.idempotency_key is not None
    return KeyScope(request.service, request.key or "", request.handler, request.idempotency_key)


def _recorded_failure(content: bytes | None) -> BaseException:
    if content is None:
        return RuntimeError("nothing is recorded")
    failure = decode_attempt_failure(content)
    return RuntimeError(f"{failure.type}: {failure.message}")

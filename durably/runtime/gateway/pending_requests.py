"""Requests from outside that wait: operations on the host's loop, open until they have their result.

No future hangs. When an incarnation ends, each operation finds its invocation in the store again, or fails because the
outcome is unknown. Cancelling one abandons the reply, never the invocation (rule D6).
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.protocol.commands import CompleteAwakeable
from durably.actors.protocol.operations import CallSite, HostOperation, told_unreadable
from durably.actors.values.durations import FOREVER_US
from durably.actors.values.error_envelopes import decode_failure
from durably.actors.values.slices import decode_in_slices
from durably.actors.values.user_errors import USER_ERRORS, as_exception, let_signals_pass
from durably.errors import AlreadyStartedError, StoreUnavailableError
from durably.runtime.execution.step import Outcome
from durably.runtime.gateway.requests import Acceptance, Reply
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.invocations.invocation import Found, InvocationRun
from durably.storage.records import InvocationRecord

A = TypeVar("A")
R = TypeVar("R")


PRUNE_AT = 1_024


class PendingRequests:
    """All who wait, across incarnations, in the order in which they came: they hear of a failure in that order."""

    def __init__(self, slice_bytes: int) -> None:
        """Results that are larger than `slice_bytes` are decoded in slices."""
        self.host = asyncio.get_running_loop()
        self.create_future = self.host.create_future
        self.slice_bytes = slice_bytes
        self.sliced_work = SlicedWork(self._mistaken, _no_one_waits)
        self.failure: BaseException | None = None
        """Why the last incarnation ended."""
        self._waiting: dict[PendingRequest[Any], None] = {}
        self._prune_at = PRUNE_AT
        self.ended = self._waiting.pop
        """`ended(request, None)`: it has been told its result."""

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[PendingRequest[Any]]:
        return iter([request for request in self._waiting if not request.future.done()])

    def add(self, request: PendingRequest[Any]) -> None:
        """One more waits. Those that were cancelled tell no one: they make room when the number has doubled."""
        self._waiting[request] = None
        if len(self._waiting) >= self._prune_at:
            for one in [one for one in self._waiting if one.future.done()]:
                del self._waiting[one]
            self._prune_at = max(2 * len(self._waiting), PRUNE_AT)

    def _mistaken(self, error: BaseException) -> None:
        self.host.call_exception_handler({"message": "durably failed to hand over a result", "exception": error})

    def refuse_all(self, error: Callable[[str], BaseException]) -> None:
        """Tell all who wait that they wait in vain; `error` makes the reason for an invocation's id."""
        for request in self:
            request.refuse(error(request.id))


class Recoverer(Protocol):
    """The machine, as a request needs it that has found its invocation."""

    def when_answerable(self, callback: Callable[[A], object], argument: A, /) -> None: ...
    def wait_for(self, request: OutcomeOperation[Any], found: InvocationRun | InvocationRecord, /) -> None: ...


class PendingRequest(HostOperation[R]):
    """An operation on the host's loop, held for as long as it is open."""

    __slots__ = ("_pending", "id", "joined")

    id: str
    """Of the invocation, once one was accepted or found; empty before."""
    joined: bool
    """Its invocation was there before; known once it has an id."""

    def __init__(self, pending: PendingRequests, what: object, site: CallSite | None) -> None:
        self._pending = pending
        self.id = ""
        self.joined = False
        self.future = pending.create_future()
        self.what = what
        self.site = site
        self.taken = False
        pending.add(self)

    def __del__(self) -> None:
        if not self.taken and self.site is not None:
            warnings.warn_explicit(  # Where it was called: where it is forgotten is some place in the machine.
                f"{self.what} was never awaited, at {self.site}. It was issued all the same; write `await` before it.",
                RuntimeWarning,
                self.site.filename,
                self.site.line,
            )

    def is_among(self, pending: PendingRequests) -> bool:
        """It was asked of the runtime that these have been asked of."""
        return self._pending is pending

    def finish(self, result: R) -> None:
        self._pending.ended(self, None)
        if not self.future.done():
            self.future.set_result(result)

    def refuse(self, error: BaseException, /) -> None:
        self._pending.ended(self, None)
        if not self.future.done():
            self.future.set_exception(as_exception(error))

    def found(self, machine: Recoverer, found: InvocationRun | InvocationRecord) -> None:
        """The invocation that it asks about exists."""
        raise NotImplementedError

    def found_again(self, machine: Recoverer, found: Found) -> None:
        """After a failure of the store: whether its invocation is there."""
        if found is None:
            self.refuse(unknown_outcome(self._pending.failure, self.id))
        else:
            self.found(machine, found)


class OutcomeOperation(PendingRequest[R]):
    """Waits for an outcome."""

    __slots__ = ("known_to",)

    known_to: object
    """The incarnation that has accepted or found its invocation; there once it has an id."""

    def is_certain(self) -> bool:
        """It has an outcome of its invocation, so that was durable."""
        future = self.future
        if not future.done() or future.cancelled():
            return False
        return not isinstance(future.exception(), StoreUnavailableError)

    def answer(self, outcome: Outcome, expires_at: int | None, cause: BaseException | None = None, /) -> None:
        """The invocation has ended, durably. `cause` is the handler's error, where it is in memory."""
        raise NotImplementedError

    def comes_from(self, found: InvocationRun | InvocationRecord) -> None:
        """The answer to come is that of this invocation."""

    def refuse_second_start(self, id: str, error: AlreadyStartedError) -> None:
        """It asked for the `run` of a workflow that has been started, as this invocation."""
        self.id, self.joined, self.known_to = id, True, None
        self.refuse(error)

    def found(self, machine: Recoverer, found: InvocationRun | InvocationRecord) -> None:
        self.joined = self.joined or not self.id
        self.id, self.known_to = found.id, machine
        self.comes_from(found)
        machine.wait_for(self, found)


class ResultOperation(OutcomeOperation[R]):
    """For references: the decoded result, or the handler's error raised. The most frequent operation of all."""

    __slots__ = ("_decode",)

    def __init__(
        self, pending: PendingRequests, what: object, site: CallSite | None, decode: Callable[[bytes], R]
    ) -> None:
        super().__init__(pending, what, site)
        self._decode = decode

    def answer(self, outcome: Outcome, expires_at: int | None, cause: BaseException | None = None, /) -> None:
        try:
            if outcome.failed:
                self.refuse(decode_failure(outcome.value, cause))
            elif len(outcome.value) > self._pending.slice_bytes:
                size_bytes = self._pending.slice_bytes
                slices = decode_in_slices(self._decode, outcome.value, size_bytes)
                refuse = partial(self._refuse_unreadable, outcome.value)
                self._pending.sliced_work.begin(slices, self.finish, refuse)
            else:
                self.finish(self._decode(outcome.value))
        except USER_ERRORS as error:  # User code decodes.
            let_signals_pass(error)
            self._refuse_unreadable(outcome.value, error)

    def _refuse_unreadable(self, data: bytes, error: BaseException) -> None:
        self.refuse(told_unreadable(self.what, data, error))


class ReplyOperation(OutcomeOperation[Reply]):
    """For ingresses: bytes, and failures as values."""

    __slots__ = ("_handler", "_handler_of", "_is_first", "_keyed")

    def __init__(
        self,
        pending: PendingRequests,
        what: object,
        *,
        handler: BoundActorHandler | None = None,
        handler_of: Callable[[str, str], BoundActorHandler | None] | None = None,
        keyed: bool,
    ) -> None:
        """`handler` knows the content type of its results. `keyed` requests are told how long the outcome is kept, all
        but the one that began the invocation, as Restate's clients know it.

        `handler_of` the names of a service and a handler, where it is not known yet whose outcome it will be.
        """
        super().__init__(pending, what, None)
        self._handler = handler
        self._handler_of = handler_of
        self._keyed = keyed
        self._is_first = True

    def refuse_second_start(self, id: str, error: AlreadyStartedError) -> None:
        """To clients outside that is the failure of a call, which must not be repeated."""
        self.finish(Reply(id=id, body=b"", content_type=None, failure=error, expires_at=None))

    def comes_from(self, found: InvocationRun | InvocationRecord) -> None:
        self._is_first = False
        if self._handler_of is not None:
            handler = found.handler.name if isinstance(found, InvocationRun) else found.handler
            self._handler = self._handler_of(found.address.service, handler)

    def answer(self, outcome: Outcome, expires_at: int | None, cause: BaseException | None = None, /) -> None:
        try:
            failure = decode_failure(outcome.value) if outcome.failed else None
        except USER_ERRORS as error:  # An error class of the user's may refuse to be made.
            let_signals_pass(error)
            self.refuse(error)
            return
        body = b"" if outcome.failed else outcome.value
        is_announced = self._keyed and not self._is_first and expires_at is not None and expires_at < FOREVER_US
        expires_at = expires_at if is_announced else None
        handler = self._handler
        content_type = None
        if not outcome.failed and handler is not None:
            content_type = handler.content_type if body else handler.content_type_if_empty
        self.finish(Reply(id=self.id, body=body, content_type=content_type, failure=failure, expires_at=expires_at))


class AcceptanceOperation(PendingRequest[R]):
    """Waits until a message is durable."""

    __slots__ = ("_make",)

    def __init__(
        self, pending: PendingRequests, what: object, site: CallSite | None, make: Callable[[Acceptance], R]
    ) -> None:
        super().__init__(pending, what, site)
        self._make = make

    def joins(self, id: str) -> None:
        """It is answered with an invocation that was there before."""
        self.id, self.joined = id, True

    def accepted(self, acceptance: Acceptance) -> None:
        self.finish(self._make(acceptance))

    def found(self, machine: Recoverer, found: InvocationRun | InvocationRecord) -> None:
        machine.when_answerable(self.accepted, Acceptance(id=self.id, previously_accepted=self.joined, due=found.due))


class IdentificationOperation(PendingRequest[R]):
    """Waits until a call has an invocation, durably."""

    __slots__ = ("_make", "call")

    def __init__(
        self,
        pending: PendingRequests,
        what: object,
        site: CallSite | None,
        call: OutcomeOperation[Any],
        make: Callable[[str, bool], R],
    ) -> None:
        """`make` gets the id, and whether the invocation was there before."""
        super().__init__(pending, what, site)
        self.call = call
        self._make = make

    def identified(self, call: OutcomeOperation[Any]) -> None:
        """The call has its invocation, durably."""
        self.finish(self._make(call.id, call.joined))

    def ends_as(self, call: OutcomeOperation[Any]) -> None:
        """The call has ended without an invocation of its own: it was refused, or given up before it had one."""
        if call.id and call.is_certain():
            self.identified(call)
        elif call.cancelled():
            self._pending.ended(self, None)
            self.future.cancel()
        else:
            error = call.exception()
            assert error is not None
            self.refuse(error)

    def found(self, machine: Recoverer, found: InvocationRun | InvocationRecord) -> None:
        machine.when_answerable(self.identified, self.call)


class QuestionOperation(PendingRequest[R]):
    """Waits for the answer to a question; after a failure it must be asked again."""

    __slots__ = ()

    def found(self, machine: Recoverer, found: InvocationRun | InvocationRecord) -> None:
        self.refuse(unknown_outcome(self._pending.failure, self.id))


class DecodedOperation(QuestionOperation[R]):
    """Waits for an answer that is bytes, and ends with what they mean."""

    __slots__ = ("_decode",)

    def __init__(
        self, pending: PendingRequests, what: object, site: CallSite | None, decode: Callable[[bytes], R]
    ) -> None:
        super().__init__(pending, what, site)
        self._decode = decode

    def answer(self, found: bytes) -> None:
        try:
            result = self._decode(found)
        except USER_ERRORS as error:  # The types are the user's.
            self.refuse(error)
            let_signals_pass(error)
        else:
            self.finish(result)


class CompletionOperation(PendingRequest[None]):
    """Waits until an awakeable is completed. After a failure that can be done again, since the first one counts."""

    __slots__ = ("command",)

    def __init__(
        self, pending: PendingRequests, what: object, site: CallSite | None, command: CompleteAwakeable
    ) -> None:
        super().__init__(pending, what, site)
        self.command = command


class CancelOperation(QuestionOperation[Any]):
    """For handles: nothing is said of how an invocation was cancelled."""

    __slots__ = ()

    def finish(self, result: Any) -> None:
        super().finish(None)


def is_call_of(pending: PendingRequests, operation: object) -> bool:
    """It waits for an outcome, and was asked of this runtime."""
    return isinstance(operation, OutcomeOperation) and operation.is_among(pending)


def _no_one_waits() -> None:
    return None


def unknown_outcome(error: BaseException | None, id: str) -> StoreUnavailableError:
    """The error of a request that was under way when the store failed; `id` is empty until it was accepted."""
    reason = "it was closed." if error is None else str(error)
    if id:
        told = StoreUnavailableError(
            f"The store failed, so the outcome is unknown. With an idempotency key it is safe to ask again. {reason}"
        )
    else:
        told = StoreUnavailableError(
            f"The store failed before the request was accepted. Nothing was accepted, so it is safe to ask again. "
            f"{reason}",
            nothing_accepted=True,
        )
    told.__cause__ = error
    return told

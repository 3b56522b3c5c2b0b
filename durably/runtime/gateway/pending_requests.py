"""Everybody outside who waits: operations on the host's loop, open until they have been told their result.

Nobody's future hangs. When an incarnation ends, each operation finds its invocation in the store again, or hears that
the outcome is unknown; cancelling one abandons the reply, never the invocation (rule D6).
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from durably.actors.protocol.operations import CallSite, HostOperation
from durably.actors.values.error_envelopes import decode_failure
from durably.errors import StoreUnavailableError
from durably.ids import InvocationStatus
from durably.runtime.engine.engine import Engine
from durably.runtime.execution.step import Outcome
from durably.runtime.gateway.requests import Acceptance, Reply
from durably.runtime.invocations.invocation import InvocationRun, decode_outcome
from durably.runtime.lifecycle.pauses import pause_of
from durably.storage.records import InvocationRecord

R = TypeVar("R")


class PendingRequestOwner(Protocol):
    """The way in, which knows who waits."""

    host: asyncio.AbstractEventLoop
    waiting: dict[PendingRequest[Any], None]

    def lost(self) -> BaseException:
        """What somebody hears whose request may or may not have been accepted."""
        ...


class PendingRequest(HostOperation[R]):
    """An operation on the host's loop. Its owner holds it for as long as it is open."""

    __slots__ = ("_owner", "id")

    id: str
    """Of the invocation, once one was accepted or found; empty before."""

    def __init__(self, owner: PendingRequestOwner, what: object, site: CallSite | None) -> None:
        self._owner = owner
        self.id = ""
        super().__init__(owner.host, what, site)
        owner.waiting[self] = None

    def __del__(self) -> None:
        if not self.taken and self.site is not None:
            warnings.warn_explicit(  # Where it was called: where it is forgotten is some place in the machine.
                f"{self.what} was never awaited, at {self.site}. It was issued all the same; write `await` before it.",
                RuntimeWarning,
                self.site.filename,
                self.site.line,
            )
        super().__del__()

    def cancel(self, msg: Any | None = None) -> bool:
        """Nobody wants the reply any more; the invocation goes on (rule D6)."""
        self._owner.waiting.pop(self, None)
        return super().cancel(msg)

    def finish(self, result: R) -> None:
        self._owner.waiting.pop(self, None)
        if not self.done():
            self.set_result(result)

    def refuse(self, error: BaseException, /) -> None:
        self._owner.waiting.pop(self, None)
        if not self.done():
            self.set_exception(error)

    def recover(self, engine: Engine) -> None:
        """The store is back after a failure: find out how things stand."""
        if self.done():
            self._owner.waiting.pop(self, None)
        elif not self.id:  # Nothing had been accepted for it.
            self.refuse(self._owner.lost())
        else:
            engine.registry.by_id(self.id, partial(self._found_again, engine))

    def _found_again(self, engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
        if known is None and record is None:
            self.refuse(self._owner.lost())
        else:
            self.attach_to(engine, known, record)

    def attach_to(self, engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
        """The invocation that this one asks about exists."""
        raise NotImplementedError


class OutcomeOperation(PendingRequest[R]):
    """Waits for an outcome."""

    __slots__ = ()

    def answer(self, outcome: Outcome, expires_at: int | None, /) -> None:
        """The invocation has ended, durably."""
        raise NotImplementedError

    def attach_to(self, engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
        """If it has ended or is paused, hear of it once that is durable; otherwise wait."""
        if known is not None:
            self._stands_in_memory(engine, known)
        elif record is not None:
            self._stands_in_the_store(engine, record)

    def _stands_in_memory(self, engine: Engine, known: InvocationRun) -> None:
        self.id = known.id
        if known.outcome is not None:
            engine.when_durable(self._tell_known, known)
        elif known.status is InvocationStatus.PAUSED:
            engine.when_durable(self.refuse, pause_of(known))
        else:
            engine.registry.wait_for(known.number, self)
            engine.pause_search.begin(known, None, self.refuse)

    def _stands_in_the_store(self, engine: Engine, record: InvocationRecord) -> None:
        self.id = record.id
        if record.outcome is not None:
            engine.when_durable(self._tell_recorded, record)
            return
        # It is suspended, scheduled, far back in a mailbox, or waits for a person.
        engine.registry.wait_for(record.number, self)
        if record.status is InvocationStatus.PAUSED:
            engine.pauses.tell_stored(record)
        else:
            engine.pause_search.begin(None, record, self.refuse)

    def _tell_known(self, known: InvocationRun) -> None:
        assert known.outcome is not None
        self.answer(known.outcome, known.expires_at)

    def _tell_recorded(self, record: InvocationRecord) -> None:
        assert record.outcome is not None
        self.answer(decode_outcome(record.outcome), record.expires_at)


class ResultOperation(OutcomeOperation[R]):
    """For references: the decoded result, or the handler's error raised. The most frequent operation of all."""

    __slots__ = ("_decode",)

    def __init__(
        self, owner: PendingRequestOwner, what: object, site: CallSite | None, decode: Callable[[bytes], R]
    ) -> None:
        super().__init__(owner, what, site)
        self._decode = decode

    def answer(self, outcome: Outcome, expires_at: int | None, /) -> None:
        try:
            if outcome.failed:
                self.refuse(decode_failure(outcome.value))
            else:
                self.finish(self._decode(outcome.value))
        except Exception as error:  # User code decodes, in the middle of whatever else is told at this moment.
            self.refuse(error)


class ReplyOperation(OutcomeOperation[Reply]):
    """For ingresses: bytes, and failures as values."""

    __slots__ = ("_content_type", "_keyed")

    def __init__(self, owner: PendingRequestOwner, what: object, *, content_type: str | None, keyed: bool) -> None:
        """`content_type` is that of the handler's results; `keyed` requests are told how long the outcome is kept."""
        super().__init__(owner, what, None)
        self._content_type = content_type
        self._keyed = keyed

    def answer(self, outcome: Outcome, expires_at: int | None, /) -> None:
        try:
            failure = decode_failure(outcome.value) if outcome.failed else None
        except Exception as error:  # An error class of the user's may refuse to be made.
            self.refuse(error)
            return
        body = b"" if outcome.failed else outcome.value
        expires_at = expires_at if self._keyed else None
        content_type = self._content_type if body else None
        self.finish(Reply(id=self.id, body=body, content_type=content_type, failure=failure, expires_at=expires_at))


class AcceptanceOperation(PendingRequest[R]):
    """Waits until a message is durable."""

    __slots__ = ("_make",)

    def __init__(
        self, owner: PendingRequestOwner, what: object, site: CallSite | None, make: Callable[[Acceptance], R]
    ) -> None:
        super().__init__(owner, what, site)
        self._make = make

    def accepted(self, acceptance: Acceptance) -> None:
        self.finish(self._make(acceptance))

    def attach_to(self, engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
        engine.when_durable(self.accepted, Acceptance(id=self.id, previously_accepted=False, due=None))


class QuestionOperation(PendingRequest[R]):
    """Waits for the answer to a question; after a failure it must be asked again."""

    __slots__ = ()

    def attach_to(self, engine: Engine, known: InvocationRun | None, record: InvocationRecord | None) -> None:
        self.refuse(self._owner.lost())


def unknown_outcome(error: BaseException | None) -> StoreUnavailableError:
    """What is said of a request that was under way when the store failed."""
    reason = "it was closed." if error is None else str(error)
    told = StoreUnavailableError(
        f"The store failed, so the outcome is unknown. With an idempotency key it is safe to ask again. {reason}"
    )
    told.__cause__ = error
    return told

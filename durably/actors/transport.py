"""`Transport`: what carries messages, and what it carries.

A handler's context, a runtime in this process and an HTTP client are transports. References give each of them the same
`Outgoing` messages, so a program that is typed on `Caller` works with all three.
"""

# pyright: reportPrivateUsage=false
# A transport's methods are hidden from users, not from handles.

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from durably.actors.definition.arguments import Arguments
from durably.actors.event_values import EventClass, Published
from durably.actors.headers import Forwarding
from durably.actors.protocol.commands import CompleteAwakeable, Question
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.sent_values import Sent, checked_signal_name, sent_failure, sent_value
from durably.actors.values.serde import JSON, Serde, SerdeFactory
from durably.ids import InvocationStatus

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

PUBLISHER: Final = "durably.events"
"""The service of every runtime that publishes for those outside."""
PUBLISH: Final = "publish"


class Outgoing(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """A message, as a transport takes it."""

    service: str
    key: str | None
    handler: str
    argument: bytes
    """In journal form, or as a body from outside where `wire` is set."""
    decode: Callable[[bytes], R]
    headers: dict[str, str] = {}
    idempotency_key: str | None = None
    timeout_us: int | None = None
    wire: bool = False
    forwarding: Forwarding | None = None
    """Which headers of the sending invocation it carries on; None leaves that to the class and the runtime."""
    may_join: bool = False
    """It has an idempotency key, or runs a workflow: there may be an earlier invocation, which it joins."""
    written_by: Arguments | None = None
    """What has written `argument`: it can read it too (rule V5). None: that is not known."""
    content_type: str | None = None
    """Of a body from outside, where that is known."""

    def __str__(self) -> str:
        """For sentences: `TicketObject/reserve`."""
        return f"{self.service}/{self.handler}"


class Delay(msgspec.Struct, frozen=True):
    """When a message is to join its mailbox: `after_us` from now, or at `at_us`, microseconds since 1970 UTC."""

    after_us: int | None = None
    at_us: int | None = None


class Transport:
    """What carries messages: a handler's journal, a runtime in this process, HTTP. Subclasses implement all of it."""

    __slots__ = ()

    @property
    def _serde(self) -> SerdeFactory | None:
        """Makes the Serdes of classes that have none of their own; None: their values are JSON."""
        return None

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> Coroutine[object, object, R]:
        """Call, and end with the answer."""
        raise NotImplementedError

    def _issue_send(
        self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /
    ) -> Coroutine[object, object, Invocation[R]]:
        """Send, and end when the message is accepted."""
        raise NotImplementedError

    def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> Coroutine[object, object, R]:
        """End with the outcome of the invocation that has this idempotency key, starting none."""
        raise NotImplementedError

    def _issue_output(self, outgoing: Outgoing[R], site: CallSite, /) -> Coroutine[object, object, R]:
        """End with the outcome of the invocation that `_issue_attach` would wait for, as it is now."""
        raise NotImplementedError

    def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> Coroutine[object, object, R]:
        """End with the outcome of an invocation."""
        raise NotImplementedError

    def _issue_output_of(
        self, id: str, decode: Callable[[bytes], R], site: CallSite, /
    ) -> Coroutine[object, object, R]:
        """End with the outcome of an invocation, as it is now."""
        raise NotImplementedError

    def _issue_status(self, id: str, site: CallSite, /) -> Coroutine[object, object, InvocationStatus]:
        """End with where an invocation stands."""
        raise NotImplementedError

    def _issue_identification(self, call: object, site: CallSite, /) -> Coroutine[object, object, Invocation[Any]]:
        """End with the handle of the invocation that a call has started or joined.

        Raises:
            TypeError: it is no call that this has issued.
        """
        raise NotImplementedError

    def _issue_completion(self, command: CompleteAwakeable, site: CallSite, /) -> Coroutine[object, object, None]:
        """Resolve or reject an awakeable."""
        raise NotImplementedError

    def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite, /) -> Coroutine[object, object, None]:
        """Send a signal to an invocation, and end when it has it."""
        raise NotImplementedError

    def _issue_reading(
        self, question: Question, decode: Callable[[bytes], R], site: CallSite, /
    ) -> Coroutine[object, object, R]:
        """Ask the store, and end with the answer: a JSON array of the values of events."""
        raise NotImplementedError

    def _moment_and_bits(self) -> tuple[int, int]:
        """What a new id is made of: now, in microseconds since 1970 UTC, and 128 random bits."""
        raise NotImplementedError

    def _name_of_handler(self) -> str | None:
        """The handler that asks; None outside handlers."""
        return None

    def _subscribed_events(self) -> Mapping[str, EventClass]:
        """The classes of events that handlers of this runtime subscribe to, as far as they are known here."""
        return {}

    def _issue_cancel(self, id: str, site: CallSite, /) -> Coroutine[object, object, None]:
        """Cancel an invocation."""
        raise NotImplementedError

    def _issue_publish(
        self, events: Sequence[Published], idempotency_key: str | None, headers: dict[str, str], site: CallSite, /
    ) -> Coroutine[object, object, None]:
        """Publish events. From outside it is a call, so it is tried again and done once as others are."""
        return self._issue_call(publication(events, idempotency_key, headers), site)


def publication(events: Sequence[Published], idempotency_key: str | None, headers: dict[str, str]) -> Outgoing[None]:
    """The call that publishes events from outside."""
    return Outgoing(
        PUBLISHER,
        None,
        PUBLISH,
        msgspec.json.encode(events),
        _nothing,
        headers,
        idempotency_key,
        wire=True,
        may_join=idempotency_key is not None,
        content_type=JSON,
    )


def _nothing(answer: bytes) -> None:
    return None


def message_of(call: object) -> Outgoing[Any] | None:
    """What an operation has asked for, if it is a call."""
    what: object = getattr(call, "what", None)
    message = cast("Outgoing[Any]", what)
    return message if isinstance(what, Outgoing) else None


def no_call(given: object) -> TypeError:
    """The error for an argument that is not a call."""
    return TypeError(
        f"invocation_of() takes a call that has not been awaited yet, from the same context, runtime or client: "
        f"`call = caller.object(Cart, key).add(...)`. {given!r} is none. (A message that was sent has its id: "
        "`sent = await ....send(...)`, `sent.id`.)"
    )


class Invocation(Generic[R_co]):
    """A handle on an accepted invocation, from `send`, `caller.invocation_of(call)` or `caller.invocation(id, T)`."""

    __slots__ = ("_decode", "_transport", "id", "previously_accepted")

    def __init__(
        self, transport: Transport, id: str, decode: Callable[[bytes], R_co], previously_accepted: bool = False
    ) -> None:
        self._transport = transport
        self._decode = decode
        self.id = id
        self.previously_accepted = previously_accepted
        """The message joined an invocation that was there before: nothing new was accepted."""

    def __repr__(self) -> str:
        return f"<invocation {self.id}>"

    def result(self) -> Coroutine[object, object, R_co]:
        """Wait for the outcome.

        Raises:
            TerminalError: the invocation failed; the handler's own class and fields.
            UnknownTargetError: there is no such invocation, or its outcome is not kept any longer.
        """
        return self._transport._issue_result(self.id, self._decode, CallSite(frame_above(1)))

    def __await__(self) -> Generator[Any, None, R_co]:
        """`await invocation` is `await invocation.result()`."""
        operation = self._transport._issue_result(self.id, self._decode, CallSite(frame_above(1)))
        return operation.__await__()

    def output(self) -> Coroutine[object, object, R_co]:
        """The outcome, without waiting for it.

        Raises:
            NotReadyError: there is none yet.
            TerminalError: the invocation failed; the handler's own class and fields.
            UnknownTargetError: there is no such invocation, or its outcome is not kept any longer.
        """
        return self._transport._issue_output_of(self.id, self._decode, CallSite(frame_above(1)))

    def status(self) -> Coroutine[object, object, InvocationStatus]:
        """Where the invocation stands."""
        return self._transport._issue_status(self.id, CallSite(frame_above(1)))

    def signal(
        self, name: str, value: Any = None, *, serde: Serde[Any] | None = None
    ) -> Coroutine[object, object, None]:
        """Send a signal: the next `ctx.signal(name)` of the invocation that has none takes it, now or later.

        `serde` writes it, where it is awaited with one.

        Raises:
            UnknownTargetError: there is no such invocation (404).
            InvocationStatusError: it has ended and takes no signal any more (409).
            UnencodableError: the value cannot be written.
        """
        sent = sent_value(value, serde)
        return self._transport._issue_signal(self.id, checked_signal_name(name), sent, CallSite(frame_above(1)))

    def reject_signal(self, name: str, reason: str, /, *, code: int = 500) -> Coroutine[object, object, None]:
        """Send a signal that raises a `TerminalError` where it is awaited. Raises what `signal` does."""
        sent = sent_failure(reason, code)
        return self._transport._issue_signal(self.id, checked_signal_name(name), sent, CallSite(frame_above(1)))

    def cancel(self) -> Coroutine[object, object, None]:
        """Cancel the invocation: its handler gets `asyncio.CancelledError`, and so do the handlers that it calls.

        One that has not started ends at once. In a handler this is one-way: it never waits, and what has ended or is
        not there is left alone. Outside it ends when the cancel is durable.

        Raises:
            UnknownTargetError: outside: there is no such invocation.
            InvocationStatusError: outside: it has ended.
        """
        return self._transport._issue_cancel(self.id, CallSite(frame_above(1)))

"""`Caller`: what a context, a runtime and a client have in common. A function typed on it works in all three places."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar, overload

from durably.actors.actor import Service, VirtualObject, Workflow
from durably.actors.headers import plain_headers
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.reference_classes import reference
from durably.actors.sent_values import rejection, resolution
from durably.actors.transport import Delay, Invocation, Outgoing, Transport
from durably.actors.values.descriptions import MISSING
from durably.actors.values.durations import Duration, duration_us
from durably.actors.values.serde import Serde, codec_named
from durably.actors.values.type_checks import is_bytes
from durably.ids import RUN, is_storable

T = TypeVar("T")
ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)


class Caller(Transport):
    """Gives references to services, objects and workflows, and handles on invocations."""

    __slots__ = ()

    def service(self, actor: type[ServiceT], /) -> ServiceT:
        """A reference to a service: its handlers are called by message."""
        return reference(self, actor, "service", None)

    def object(self, actor: type[ObjectT], key: str, /) -> ObjectT:
        """A reference to the virtual object with this key: its handlers are called by message."""
        return reference(self, actor, "object", key)

    def workflow(self, actor: type[WorkflowT], id: str, /) -> WorkflowT:
        """A reference to the workflow with this id: its handlers are called by message.

        `run.send(...)` submits it, `run(...)` waits for its result too, `run.attach()` waits for one that was
        submitted, `run.output()` looks. It executes once: a second call raises `AlreadyStartedError`, and a second
        send gives the handle of the first.
        """
        return reference(self, actor, "workflow", id)

    @overload
    def invocation(self, id: str, /) -> Invocation[Any]: ...
    @overload
    def invocation(self, id: str, returns: type[T] | Serde[T], /) -> Invocation[T]: ...
    def invocation(self, id: str, returns: Any = MISSING, /) -> Invocation[Any]:
        """A handle on an invocation whose result is of this type, or as a Serde reads it.

        Without a type it is read as `Any`.
        """
        if not is_storable(id):
            raise TypeError(f"The id of an invocation is Unicode text without NUL; {id!r} is not.")
        return Invocation(self, id, codec_named(returns, self._serde).decode)

    def call(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[Any, Any, bytes]:
        """Call by name and bytes: `body` and the answer are as over HTTP. `key` is None for a service.

        Raises:
            TerminalError: the handler failed, or there is none of this name, or the body does not fit it.
        """
        outgoing = _outgoing(service, key, handler, body, headers, idempotency_key)
        return self._issue_call(outgoing, CallSite(frame_above(1)))

    def send(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        key: str | None = None,
        after: Duration = 0,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[Any, Any, Invocation[bytes]]:
        """Send by name and bytes, delayed by `after`: a timedelta or seconds."""
        outgoing = _outgoing(service, key, handler, body, headers, idempotency_key)
        after_us = duration_us(after, "send(after=...)")
        return self._issue_send(outgoing, Delay(after_us=after_us) if after_us else None, CallSite(frame_above(1)))

    def resolve_awakeable(self, id: str, value: Any = None, /) -> Coroutine[Any, Any, None]:
        """Supply the value that an awakeable waits for. The first one counts; a late one changes nothing (rule E5).

        Raises:
            InvalidArgumentError: the id is not that of an awakeable (400).
            UnencodableError: the value cannot be written.
        """
        return self._issue_completion(resolution(id, value), CallSite(frame_above(1)))

    def reject_awakeable(self, id: str, reason: str, /, *, code: int = 500) -> Coroutine[Any, Any, None]:
        """Let the handler that awaits an awakeable get a `TerminalError`.

        Raises:
            InvalidArgumentError: the id is not that of an awakeable (400).
        """
        return self._issue_completion(rejection(id, reason, code), CallSite(frame_above(1)))


def _outgoing(
    service: str,
    key: str | None,
    handler: str,
    body: bytes,
    headers: Mapping[str, str] | None,
    idempotency_key: str | None,
) -> Outgoing[bytes]:
    if not is_bytes(body):
        raise TypeError(
            f"The body of a call by name is bytes, not {body!r}. With the class of the actor at hand, use a reference."
        )
    for name in (service, key or "", handler, idempotency_key or ""):
        if not is_storable(name):
            raise TypeError(f"Names and keys are Unicode text without NUL; {name!r} is not.")
    # Without the class it is not known whether this runs a workflow.
    may_join = idempotency_key is not None or (key is not None and handler == RUN)
    return Outgoing(
        service,
        key,
        handler,
        bytes(body),
        _unchanged,
        plain_headers(headers),
        idempotency_key,
        None,
        True,
        may_join=may_join,
    )


def _unchanged(data: bytes) -> bytes:
    return data

"""`Caller`: what a context, a runtime and a client have in common. A function typed on it works in all three places."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar, overload

from durably.actors.actor import Service, StateMachine, VirtualObject, Workflow
from durably.actors.event_values import published
from durably.actors.headers import plain_headers
from durably.actors.named_messages import decoding, named_message, named_question
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.reference_classes import machine_reference, reference
from durably.actors.sent_values import rejection, resolution
from durably.actors.transport import Delay, Invocation, Transport
from durably.actors.values.durations import Duration, duration_us
from durably.actors.values.names import checked_name
from durably.actors.values.serde import MISSING, Serde

AnyObject: TypeAlias = object
"""The class below has a method of this name."""

T = TypeVar("T")
MachineT = TypeVar("MachineT", bound=StateMachine)
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

    def machine(self, machine: type[MachineT], /) -> MachineT:
        """The transitions and questions of a model: `order, made = await ctx.machine(Orders).create(amount=100)`."""
        return machine_reference(self, machine)

    @overload
    def invocation(self, id: str, /) -> Invocation[Any]: ...
    @overload
    def invocation(self, id: str, returns: type[T] | Serde[T], /) -> Invocation[T]: ...
    @overload
    def invocation(self, id: str, returns: None, /) -> Invocation[None]: ...
    def invocation(self, id: str, returns: Any = MISSING, /) -> Invocation[Any]:
        """A handle on an invocation whose result is of this type, or as a Serde reads it; None: it has none.

        Without a type the result is read as `Any`.
        """
        checked_name(id, f"The id of an invocation is Unicode text without NUL, and not empty; {id!r} is not.")
        return Invocation(self, id, decoding(self._serde, returns, id))

    def invocation_of(self, call: Coroutine[Any, Any, T], /) -> Coroutine[AnyObject, AnyObject, Invocation[T]]:
        """The invocation behind a call that is under way, to show its id, look at it, signal it or cancel it.

            call = ctx.object(Printer, "p1").print(document)
            job = await ctx.invocation_of(call)
            self.job = job.id
            pages = await call

        Its await waits until the call is accepted, not for its answer. With an idempotency key this is the invocation
        that the call has joined; then `previously_accepted` says so. After `job.cancel()` the call raises
        `CancelledInvocationError`.

        Raises:
            TypeError: it is no call, or one of another context, runtime or client.
            DurablyError: outside handlers: the call was refused, or (StoreUnavailableError) that is unknown.
        """
        return self._issue_identification(call, CallSite(frame_above(1)))

    @overload
    def call(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        key: str | None = None,
        argument: Any = ...,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, bytes]: ...
    @overload
    def call(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        returns: type[T] | Serde[T],
        key: str | None = None,
        argument: Any = ...,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, T]: ...
    @overload
    def call(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        returns: None,
        key: str | None = None,
        argument: Any = ...,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, None]: ...
    def call(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        key: str | None = None,
        argument: Any = MISSING,
        returns: Any = MISSING,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, Any]:
        """Call a handler by name, where its class is not at hand: `call("Cart", "add", key="mary", argument="2B")`.

        `key` is that of an object or the id of a workflow, and None for a service. `argument` is sent as a body over
        HTTP is: the value of the only parameter, or a dict by name; or give the `body` itself, in bytes. The answer is
        its bytes; with `returns=` it is a value of this type, or as a Serde reads it (None: the handler returns
        nothing).

        Raises:
            TerminalError: the handler failed, or (UnknownTargetError) there is none of this name, or
                (InvalidArgumentError) the argument does not fit it.
            UnencodableError: the argument cannot be written.
        """
        outgoing = named_message(
            self._serde, service, handler, body, key=key, argument=argument, returns=returns, headers=headers,
            idempotency_key=idempotency_key, timeout=timeout,
        )  # fmt: skip
        return self._issue_call(outgoing, CallSite(frame_above(1)))

    @overload
    def send(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        key: str | None = None,
        argument: Any = ...,
        after: Duration = 0,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, Invocation[bytes]]: ...
    @overload
    def send(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        returns: type[T] | Serde[T],
        key: str | None = None,
        argument: Any = ...,
        after: Duration = 0,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, Invocation[T]]: ...
    @overload
    def send(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        returns: None,
        key: str | None = None,
        argument: Any = ...,
        after: Duration = 0,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, Invocation[None]]: ...
    def send(
        self,
        service: str,
        handler: str,
        body: bytes = b"",
        *,
        key: str | None = None,
        argument: Any = MISSING,
        returns: Any = MISSING,
        after: Duration = 0,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout: Duration | None = None,
    ) -> Coroutine[AnyObject, AnyObject, Invocation[Any]]:
        """Send to a handler by name, delayed by `after`: a timedelta or seconds. All else is as in `call`.

        `returns` is for who asks the handle for the result.
        """
        outgoing = named_message(
            self._serde, service, handler, body, key=key, argument=argument, returns=returns, headers=headers,
            idempotency_key=idempotency_key, timeout=timeout,
        )  # fmt: skip
        after_us = duration_us(after, "send(after=...)")
        return self._issue_send(outgoing, Delay(after_us=after_us) if after_us else None, CallSite(frame_above(1)))

    @overload
    def attach(
        self,
        service: str,
        handler: str,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[AnyObject, AnyObject, bytes]: ...
    @overload
    def attach(
        self,
        service: str,
        handler: str,
        /,
        *,
        returns: type[T] | Serde[T],
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[AnyObject, AnyObject, T]: ...
    @overload
    def attach(
        self,
        service: str,
        handler: str,
        /,
        *,
        returns: None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[AnyObject, AnyObject, None]: ...
    def attach(
        self,
        service: str,
        handler: str,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        returns: Any = MISSING,
    ) -> Coroutine[AnyObject, AnyObject, Any]:
        """Wait for a workflow, or for the invocation that has this idempotency key, by name, starting none.

            user = await caller.attach("Signup", "run", key="mary", returns=User)

        `key` and `returns` are as in `call`.

        Raises:
            TypeError: neither is named: `handler` is not `run`, and there is no idempotency key.
            UnknownTargetError: there is no such invocation.
            TerminalError: it failed.
        """
        outgoing = named_question("attach", self._serde, service, handler, key, idempotency_key, returns)
        return self._issue_attach(outgoing, CallSite(frame_above(1)))

    @overload
    def output(
        self,
        service: str,
        handler: str,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[AnyObject, AnyObject, bytes]: ...
    @overload
    def output(
        self,
        service: str,
        handler: str,
        /,
        *,
        returns: type[T] | Serde[T],
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[AnyObject, AnyObject, T]: ...
    @overload
    def output(
        self,
        service: str,
        handler: str,
        /,
        *,
        returns: None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Coroutine[AnyObject, AnyObject, None]: ...
    def output(
        self,
        service: str,
        handler: str,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        returns: Any = MISSING,
    ) -> Coroutine[AnyObject, AnyObject, Any]:
        """The outcome of the invocation that `attach` would wait for, by name, without waiting.

        Raises:
            TypeError: as in `attach`.
            NotReadyError: there is none yet.
            UnknownTargetError: there is no such invocation.
            TerminalError: it failed.
        """
        outgoing = named_question("output", self._serde, service, handler, key, idempotency_key, returns)
        return self._issue_output(outgoing, CallSite(frame_above(1)))

    def resolve_awakeable(
        self, id: str, value: Any = None, /, *, serde: Serde[Any] | None = None
    ) -> Coroutine[AnyObject, AnyObject, None]:
        """Supply the value that an awakeable waits for, by the Serde with which it is awaited, if it is.

        The first one counts; a late one changes nothing (rule E5).

        Raises:
            InvalidArgumentError: the id is not that of an awakeable (400).
            UnencodableError: the value cannot be written.
        """
        return self._issue_completion(resolution(id, value, serde), CallSite(frame_above(1)))

    def reject_awakeable(self, id: str, reason: str, /, *, code: int = 500) -> Coroutine[AnyObject, AnyObject, None]:
        """Let the handler that awaits an awakeable get a `TerminalError`.

        Raises:
            InvalidArgumentError: the id is not that of an awakeable (400).
        """
        return self._issue_completion(rejection(id, reason, code), CallSite(frame_above(1)))

    def publish(
        self,
        *events: Any,
        key: str | None = None,
        stream: str | None = None,
        sse: bool | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Coroutine[AnyObject, AnyObject, None]:
        """Publish events: each handler that has subscribed to their classes gets them, exactly once.

            await caller.publish(UserCreated(id="mary"), key="mary")

        An event is an instance of a dataclass, a msgspec Struct or a pydantic model. In a handler it is part of the
        step, and published with it; the await never waits. Outside, it ends when the events are durable.

        - `key`: what they are about; events of one key are delivered in order.
        - `stream`: another one than the default of the runtime.
        - `sse`: whether readers over HTTP get them; None: as the server says.
        - `idempotency_key`: outside handlers, with which it may be repeated. In a handler nothing is published twice.
        - `headers`: outside handlers, for the middleware of the runtime, such as credentials.

        Raises:
            TypeError: an event is none, or is of another class than the one of its name that handlers subscribe to.
            UnencodableError: an event has a value that JSON does not have.
            OverloadedError: outside handlers: the store holds as many bytes of events as it may.
        """
        known = self._subscribed_events()
        given = published(events, key=key, stream=stream, sse=sse, where="publish()", known=known)
        if idempotency_key is not None:
            checked_name(
                idempotency_key,
                f"An idempotency key is Unicode text without NUL, and not empty; {idempotency_key!r} is not.",
            )
        return self._issue_publish(given, idempotency_key, plain_headers(headers), CallSite(frame_above(1)))

"""Contexts: what an invocation may do. Each verb describes a command and gives it to the port of its execution.

Nothing here knows whether the handler runs live or is replayed. A context works only while its own handler is being
advanced: in an action, a thread, another handler or afterwards every verb raises (rules D1 and A4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeVar, overload
from uuid import UUID

import msgspec

from durably.actors.actor import Actor, Workflow
from durably.actors.awakeable import Awakeable, issue_completion
from durably.actors.caller import Caller
from durably.actors.compensations import Compensations
from durably.actors.definition.definition import definition_of
from durably.actors.event_values import EVENT_PREFIX, PUBLISHED_STREAM, EventClass, Published, stored_value
from durably.actors.handler_info import HandlerInfo as HandlerInfo
from durably.actors.handlers import Handler, HandlerKind
from durably.actors.promises import DurablePromise, PromiseView
from durably.actors.protocol.commands import (
    Attach,
    AwaitSignal,
    Call,
    Cancel,
    CompleteAwakeable,
    GetOutput,
    GetStatus,
    IdentifyCall,
    Publish,
    Question,
    Send,
    SendAnswer,
    SendSignal,
    Sleep,
    StatusAnswer,
)
from durably.actors.protocol.operations import CallSite, Operation, frame_above
from durably.actors.protocol.port import Port
from durably.actors.protocol.request import Request as Request
from durably.actors.run import Run
from durably.actors.sent_values import Sent, checked_serde, checked_signal_name, decoding
from durably.actors.state import StateView
from durably.actors.transport import Delay, Invocation, Outgoing, message_of, no_call
from durably.actors.values.asked_types import can_be
from durably.actors.values.descriptions import MISSING, describe, shortened
from durably.actors.values.durations import Duration, delay_us, moment
from durably.actors.values.names import checked_name
from durably.actors.values.serde import Serde, SerdeFactory, TypeCodec, codec_named, is_serde
from durably.actors.values.type_checks import is_text
from durably.errors import HandlerMistakeError, SharedStateError, UndecodableError, UnencodableError
from durably.ids import INTERNAL_FIELDS, InvocationStatus, is_storable

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

UUID_VERSION = 4


class HandlerLog:
    """`ctx.log`: lines with fields, bound to the invocation; silent while the machine replays."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def debug(self, event: str, /, **fields: Any) -> None:
        self._port.log("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._port.log("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._port.log("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._port.log("error", event, fields)


class Context(Caller):
    """What any handler may do. Handed in by the runtime, valid until the handler returns."""

    __slots__ = ("_port", "handler")

    def __init__(self, port: Port, handler: HandlerInfo) -> None:
        self._port = port
        self.handler = handler
        """The handler that runs."""

    @property
    def _serde(self) -> SerdeFactory | None:
        return self._port.runtime_serde

    @property
    def request(self) -> Request:
        """What started this invocation."""
        return self._port.request()

    @property
    def log(self) -> HandlerLog:
        """Lines with fields, written once however often the handler is replayed."""
        return HandlerLog(self._port)

    @property
    def run(self) -> Run:
        """`await ctx.run(name, action, *args, **kwargs)`: a side effect whose result is journaled."""
        return Run(self._port)

    def now(self) -> datetime:
        """The time of this step, aware, UTC: the same on replay, and standing still until something is awaited."""
        return moment(self._port.at())

    def random(self) -> random.Random:
        """A generator that gives the same numbers on replay."""
        return self._port.random()

    def uuid(self) -> UUID:
        """A random UUID, the same on replay: fit as an idempotency key for others."""
        return UUID(int=self._port.uuid_bits(), version=UUID_VERSION)

    @overload
    def sleep(self, delay: Duration, /) -> Coroutine[object, object, None]: ...
    @overload
    def sleep(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> Coroutine[object, object, None]: ...
    def sleep(
        self, *delay: Duration, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> Coroutine[object, object, None]:
        """Wait, durably: `sleep(minutes=5)`, a timedelta, or a bare number of seconds. A long wait holds no memory."""
        due = self._port.at() + delay_us("sleep", delay, days, hours, minutes, seconds)
        return self._port.issue(Sleep(due), _nothing, "sleep", CallSite(frame_above(1)))

    def patched(self, change: str, /) -> bool:
        """Whether to run the code as it is since a change, which is named here; False: as it was before.

            if ctx.patched("charge before shipping"):
                ...

        An invocation that was under way when the code changed goes on as it began, all others run the new code; each
        invocation has one answer for a name. Once no older invocation is left, the old branch and the call can go.
        """
        if not is_text(change) or not is_storable(change):
            raise TypeError(
                f"ctx.patched() takes the name of a change, which is Unicode text without NUL, not {change!r}."
            )
        return self._port.patched(change)

    @overload
    def awakeable(self, /) -> Awakeable[Any]: ...
    @overload
    def awakeable(self, returns: type[T] | Serde[T], /) -> Awakeable[T]: ...
    @overload
    def awakeable(self, returns: type[T] = ..., /, *, serde: Serde[T]) -> Awakeable[T]: ...
    def awakeable(self, returns: Any = MISSING, /, *, serde: Serde[Any] | None = None) -> Awakeable[Any]:
        """A value of this type that somebody outside will supply: give its `id` away, then await it.

        Any code that has the id can resolve or reject it: another handler, the program around the runtime, HTTP.
        Waiting for it holds no memory. A value that does not fit the type raises `InvalidArgumentError` where it is
        awaited. It is JSON, unless a Serde is named here and where it is resolved; over HTTP, bytes of any other
        content type come as they are.
        """
        site = CallSite(frame_above(1))
        return Awakeable(self._port.issue_awakeable(decoding(returns, "an awakeable", serde), site))

    @overload
    def signal(self, name: str, /) -> Coroutine[object, object, Any]: ...
    @overload
    def signal(self, name: str, returns: type[T] | Serde[T], /) -> Coroutine[object, object, T]: ...
    @overload
    def signal(self, name: str, returns: type[T] = ..., /, *, serde: Serde[T]) -> Coroutine[object, object, T]: ...
    def signal(
        self, name: str, returns: Any = MISSING, /, *, serde: Serde[Any] | None = None
    ) -> Coroutine[object, object, Any]:
        """The next signal of this name that is sent to this invocation (`Invocation.signal()`), sent already or not.

        The first `ctx.signal(name)` takes the first signal of that name, the second the second, and so on; one whose
        wait was cancelled takes none. A value that does not fit the type raises `InvalidArgumentError`. It is JSON,
        unless a Serde is named here and where it is sent.
        """
        what = f"the signal {checked_signal_name(name)!r}"
        return self._port.issue(AwaitSignal(name), decoding(returns, what, serde), what, CallSite(frame_above(1)))

    def compensations(self) -> Compensations:
        """`async with ctx.compensations() as undo:` undoes what was done if the block fails or is cancelled."""
        return Compensations(self._port)

    # What references and `call` do with this transport.

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> Operation[R]:
        argument, wire = self._argument(outgoing)
        command = Call(
            outgoing.service, outgoing.key, outgoing.handler, argument, self._headers(outgoing),
            outgoing.idempotency_key, outgoing.timeout_us, wire, outgoing.forwarding is not None,
        )  # fmt: skip
        return self._port.issue(command, outgoing.decode, outgoing, site)

    def _issue_send(self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /) -> Operation[Invocation[R]]:
        argument, wire = self._argument(outgoing)
        command = Send(
            outgoing.service, outgoing.key, outgoing.handler, argument,
            self._headers(outgoing), outgoing.idempotency_key, outgoing.timeout_us, self._due(delay), wire,
            outgoing.may_join,
        )  # fmt: skip

        def sent(id: str, previously_accepted: bool = False, /) -> Invocation[R]:
            return Invocation(self, id, outgoing.decode, previously_accepted)

        return self._port.issue_send(command, sent, f"send to {outgoing}", site)

    def _argument(self, outgoing: Outgoing[Any]) -> tuple[bytes, bool]:
        """The argument of a message, and whether it is a body as from outside."""
        writer = outgoing.written_by
        if outgoing.wire or writer is None or not self._port.is_hosted:
            return outgoing.argument, outgoing.wire
        return writer.body(outgoing.argument), True

    def _headers(self, outgoing: Outgoing[Any]) -> dict[str, str]:
        forwarding = outgoing.forwarding
        return outgoing.headers if forwarding is None else forwarding.add(self._port.headers(), outgoing.headers)

    def _due(self, delay: Delay | None) -> int | None:
        if delay is None:
            return None
        return delay.at_us if delay.after_us is None else self._port.at() + delay.after_us

    def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> Operation[R]:
        command = Attach(None, outgoing.service, outgoing.key, outgoing.handler, outgoing.idempotency_key)
        return self._port.issue(command, outgoing.decode, f"attach to {outgoing}", site)

    def _issue_output(self, outgoing: Outgoing[R], site: CallSite, /) -> Operation[R]:
        command = GetOutput(None, outgoing.service, outgoing.key, outgoing.handler, outgoing.idempotency_key)
        return self._port.issue(command, outgoing.decode, f"output of {outgoing}", site)

    def _issue_output_of(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> Operation[R]:
        return self._port.issue(GetOutput(id), decode, f"output of {id}", site)

    def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> Operation[R]:
        return self._port.issue(Attach(id), decode, f"result of {id}", site)

    def _issue_status(self, id: str, site: CallSite, /) -> Operation[InvocationStatus]:
        return self._port.issue(GetStatus(id), _status, f"status of {id}", site)

    def _issue_identification(self, call: object, site: CallSite, /) -> Coroutine[object, object, Invocation[Any]]:
        self._port.check("ctx.invocation_of()")
        message = message_of(call)
        id = None if message is None else self._port.callee_id(call, message.service, message.key)
        if message is None or id is None:
            raise no_call(call)

        def handle(data: bytes) -> Invocation[Any]:
            answer = _identification_decoder.decode(data)
            return Invocation(self, answer.id, message.decode, answer.previously_accepted)

        if not message.may_join and not self._port.is_hosted:  # Nothing is to be looked up.
            return _known(Invocation(self, id, message.decode))
        return self._port.issue(IdentifyCall(id), handle, f"invocation of {message}", site)

    def _issue_completion(self, command: CompleteAwakeable, site: CallSite, /) -> Operation[None]:
        return issue_completion(self._port, command, site)

    def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite, /) -> Operation[None]:
        command = SendSignal(id, name, sent.failed, sent.value)
        return self._port.issue_signal(command, f"signal {name!r} to {id}", site)

    def _issue_reading(self, question: Question, decode: Callable[[bytes], R], site: CallSite, /) -> Operation[R]:
        return self._port.issue(question, decode, "a question to the store", site)

    def _moment_and_bits(self) -> tuple[int, int]:
        return self._port.at(), self._port.uuid_bits()

    def _name_of_handler(self) -> str | None:
        return self._port.handler_name()

    def _issue_cancel(self, id: str, site: CallSite, /) -> Operation[None]:
        return self._port.issue_one_way(Cancel(id), f"cancel of {id}", site)

    def _subscribed_events(self) -> Mapping[str, EventClass]:
        return self.handler.actor_info.subscribed_events

    def _issue_publish(
        self, events: Sequence[Published], idempotency_key: str | None, headers: dict[str, str], site: CallSite, /
    ) -> Operation[None]:
        if headers:
            raise TypeError(
                "ctx.publish(headers=...) has no meaning: what a handler publishes is part of its step, and no message."
            )
        if idempotency_key is not None:
            raise TypeError(
                "ctx.publish(idempotency_key=...) has no meaning: what a handler publishes is part of its step, and so "
                "happens once."
            )
        issued = [self._issue_event(one, site) for one in events]
        for earlier in issued[:-1]:
            earlier.close()  # The last one is awaited for all.
        return issued[-1]

    def _issue_event(self, one: Published, site: CallSite) -> Operation[None]:
        id = f"{EVENT_PREFIX}{self._port.uuid_bits():032x}"
        stream = PUBLISHED_STREAM + one.stream
        command = Publish(stream, one.key, one.name, id, self._port.at(), stored_value(one))
        return self._port.issue_one_way(command, f"publish {one.name}", site)


class SharedContext(Context):
    """What a shared handler of an object may do: read."""

    __slots__ = ("_key", "_view")

    def __init__(self, port: Port, handler: HandlerInfo, key: str, view: StateView | None = None) -> None:
        """`view` is that of `self` of the same attempt: each sees what is changed through the other."""
        self._port = port
        self.handler = handler
        self._key = key
        self._view = view

    @property
    def key(self) -> str:
        """Which object this is."""
        return self._key

    @overload
    def get(self, name: str, returns: type[T] | Serde[T], /) -> T | None: ...
    @overload
    def get(self, name: str, returns: type[T] | Serde[T], default: T, /) -> T: ...
    def get(self, name: str, returns: Any, default: Any = None, /) -> Any:
        """State by its stored name, of a type or as a Serde reads it; `default` where it has no value.

        A stored null is None, also with a default. A field that is declared with a Serde of its own is read by that,
        unless `returns` is a Serde.

        Raises:
            UndecodableError: what is stored is not of this type, or what a Serde of the field's own reads is not.
        """
        self._settle()
        self._refuse_large(name)
        data = self._port.read_field(name)
        if data is None:
            return default
        own = None if self._view is None or is_serde(returns) else self._view.own_codec_of(name)
        codec = codec_named(returns, self._port.serde) if own is None else own
        if data == b"null" and codec.is_json:
            return None
        try:
            value = codec.decode(data)
        except UndecodableError as error:
            raise UndecodableError(
                f"The stored value of {name!r}: {error.message}", path=error.path, reason=error.reason
            ) from error
        if own is not None and not can_be(value, returns):
            declared = describe(own.annotation)
            raise UndecodableError(
                f"The state {name!r} is declared as {declared}, and was read as {describe(returns)}, which "
                f"{shortened(value)} ({type(value).__name__}) is not. Read it as it is declared, or name the Serde "
                "that reads it."
            )
        return value

    def keys(self) -> Sequence[str]:
        """The stored names that have a value, sorted; not those of fields that are not loaded (`DurableList`)."""
        self._settle()
        names = self._port.field_names()
        large = frozenset[str]() if self._view is None else self._view.large_names()
        return [name for name in names if name not in large] if large else names

    if not TYPE_CHECKING:
        # Type checkers refuse these names by themselves; a user without one gets a sentence.
        def __getattr__(self, name: str) -> Any:
            if name in ("set", "clear", "clear_all"):
                raise SharedStateError(
                    f"ctx.{name} was used in a shared handler. A shared handler reads; to write, make it exclusive "
                    "(@handler)."
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def _settle(self) -> None:
        if self._view is not None:
            self._view.settle()

    def _refuse_large(self, name: str) -> None:
        if self._view is not None and name in self._view.large_names():
            raise HandlerMistakeError(
                f"The state {name!r} was used by name, and is declared as a field that is not loaded with its object. "
                "Use the attribute of self."
            )


def _see_that_it_is_read(codec: TypeCodec[Any], data: bytes) -> None:
    """A declared field has a type, and what another Serde wrote has to be of it (rule V5)."""
    try:
        codec.decode(data)
    except UndecodableError as error:
        raise UnencodableError(
            f"It is declared as a field, which would not be read again. {error.message}", path=error.path
        ) from error


class ObjectContext(SharedContext):
    """What an exclusive handler of an object may do: read and write."""

    __slots__ = ()

    def set(self, name: str, value: T, /, *, serde: Serde[T] | None = None) -> None:
        """Set state by its stored name; `serde` writes it instead of the class's.

        A declared field is written as by its attribute: what is stored is of its type.

        Raises:
            UnencodableError: the value cannot be written, or a declared field of this name could not be read again.
        """
        self._port.check(f"ctx.set({name!r})")
        codec = None if self._view is None else self._view.codec_of(name)
        try:
            if codec is None or serde is not None:
                data = codec_named(MISSING if serde is None else serde, self._port.serde).encode_exactly(value)
                if codec is not None:
                    _see_that_it_is_read(codec, data)
            else:
                data = codec.encode_exactly(value)
        except UnencodableError as error:
            raise UnencodableError(
                f"The state {name!r} cannot be given this value: {error.message}", path=error.path
            ) from error
        self._write(name, data)

    def clear(self, name: str, /) -> None:
        """Remove state by its stored name; a declared field returns to its default."""
        self._write(name, None)

    def continue_as_new(self, handler: Handler[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Never:
        """End this execution and begin the next, of the same handler with these arguments and an empty journal.

        Id, key, state, promises, callers and the deadline stay, and the object stays held. Calls under way are
        abandoned, timers and actions are cancelled; messages that were sent stand (rules T5, W1). Nothing after this
        line runs but `finally` blocks: what is raised here is no `Exception`.

        Raises:
            InvalidArgumentError: the arguments do not fit.
            HandlerMistakeError: another handler, or the handler is atomic: it would become real before its outcome.
        """
        self._port.check("ctx.continue_as_new()")
        own = self.handler
        if own.options.atomic:
            raise HandlerMistakeError(
                f"ctx.continue_as_new() was called in {own.service}/{own.name}, which is atomic: what it has changed "
                "and sent would become real before its outcome. Leave atomic=True out, or let it return and send to "
                f"itself: `await self.{own.name}.send(...)`."
            )
        if not _is_handler(handler) or handler.name != own.name or not _is_of(handler, own.actor):
            raise HandlerMistakeError(
                f"ctx.continue_as_new() takes the handler that runs, as in `ctx.continue_as_new({own.actor.__name__}"
                f".{own.name}, ...)`, not {handler!r}. To have another handler do something, call it or send to it."
            )
        signature = definition_of(own.actor).handlers[own.name].signature
        self._port.continue_as_new(signature.types.arguments.encode(args, kwargs))

    def clear_all(self) -> None:
        """Remove all state of this object; declared fields return to their defaults."""
        self._settle()
        for name in self._port.field_names():
            self._port.write_field(name, None)
        if self._view is not None:
            self._view.forget()
            for name in sorted(self._view.large_names()):
                self._port.clear_entries(name)

    def _write(self, name: str, data: bytes | None) -> None:
        if not is_text(name) or not is_storable(name):
            raise UnencodableError(f"The state name {name!r} is not Unicode text without NUL, so it cannot be stored.")
        if name in INTERNAL_FIELDS:
            raise HandlerMistakeError(
                f"The state {name!r} was written, where durably keeps what it knows of the state. Use another name."
            )
        self._settle()
        self._refuse_large(name)
        self._port.write_field(name, data)
        if self._view is not None:
            self._view.forget(name)


class SharedWorkflowContext(SharedContext):
    """What a shared handler of a workflow may do: read its state, wait for its promises and complete them."""

    __slots__ = ("_promises",)

    def __init__(
        self,
        port: Port,
        handler: HandlerInfo,
        key: str,
        view: StateView | None = None,
        promises: PromiseView | None = None,
    ) -> None:
        """`promises` are those that the class declares."""
        super().__init__(port, handler, key, view)
        self._promises = promises

    @overload
    def promise(self, name: str, returns: type[T] | Serde[T], /) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, returns: type[T] = ..., /, *, serde: Serde[T]) -> DurablePromise[T]: ...
    def promise(self, name: str, returns: Any = MISSING, /, *, serde: Serde[Any] | None = None) -> DurablePromise[Any]:
        """A promise of this workflow by its name, declared or not, of a type or as a Serde writes it.

        One that is declared takes only what is read as the type that it is declared with, and is written and read by
        the Serde that it is declared with, unless one is given here.
        """
        self._port.check(f"ctx.promise({name!r})")
        checked_name(name, f"The name of a promise is Unicode text without NUL, and not empty; {name!r} is not.")
        if serde is not None:
            returns = checked_serde(serde)
        promises = self._promises
        own = None if promises is None or is_serde(returns) else promises.own_codec_of(name)
        if own is not None:
            return DurablePromise(self._port, name, own, own, returns)
        declared = None if promises is None else promises.codec_of(name)
        return DurablePromise(self._port, name, codec_named(returns, self._port.serde), declared, returns)


class WorkflowContext(SharedWorkflowContext, ObjectContext):
    """What the `run` of a workflow may do."""

    __slots__ = ()


def make_context(
    kind: HandlerKind,
    port: Port,
    handler: HandlerInfo,
    key: str,
    view: StateView | None = None,
    promises: PromiseView | None = None,
) -> Context:
    """The context of one attempt; `key` and `view` are not used for a service, `promises` only for a workflow."""
    match kind:
        case "service":
            return Context(port, handler)
        case "exclusive":
            return ObjectContext(port, handler, key, view)
        case "workflow":
            return WorkflowContext(port, handler, key, view, promises)
        case "shared" if issubclass(handler.actor, Workflow):
            return SharedWorkflowContext(port, handler, key, view, promises)
        case "shared":
            return SharedContext(port, handler, key, view)


def _is_handler(given: object) -> bool:
    """Checked at run time, for programs without a type checker."""
    return isinstance(given, Handler)


def _is_of(handler: Handler[Any, Any], actor: type[Actor]) -> bool:
    return handler.owner is not None and issubclass(actor, handler.owner)


_status_decoder = msgspec.json.Decoder(StatusAnswer)
_identification_decoder = msgspec.json.Decoder(SendAnswer)


def _status(data: bytes) -> InvocationStatus:
    return _status_decoder.decode(data).status


async def _known(invocation: Invocation[Any]) -> Invocation[Any]:
    return invocation


def _nothing(_answer: Any) -> None:
    return None

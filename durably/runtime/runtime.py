"""`Runtime`: durably embedded in an asyncio program. A composition root; the machine is in the modules beside it."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload
from urllib.parse import unquote

from durably.actors.actor import Actor, VirtualObject, Workflow
from durably.actors.caller import Caller
from durably.actors.definition.binding import BoundActor, BoundActorHandler, bind
from durably.actors.definition.definition import definition_of
from durably.actors.headers import ForwardHeaders, forwarding
from durably.actors.protocol.commands import CompleteAwakeable, SendSignal
from durably.actors.protocol.operations import CallSite, HostOperation
from durably.actors.retry import RetryPolicy
from durably.actors.sent_values import Sent
from durably.actors.transport import Delay, Invocation, Outgoing, message_of, no_call
from durably.actors.values.durations import Duration, duration_us, optional_duration_us
from durably.actors.values.serde import MISSING, SerdeFactory, checked_factory, codec_under
from durably.actors.values.user_errors import let_signals_pass
from durably.errors import (
    DefinitionError,
    InvocationStatusError,
    RuntimeStoppedError,
    UnknownTargetError,
    WrongContextError,
)
from durably.ids import OLDER_PREFIX, Address, InvocationStatus, KeyScope
from durably.runtime.actions.contained import contained, without_containment
from durably.runtime.environment import Environment
from durably.runtime.execution.loop import is_in_a_handler
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.describe import describe_actor
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    CancelOperation,
    CompletionOperation,
    IdentificationOperation,
    OutcomeOperation,
    QuestionOperation,
    ReplyOperation,
    ResultOperation,
    is_call_of,
)
from durably.runtime.gateway.requests import (
    Acceptance,
    Effect,
    InvocationRequest,
    Reply,
    ServiceDescription,
    ServiceSchemas,
)
from durably.runtime.gateway.schemas import schemas_of
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.logs import Logger, RuntimeLogger, checked_logger
from durably.runtime.observation.observer import Observer, Observers
from durably.runtime.supervision.contained_codec import contained_codec
from durably.runtime.supervision.supervisor import Supervisor
from durably.storage.connect import store_from_url
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.payload_coding import Codec
from durably.storage.records import InvocationRecord

if TYPE_CHECKING:
    from durably.admin import Admin
    from durably.ingress import Ingress

R = TypeVar("R")

_PAGE = 500

OnPaused = Callable[[Invocation[Any], BaseException], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a runtime, each with its unit in its name."""

    mailbox_messages: int = 10_000
    """Waiting messages of one object, beyond which requests from outside get an OverloadedError."""
    waiting_attempts: int = 10_000
    """Invocations that wait in memory, at about 6 KB each. Where more wait, those that were woken least recently leave
    it, and are replayed from their journals when they are woken."""
    waiting_bytes: int = 256 * 1024 * 1024
    """What these take up together, about: their journals and the values that they were decoded to."""
    active_objects: int = 100_000
    """Idle objects kept in memory; the least recently used go first."""
    payload_bytes: int = 32 * 1024 * 1024
    """Of one argument from outside."""
    action_threads: int = 32
    """Plain functions that `ctx.run` runs at a time; further ones wait for a thread. Coroutines have no limit."""


class Runtime(Caller):
    """Runs actors on a store, in the running event loop.

    Use it as an asynchronous context manager; leaving it lets handlers come to a rest for up to `drain`, then commits
    and lets the store go within `stop_timeout`. What does not end by then (an action that ignores its cancellation, a
    store that another program keeps locked) is left, with a warning that says what it is. What had not ended continues
    at the next start. Until it is entered it only checks the classes, so it may be made at import time.

    `store` is a Store or a URL (`sqlite:///app.db`); `dependencies` maps the annotations of constructor parameters to
    values. `retry` is for handlers that have no policy of their own. Invocations that wait stay in memory while there
    is room for them (`Limits.waiting_attempts`), or at most for `suspend_after`; one that has left is replayed from its
    journal when it is woken. An object that is idle for longer than `passivate_after` leaves memory, too. Outcomes of
    sends and of requests with an idempotency key are kept for `retention`. Durations are timedeltas or seconds.
    `on_paused` is called for each invocation that waits for a person. `logger` is where the runtime and `ctx.log`
    write, a logger of the standard library or of structlog; without one they write to structlog where it is configured,
    and else to the logger `durably`. Where some invocations wait for nothing but each other, the newest
    call raises `DeadlockError` in its handler; `deadlocks="wait"` lets them wait. `forward_headers` says which headers
    of an invocation go on with the calls that it makes: all (True), none, or those of these names; never those about
    one message or connection. A class may say it for its handlers. `serde` makes the Serde of each type that classes
    without one of their own take, give and keep, such as `MsgpackSerde`; without one, values are JSON. `codec` wraps
    all values that are stored: see `durably.codecs`. `environment` is for tests and
    simulations: where time, randomness and the numbers that the machine runs by come from.

    Raises:
        DefinitionError: a class cannot work, or the store's URL names none.
    """

    def __init__(
        self,
        store: InspectableStore | str,
        actors: Iterable[type[Actor]],
        *,
        dependencies: Mapping[Any, Any] | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        suspend_after: Duration | None = None,
        passivate_after: Duration = 300.0,
        retention: Duration = 86400.0,
        drain: Duration = 30.0,
        stop_timeout: Duration = 10.0,
        on_paused: OnPaused | None = None,
        deadlocks: Literal["error", "wait"] = "error",
        forward_headers: ForwardHeaders | None = None,
        serde: SerdeFactory | None = None,
        codec: Codec | None = None,
        logger: Logger | None = None,
        environment: Environment | None = None,
    ) -> None:
        environment = Environment() if environment is None else environment
        if logger is not None:
            environment = replace(environment, logger=partial(RuntimeLogger, checked_logger(logger)))
        self._environment = environment
        limits = Limits() if limits is None else limits
        self._codec = codec
        self._store = self._encoded(store_from_url(store) if isinstance(store, str) else store)
        self._default_serde = checked_factory(serde, "Runtime(serde=...)")
        self._actors = _bind_all(actors, {} if dependencies is None else dependencies, self._default_serde)
        self._on_paused = on_paused
        self._settings = replace(
            self._environment.settings,
            retry=RetryPolicy() if retry is None else retry,
            suspend_after_us=optional_duration_us(suspend_after, "Runtime(suspend_after=...)"),
            passivate_after_us=duration_us(passivate_after, "Runtime(passivate_after=...)"),
            retention_us=duration_us(retention, "Runtime(retention=...)"),
            drain_us=duration_us(drain, "Runtime(drain=...)"),
            stop_us=duration_us(stop_timeout, "Runtime(stop_timeout=...)"),
            deadlocks=deadlocks,
            forwarding=forwarding(forward_headers, "Runtime(forward_headers=...)"),
            waiting_attempts=limits.waiting_attempts,
            waiting_bytes=limits.waiting_bytes,
            active_objects=limits.active_objects,
            mailbox_messages=limits.mailbox_messages,
            payload_bytes=limits.payload_bytes,
            action_threads=limits.action_threads,
        )
        self._observer = Observer()
        self._supervisor: Supervisor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where it runs; None before it is entered."""
        self._hooks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Runtime of {', '.join(self._actors)} on {self._store.describe()}>"

    @property
    def _serde(self) -> SerdeFactory | None:
        return self._default_serde

    # ------------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        if is_in_a_handler():
            raise WrongContextError("A runtime was started in a handler. Start it outside, where your program begins.")
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running already. Make another one, on another store.")
        environment = self._environment
        paused = _PausedHook(self._invocation_paused)
        self._observer = Observers([environment.logger(), environment.observer, paused])
        supervisor = Supervisor(
            store=self._store,
            actors=self._actors,
            environment=replace(environment, observer=self._observer, settings=self._settings),
        )
        await supervisor.start()
        self._supervisor, self._loop = supervisor, asyncio.get_running_loop()
        self._observer.started(self._store.describe(), len(self._actors))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._running(), None
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | asyncio.CancelledError)
        stopping = asyncio.ensure_future(supervisor.stop(interrupted=interrupted))
        try:
            await asyncio.shield(stopping)
        finally:  # Who cancels us gets a runtime that has stopped, and a store that is free.
            ctrl_c = await stopping
        self._observer.stopped()
        if ctrl_c is not None:
            task = asyncio.current_task()
            # asyncio.run cancels its task at the first Ctrl-C, and makes a KeyboardInterrupt of that cancellation.
            raise ctrl_c if task is None or not task.cancelling() else asyncio.CancelledError

    @property
    def store(self) -> str:
        """What and where its store is, for people."""
        return self._store.describe()

    @property
    def accepts_requests(self) -> bool:
        """It runs, has its store, and nobody has asked it to stop."""
        return self._supervisor is not None and self._supervisor.accepts_requests

    def use_store(self, store: InspectableStore | str) -> None:
        """Run on another store than it was made with; before it is entered."""
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; its store can only be changed before.")
        self._store = self._encoded(store_from_url(store) if isinstance(store, str) else store)

    def _encoded(self, store: InspectableStore) -> InspectableStore:
        return store if self._codec is None else EncodedStore(store, contained_codec(self._codec))

    @overload
    def asgi(self, *, admin: Literal[False] = False, pages: bool = True) -> Ingress: ...
    @overload
    def asgi(self, *, admin: Literal[True]) -> Admin: ...
    def asgi(self, *, admin: bool = False, pages: bool = True) -> Ingress | Admin:
        """The HTTP ingress of this runtime: an ASGI application, to be served or mounted. Needs the extra `http`.

        Its root is a page that shows the handlers and lets a person try them, and `/restate/openapi` describes them.
        With `pages=False` it has neither.

        With `admin=True` it is the one for operators, who cancel, kill, pause and so on. Nobody else may reach that: it
        asks for no credentials.
        """
        # The one import upwards: the composition root hands out its own doors.
        if admin:
            from durably.admin import Admin

            return Admin(self)
        from durably.ingress import Ingress

        return Ingress(self, pages=pages)

    # ------------------------------------------------------------------ for ingresses and tools

    def request_call(self, request: InvocationRequest) -> Awaitable[Reply]:
        """Call by name and bytes; the awaited reply is durable, and holds the handler's failure as a value.

        Raises:
            DurablyError: the request was refused, nothing was accepted; or (PausedInvocationError, RuntimeStoppedError,
                StoreUnavailableError) nothing can be said of the outcome yet.
        """
        gateway = self._running().gateway
        handler = self._handler(request.service, request.handler)
        operation = ReplyOperation(
            gateway.pending,
            request.handler,
            content_type=None if handler is None else handler.content_type,
            keyed=request.idempotency_key is not None or (handler is not None and handler.kind == "workflow"),
        )
        gateway.call(operation, request, request.body, wire=True)
        return operation

    def request_send(self, request: InvocationRequest) -> Awaitable[Acceptance]:
        """Send by name and bytes; awaited, it is durable.

        Raises:
            DurablyError: the request was refused, nothing was accepted; or (StoreUnavailableError) nobody knows.
        """
        gateway = self._running().gateway
        operation: AcceptanceOperation[Acceptance] = AcceptanceOperation(
            gateway.pending, request.handler, None, _itself
        )
        gateway.send(operation, request, request.body, Delay(after_us=request.delay_us), wire=True)
        return operation

    def request_attach(self, which: str | KeyScope) -> Awaitable[Reply]:
        """Wait for an invocation that exists, given by id, idempotency key or workflow id (`run_scope`).

        Raises:
            UnknownTargetError: there is none.
            DurablyError: as `request_call`.
        """
        gateway = self._running().gateway
        operation = self._reply_operation("attach")
        gateway.result(operation, which)
        return operation

    def request_output(self, which: str | KeyScope) -> Awaitable[Reply]:
        """The outcome of such an invocation as it is now.

        Raises:
            NotReadyError: there is none yet.
            InvalidArgumentError: it has neither an idempotency key nor a workflow id.
            DurablyError: as `request_attach`.
        """
        gateway = self._running().gateway
        operation = self._reply_operation("output")
        gateway.output(operation, which, keyed_only=True)
        return operation

    def request_lookup(self, which: str | KeyScope) -> Awaitable[str]:
        """The id of such an invocation.

        Raises:
            DurablyError: as `request_attach`.
        """
        gateway = self._running().gateway
        operation: QuestionOperation[str] = QuestionOperation(gateway.pending, "lookup", None)
        gateway.lookup(operation, which)
        return operation

    def _reply_operation(self, what: str) -> ReplyOperation:
        return ReplyOperation(self._running().gateway.pending, what, content_type_of=self._content_type_of, keyed=True)

    def _content_type_of(self, service: str, handler: str) -> str | None:
        bound = self._handler(service, handler)
        return None if bound is None else bound.content_type

    def _handler(self, service: str, handler: str) -> BoundActorHandler | None:
        actor = self._actors.get(service)
        return None if actor is None else actor.handlers.get(handler)

    def request_completion(self, command: CompleteAwakeable) -> Awaitable[None]:
        """Resolve or reject an awakeable; awaited, it is durable. The id has been checked."""
        return self._issue_completion(command, None)

    def request_signal(self, command: SendSignal) -> Awaitable[None]:
        """Send a signal; awaited, it is durable.

        Raises:
            DurablyError: it was refused, or (StoreUnavailableError) nobody knows.
        """
        return self._issue_signal(command.invocation_id, command.name, Sent(command.failed, command.value), None)

    def request_control(self, verb: Verb, id: str, /) -> Awaitable[Effect]:
        """Do something to one invocation; what is awaited is durable.

        Raises:
            UnknownTargetError, InvocationStatusError: it is not there, or the verb does not fit where it stands.
            StoreUnavailableError: nobody knows.
        """
        gateway = self._running().gateway
        operation: QuestionOperation[Effect] = QuestionOperation(gateway.pending, f"{verb} of {id}", None)
        gateway.act(operation, verb, id)
        return operation

    def describe(self) -> list[ServiceDescription]:
        """What it runs, with types, in the order given."""
        return [describe_actor(actor) for actor in self._actors.values()]

    def describe_schemas(self) -> list[ServiceSchemas]:
        """The JSON schemas of the same services, in the same order."""
        return [schemas_of(actor) for actor in self._actors.values()]

    async def state(self, actor: type[VirtualObject] | type[Workflow], key: str, /) -> Mapping[str, Any]:
        """The state of an object or workflow after its last completed invocation, by stored name.

        Declared fields are decoded by their types.
        """
        supervisor = self._running()
        definition = definition_of(actor)
        await supervisor.until_durable()
        stored = await self._store.state(Address(definition.name, key))
        await supervisor.until_durable()  # Rule X9: the store was still ours after it was read.
        bound = self._actors[definition.name]
        return {name: bound.decode_state(name, value) for name, value in stored.items()}

    async def invocations(
        self, *, target: str | None = None, status: InvocationStatus | None = None
    ) -> AsyncIterator[Invocation[Any]]:
        """Unfinished invocations, and finished ones that are kept, oldest first.

        `target` is `Service`, `Service/handler`, or for objects `Object/key` or `Object/key/handler`, each part
        percent-encoded: a key `a/b` is written `a%2Fb`.
        """
        supervisor = self._running()
        service, key, handler = self._parse_target(target)
        await supervisor.until_durable()
        async for record in self._pages(supervisor, service, key, handler, status):
            yield Invocation(self, record.id, self._decode_plainly)

    def resume(self, what: str, /) -> Awaitable[Sequence[str]]:
        """Let paused invocations try again, from their journals; anything else is left as it is.

        `what` is the id of an invocation, or a target as `invocations` takes it, for all that are paused there:
        `Cart/mary`, `Cart/mary/checkout`, `Cart`. Returns the ids of those that were paused.

        Raises:
            TypeError: it is no text.
            UnknownTargetError: there is no invocation of this id.
            ValueError: the target names nothing that runs here.
        """
        return self._act(Verb.RESUME, what)

    def cancel(self, what: str, /) -> Awaitable[Sequence[str]]:
        """Cancel an invocation, or all that have not ended of a target. Returns the ids of those that were cancelled.

        The handler gets `asyncio.CancelledError`, and so do the handlers that it calls; `ctx.compensations()` runs.
        What has not started ends at once. Callers get `CancelledInvocationError`, unless the handler ends otherwise.
        `what` is as for `resume`.

        Raises:
            TypeError, UnknownTargetError, ValueError: as `resume`.
            InvocationStatusError: the invocation of this id has ended.
        """
        return self._act(Verb.CANCEL, what)

    def kill(self, what: str, /) -> Awaitable[Sequence[str]]:
        """End an invocation, or all of a target, at once and without running its code, callees included.

        For what a cancel does not end. What its steps have changed stands; nothing is compensated. `what`, what is
        returned and what is raised are as for `cancel`.
        """
        return self._act(Verb.KILL, what)

    def pause(self, what: str, /) -> Awaitable[Sequence[str]]:
        """Let an invocation, or all of a target that have started, begin nothing more until `resume`.

        Callers outside get `PausedInvocationError`; its object stays held. `what` is as for `resume`; returned are the
        ids of those that have been paused.

        Raises:
            TypeError, UnknownTargetError, ValueError: as `resume`.
            InvocationStatusError: the invocation of this id has ended or has not started.
        """
        return self._act(Verb.PAUSE, what)

    def purge(self, what: str, /) -> Awaitable[Sequence[str]]:
        """Forget the outcome of an invocation that has ended, or of all of a target. `what` is as for `resume`.

        An idempotency key can then be used anew.

        Raises:
            TypeError, UnknownTargetError, ValueError: as `resume`.
            InvocationStatusError: the invocation of this id has not ended.
        """
        return self._act(Verb.PURGE, what)

    def restart(self, what: str, /, *, from_step: int = 0) -> Awaitable[Sequence[str]]:
        """Begin paused invocations anew, under their ids, with their arguments, on the code of today.

        `from_step`, for the id of one invocation, keeps the steps before it (`durably export-journals` shows them) and
        the answers that have come to what they asked for; the code has to follow these steps still.

        For what `resume` cannot mend, because the code no longer follows the journal. Callers go on waiting, and the
        object stays held. What the steps have changed of its state is dropped; what they called, sent and did stands,
        and may be done again. `what` and what is returned are as for `resume`.

        Raises:
            TypeError, UnknownTargetError, ValueError: as `resume`.
            InvocationStatusError: the invocation of this id is not paused, or cannot begin from this step (400).
        """
        if not from_step:
            return self._act(Verb.RESTART, what)
        return self._act_on_one(Verb.RESTART, self.request_restart(what, from_step), what)

    def request_restart(self, id: str, from_step: int, /) -> Awaitable[Effect]:
        """Begin one paused invocation anew from a step; what is awaited is durable. Raises what `restart` does."""
        gateway = self._running().gateway
        operation: QuestionOperation[Effect] = QuestionOperation(gateway.pending, f"restart of {id}", None)
        gateway.restart(operation, id, from_step)
        return operation

    async def restart_as_new(self, id: str, /) -> Invocation[Any]:
        """Begin an invocation that has ended once more, with its arguments and headers, under a new id.

        Raises:
            UnknownTargetError: there is none, or its outcome is no longer kept; or its handler is gone.
            InvocationStatusError: it has not ended.
        """
        gateway = self._running().gateway
        operation: QuestionOperation[str] = QuestionOperation(gateway.pending, f"restart of {id}", None)
        gateway.restart_as_new(operation, id)
        return Invocation(self, await operation, self._decode_plainly)

    # ------------------------------------------------------------------ for references (Transport)

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        operation = ResultOperation(gateway.pending, outgoing, site, outgoing.decode)
        gateway.call(operation, outgoing, outgoing.argument, wire=outgoing.wire)
        return operation

    def _issue_send(
        self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /
    ) -> HostOperation[Invocation[R]]:
        gateway = self._running().gateway

        def handle(acceptance: Acceptance) -> Invocation[R]:
            return Invocation(self, acceptance.id, outgoing.decode, acceptance.previously_accepted)

        operation = AcceptanceOperation(gateway.pending, f"send to {outgoing}", site, handle)
        gateway.send(operation, outgoing, outgoing.argument, delay or NO_DELAY, wire=outgoing.wire)
        return operation

    def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        operation = ResultOperation(gateway.pending, f"attach to {outgoing}", site, outgoing.decode)
        gateway.result(operation, _scope(outgoing))
        return operation

    def _issue_output(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        operation = ResultOperation(gateway.pending, f"output of {outgoing}", site, outgoing.decode)
        gateway.output(operation, _scope(outgoing))
        return operation

    def _issue_output_of(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        operation = ResultOperation(gateway.pending, f"output of {id}", site, decode)
        gateway.output(operation, id)
        return operation

    def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        operation = ResultOperation(gateway.pending, f"result of {id}", site, decode)
        gateway.result(operation, id)
        return operation

    def _issue_status(self, id: str, site: CallSite, /) -> HostOperation[InvocationStatus]:
        gateway = self._running().gateway
        operation: QuestionOperation[InvocationStatus] = QuestionOperation(gateway.pending, f"status of {id}", site)
        gateway.status(operation, id)
        return operation

    def _issue_identification(self, call: object, site: CallSite, /) -> HostOperation[Invocation[Any]]:
        gateway = self._running().gateway
        message = message_of(call)
        own = cast("OutcomeOperation[Any]", call)
        if message is None or not is_call_of(gateway.pending, call):
            raise no_call(call)

        def handle(id: str, joined: bool) -> Invocation[Any]:
            return Invocation(self, id, message.decode, joined)

        what = f"invocation of {message}"
        operation: IdentificationOperation[Any] = IdentificationOperation(gateway.pending, what, site, own, handle)
        gateway.identify(operation)
        return operation

    def _issue_completion(self, command: CompleteAwakeable, site: CallSite | None, /) -> HostOperation[None]:
        gateway = self._running().gateway
        operation = CompletionOperation(gateway.pending, f"completion of {command.id}", site, command)
        gateway.complete(operation)
        return operation

    def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite | None, /) -> HostOperation[None]:
        gateway = self._running().gateway
        operation: QuestionOperation[None] = QuestionOperation(gateway.pending, f"signal {name!r} to {id}", site)
        gateway.signal(operation, SendSignal(id, name, sent.failed, sent.value))
        return operation

    def _issue_cancel(self, id: str, site: CallSite, /) -> HostOperation[None]:
        gateway = self._running().gateway
        operation = CancelOperation(gateway.pending, f"cancel of {id}", site)
        gateway.act(operation, Verb.CANCEL, id)
        return operation

    # ------------------------------------------------------------------ inside

    def _decode_plainly(self, result: bytes) -> Any:
        """A result of which no one has said what it is; that of a handler without one is empty."""
        return codec_under(self._default_serde, MISSING).decode(result) if result else None

    def _invocation_paused(self, invocation: InvocationRun, error: BaseException) -> None:
        """Tell the hook; what it raises is logged."""
        if self._on_paused is None:
            return
        handle: Invocation[Any] = Invocation(self, invocation.id, invocation.handler.signature.decode_result)
        task = asyncio.get_running_loop().create_task(self._tell_paused(self._on_paused, handle, error))
        self._hooks.add(task)
        task.add_done_callback(self._hooks.discard)

    async def _tell_paused(self, hook: OnPaused, handle: Invocation[Any], error: BaseException) -> None:
        async def call() -> None:
            await hook(handle, error)

        try:
            await contained(asyncio.get_running_loop(), call())
        except BaseException as failure:  # Rule E3
            if isinstance(failure, asyncio.CancelledError) and _is_being_cancelled():
                raise
            let_signals_pass(failure)
            self._observer.hook_failed(without_containment(failure))

    def _act(self, verb: Verb, what: str) -> Awaitable[Sequence[str]]:
        supervisor = self._running()
        if not isinstance(what, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{verb}() takes the id of an invocation, or a target such as 'Cart/mary', as text, not "
                f"{type(what).__name__}."
            )
        if what.startswith(OLDER_PREFIX) and "/" not in what:
            return self._act_on_one(verb, self.request_control(verb, what), what)
        service, key, handler = self._parse_target(what)
        if service is not None and handler is not None:
            self._check_handler(service, handler)
        return self._act_on_all(supervisor, verb, service, key, handler)

    async def _act_on_one(self, verb: Verb, effect: Awaitable[Effect], id: str) -> Sequence[str]:
        try:
            return [] if await effect is Effect.NOTHING else [id]
        except InvocationStatusError:
            if verb is Verb.RESUME:  # What is not paused is left as it is.
                return []
            raise

    async def _act_on_all(
        self, supervisor: Supervisor, verb: Verb, service: str | None, key: str | None, handler: str | None
    ) -> Sequence[str]:
        """Those that have ended meanwhile, or where it does not fit, are left as they are."""
        await supervisor.until_durable()
        touched: list[str] = []
        asked: list[tuple[str, Awaitable[Effect]]] = []
        async for record in self._pages(supervisor, service, key, handler, _ONLY.get(verb)):
            if record.status in _FITTING[verb]:
                asked.append((record.id, self.request_control(verb, record.id)))
            if len(asked) >= _PAGE:
                touched += await _touched(asked)
                asked = []
        return touched + await _touched(asked)

    async def _pages(
        self,
        supervisor: Supervisor,
        service: str | None,
        key: str | None,
        handler: str | None,
        status: InvocationStatus | None,
    ) -> AsyncIterator[InvocationRecord]:
        after = 0
        while True:
            page = await self._store.invocations(
                after=after, limit=_PAGE, service=service, key=key, handler=handler, status=status
            )
            await supervisor.until_durable()  # Rule X9
            if not page:
                return
            now = self._environment.clock.now()
            for record in page:
                # Rule C7: what has expired is there no longer, whenever it is removed.
                is_under_way = record.status is not InvocationStatus.COMPLETED  # Rule E7: its code has not ended.
                if is_under_way or record.expires_at is None or record.expires_at > now:
                    yield record
            after = page[-1].number

    def _running(self) -> Supervisor:
        """The supervisor, if this is the place to use the runtime (rule D2)."""
        supervisor, loop = self._supervisor, events._get_running_loop()
        if supervisor is not None and loop is self._loop:
            return supervisor
        if is_in_a_handler():
            raise WrongContextError(
                "The runtime was used in a handler. Use the handler's context: `ctx.object(...)` and "
                "`ctx.service(...)` are part of the journal, what goes past it would happen again on every replay."
            )
        if supervisor is None:
            raise RuntimeStoppedError(
                "The runtime is not running: use it inside `async with runtime:`. Nothing was accepted."
            )
        where = "where no event loop runs" if loop is None else "in another event loop than the one that it runs in"
        raise WrongContextError(
            f"The runtime was used {where}. Nothing was accepted. From another thread, hand a coroutine to the "
            "runtime's loop: `asyncio.run_coroutine_threadsafe(coroutine, loop)`. In tests, run the test in the loop "
            "of the fixture that started the runtime (pytest-asyncio: the same `loop_scope`). Each `asyncio.run()` "
            "makes a new loop."
        )

    def _parse_target(self, target: str | None) -> tuple[str | None, str | None, str | None]:
        if target is None:
            return None, None, None
        service, *rest = map(unquote, target.split("/"))
        actor = self._actors.get(service)
        if actor is None or len(rest) > 2:
            known = ", ".join(self._actors)
            raise ValueError(
                f"{target!r} names nothing that runs here. Write Service, Service/handler, Object, Object/key or "
                f"Object/key/handler; there are: {known}."
            )
        if actor.definition.kind == "service":
            return service, None, rest[0] if rest else None
        return service, rest[0] if rest else None, rest[1] if len(rest) == 2 else None

    def _check_handler(self, service: str, handler: str) -> None:
        handlers = self._actors[service].handlers
        if handler not in handlers:
            raise ValueError(f"{service} has no handler {handler!r}; it has: {', '.join(handlers)}.")


class _PausedHook(Observer):
    """Hands pauses to the host's `on_paused`."""

    def __init__(self, tell: Callable[[InvocationRun, BaseException], None]) -> None:
        self._tell = tell

    def pause_durable(self, invocation: InvocationRun, error: BaseException, heard: bool) -> None:
        self._tell(invocation, error)


def _scope(outgoing: Outgoing[Any]) -> KeyScope:
    """What an idempotency key is unique in; without one, it is the `run` of a workflow."""
    return KeyScope(outgoing.service, outgoing.key or "", outgoing.handler, outgoing.idempotency_key or "")


async def _touched(asked: Iterable[tuple[str, Awaitable[Effect]]]) -> list[str]:
    """Of several that were asked for, those on which it had an effect."""
    touched: list[str] = []
    for id, effect in asked:
        with suppress(InvocationStatusError, UnknownTargetError):
            if await effect is not Effect.NOTHING:
                touched.append(id)
    return touched


_UNFINISHED = frozenset(InvocationStatus) - {InvocationStatus.COMPLETED}
_FITTING: Mapping[Verb, Collection[InvocationStatus]] = {
    Verb.CANCEL: _UNFINISHED,
    Verb.KILL: _UNFINISHED,
    Verb.PAUSE: _UNFINISHED,
    Verb.RESUME: (InvocationStatus.PAUSED,),
    Verb.RESTART: (InvocationStatus.PAUSED,),
    Verb.PURGE: (InvocationStatus.COMPLETED,),
}
"""Where invocations of a target stand to which a verb is applied."""
_ONLY: Mapping[Verb, InvocationStatus] = {
    Verb.RESUME: InvocationStatus.PAUSED,
    Verb.RESTART: InvocationStatus.PAUSED,
    Verb.PURGE: InvocationStatus.COMPLETED,
}
"""Where there is but one such status the store looks for it."""


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _itself(acceptance: Acceptance) -> Acceptance:
    return acceptance


NO_DELAY = Delay()


def _bind_all(
    actors: Iterable[type[Actor]], dependencies: Mapping[Any, Any], serde: SerdeFactory | None
) -> dict[str, BoundActor]:
    if isinstance(actors, type):
        raise DefinitionError(f"A runtime takes a list of classes of actors: write [{actors.__name__}].")
    bound: dict[str, BoundActor] = {}
    for cls in actors:
        actor = bind(cls, dependencies, serde=serde)
        name = actor.definition.name
        if name in bound:
            raise DefinitionError(
                f"Two classes are named {name!r} on the wire. Give one of them another name: class ...(name=...)."
            )
        bound[name] = actor
    return bound

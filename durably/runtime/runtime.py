"""`Runtime`: durably embedded in an asyncio program. A composition root; the machine is in the modules beside it."""

from __future__ import annotations

import asyncio
import os
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload
from urllib.parse import unquote

from msgspec.structs import replace as with_headers

from durably.actors.actor import Actor, VirtualObject, Workflow
from durably.actors.caller import Caller
from durably.actors.definition.binding import DELETION, BoundActor, BoundActorHandler, bind
from durably.actors.definition.definition import definition_of
from durably.actors.definition.dependencies import Dependencies
from durably.actors.event_values import EventClass, checked_stream, event_classes
from durably.actors.events.publishing import publisher
from durably.actors.events.subscribing import with_companions
from durably.actors.headers import ForwardHeaders, forwarding
from durably.actors.limits import Limit
from durably.actors.machines.machine import check_prefixes
from durably.actors.middleware import MiddlewareGiven, checked_middleware
from durably.actors.protocol.commands import CompleteAwakeable, Question, SendSignal
from durably.actors.protocol.operations import CallSite, HostOperation
from durably.actors.retry import RetryPolicy, checked_retry
from durably.actors.sent_values import Sent
from durably.actors.transport import PUBLISHER, Delay, Invocation, Outgoing, message_of, no_call
from durably.actors.values.durations import (
    Duration,
    duration_us,
    moment,
    optional_duration_us,
    optional_retention_us,
    retention_us,
)
from durably.actors.values.serde import MISSING, SerdeFactory, checked_factory, codec_under
from durably.actors.values.type_checks import is_int, is_mapping, is_text
from durably.actors.values.user_errors import let_signals_pass
from durably.errors import (
    DefinitionError,
    InvocationStatusError,
    RuntimeStoppedError,
    UnknownTargetError,
    WrongContextError,
)
from durably.ids import OLDER_PREFIX, Address, InvocationStatus, KeyScope, is_storable, visible_state
from durably.runtime.actions.contained import contained, without_containment
from durably.runtime.environment import Environment
from durably.runtime.execution.loop import is_in_a_handler
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.dead_letter_control import DeadLetter, act_on_letter, dead_letters_of
from durably.runtime.gateway.describe import describe_actor, sdk_version
from durably.runtime.gateway.event_subscribers import EventSubscribers, Hear, Unsubscribe
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    CancelOperation,
    CompletionOperation,
    DecodedOperation,
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
from durably.runtime.gateway.schedule_control import Schedule, schedules_of
from durably.runtime.gateway.schemas import schemas_of
from durably.runtime.gateway.source_control import SourceState, fed_handlers, sources_of
from durably.runtime.gateway.stored_entries import stored_entries
from durably.runtime.gateway.subscription_control import SubscriptionState, subscriptions_of
from durably.runtime.inspection.inspection import Inspection
from durably.runtime.inspection.journals import InvocationJournal
from durably.runtime.inspection.listing import PAGE, ListedInvocation, ObjectDescription
from durably.runtime.inspection.live_facts import has_its_turn
from durably.runtime.inspection.metrics import runtime_metrics
from durably.runtime.inspection.questions import (
    checked_address,
    checked_limit,
    checked_parts,
    checked_status,
    checked_step,
    checked_text,
    object_class,
)
from durably.runtime.inspection.waits import WaitingInvocation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.object_deletion import refuse_unless_object
from durably.runtime.lifecycle.schedules import ScheduleStatus
from durably.runtime.lifecycle.sources import SourceStatus
from durably.runtime.lifecycle.state_edits import StateEdit
from durably.runtime.lifecycle.subscriptions import SubscriptionStatus
from durably.runtime.messaging.event_feeds import EventReader
from durably.runtime.messaging.events import full_stream
from durably.runtime.observation.logs import Logger, RuntimeLogger, checked_logger
from durably.runtime.observation.metrics import Counts, Metrics, RuntimeMetrics
from durably.runtime.observation.observer import Observer, Observers
from durably.runtime.observation.tracing.otlp import OpenTracing, Tracing, is_disabled, tracing_given
from durably.runtime.supervision.contained_codec import contained_codec
from durably.runtime.supervision.supervisor import Supervisor
from durably.sources import Feed
from durably.storage.connect import store_given
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.payload_coding import Codec, is_codec
from durably.storage.standby import prepare_standby

if TYPE_CHECKING:
    from durably.admin import Admin
    from durably.ingress import Ingress
    from durably.runtime.queries.queries import Queries, QueryAnswer

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")
T = TypeVar("T")

DEVELOPMENT_DRAIN_US = 1_000_000
"""How long a program that is being written is waited for when it starts again."""
_VERSION_LIMIT = 200
_ID = "The id of an invocation"

OnPaused = Callable[[Invocation[Any], BaseException], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a runtime, each with its unit in its name."""

    mailbox_messages: int = 10_000
    """Waiting messages of one object, beyond which requests from outside get an OverloadedError."""
    waiting_messages: int = 1_000_000
    """The same of all objects together, as far as they are in memory, with those that wait for named limits."""
    waiting_attempts: int = 10_000
    """Invocations that wait in memory, at about 6 KB each. Where more wait, those that were woken least recently leave
    it, and are replayed from their journals when they are woken."""
    waiting_bytes: int = 256 * 1024 * 1024
    """What these take up together, about: their journals and the values that they were decoded to."""
    active_objects: int = 100_000
    """Idle objects kept in memory; the least recently used go first."""
    active_bytes: int = 256 * 1024 * 1024
    """What these take up together, about: their state, and 1.5 KB each."""
    state_bytes: int = 128 * 1024 * 1024
    """Of the state of one object, as it is stored. A warning comes at three quarters. An invocation that would make it
    larger is paused with the reason, and nothing of that step has happened."""
    undurable_bytes: int = 64 * 1024 * 1024
    """What may be accepted or done ahead of the disk, about. Beyond that requests from outside get an OverloadedError,
    and nothing goes on until the disk has caught up."""
    payload_bytes: int = 32 * 1024 * 1024
    """Of one argument from outside."""
    action_threads: int = 32
    """Plain functions that `ctx.run` runs at a time; further ones wait for a thread. Coroutines have no limit."""
    named: Mapping[str, Limit] = field(default_factory=lambda: dict[str, Limit]())
    """What handlers refer to, alone or together: `@handler(limit="stripe")`."""

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value: object = getattr(self, name)
            if not is_int(value):
                raise TypeError(f"Limits({name}=...) is a whole number, not {value!r}.")
            if value < (0 if name.startswith(("waiting_attempts", "waiting_bytes", "active")) else 1):
                raise ValueError(f"Limits({name}=...) is too small: {value}.")
        if not is_mapping(self.named):
            raise TypeError(f"Limits(named=...) takes a mapping from names to limits, not {self.named!r}.")
        for name, limit in self.named.items():
            if not is_text(name) or not name or not is_storable(name):
                raise TypeError(f"Limits(named=...) takes names that are text, not {name!r}.")
            if not isinstance(cast(object, limit), Limit):
                raise TypeError(
                    f"Limits(named={{{name!r}: ...}}) takes a Limit, such as Limit(at_once=10), not {limit!r}."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class PubSub:
    """How a runtime publishes events, and keeps them."""

    cluster: str = "default"
    """What its streams belong to: runtimes of another cluster on the same store have other streams."""
    default_stream: str = "all"
    """Where what is published without `stream=` goes."""
    retention: Duration = timedelta(days=7)
    """How long events are kept, and longer for subscriptions that have not been given them; `FOREVER` is one, too."""
    limit_bytes: int = 1024 * 1024 * 1024
    """Of events in the store. Beyond that those outside publish no more: they get an OverloadedError."""
    sse: bool = False
    """Readers over HTTP get events that were published without `sse=`; those with `sse=True` they always get."""
    nodes: Sequence[str] = ()
    """URLs of the ingresses of other runtimes, whose events readers over HTTP get, too. It may name this one."""
    discover: bool = False
    """A host name in `nodes` stands for all addresses that DNS has for it, looked up again every 10 seconds."""
    in_flight: int = 1_000
    """How many messages of one subscription wait or run at a time, those behind paused ones not counted."""

    def __post_init__(self) -> None:
        checked_stream(self.cluster)
        checked_stream(self.default_stream)
        retention_us(self.retention, "PubSub(retention=...)")
        if isinstance(self.nodes, str):
            raise TypeError(f"PubSub(nodes=...) is several URLs: write nodes=[{self.nodes!r}].")
        if not isinstance(cast(object, self.discover), bool):
            raise TypeError(f"PubSub(discover=...) is True or False, not {self.discover!r}.")
        for name in ("limit_bytes", "in_flight"):
            value: object = getattr(self, name)
            if not is_int(value):
                raise TypeError(f"PubSub({name}=...) is a whole number, not {value!r}.")
            if value < 1:
                raise ValueError(f"PubSub({name}=...) is too small: {value}.")

    def settings(self) -> dict[str, Any]:
        """The fields of `Settings` that say the same."""
        return {
            "event_cluster": self.cluster,
            "event_stream": self.default_stream,
            "event_retention_us": retention_us(self.retention, "PubSub(retention=...)"),
            "event_limit_bytes": self.limit_bytes,
            "events_in_flight": self.in_flight,
        }


_NUMBERS = [one.name for one in fields(Limits) if one.name != "named"]


class Runtime(Caller):
    """Runs actors on a store, in the running event loop.

    Use it as an asynchronous context manager; leaving it lets handlers come to a rest for up to `drain`, then commits
    and lets the store go within `stop_timeout`. What does not end by then (an action that ignores its cancellation, a
    store that another program keeps locked) is left, with a warning that says what it is. What had not ended continues
    at the next start. Until it is entered it only checks the classes, so it may be made at import time.

    `store` is a Store, a URL (`sqlite:///app.db`) or the `pathlib.Path` of a SQLite file; `dependencies` maps the
    annotations of constructor parameters to values, or to a `factory` that makes them. `middleware` stands around all
    handlers: see `Middleware`. `retry` is for handlers that have no policy of their own.
    Invocations that wait stay in memory while there is room for them (`Limits.waiting_attempts`), or at most for
    `suspend_after`; one that has left is replayed from its journal when it is woken. An object that is idle for longer
    than `passivate_after` leaves memory, too. Outcomes of sends and of requests with an idempotency key are kept for
    `retention`. Journals of what had an idempotency key or was the run of a workflow are kept for a day after its end,
    or for `journal_retention`, which then is for all invocations, plain calls included; 0 is for none. `FOREVER` is a
    retention, too. What need not be kept any longer is removed in the background, within `cleanup_interval` (a minute);
    an outcome is not found from the announced moment on. `pubsub` says how
    events are published and kept. `sources` are read outside, such as topics of Kafka, and say which handler gets their
    records: see `durably.sources`. Durations are timedeltas or seconds. `on_paused` is called for
    each invocation that waits for a person. `logger` is where the runtime and `ctx.log` write, a logger of the standard
    library or of structlog; without one they write to structlog where it is configured, and else to the logger
    `durably`. Where some invocations wait for nothing but each other, the newest call raises `DeadlockError` in its
    handler; `deadlocks="wait"` lets them wait. `forward_headers` says which headers of an invocation go on with the
    calls that it makes: all (True), none, or those of these names; never those about one message or connection. A class
    may say it for its handlers. `serde` makes the Serde of each type that classes without one of their own take, give
    and keep, such as `MsgpackSerde`; without one, values are JSON. `codec` wraps all values that are stored: see
    `durably.codecs`. `version` is what you call your code, a release or a commit; each journal records it, with the
    minor version of Python. Without one, it is a fingerprint of the handler's code. `tracing` sends a span of each
    invocation, attempt and command to a collector of OpenTelemetry: a `Tracing`, or the collector's URL. `metrics`
    counts what `metrics()` and `/metrics` of the admin API tell. `environment` is for tests and simulations: where
    time, randomness and the numbers that the machine runs by come from.

    Raises:
        DefinitionError: a class cannot work, or `store` is none.
    """

    def __init__(
        self,
        store: InspectableStore | str | os.PathLike[str],
        actors: Iterable[type[Actor]],
        *,
        dependencies: Mapping[Any, Any] | None = None,
        middleware: Sequence[MiddlewareGiven] = (),
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        suspend_after: Duration | None = None,
        passivate_after: Duration = 300.0,
        retention: Duration = 86400.0,
        journal_retention: Duration | None = None,
        cleanup_interval: Duration | None = None,
        pubsub: PubSub | None = None,
        sources: Sequence[Feed] = (),
        drain: Duration = 30.0,
        stop_timeout: Duration = 10.0,
        on_paused: OnPaused | None = None,
        deadlocks: Literal["error", "wait"] = "error",
        forward_headers: ForwardHeaders | None = None,
        serde: SerdeFactory | None = None,
        codec: Codec | None = None,
        logger: Logger | None = None,
        version: str | None = None,
        tracing: Tracing | str | None = None,
        metrics: bool = False,
        environment: Environment | None = None,
    ) -> None:
        environment = Environment() if environment is None else environment
        if logger is not None:
            environment = replace(environment, logger=partial(RuntimeLogger, checked_logger(logger)))
        self._environment = environment
        limits = _checked("limits", limits, lambda one: isinstance(one, Limits), "a Limits") or Limits()
        self._pubsub = _checked("pubsub", pubsub, lambda one: isinstance(one, PubSub), "a PubSub") or PubSub()
        self._tracing = tracing_given(tracing)
        self._open_tracing: OpenTracing | None = None
        """Where spans go while it runs."""
        self._counts_metrics = metrics
        self._counts: Counts | None = None
        """What has happened since it was entered, where that is counted."""
        self._codec = _checked_codec(codec)
        self._limits = limits.named
        self._store = self._encoded(store_given(store))
        self._default_serde = checked_factory(serde, "Runtime(serde=...)")
        self._dependencies = Dependencies({} if dependencies is None else dependencies)
        self._middleware = checked_middleware(middleware, "Runtime(middleware=...)")
        self._actors = _bind_all(actors, self._dependencies, self._default_serde, limits.named, self._middleware)
        self._hosted = self._with_publisher()
        if isinstance(cast("object", sources), Feed):
            raise DefinitionError(f"Runtime(sources=...) takes a list: write [{sources!r}].")
        self._sources = tuple(sources)
        fed_handlers(self._sources, self._actors)
        self._on_paused = _checked("on_paused", on_paused, callable, "an async function")
        self._settings = replace(
            self._environment.settings,
            retry=checked_retry(retry, "Runtime(retry=...)") or RetryPolicy(),
            suspend_after_us=optional_duration_us(suspend_after, "Runtime(suspend_after=...)"),
            passivate_after_us=duration_us(passivate_after, "Runtime(passivate_after=...)"),
            retention_us=retention_us(retention, "Runtime(retention=...)"),
            journal_retention_us=optional_retention_us(journal_retention, "Runtime(journal_retention=...)"),
            expire_every_us=(
                self._environment.settings.expire_every_us
                if cleanup_interval is None
                else _interval_us(cleanup_interval, "Runtime(cleanup_interval=...)")
            ),
            **self._pubsub.settings(),
            drain_us=duration_us(drain, "Runtime(drain=...)"),
            stop_us=duration_us(stop_timeout, "Runtime(stop_timeout=...)"),
            code_version=_checked_version(version),
            deadlocks=_checked("deadlocks", deadlocks, lambda one: one in ("error", "wait"), '"error" or "wait"'),
            forwarding=forwarding(forward_headers, "Runtime(forward_headers=...)"),
            waiting_attempts=limits.waiting_attempts,
            waiting_bytes=limits.waiting_bytes,
            active_objects=limits.active_objects,
            active_bytes=limits.active_bytes,
            state_bytes=limits.state_bytes,
            undurable_limit_bytes=limits.undurable_bytes,
            waiting_messages=limits.waiting_messages,
            mailbox_messages=limits.mailbox_messages,
            payload_bytes=limits.payload_bytes,
            action_threads=limits.action_threads,
        )
        self._observer = Observer()
        self._supervisor: Supervisor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where it runs; None before it is entered."""
        self._started_at = 0
        self._store_id = ""
        self._subscribers = EventSubscribers()
        self._queries: Queries | None = None
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
        settings = self._settings
        heard = [environment.logger(), environment.observer, _PausedHook(self._invocation_paused)]
        if self._counts_metrics:
            counting = Metrics(environment.clock)
            heard.append(counting)
            self._counts = counting.counts
        tracing = None if self._tracing is None or is_disabled() else OpenTracing(self._tracing)
        if tracing is not None:
            heard.append(tracing.observer(environment.clock))
            settings = replace(settings, trace_headers=tracing.trace_headers)
        self._observer = Observers(heard)
        supervisor = Supervisor(
            store=self._store,
            actors=self._hosted,
            dependencies=self._dependencies,
            environment=replace(environment, observer=self._observer, settings=settings),
            sources=fed_handlers(self._sources, self._actors),
        )
        try:
            await supervisor.start()
        except BaseException:
            if tracing is not None:
                await tracing.close()
            raise
        self._supervisor, self._loop = supervisor, asyncio.get_running_loop()
        self._open_tracing = tracing
        self._store_id = supervisor.store_id
        self._started_at = environment.clock.now()
        self._observer.started(self._store.describe(), len(self._actors))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._running(), None
        closing = asyncio.ensure_future(self._subscribers.close(self._settings.stop_us / 1_000_000))
        self._queries = None
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | asyncio.CancelledError)
        stopping = asyncio.ensure_future(supervisor.stop(interrupted=interrupted))
        try:
            await asyncio.shield(stopping)
        finally:  # Who cancels us gets a runtime that has stopped, and a store that is free.
            ctrl_c = await stopping
            await closing
        self._observer.stopped()
        if self._open_tracing is not None:
            await self._open_tracing.close()
            self._open_tracing = None
        if ctrl_c is not None:
            task = asyncio.current_task()
            # asyncio.run cancels its task at the first Ctrl-C, and makes a KeyboardInterrupt of that cancellation.
            raise ctrl_c if task is None or not task.cancelling() else asyncio.CancelledError

    @property
    def actors(self) -> Mapping[str, BoundActor]:
        """What it runs, by name on the wire, for tools."""
        return self._actors

    def use_stand_ins(self, stand_in_for: Callable[[type], Any]) -> None:
        """For tools that replay without running: constructors get stand-ins for what factories would make."""
        if not self._dependencies.factories:
            return
        self._dependencies = Dependencies(self._dependencies.given, stand_in_for)
        self._actors = _bind_all(
            [one.definition.actor for one in self._actors.values()],
            self._dependencies,
            self._default_serde,
            self._limits,
            self._middleware,
        )
        self._hosted = self._with_publisher()

    def _subscribed_events(self) -> Mapping[str, EventClass]:
        return self._events

    def _with_publisher(self) -> dict[str, BoundActor]:
        """What it runs, with the service that publishes for those outside, which is no user's."""
        if PUBLISHER in self._actors:
            raise DefinitionError(f"A class is named {PUBLISHER!r}, which is taken. Give it another name.")
        self._events = _known_events(self._actors.values())
        own = bind(publisher(self._events), self._dependencies, limits=self._limits, middleware=self._middleware)
        return {**self._actors, PUBLISHER: own}

    @property
    def codec(self) -> Codec | None:
        """What wraps the values that are stored, for tools."""
        return self._codec

    @property
    def version(self) -> str | None:
        """What the program calls its code."""
        return self._settings.code_version

    @property
    def started_at(self) -> datetime:
        """When it was entered."""
        return moment(self._started_at)

    @property
    def store(self) -> str:
        """What and where its store is, for people."""
        return self._store.describe()

    @property
    def accepts_requests(self) -> bool:
        """It runs, has its store, and has not been asked to stop."""
        return self._supervisor is not None and self._supervisor.accepts_requests

    def refusal(self) -> str | None:
        """Why every request from outside would be refused now; None: it would not."""
        supervisor = self._supervisor
        if supervisor is None or not supervisor.accepts_requests:
            return "the runtime accepts no requests: it is stopping, or its store is away"
        engine = supervisor.engine
        return None if engine is None else engine.parts.committer.refusal()

    def use_store(self, store: InspectableStore | str | os.PathLike[str]) -> None:
        """Run on another store than it was made with; before it is entered."""
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; its store can only be changed before.")
        self._store = self._encoded(store_given(store))

    def use_suspend_after(self, suspend_after: Duration) -> None:
        """Let attempts that wait leave memory sooner or later than it was made to; before it is entered."""
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; when attempts leave memory can only be changed before.")
        suspend_after_us = duration_us(suspend_after, "use_suspend_after(...)")
        self._settings = replace(self._settings, suspend_after_us=suspend_after_us)

    def stand_by(self, address: str = "") -> None:
        """Have the store tell others that requests are served at `address`; before it is entered.

        Raises:
            DefinitionError: no other process could take this store over.
        """
        prepare_standby(self._store, address)

    async def store_to_read(self) -> InspectableStore:
        """Its store, which has by then all that it has acknowledged, for tools that read beside it.

        Raises:
            StoreUnavailableError: it cannot be reached.
        """
        await self._running().until_durable()
        return self._store

    async def check_store(self) -> None:
        """Return if its store is there and still its own.

        Raises:
            StoreInUseError: somebody else has taken it over; this runtime has stopped for good.
            StoreUnavailableError: it cannot be reached.
        """
        await self._running().until_durable()

    def use_tracing(self, tracing: Tracing | str) -> None:
        """Send traces elsewhere than it was made with; before it is entered."""
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; where its traces go can only be changed before.")
        self._tracing = tracing_given(tracing)

    def use_pubsub(self, **changes: Any) -> None:
        """Publish and keep events otherwise than it was made to, by fields of `PubSub`; before it is entered."""
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; how it keeps events can only be changed before.")
        self._pubsub = replace(self._pubsub, **changes)
        self._settings = replace(self._settings, **self._pubsub.settings())

    @property
    def pubsub(self) -> PubSub:
        """How it publishes and keeps events."""
        return self._pubsub

    def use_metrics(self) -> None:
        """Count what `metrics()` tells; before it is entered."""
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; whether it counts can only be changed before.")
        self._counts_metrics = True

    def use_development(self) -> None:
        """Tell at once what is wrong: one attempt, unless the program says otherwise, and no forgotten `await`.

        What fails pauses. Before it is entered.
        """
        if self._supervisor is not None:
            raise RuntimeError("The runtime is running; how patient it is can only be changed before.")
        retry = self._settings.retry
        self._settings = replace(
            self._settings,
            retry=RetryPolicy(max_attempts=1) if retry == RetryPolicy() else retry,
            drain_us=min(self._settings.drain_us, DEVELOPMENT_DRAIN_US),
            forgotten_await="error",
        )

    @property
    def is_traced(self) -> bool:
        """It was told where its traces go."""
        return self._tracing is not None

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

        With `admin=True` it is the one for operators, who cancel, kill, pause and so on. Keep everybody else out: it
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
            handler=handler,
            keyed=request.idempotency_key is not None or (handler is not None and handler.kind == "workflow"),
        )
        if self._open_tracing is not None:
            request.headers = self._open_tracing.entering(request.headers)
        gateway.call(operation, request, request.body, wire=True)
        return operation

    def request_send(self, request: InvocationRequest) -> Awaitable[Acceptance]:
        """Send by name and bytes; awaited, it is durable.

        Raises:
            DurablyError: the request was refused and nothing accepted; or (StoreUnavailableError) that is unknown.
        """
        gateway = self._running().gateway
        operation: AcceptanceOperation[Acceptance] = AcceptanceOperation(
            gateway.pending, request.handler, None, _itself
        )
        if self._open_tracing is not None:
            request.headers = self._open_tracing.entering(request.headers)
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
        return ReplyOperation(self._running().gateway.pending, what, handler_of=self._handler, keyed=True)

    def _handler(self, service: str, handler: str) -> BoundActorHandler | None:
        actor = self._hosted.get(service)
        return None if actor is None else actor.handlers.get(handler)

    def request_completion(self, command: CompleteAwakeable) -> Awaitable[None]:
        """Resolve or reject an awakeable; awaited, it is durable. The id has been checked."""
        return self._issue_completion(command, None)

    def request_signal(self, command: SendSignal) -> Awaitable[None]:
        """Send a signal; awaited, it is durable.

        Raises:
            DurablyError: it was refused, or (StoreUnavailableError) whether it was accepted is unknown.
        """
        return self._issue_signal(command.invocation_id, command.name, Sent(command.failed, command.value), None)

    def request_control(self, verb: Verb, id: str, /) -> Awaitable[Effect]:
        """Do something to one invocation; what is awaited is durable.

        Raises:
            UnknownTargetError, InvocationStatusError: it is not there, or the verb does not fit where it stands.
            StoreUnavailableError: the store failed; whether it took effect is unknown.
        """
        gateway = self._running().gateway
        operation: QuestionOperation[Effect] = QuestionOperation(gateway.pending, f"{verb} of {id}", None)
        gateway.act(operation, verb, id)
        return operation

    def describe(self) -> list[ServiceDescription]:
        """What it runs, with types, in the order given."""
        return [describe_actor(actor, self._settings) for actor in self._actors.values()]

    def describe_schemas(self) -> list[ServiceSchemas]:
        """The JSON schemas of the same services, in the same order."""
        return [schemas_of(actor) for actor in self._actors.values()]

    async def state(self, actor: type[VirtualObject] | type[Workflow], key: str, /) -> Mapping[str, Any]:
        """The state of an object or workflow after its last completed invocation, by stored name.

        Declared fields are decoded by their types.

        Raises:
            DefinitionError: no class of objects of this runtime.
            InvalidKeyError: no object can have this key.
        """
        supervisor = self._running()
        bound = object_class(self._actors, actor)
        address = checked_address(bound, key)
        await supervisor.until_durable()
        stored = await self._store.state(address)
        await supervisor.until_durable()  # Rule X9: the store was still ours after it was read.
        apart, seen = bound.large_fields(), visible_state(stored)
        return {name: bound.decode_state(name, value) for name, value in seen.items() if name not in apart}

    async def entries(
        self,
        actor: type[VirtualObject] | type[Workflow],
        key: str,
        field: str,
        /,
        *,
        after: Any = None,
        limit: int = 100,
    ) -> list[tuple[Any, Any]]:
        """Entries of a `DurableDict` or `DurableList` after the last completed invocation, or of a `Lazy` its value.

        `field` is the stored name. Each entry comes with its key, or with its index in a list; that of a `Lazy` is
        None. At most `limit` (and 1,000) behind the key or index `after`.

        Raises:
            DefinitionError: no class of objects of this runtime, or it has no such field.
            InvalidKeyError: no object can have this key.
            TypeError, ValueError: `limit` is no count, or `after` no key or index.
        """
        supervisor = self._running()
        bound = object_class(self._actors, actor)
        address = checked_address(bound, key)
        checked_limit(limit)
        large = bound.large_fields().get(checked_text(field, "The name of a field"))
        if large is None:
            raise DefinitionError(
                f"{address.service} keeps no field {field!r} apart from its objects. `runtime.state()` has the others."
            )
        await supervisor.until_durable()
        found = await stored_entries(self._store, address, large, after, limit)
        await supervisor.until_durable()  # Rule X9: the store was still ours after it was read.
        return found

    async def invocations(
        self, *, target: str | None = None, status: InvocationStatus | None = None, limit: int | None = None
    ) -> AsyncIterator[ListedInvocation]:
        """Unfinished invocations, and finished ones that are kept, oldest first: handles, each with a `description`.

        `target` is `Service`, `Service/handler`, or for objects `Object/key` or `Object/key/handler`, each part
        percent-encoded: a key `a/b` is written `a%2Fb`. `limit` is how many come at most. The store is read in pages,
        each as it is by then, beside what is committed. What begins anew meanwhile (`continue_as_new`, a restart) goes
        to the end, and may come a second time.

        Raises:
            TypeError, ValueError: the target names nothing that runs here, or nothing can be found by the others.
        """
        inspection = self._inspection()
        checked_limit(limit)
        service, key, handler = self._parse_target(target)
        wanted, told = checked_status(status), 0
        if limit == 0:
            return
        async for record in inspection.records(service, key, handler, wanted):
            yield ListedInvocation(self, self._decode_plainly, record)
            told += 1
            if told == limit:
                return
        if not told and service is not None and handler not in (None, DELETION):  # It may be one of older code.
            self._check_handler(service, handler)

    async def objects(
        self, actor: type[VirtualObject] | type[Workflow], /, *, limit: int | None = None
    ) -> AsyncIterator[ObjectDescription]:
        """The objects of a class, by key in the order of code points: how long the mailbox is, how large the state.

        There is one for each key that has state, completed promises or something to do in the store, or is in memory.
        `limit` is how many come at most. The store is read in pages, each as it is by then.

        Raises:
            DefinitionError: no class of objects of this runtime.
            TypeError, ValueError: `limit` is no count.
        """
        inspection = self._inspection()
        checked_limit(limit)
        bound, told = object_class(self._actors, actor), 0
        if limit == 0:
            return
        async for description in inspection.objects(bound.definition.name):
            yield description
            told += 1
            if told == limit:
                return

    def journal(self, id: str, /) -> Awaitable[InvocationJournal]:
        """What an invocation has done so far, decoded; `str()` of it is for people.

        Raises:
            UnknownTargetError: there is no such invocation, or its outcome is no longer kept.
            LoadLimitError, UnreadableRecordError: its journal is too large to load, or cannot be read.
        """
        return self._inspection().journal(checked_text(id, _ID))

    def why(self, id: str, /) -> Awaitable[WaitingInvocation]:
        """Why an invocation does not go on: what it waits for, and what that waits for, as far as it leads.

        At most 50 waits of one invocation are told, the newest, and 200 invocations in all. `str()` of the answer is a
        tree for people, its `data()` plain values for JSON.

        Raises:
            UnknownTargetError: there is no such invocation, or its outcome is no longer kept.
        """
        return self._inspection().why(checked_text(id, _ID))

    async def query(self, sql: str, /, *, endpoint: str = "", deployment_id: str = "") -> QueryAnswer:
        """Ask what is stored, in SQL, under the names and columns of Restate's tables. Needs the extra `sql`.

        `endpoint` and `deployment_id` are what the program is called in answers about deployments.

        Raises:
            ValueError: this is no query, or one that may not be asked; or its answer would be too large.
            OverloadedError: others are asking.
            StoreUnavailableError: the store failed, so there is no answer.
        """
        from durably.runtime.queries.queries import KnownDeployment, KnownService, Queries

        supervisor = self._running()
        if self._queries is None:
            self._queries = Queries(
                until_durable=supervisor.until_durable,
                store=self._store,
                unwrap=self._store.unwrap if isinstance(self._store, EncodedStore) else bytes,
                now_us=self._environment.clock.now,
            )
        services = [
            KnownService(
                name=name,
                kind="virtual_object" if actor.definition.kind == "object" else actor.definition.kind,
                is_public=not actor.definition.options.private,
                journal_retentions_us={
                    handler.name: (
                        self._settings.journal_retention_us
                        if handler.journal_retention_us is None
                        else handler.journal_retention_us
                    )
                    for handler in actor.handlers.values()
                },
            )
            for name, actor in self._actors.items()
        ]
        deployment = KnownDeployment(deployment_id, endpoint, self._started_at, sdk_version())
        return await self._queries.ask(sql, services=services, deployment=deployment, in_flight=self._in_flight)

    def _in_flight(self) -> list[tuple[int, bool]]:
        """The invocations that have their turn in memory, by number."""
        engine = self._running().engine
        if engine is None:
            return []
        return [(one.number, True) for one in engine.parts.registry.live.values() if has_its_turn(one)]

    def delete(self, actor: type[VirtualObject], key: str, /) -> Awaitable[None]:
        """Delete the state of an object: a message in its mailbox, behind what is there; awaited, it is done.

        What comes later finds an object that has never been. Invocations that wait, are scheduled or have ended stay.

        Raises:
            DefinitionError: the class is no VirtualObject of this runtime.
            InvalidKeyError: no object can have this key.
            DurablyError: as for a call: what is ahead in the mailbox is paused, and so on.
        """
        definition = definition_of(actor)
        gateway = self._running().gateway
        bound = self._actors.get(definition.name)
        if bound is None:
            raise DefinitionError(
                f"This runtime does not have {definition.name}, so nothing of it can be deleted here."
            )
        refuse_unless_object(bound)
        address = checked_address(bound, key)
        what = f"deletion of {definition.name}/{key}"
        operation: ResultOperation[None] = ResultOperation(gateway.pending, what, None, _nothing)
        gateway.delete(operation, address)
        return operation

    def request_deletion(self, service: str, key: str, /) -> Awaitable[Acceptance]:
        """Delete the state of an object by name, in its turn; awaited, the message is durable.

        Raises:
            UnknownTargetError: there is no such class of virtual objects.
            DurablyError: it was refused; or (StoreUnavailableError) whether it was accepted is unknown.
        """
        gateway = self._running().gateway
        what = f"deletion of {service}/{key}"
        operation: AcceptanceOperation[Acceptance] = AcceptanceOperation(gateway.pending, what, None, _itself)
        gateway.send_deletion(operation, Address(service, key))
        return operation

    def request_state_edit(
        self, service: str, key: str, state: Mapping[str, bytes], /, *, version: str | None = None
    ) -> Awaitable[Acceptance]:
        """Replace the state of an object by encoded fields, in its turn; awaited, the message is durable.

        `version` is that of the state which is to be replaced, as Restate's tools reckon it; where the object has
        another one by then, the invocation whose id is returned fails with 409, and nothing is changed.

        Raises:
            UnknownTargetError: there is no such class of virtual objects.
            DurablyError: it was refused; or (StoreUnavailableError) whether it was accepted is unknown.
        """
        gateway = self._running().gateway
        what = f"edit of {service}/{key}"
        operation: AcceptanceOperation[Acceptance] = AcceptanceOperation(gateway.pending, what, None, _itself)
        gateway.edit_state(operation, Address(service, key), StateEdit(dict(state), version))
        return operation

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

    def purge_journal(self, what: str, /) -> Awaitable[Sequence[str]]:
        """Forget the journal of an invocation that has ended, or of all of a target, and keep its outcome.

        `what` is as for `resume`; returned are the ids of those whose journal was still kept.

        Raises:
            TypeError, UnknownTargetError, ValueError: as `resume`.
            InvocationStatusError: the invocation of this id has not ended.
        """
        return self._act(Verb.PURGE_JOURNAL, what)

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
        if not checked_step(from_step):
            return self._act(Verb.RESTART, what)
        return self._act_on_one(Verb.RESTART, self.request_restart(checked_text(what, _ID), from_step), what)

    def request_restart(self, id: str, from_step: int, /) -> Awaitable[Effect]:
        """Begin one paused invocation anew from a step; what is awaited is durable. Raises what `restart` does."""
        gateway = self._running().gateway
        operation: QuestionOperation[Effect] = QuestionOperation(gateway.pending, f"restart of {id}", None)
        gateway.restart(operation, id, from_step)
        return operation

    async def restart_as_new(self, id: str, /, *, from_step: int = 0) -> Invocation[Any]:
        """Begin an invocation that has ended once more, with its arguments and headers, under a new id.

        `from_step` keeps the steps before it and the answers that they took in, as long as the journal is kept
        (`journal_retention`). The code has to follow them still; what they called, sent and did is not done again. That
        is for services and shared handlers: the state that the steps of an exclusive handler saw has gone.

        Raises:
            UnknownTargetError: there is none, or its outcome is no longer kept; or its handler is gone.
            InvocationStatusError: it has not ended, or cannot begin from this step (400).
            OverloadedError: as many messages wait for its object as may.
        """
        gateway = self._running().gateway
        operation: QuestionOperation[str] = QuestionOperation(gateway.pending, f"restart of {id}", None)
        gateway.restart_as_new(operation, checked_text(id, _ID), checked_step(from_step))
        return Invocation(self, await operation, self._decode_plainly)

    # ------------------------------------------------------------------ schedules

    async def schedules(self) -> list[Schedule]:
        """The schedules (`@cron`) of the classes that run here, by name, with their last and next ticks.

        Raises:
            StoreUnavailableError: the store failed, so there is no answer.
        """
        supervisor = self._running()
        found = await schedules_of(supervisor.engine_in_charge())
        await supervisor.until_durable()
        return found

    async def pause_schedule(self, name: str, /) -> bool:
        """Deliver no ticks of a schedule until `resume_schedule`; whether it was on.

        Ticks that pass meanwhile have been missed, and `missed=` says what comes of them. `name` is that of a
        `Schedule`, such as `Report/nightly`. Invocations of ticks are like others: `cancel` and so on act on them.

        Raises:
            UnknownTargetError: there is no such schedule.
            StoreUnavailableError: the store failed; whether it took effect is unknown.
        """
        return await self._set_schedule(name, ScheduleStatus.PAUSED)

    async def resume_schedule(self, name: str, /) -> bool:
        """Deliver ticks of a schedule again. One that was cancelled begins anew. Else as `pause_schedule`."""
        return await self._set_schedule(name, ScheduleStatus.ON)

    async def cancel_schedule(self, name: str, /) -> bool:
        """Deliver no ticks of a schedule, and let those that pass be lost, until it is resumed or its expression
        changes in the code. Else as `pause_schedule`.
        """
        return await self._set_schedule(name, ScheduleStatus.CANCELLED)

    async def _set_schedule(self, name: str, status: ScheduleStatus) -> bool:
        supervisor = self._running()
        checked_text(name, "The name of a schedule, such as 'Report/nightly',")
        has_changed = await supervisor.engine_in_charge().parts.schedules.set_status(name, status)
        await supervisor.until_durable()
        return has_changed

    # ------------------------------------------------------------------ metrics

    async def metrics(self) -> RuntimeMetrics:
        """The runtime in numbers, as it is now; what has happened, only if it was told to count (`metrics=True`)."""
        return await runtime_metrics(self._running(), self._store, self._counts)

    # ------------------------------------------------------------------ sources

    async def sources(self) -> list[SourceState]:
        """Where the sources stand that it reads, by name.

        Raises:
            StoreUnavailableError: the store failed, so there is no answer.
        """
        supervisor = self._running()
        found = await sources_of(supervisor.engine_in_charge())
        await supervisor.until_durable()
        return found

    async def pause_source(self, name: str, /) -> bool:
        """Take no records of a source until `resume_source`, which goes on where it was; whether it was on. `name` is
        that of a `SourceState`.

        Raises:
            UnknownTargetError: there is no such source.
            StoreUnavailableError: the store failed; whether it took effect is unknown.
        """
        return await self._set_source(name, SourceStatus.PAUSED)

    async def resume_source(self, name: str, /, *, pass_over: bool = False) -> bool:
        """Let a source go on. `pass_over` the record that cannot become a message, or a row that cannot be read: then
        the source begins anew. Else as `pause_source`.

        Raises:
            UnreadableRecordError: the store does not tell how far the source was read.
        """
        return await self._set_source(name, SourceStatus.ON, passes_over=pass_over)

    async def _set_source(self, name: str, status: SourceStatus, *, passes_over: bool = False) -> bool:
        supervisor = self._running()
        sources = supervisor.engine_in_charge().parts.sources
        has_changed = await sources.set_status(name, status, passes_over=passes_over)
        await supervisor.until_durable()
        return has_changed

    # ------------------------------------------------------------------ subscriptions

    async def subscriptions(self) -> list[SubscriptionState]:
        """The subscriptions to events of the classes that run here, such as consumers of models, by name, with how far
        behind they are.

        Raises:
            StoreUnavailableError: the store failed, so there is no answer.
        """
        supervisor = self._running()
        await supervisor.until_durable()
        found = await subscriptions_of(supervisor.engine_in_charge(), self._store)
        await supervisor.until_durable()  # Rule X9: the store was still ours after it was read.
        return found

    async def pause_subscription(self, name: str, /) -> bool:
        """Let no events become messages of a subscription until `resume_subscription`, which goes on where it was;
        whether it was on. `name` is that of a `SubscriptionState`.

        Raises:
            UnknownTargetError: there is no such subscription.
            StoreUnavailableError: the store failed; whether it took effect is unknown.
        """
        return await self._set_subscription(name, SubscriptionStatus.PAUSED)

    async def resume_subscription(self, name: str, /, *, pass_over: bool = False) -> bool:
        """Let a subscription go on. `pass_over` the event that cannot be read. Else as `pause_subscription`."""
        return await self._set_subscription(name, SubscriptionStatus.ON, passes_over=pass_over)

    async def dead_letters(self, subscription: str | None = None, /) -> AsyncIterator[DeadLetter]:
        """Events that subscriptions have given up, or one of them has, the oldest first. They stay until they are tried
        again or dropped.

        Raises:
            StoreUnavailableError: the store failed, so there is no answer.
        """
        supervisor = self._running()
        await supervisor.until_durable()
        async for letter in dead_letters_of(self._store, subscription):
            yield letter
        await supervisor.until_durable()

    async def retry_dead_letter(self, id: str, /) -> None:
        """Deliver an event once more that a subscription had given up, behind what waits for its key.

        Raises:
            UnknownTargetError: there is no such dead letter, or its subscription is gone.
            EventDeliveryError: no object can get it, still.
            StoreUnavailableError: the store failed; whether it took effect is unknown.
        """
        await self._act_on_letter(id, is_retried=True)

    async def drop_dead_letter(self, id: str, /) -> None:
        """Forget an event that a subscription had given up. Raises what `retry_dead_letter` does."""
        await self._act_on_letter(id, is_retried=False)

    async def _act_on_letter(self, id: str, *, is_retried: bool) -> None:
        supervisor = self._running()
        checked_text(id, "The id of a dead letter")
        await act_on_letter(supervisor.engine_in_charge(), self._store, id, is_retried=is_retried)
        await supervisor.until_durable()

    async def _set_subscription(self, name: str, status: SubscriptionStatus, *, passes_over: bool = False) -> bool:
        supervisor = self._running()
        subscriptions = supervisor.engine_in_charge().parts.subscriptions
        has_changed = subscriptions.set_status(name, status, passes_over=passes_over)
        await supervisor.until_durable()
        return has_changed

    # ------------------------------------------------------------------ events

    @overload
    async def subscribe(
        self, hear: Callable[[A], Awaitable[object] | object], event: type[A], /, *, stream: str | None = None
    ) -> Unsubscribe: ...
    @overload
    async def subscribe(
        self,
        hear: Callable[[A | B], Awaitable[object] | object],
        event: type[A],
        second: type[B],
        /,
        *,
        stream: str | None = None,
    ) -> Unsubscribe: ...
    @overload
    async def subscribe(
        self, hear: Hear, event: type[Any], second: type[Any], third: type[Any], /, *events: type[Any],
        stream: str | None = None,
    ) -> Unsubscribe: ...  # fmt: skip
    async def subscribe(self, hear: Hear, /, *events: type[Any], stream: str | None = None) -> Unsubscribe:
        """Let a function of the program hear of events of these classes that are published from now on.

            unsubscribe = await runtime.subscribe(show, UserCreated, UserDeleted)
            ...
            await unsubscribe()

        It gets them once they are durable, one after the other, in the order in which they were published. It may be
        `async`. This is not durable: what is published while the program is down is missed, for which there is
        `@subscribe` on handlers. What the function raises is logged. A call under way is cancelled when the runtime
        stops and when the function is unsubscribed; one that does that itself is its last.

        Raises:
            DefinitionError: a class cannot be one of events.
        """
        if not events:
            raise DefinitionError("runtime.subscribe() takes a function and the classes of events that it hears of.")
        classes = event_classes(events, "runtime.subscribe()")
        event_classes((one.cls for one in (*self._events.values(), *classes.values())), "The runtime")
        for one in classes.values():
            one.check()
        reader = await self.follow_events(stream)
        return self._subscribers.add(hear, classes, reader, self._observer)

    async def follow_events(self, stream: str | None = None, /, *, after: int | None = None) -> EventReader:
        """For tools: a reader of the events of a stream, behind a position or from now on. Close it in the end.

        It begins at the oldest event that is kept, if those behind the position have been forgotten.

        Raises:
            StoreUnavailableError: the store failed, so there is no answer.
        """
        supervisor = self._running()
        full_name = full_stream(self._settings, "" if stream is None else checked_stream(stream))
        await supervisor.until_durable()
        committer = supervisor.engine_in_charge().parts.committer
        durable = committer.durable
        reader = supervisor.feeds.reader(
            full_name, after=durable if after is None else min(after, durable), durable=durable
        )
        committer.when_durable(supervisor.feeds.arrived, full_name)  # What is in the log was published before it came.
        try:
            await reader.begin()
        except BaseException:
            reader.close()
            raise
        return reader

    @property
    def store_id(self) -> str:
        """Which store it runs on, wherever that lies; empty before it has run."""
        return self._store_id if self._supervisor is None else self._supervisor.store_id

    # ------------------------------------------------------------------ for references (Transport)

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        outgoing = self._traced(outgoing)
        operation = ResultOperation(gateway.pending, outgoing, site, outgoing.decode)
        gateway.call(operation, outgoing, outgoing.argument, wire=outgoing.wire)
        return operation

    def _issue_send(
        self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /
    ) -> HostOperation[Invocation[R]]:
        gateway = self._running().gateway
        outgoing = self._traced(outgoing)

        def handle(acceptance: Acceptance) -> Invocation[R]:
            return Invocation(self, acceptance.id, outgoing.decode, acceptance.previously_accepted)

        operation = AcceptanceOperation(gateway.pending, f"send to {outgoing}", site, handle)
        gateway.send(operation, outgoing, outgoing.argument, delay or NO_DELAY, wire=outgoing.wire)
        return operation

    def _traced(self, outgoing: Outgoing[R]) -> Outgoing[R]:
        """The message with the span in which the program sends it."""
        if self._open_tracing is None:
            return outgoing
        return with_headers(outgoing, headers=self._open_tracing.entering(outgoing.headers))

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

    def _issue_reading(self, question: Question, decode: Callable[[bytes], R], site: CallSite, /) -> HostOperation[R]:
        gateway = self._running().gateway
        operation: DecodedOperation[R] = DecodedOperation(gateway.pending, "a question to the store", site, decode)
        gateway.ask(operation, question)
        return operation

    def _moment_and_bits(self) -> tuple[int, int]:
        environment = self._environment
        return environment.clock.now(), int.from_bytes(environment.entropy.random_bytes(16), "big")

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
        self._running()
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
        return self._act_on_all(verb, service, key, handler)

    async def _act_on_one(self, verb: Verb, effect: Awaitable[Effect], id: str) -> Sequence[str]:
        try:
            return [] if await effect is Effect.NOTHING else [id]
        except InvocationStatusError:
            if verb is Verb.RESUME:  # What is not paused is left as it is.
                return []
            raise

    async def _act_on_all(self, verb: Verb, service: str | None, key: str | None, handler: str | None) -> Sequence[str]:
        """Those that have ended meanwhile, or where it does not fit, are left as they are."""
        touched: list[str] = []
        asked: list[tuple[str, Awaitable[Effect]]] = []
        async for record in self._inspection().records(service, key, handler, _ONLY.get(verb)):
            if record.status in _FITTING[verb]:
                asked.append((record.id, self.request_control(verb, record.id)))
            if len(asked) >= PAGE:
                touched += await _touched(asked)
                asked = []
        return touched + await _touched(asked)

    def _inspection(self) -> Inspection:
        return Inspection(
            self._running(),
            store=self._store,
            actors=self._actors,
            serde=self._default_serde,
            clock=self._environment.clock,
        )

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
        service, *rest = map(unquote, checked_text(target, "A target, such as 'Cart/mary',").split("/"))
        actor = self._actors.get(service)
        if actor is None or len(rest) > (1 if actor.definition.kind == "service" else 2):
            known = ", ".join(self._actors)
            raise ValueError(
                f"{target!r} names nothing that runs here. Write Service, Service/handler, Object, Object/key or "
                f"Object/key/handler; there are: {known}."
            )
        checked_parts(target, rest)
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


def _interval_us(interval: Duration, what: str) -> int:
    span_us = duration_us(interval, what)
    if not span_us:
        raise ValueError(f"{what} is longer than 0: what is removed is looked for that often.")
    return span_us


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
    Verb.PURGE_JOURNAL: (InvocationStatus.COMPLETED,),
}
"""Where invocations of a target stand to which a verb is applied."""
_ONLY: Mapping[Verb, InvocationStatus] = {
    Verb.RESUME: InvocationStatus.PAUSED,
    Verb.RESTART: InvocationStatus.PAUSED,
    Verb.PURGE: InvocationStatus.COMPLETED,
    Verb.PURGE_JOURNAL: InvocationStatus.COMPLETED,
}
"""Where there is but one such status the store looks for it."""


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _checked(option: str, given: T, fits: Callable[[object], bool], what: str) -> T:
    """An option as it was given; found wrong later, it would be a failure of somebody else."""
    if given is not None and not fits(given):
        raise DefinitionError(f"Runtime({option}=...) is {what}, not {given!r}.")
    return given


def _checked_codec(codec: Codec | None) -> Codec | None:
    """A codec, or None, as it was given. What is none may be a key, so it is not shown."""
    if codec is not None and not is_codec(codec):
        raise DefinitionError(
            "Runtime(codec=...) is what encodes and decodes, such as AesGcmCodec(key), not a "
            f"{type(cast('object', codec)).__name__}."
        )
    return codec


def _checked_version(version: str | None) -> str | None:
    if version is not None and not (is_text(version) and version.isprintable() and 0 < len(version) <= _VERSION_LIMIT):
        raise DefinitionError(
            f"Runtime(version={version!r}): a version is what you call your code, such as '2026.11.3' or a commit: "
            f"up to {_VERSION_LIMIT} printable characters."
        )
    return version


def _nothing(result: bytes) -> None:
    return None


def _itself(acceptance: Acceptance) -> Acceptance:
    return acceptance


NO_DELAY = Delay()


def _known_events(actors: Iterable[BoundActor]) -> dict[str, EventClass]:
    """The classes of events that are subscribed to, by name.

    Raises:
        DefinitionError: two have one name.
    """
    routings = (
        handler.subscription.routing
        for actor in actors
        for handler in actor.handlers.values()
        if handler.subscription is not None
    )
    classes = (one.cls for routing in routings if routing is not None for one in routing.classes.values())
    return event_classes(classes, "The runtime")


def _bind_all(
    actors: Iterable[type[Actor]],
    dependencies: Dependencies,
    serde: SerdeFactory | None,
    limits: Mapping[str, Limit],
    middleware: Sequence[MiddlewareGiven],
) -> dict[str, BoundActor]:
    if isinstance(actors, type):
        raise DefinitionError(f"A runtime takes a list of classes of actors: write [{actors.__name__}].")
    bound: dict[str, BoundActor] = {}
    events: dict[str, EventClass] = {}
    for cls in with_companions(actors):
        actor = bind(cls, dependencies, serde=serde, limits=limits, middleware=middleware, events=events)
        name = actor.definition.name
        if name in bound:
            raise DefinitionError(
                f"Two classes are named {name!r} on the wire. Give one of them another name: class ...(name=...)."
            )
        bound[name] = actor
    events.update(_known_events(bound.values()))
    dependencies.check_called([*bound])
    check_prefixes(one.definition.actor for one in bound.values())
    return bound

"""`app`: classes of actors as a deployment of Restate, an ASGI application.

What cannot work on Restate is refused here, when the application is made (`refusals`). What a class says about itself
(private, retries, retention, time in memory, documentation) is what Restate learns when the deployment is registered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

import restate
from restate import InvocationRetryPolicy

from durably.actors.actor import Actor
from durably.actors.definition.binding import BoundActor, BoundActorHandler, bind
from durably.actors.definition.definition import definition_of
from durably.actors.definition.dependencies import Dependencies
from durably.actors.headers import ForwardHeaders, forwarding
from durably.actors.middleware import MiddlewareGiven, checked_middleware
from durably.actors.retry import RetryPolicy, checked_retry
from durably.actors.values.descriptions import named
from durably.actors.values.durations import FOREVER_US, duration_us
from durably.actors.values.serde import SerdeFactory, checked_factory
from durably.errors import DefinitionError
from durably.restate.attempt import Attempt, Surroundings
from durably.restate.client import Client
from durably.restate.hosted_execution import AskingExecution, HostedExecution
from durably.restate.journal import Journal
from durably.restate.refusals import refuse_actor, refuse_class, refuse_policy
from durably.restate.schedules import Schedules, clockwork_of, schedules_of
from durably.restate.side_effects import BYTES, SideEffects
from durably.restate.vm_journal import VmJournal
from durably.runtime.clock import SystemClock
from durably.runtime.dependencies.made_dependencies import MadeDependencies
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.observation.logs import Logger, RuntimeLogger, checked_logger
from durably.runtime.settings import Settings

AnyService: TypeAlias = restate.Service | restate.VirtualObject | restate.Workflow
LONGEST: Final = timedelta(days=36_500)
"""What stands for `FOREVER`."""
WITHOUT_END: Final = 2**31 - 1
"""Attempts. Where none is said, Restate takes a number of its own."""
ANYTHING: Final = "*/*"


class Deployment:
    """An ASGI application that Restate calls."""

    def __init__(
        self, actors: Mapping[str, BoundActor], asgi: Callable[..., Awaitable[None]], made: MadeDependencies
    ) -> None:
        self.actors = actors
        """By their names on the wire."""
        self._asgi = asgi
        self._made = made
        self._starting: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<deployment of {', '.join(self.actors)}>"

    @property
    def has_schedules(self) -> bool:
        """The clock calls some of its handlers (`@cron`)."""
        return any(schedules_of(one).by_name for one in self.actors.values())

    async def start_schedules(self, client: Client) -> None:
        """Begin the schedules of its handlers, once it is registered at the cluster of this client.

        What goes by the same expression already goes on. `durably serve-restate --register` does it.
        """
        for service, actor in self.actors.items():
            for name in schedules_of(actor).by_name:
                await client.object(clockwork_of(service), name).start()

    async def start(self) -> None:
        """Make the dependencies that have a factory. A server with ASGI's lifespan, or the first request, does it.

        Raises:
            Any error that a factory raises. What was made is torn down, and the next start tries again.
        """
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._made.open())
        starting = self._starting
        try:
            await asyncio.shield(starting)
        except BaseException:
            if starting.done() and self._starting is starting:
                self._starting = None
            raise

    async def stop(self) -> None:
        """Tear down what was made. A server with ASGI's lifespan does it."""
        starting, self._starting = self._starting, None
        if starting is not None:
            await asyncio.wait([starting])
            await self._made.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self.start()
            await self._asgi(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        """Set up and tear down as the server says."""
        while True:
            message = await receive()
            is_start = message["type"] == "lifespan.startup"
            try:
                await (self.start() if is_start else self.stop())
            except Exception as error:
                await send({"type": f"{message['type']}.failed", "message": describe_failure(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if not is_start:
                return


def app(
    *actors: type[Actor],
    identity_keys: Sequence[str] = (),
    dependencies: Mapping[Any, Any] | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
    serde: SerdeFactory | None = None,
    retry: RetryPolicy | None = None,
    forward_headers: ForwardHeaders | None = None,
    lazy_state: bool = False,
    suspend_after: timedelta | float | None = None,
    engine: Literal["public", "vm"] = "public",
    logger: Logger | None = None,
) -> Deployment:
    """The classes as a deployment of Restate.

    `identity_keys` are the public keys of the Restate clusters that may call it (`publickeyv1_...`); without any,
    everything that reaches its port may. `dependencies`, `middleware`, `serde`, `retry`, `forward_headers` and `logger`
    are those of `Runtime`. `suspend_after` is how long Restate lets an attempt wait in memory, a timedelta or seconds;
    None leaves it to the server. `lazy_state` has Restate send each field of state when it is asked for, instead of all
    of them with the invocation. `engine="vm"` journals the time only of steps that look at it, by a part of
    restate-sdk that is not public: about half the round trips.

    Raises:
        DefinitionError: a class cannot work, or asks for what Restate does not do.
    """
    if not actors:
        raise DefinitionError("restate.app() was given no class. Give it those to serve: app(Cart, Seat).")
    if engine not in ENGINES:
        raise DefinitionError(f"restate.app(engine=...) is 'public' or 'vm', not {engine!r}.")
    default_retry = checked_retry(retry, "restate.app(retry=...)")
    refuse_policy(default_retry, "restate.app(retry=...)")
    found = Dependencies(dependencies or {})
    bound = _bind_all(actors, found, checked_factory(serde, "restate.app(serde=...)"),
                      checked_middleware(middleware, "restate.app(middleware=...)"))  # fmt: skip
    clock, journal_class, execution_class = SystemClock(), *ENGINES[engine]
    runtime_logger = RuntimeLogger(None if logger is None else checked_logger(logger))
    surroundings = Surroundings(
        settings=Settings(retry=default_retry or RetryPolicy()),
        forwarding=forwarding(forward_headers, "restate.app(forward_headers=...)"),
        logger=runtime_logger,
        clock=clock,
        side_effects=SideEffects(clock, runtime_logger),
        journal_class=journal_class,
        execution_class=execution_class,
    )
    inactivity = None if suspend_after is None else _span(duration_us(suspend_after, "restate.app(suspend_after=...)"))
    services = [_service(actor, surroundings, default_retry, inactivity, lazy_state) for actor in bound.values()]
    return Deployment(bound, _asgi(services, identity_keys), MadeDependencies(found, runtime_logger.tear_down_failed))


ENGINES: Final[Mapping[str, tuple[type[Journal], type[HostedExecution]]]] = {
    "public": (Journal, HostedExecution),
    "vm": (VmJournal, AskingExecution),
}


def _asgi(services: list[AnyService], identity_keys: Sequence[str]) -> Any:
    if isinstance(identity_keys, str):
        raise DefinitionError(f"restate.app(identity_keys=...) is a list: write identity_keys=[{identity_keys!r}].")
    try:
        return restate.app(services, identity_keys=list(identity_keys))
    except Exception as error:
        raise DefinitionError(
            f"restate.app(identity_keys=...) takes public keys of Restate, which begin with publickeyv1_: {error}"
        ) from error


def _bind_all(
    actors: Sequence[type[Actor]],
    dependencies: Dependencies,
    serde: SerdeFactory | None,
    middleware: Sequence[MiddlewareGiven],
) -> dict[str, BoundActor]:
    bound: dict[str, BoundActor] = {}
    for actor in actors:
        refuse_class(definition_of(actor))
        one = bind(actor, dependencies, serde=serde, middleware=middleware)
        twin = bound.get(one.definition.name)
        if twin is not None:
            raise DefinitionError(
                f"{named(twin.definition.actor)} and {named(actor)} have the same name on the wire, "
                f"{one.definition.name!r}. Change name= of one."
            )
        refuse_actor(one)
        bound[one.definition.name] = one
        schedules = schedules_of(one)
        if schedules.by_name:
            clockwork = bind(clockwork_of(one.definition.name), {Schedules: schedules})
            bound[clockwork.definition.name] = clockwork
    return bound


def _service(
    actor: BoundActor,
    surroundings: Surroundings,
    default_retry: RetryPolicy | None,
    inactivity: timedelta | None,
    lazy_state: bool,
) -> AnyService:
    definition = actor.definition
    options = definition.options
    own = options.suspend_after_us
    said: dict[str, Any] = {
        "description": definition.documentation or None,
        "metadata": dict(options.metadata) or None,
        "inactivity_timeout": inactivity if own is None else _span(own),
        "ingress_private": options.private or None,
        "invocation_retry_policy": _retry_policy(options.retry or default_retry),
    }
    service: AnyService
    if definition.kind == "service":
        service = restate.Service(definition.name, **said)
    elif definition.kind == "object":
        service = restate.VirtualObject(definition.name, **said, state_preload=not lazy_state)
    else:
        service = restate.Workflow(definition.name, **said, state_preload=not lazy_state)
    for handler in actor.handlers.values():
        _add_handler(service, actor, handler, surroundings)
    return service


def _add_handler(
    service: AnyService, actor: BoundActor, handler: BoundActorHandler, surroundings: Surroundings
) -> None:
    async def serve(ctx: Any, body: bytes) -> bytes:
        return await Attempt(ctx, actor, handler, surroundings).outcome(body or b"")

    serve.__doc__ = handler.documentation or None
    own = actor.definition.handlers[handler.name]
    said: dict[str, Any] = {
        "name": handler.name,
        "accept": handler.accepts or ANYTHING,
        "content_type": handler.content_type or ANYTHING,
        "input_serde": BYTES,
        "output_serde": BYTES,
        "metadata": dict(own.metadata) or None,
        "ingress_private": own.private or None,
        "invocation_retry_policy": _retry_policy(own.retry),
        "journal_retention": _optional_span(handler.journal_retention_us),
    }
    match service:
        case restate.Workflow():
            if handler.kind == "workflow":
                service.main(**said, workflow_retention=_optional_span(handler.retention_us))(serve)
            else:
                service.handler(**said, idempotency_retention=_optional_span(handler.retention_us))(serve)
        case restate.VirtualObject():
            kind: Any = "shared" if handler.kind == "shared" else "exclusive"
            service.handler(**said, kind=kind, idempotency_retention=_optional_span(handler.retention_us))(serve)
        case _:
            service.handler(**said, idempotency_retention=_optional_span(handler.retention_us))(serve)


def _retry_policy(policy: RetryPolicy | None) -> InvocationRetryPolicy | None:
    """Restate's words for it; None leaves it to the server."""
    if policy is None:
        return None
    return InvocationRetryPolicy(
        initial_interval=_span(duration_us(policy.initial)),
        exponentiation_factor=float(policy.factor),
        max_interval=_span(duration_us(policy.maximum)),
        max_attempts=WITHOUT_END if policy.max_attempts is None else policy.max_attempts,
        on_max_attempts=None if policy.max_attempts is None else "kill" if policy.then == "fail" else "pause",
    )


def _span(span_us: int) -> timedelta:
    return LONGEST if span_us >= FOREVER_US else timedelta(microseconds=span_us)


def _optional_span(span_us: int | None) -> timedelta | None:
    return None if span_us is None else _span(span_us)

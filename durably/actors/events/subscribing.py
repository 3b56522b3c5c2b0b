"""`@subscribe`: handlers of events. What it leaves in the class is a handler that only the machine calls.

On a virtual object `key=` says which object gets an event, in its mailbox. A service has no mailboxes, so beside it
there is a class of virtual objects for each of its subscriptions, with one for each key, in which events wait for their
turn (rule P2). It makes a service of its own, with the same dependencies, and calls the method.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, overload

from durably.actors.actor import Actor, Service, VirtualObject
from durably.actors.companions import constructor_beside, host_of
from durably.actors.context import Context, ObjectContext
from durably.actors.definition.definition import definition_of
from durably.actors.event_values import PUBLISHED_STREAM, checked_stream, decode_delivery, event_classes
from durably.actors.handlers import CONTEXT, Handler, check_function
from durably.actors.limits import Limit
from durably.actors.machines.machine import with_companions as with_machines
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy
from durably.actors.subscriptions import Routing, Subscription, SubscriptionStart
from durably.actors.values.descriptions import named
from durably.actors.values.durations import Duration
from durably.actors.values.serde import JSON, BytesSerde, JsonSerde
from durably.actors.values.type_checks import is_class, is_datetime
from durably.errors import DefinitionError

E = TypeVar("E", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
ServiceT = TypeVar("ServiceT", bound=Service)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)

_SUBSCRIBERS = "__durably_subscribers__"
_PARAMETERS = 3
"""`self`, the context, and the event."""


class _SubscribeDecorator(Protocol[E]):
    @overload
    def __call__(self, fn: Callable[[ServiceT, Context, E], Coroutine[Any, Any, None]], /) -> Handler[[Any], None]: ...
    @overload
    def __call__(
        self, fn: Callable[[ObjectT, ObjectContext, E], Coroutine[Any, Any, None]], /
    ) -> Handler[[Any], None]: ...


@overload  # One for each number of classes: mypy would join `*events: type[E]` to object.
def subscribe(
    event: type[A],
    /,
    *,
    key: Callable[[A], str] | None = None,
    stream: str | None = None,
    start: SubscriptionStart = "now",
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    atomic: bool = False,
    limit: str | Limit | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> _SubscribeDecorator[A]: ...
@overload
def subscribe(
    event: type[A],
    second: type[B],
    /,
    *,
    key: Callable[[A | B], str] | None = None,
    stream: str | None = None,
    start: SubscriptionStart = "now",
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    atomic: bool = False,
    limit: str | Limit | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> _SubscribeDecorator[A | B]: ...
@overload
def subscribe(
    event: type[A],
    second: type[B],
    third: type[C],
    /,
    *,
    key: Callable[[A | B | C], str] | None = None,
    stream: str | None = None,
    start: SubscriptionStart = "now",
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    atomic: bool = False,
    limit: str | Limit | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> _SubscribeDecorator[A | B | C]: ...
@overload
def subscribe(
    event: type[A],
    second: type[B],
    third: type[C],
    fourth: type[D],
    /,
    *events: type[Any],
    key: Callable[[Any], str] | None = None,
    stream: str | None = None,
    start: SubscriptionStart = "now",
    name: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    atomic: bool = False,
    limit: str | Limit | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> _SubscribeDecorator[Any]: ...
def subscribe(
    *events: type[Any],
    key: Callable[[Any], str] | None = None,
    stream: str | None = None,
    start: SubscriptionStart = "now",
    name: str | None = None,
    **options: Any,
) -> Any:
    """A method of a service or a virtual object that gets every published event of these classes, exactly once.

        class Mailer(Service):
            @subscribe(UserCreated)
            async def welcome(self, ctx: Context, event: UserCreated) -> None: ...

    Events of one key are delivered in the order in which they were published, one after the other; those without a key
    in any order. What is subscribed is kept in the store, so nothing is missed while the program is down.

    - `key`: which virtual object gets an event, or in which order a service does: a function of the event. Without it,
      the key that the event was published with. On a virtual object it is required.
    - `stream`: of which stream; without it, of the default one.
    - `start`: where a new subscription begins: `"now"`, `"beginning"` (the oldest event that is kept) or a `datetime`.
      One that the store knows goes on where it was.
    - `name`: what its place is kept under, after the name of the service, and what its messages are addressed to;
      without it, the name of the method. Under another name it is a new subscription.
    - `retry`: when to try again. A policy that ends with `then="fail"`, and a `TerminalError`, make a dead letter of
      the event; one that ends with a pause holds up its key.
    - `timeout`: as of `handler`. It counts from when the event becomes a message, not from when it was published.
    - `limit`, `atomic`, `middleware`: as of `handler`.

    Types that the fields of an event name may be defined further down; they are looked up when a runtime is made.

    Raises:
        DefinitionError: it cannot work; says what to write.
    """
    if not events:
        raise DefinitionError("@subscribe takes the classes of events that the method gets: @subscribe(UserCreated).")
    classes = event_classes(events, "@subscribe")
    _check_start(start)
    _check_key(key)
    where = PUBLISHED_STREAM if stream is None else PUBLISHED_STREAM + checked_stream(stream)
    routing = Routing(classes=classes, key=key)

    def decorate(function: Any, /) -> Handler[[Any], None]:
        check_function(function)
        _check_parameters(function)
        handler: Handler[..., Any] = Handler(
            _receiver(function, routing), name=name, shared=False, private=True, accepts=BytesSerde(JSON), **options
        )
        handler.subscription = Subscription(
            stream=where, names=frozenset(classes), start=start, name=None, routing=routing
        )
        return handler

    return decorate


def _check_start(start: Any) -> None:
    if start in ("now", "beginning"):
        return
    if not is_datetime(start) or start.tzinfo is None:
        raise DefinitionError(
            f'@subscribe(start=...) is "now", "beginning" or a datetime with a time zone; {start!r} is none of them.'
        )


def _check_key(key: object) -> None:
    if key is not None and (not callable(key) or is_class(key)):
        raise DefinitionError(
            f"@subscribe(key=...) is a function that makes a key of an event, such as `lambda event: event.name`; "
            f"{key!r} is none."
        )


def _check_parameters(function: Any) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != _PARAMETERS:
        raise DefinitionError(
            f"{named(function)} is subscribed to events and has {len(parameters)} parameters. Write `async def "
            f"{function.__name__}(self, ctx, event)`."
        )


def _receiver(function: Any, routing: Routing) -> Any:
    """What takes a delivery, and calls the method with the event."""

    async def receive(self: Any, ctx: Any, delivery: bytes) -> None:
        await function(self, ctx, routing.decode(decode_delivery(delivery)))

    given = getattr(function, "__annotations__", {})
    own = list(inspect.signature(function).parameters)[1]
    receive.__annotations__ = {"delivery": bytes, "return": None}
    if own in given:
        receive.__annotations__["ctx"] = given[own]
    receive.__name__, receive.__qualname__ = function.__name__, function.__qualname__
    receive.__module__, receive.__doc__ = function.__module__, function.__doc__
    return receive


def with_companions(actors: Iterable[type[Actor]]) -> Iterator[type[Actor]]:
    """These classes, each with those that run beside it.

    Raises:
        DefinitionError: a subscription cannot work; says what to write.
    """
    given = [*with_machines(actors)]
    for actor in given:
        yield actor
        yield from (one for one in _subscribers_of(actor) if one not in given)


def _subscribers_of(actor: type[Any]) -> Sequence[type[Actor]]:
    """The classes in whose mailboxes events wait for a service."""
    made: Sequence[type[Actor]] | None = vars(actor).get(_SUBSCRIBERS)
    if made is not None:
        return made
    definition = definition_of(actor)
    subscribed = [one for one in definition.handlers.values() if _is_of_events(one)]
    for one in subscribed:
        _check_place(one, definition.kind)
    if not subscribed or definition.kind != "service":
        return ()
    made = [_subscriber(actor, one) for one in subscribed]
    setattr(actor, _SUBSCRIBERS, made)
    return made


def _is_of_events(handler: Handler[..., Any]) -> bool:
    return handler.subscription is not None and handler.subscription.routing is not None


def _check_place(handler: Handler[..., Any], kind: str) -> None:
    assert handler.subscription is not None
    assert handler.subscription.routing is not None
    if kind == "workflow":
        raise DefinitionError(
            f"{handler} subscribes to events, and a Workflow runs once. Subscribe in a Service, and start "
            "workflows there."
        )
    for one in handler.subscription.routing.classes.values():
        one.check()
    if kind == "object" and handler.subscription.routing.key is None:
        raise DefinitionError(
            f"{handler} subscribes to events, and does not say which object gets one: @subscribe(..., key=lambda "
            "event: event.user_id)."
        )


def _subscriber(service: type[Any], handler: Handler[..., Any]) -> type[Actor]:
    definition = definition_of(service)
    declared = handler.subscription
    assert declared is not None

    async def receive(self: VirtualObject, ctx: ObjectContext, delivery: bytes) -> None:
        host = host_of(self)
        vars(host)[CONTEXT] = ctx  # For `self.handler.send()`.
        await handler.function(host, ctx, delivery)

    receive.__annotations__ = {"ctx": "ObjectContext", "delivery": bytes, "return": None}
    receive.__qualname__ = f"{service.__qualname__}.{handler.attribute}"
    receive.__module__ = service.__module__
    receive.__doc__ = handler.__doc__
    own: Handler[..., Any] = Handler(
        receive,
        shared=False,
        private=True,
        accepts=BytesSerde(JSON),
        retry=handler.retry,
        limit=handler.limit,
        middleware=handler.middleware,
        metadata=handler.metadata,
    )
    own.timeout_us = handler.timeout_us
    own.subscription = Subscription(
        stream=declared.stream,
        names=declared.names,
        start=declared.start,
        name=f"{definition.name}/{handler.name}",
        routing=declared.routing,
    )
    namespace: dict[str, Any] = {
        "__module__": service.__module__,
        "__qualname__": f"{service.__qualname__}.{handler.attribute}",
        "__doc__": handler.__doc__,
        "__init__": constructor_beside(service),
        "receive": own,
    }
    options = {
        "name": f"{definition.name}.{handler.name}",
        "private": True,
        "serde": JsonSerde,
        "retry": definition.options.retry,
        "middleware": definition.middleware,
    }
    return types.new_class(handler.attribute, (VirtualObject,), options, lambda body: body.update(namespace))

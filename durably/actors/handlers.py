"""`Handler`: a method that can be called by message, as `@handler` and `@shared` leave it in the class.

What cannot work about a method is refused with a sentence when the class is defined.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload

from durably.actors.bound_handlers import BoundHandler, OwnHandler, Target
from durably.actors.class_bodies import class_body_of
from durably.actors.cron import CronSchedule
from durably.actors.definition.arguments import HandlerFunction
from durably.actors.definition.signature import HandlerSignature
from durably.actors.definition.type_bindings import TypeBindings
from durably.actors.headers import NO_HEADERS
from durably.actors.limits import Limit, check_per
from durably.actors.middleware import MiddlewareGiven, checked_middleware
from durably.actors.protocol.operations import frame_above
from durably.actors.retry import RetryPolicy, checked_retry
from durably.actors.subscriptions import Subscription
from durably.actors.transport import Transport
from durably.actors.values.descriptions import named
from durably.actors.values.durations import Duration, optional_duration_us, optional_retention_us
from durably.actors.values.serde import Serde
from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError, HandlerMistakeError

P = ParamSpec("P")
R = TypeVar("R")

HandlerKind: TypeAlias = Literal["service", "exclusive", "shared", "workflow"]
"""`workflow`: the `run` of a workflow, which is exclusive, and executes once for each id."""

HANDLER_NAME = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*")
HIDING_NAMES = ("handler", "shared")
TRANSPORT = "__durably_transport__"
"""Where a reference keeps what carries its messages; an instance without it is no reference."""
CONTEXT = "__durably_context__"
"""Where the `self` of a handler keeps the context of its attempt, which carries what it sends to itself."""
DEFINITION = "__durably__"
SERVICE = "__durably_service__"
"""Where a reference keeps the wire name of its service."""


class _SetName:
    """`Handler.__set_name__`, which refuses a plain class when it is looked up: see `ClassBody`."""

    def __get__(self, handler: Handler[..., Any] | None, cls: type) -> Any:
        if handler is None:
            return self
        handler.check_place()
        return handler.named_in


class Handler(Generic[P, R]):
    """A method that can be called by message. `Cart.add_ticket` is this definition; `ref.add_ticket` can be called."""

    __set_name__ = _SetName()

    def __init__(
        self,
        function: HandlerFunction,
        *,
        shared: bool,
        name: str | None = None,
        atomic: bool = False,
        private: bool = False,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
        retention: Duration | None = None,
        journal_retention: Duration | None = None,
        limit: str | Limit | None = None,
        accepts: Serde[Any] | None = None,
        returns: Serde[Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        middleware: Sequence[MiddlewareGiven] = (),
    ) -> None:
        check_function(function)
        self.owner: type | None = None
        self.function = function
        self.attribute = function.__name__
        self.name = name if name is not None else self.attribute
        """The name on the wire."""
        self.shared = shared
        self.is_run = False
        """It is the `run` of a workflow; known when the class is defined."""
        self.subscription: Subscription | None = None
        """Which events become messages to it."""
        self.schedules: tuple[CronSchedule, ...] = ()
        """When the clock calls it."""
        self.atomic = atomic
        self.private = private
        self.retry = checked_retry(retry, f"retry= of handler {self.name!r}")
        self.timeout_us = optional_duration_us(timeout, f"timeout= of handler {self.name!r}")
        self.retention_us = optional_retention_us(retention, f"retention= of handler {self.name!r}")
        self.journal_retention_us = optional_retention_us(
            journal_retention, f"journal_retention= of handler {self.name!r}"
        )
        self.limit = limit
        """Its own, or the name of one of the runtime's."""
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.middleware = checked_middleware(middleware, f"middleware= of handler {self.name!r}")
        """What stands around it alone, inside that of its class."""
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self._check_name()
        self.signature = HandlerSignature(function, self.name, accepts=accepts, returns=returns)
        if accepts is not None and len(self.signature.shape) != 1:
            raise DefinitionError(
                f"{self} has accepts=, which decodes one argument, and {len(self.signature.shape)} parameters."
            )
        self._check_limit()

        self._class_body = class_body_of(self.__qualname__, frame_above(1))
        if self._class_body is not None:
            self._class_body.made.append(self)

    def bound_by(self, bindings: TypeBindings) -> Handler[P, R]:
        """The same handler, in a class for which type variables of its own stand for something."""
        bound = copy(self)
        bound.signature = self.signature.bound_by(bindings)
        return bound

    def _check_name(self) -> None:
        if self.attribute in HIDING_NAMES:
            raise DefinitionError(
                f"{self} has the name of a decorator, and hides it in the rest of the class. Call the method something "
                f'else and write @handler(name="{self.attribute}").'
            )
        if self.attribute.startswith("__"):
            raise DefinitionError(
                f"{self} has a name that Python itself uses. Call the method something else; name= says what callers "
                "know it by."
            )
        if not is_text(self.name) or not HANDLER_NAME.fullmatch(self.name):
            raise DefinitionError(
                f"{self} has the name {self.name!r}, which cannot stand in a path: a handler's name is letters, "
                "digits and _, and does not begin with a digit. Give it another one with name=."
            )

    def _check_limit(self) -> None:
        limit = self.limit
        if isinstance(limit, Limit):
            check_per(limit, f"handler {named(self.function)!r}", [one.name for one in self.signature.shape])
        elif limit is not None and (not is_text(limit) or not limit):
            raise DefinitionError(
                f"{self} has limit={limit!r}. Give it a Limit, or the name of one of Runtime(limits=Limits(named=...))."
            )

    def __str__(self) -> str:
        return f"Handler {named(self.function)!r}"

    def __repr__(self) -> str:
        return f"<handler {named(self.function)}>"

    def named_in(self, owner: type, attribute: str) -> None:
        """It stands in this class under this name.

        Raises:
            DefinitionError: the class is no class of actors.
        """
        self.attribute = attribute
        if not hasattr(owner, "__durably__"):
            raise DefinitionError(
                f"{named(owner)}.{attribute} is a handler, and {named(owner)} is neither a Service nor a "
                "VirtualObject, nor a Workflow. Subclass one of them."
            )
        self.owner, self._class_body = owner, None

    def check_place(self) -> None:
        """Like `named_in`, as far as the class is known before Python tells it."""
        if self._class_body is not None and self._class_body.owner is not None:
            self.named_in(self._class_body.owner, self.attribute)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Handler[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> BoundHandler[P, R]: ...
    def __get__(self, instance: object | None, owner: type, /) -> Handler[P, R] | BoundHandler[P, R]:
        if instance is None:
            return self
        own = instance.__dict__
        transport: Transport | None = own.get(TRANSPORT)
        if transport is None:
            return self._own(instance, owner)
        return BoundHandler(self._target(transport, own[SERVICE], own.get("key")))

    if not TYPE_CHECKING:  # Type checkers say so by themselves.

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise HandlerMistakeError(
                f"{self.__qualname__} was called on the class, or used as a decorator. A handler is called through a "
                f"reference: `await ctx.object(..., key).{self.attribute}(...)`, `ctx.workflow(..., id)` for a "
                "Workflow, or `ctx.service(...)` for a Service."
            )

    def of(self, transport: Transport, service: str, key: str | None) -> BoundHandler[P, R]:
        """This handler of one object."""
        return BoundHandler(self._target(transport, service, key))

    def _own(self, instance: object, owner: type) -> BoundHandler[P, R]:
        """`self.handler` in a handler: to be sent to oneself."""
        own = instance.__dict__
        context: Transport | None = own.get(CONTEXT)
        if context is None:
            raise HandlerMistakeError(self._called_on_self(owner))
        service: str = getattr(owner, DEFINITION).name
        return OwnHandler(self._target(context, service, own.get("key")), self._called_on_self(owner))

    def _target(self, transport: Transport, service: str, key: str | None) -> Target[R]:
        serde = transport._serde  # pyright: ignore[reportPrivateUsage]
        signature = self.signature if serde is None else self.signature.under(serde)
        return Target(transport, service, key, self.name, signature, NO_HEADERS, is_run=self.is_run)

    def _called_on_self(self, owner: type) -> str:
        definition = getattr(owner, DEFINITION, None)
        kind = "service" if definition is None else definition.kind
        how = f"ctx.service({owner.__name__})" if kind == "service" else f"ctx.{kind}({owner.__name__}, self.key)"
        return (
            f"self.{self.attribute} is a handler, and handlers are called by message. To share code between handlers, "
            f"put it in a method without a decorator; to have it done later, send: `await self.{self.attribute}"
            f".send(...)`. To wait for the answer, `await {how}.{self.attribute}(...)`. (An exclusive handler that "
            "calls its own object waits for itself.)"
        )


def check_function(function: object) -> None:
    """Refuse what cannot be a handler, with a sentence that says what to write."""
    if isinstance(function, Handler):
        raise DefinitionError(
            f"{named(function)} is decorated as a handler twice. Leave one of @handler and @shared, with all options."
        )
    if not inspect.isfunction(function):
        described = named(function) if hasattr(function, "__qualname__") else _described(function)
        raise DefinitionError(
            f"{described} is decorated as a handler, and is not a function of the class. Put the decorator directly on "
            "`async def`, with options in parentheses: @handler(name=...)."
        )
    name = named(function)
    if function.__name__ == "<lambda>":
        raise DefinitionError("A lambda cannot be a handler. Write `async def name(self, ctx, ...)`.")
    if inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"Handler {name!r} contains `yield`; a handler answers once. Return a list, or send messages."
        )
    if not inspect.iscoroutinefunction(function):
        if inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise DefinitionError(
                f"Handler {name!r} is `async def`, and a decorator around it has made a plain function of it. Make the "
                "decorator's function `async def` too, and let it await what it wraps."
            )
        raise DefinitionError(
            f"Handler {name!r} is a plain function. Write `async def {function.__name__}(self, ctx, ...)`."
        )
    _check_parameters(name, function)


def _described(value: object) -> str:
    kind = type(value).__name__
    return f"A {kind}" if isinstance(value, property | partial) else repr(value)


def _check_parameters(name: str, function: HandlerFunction) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise DefinitionError(
                f"Handler {name!r} takes {str(one).partition(':')[0]!r}, and the arguments of a message have names "
                "and types. Declare each parameter, or one of type list or dict; if a decorator below @handler takes "
                "them, give it functools.wraps."
            )
        if one.kind is one.POSITIONAL_ONLY and one in parameters[2:]:
            raise DefinitionError(
                f"The parameter {one.name!r} of handler {name!r} is positional-only, and in a message arguments go by "
                "name. Remove the `/`."
            )
    own = [one for one in parameters[:2] if one in positional or one.kind is one.POSITIONAL_ONLY]
    if len(own) < 2:
        raise DefinitionError(
            f"Handler {name!r} takes {len(own)} of `self` and `ctx`. Write `async def {function.__name__}(self, ctx, "
            "...)`."
        )
    if own[1].default is not own[1].empty:
        raise DefinitionError(f"The second parameter of handler {name!r} is its context, and needs no default.")

"""`@handler` and `@shared`: how a method runs. What they leave in the class is a `Handler`.

A decorator says how, annotations say with what: nothing here is taken from an annotation. Whatever about a method
cannot work is refused with a sentence when the class is defined.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    overload,
)

from durably.actors.bound_handlers import NO_HEADERS, BoundHandler, Target, Transport
from durably.actors.definition.arguments import HandlerFunction
from durably.actors.definition.signature import HandlerSignature
from durably.actors.definition.type_bindings import TypeBindings
from durably.actors.retry import RetryPolicy
from durably.actors.values.descriptions import named
from durably.actors.values.durations import Duration, optional_duration_us
from durably.actors.values.serde import Serde
from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError, HandlerMistakeError

if TYPE_CHECKING:
    from durably.actors.actor import Service, VirtualObject
    from durably.actors.context import Context, ObjectContext, SharedContext

P = ParamSpec("P")
R = TypeVar("R")
ServiceT = TypeVar("ServiceT", bound="Service")
ObjectT = TypeVar("ObjectT", bound="VirtualObject")

HandlerKind: TypeAlias = Literal["service", "exclusive", "shared"]

HANDLER_NAME = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*")
TRANSPORT = "__durably_transport__"
"""Where a reference keeps what carries its messages; an instance without it is no reference."""
SERVICE = "__durably_service__"
"""Where a reference keeps the wire name of its service."""


class Handler(Generic[P, R]):
    """A method that can be called by message. `Cart.add_ticket` is this definition; `ref.add_ticket` can be called."""

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
        accepts: Serde[Any] | None = None,
        returns: Serde[Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        check_function(function)
        self.function = function
        self.attribute = function.__name__
        self.name = name if name is not None else self.attribute
        """The name on the wire."""
        self.shared = shared
        self.atomic = atomic
        self.private = private
        self.retry = retry
        self.timeout_us = optional_duration_us(timeout, f"timeout= of handler {self.name!r}")
        self.retention_us = optional_duration_us(retention, f"retention= of handler {self.name!r}")
        self.metadata: Mapping[str, str] = dict(metadata or {})
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

    def bound_by(self, bindings: TypeBindings) -> Handler[P, R]:
        """The same handler, in a class for which type variables of its own stand for something."""
        bound = copy(self)
        bound.signature = self.signature.bound_by(bindings)
        return bound

    def _check_name(self) -> None:
        if not is_text(self.name) or not HANDLER_NAME.fullmatch(self.name):
            raise DefinitionError(
                f"{self} has the name {self.name!r}, which cannot stand in a path: a handler's name is letters, "
                "digits and _, and does not begin with a digit. Give it another one with name=."
            )

    def __str__(self) -> str:
        return f"Handler {named(self.function)!r}"

    def __repr__(self) -> str:
        return f"<handler {named(self.function)}>"

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute
        if not hasattr(owner, "__durably__"):
            raise DefinitionError(
                f"{named(owner)}.{attribute} is a handler, and {named(owner)} is neither a Service nor a "
                "VirtualObject. Subclass one of them."
            )

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
            raise HandlerMistakeError(self._called_on_self(owner))
        return BoundHandler(Target(transport, own[SERVICE], own.get("key"), self.name, self.signature, NO_HEADERS))

    def _called_on_self(self, owner: type) -> str:
        definition = getattr(owner, "__durably__", None)
        is_object = definition is not None and definition.kind == "object"
        how = f"ctx.object({owner.__name__}, self.key)" if is_object else f"ctx.service({owner.__name__})"
        return (
            f"self.{self.attribute} is a handler, and handlers are called by message. To share code between handlers, "
            "put it in a method without a decorator; to have it done later, send: "
            f"`await {how}.{self.attribute}.send(...)`. (An exclusive handler that calls its own object waits for "
            "itself.)"
        )


def check_function(function: object) -> None:
    """Refuse what cannot be a handler, with a sentence that says what to write."""
    name = named(function) if hasattr(function, "__qualname__") else repr(function)
    if not inspect.isfunction(function):
        raise DefinitionError(
            f"{name} is decorated as a handler, and is not a function of the class. Put the decorator directly on "
            "`async def`, with options in parentheses: @handler(name=...)."
        )
    if inspect.isasyncgenfunction(function):
        raise DefinitionError(
            f"Handler {name!r} contains `yield`; a handler answers once. Return a list, or send messages."
        )
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"Handler {name!r} is a plain function. Write `async def {function.__name__}(self, ctx, ...)`."
        )
    _check_parameters(name, function)


def _check_parameters(name: str, function: HandlerFunction) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise DefinitionError(
                f"Handler {name!r} takes {str(one).partition(':')[0]!r}, and the arguments of a message have names "
                "and types. Declare each parameter, or one of type list or dict."
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


class _HandlerDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[Concatenate[ServiceT, Context, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[ObjectT, ObjectContext, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...


class _SharedDecorator(Protocol):
    def __call__(
        self, fn: Callable[Concatenate[ObjectT, SharedContext, P], Coroutine[Any, Any, R]], /
    ) -> Handler[P, R]: ...


@overload
def handler(fn: Callable[Concatenate[ServiceT, Context, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(fn: Callable[Concatenate[ObjectT, ObjectContext, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def handler(
    *,
    name: str | None = None,
    atomic: bool = False,
    private: bool = False,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    retention: Duration | None = None,
    accepts: Serde[Any] | None = None,
    returns: Serde[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> _HandlerDecorator: ...
def handler(fn: Any = None, /, **options: Any) -> Any:
    """Make a method callable by message: alone on its key in a VirtualObject, any number at once in a Service.

    Written as `@handler` or with options, all by name: `@handler(name="addTicket", timeout=60)`.

    - `name: str`: the name on the wire; without it, the method's.
    - `atomic: bool = False`: state changes and unsent messages are dropped if it fails.
    - `private: bool = False`: requests from outside are refused.
    - `retry: RetryPolicy`: when to try again; without it, as the runtime says.
    - `timeout: timedelta | seconds`: bounds an invocation from acceptance to outcome.
    - `retention: timedelta | seconds`: how long an outcome is kept for those who ask again.
    - `accepts: Serde`, `returns: Serde`: instead of JSON.
    - `metadata: Mapping[str, str]`: for tools.

    Raises:
        DefinitionError: the method cannot be a handler; says what to write.
    """
    if fn is not None:
        return Handler[Any, Any](fn, shared=False)
    return partial(Handler[Any, Any], shared=False, **options)


@overload
def shared(fn: Callable[Concatenate[ObjectT, SharedContext, P], Coroutine[Any, Any, R]], /) -> Handler[P, R]: ...
@overload
def shared(
    *,
    name: str | None = None,
    private: bool = False,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    retention: Duration | None = None,
    accepts: Serde[Any] | None = None,
    returns: Serde[Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> _SharedDecorator: ...
def shared(fn: Any = None, /, **options: Any) -> Any:
    """A handler that only reads: any number beside each other and beside the exclusive one, on the state as it is then.

    The options are those of `handler` without `atomic`, since it changes nothing: `name`, `private`, `retry`,
    `timeout`, `retention`, `accepts`, `returns` and `metadata`.

    Raises:
        DefinitionError: the method cannot be a handler; says what to write.
    """
    if fn is not None:
        return Handler[Any, Any](fn, shared=True)
    if "atomic" in options:
        raise DefinitionError(
            "@shared(atomic=...) has no meaning: a shared handler changes nothing that could be dropped."
        )
    return partial(Handler[Any, Any], shared=True, **options)

"""Middleware: code around handlers, part of the same execution.

The first middleware is given what comes after it, which is the next one or the handler, and so on inwards. All of it
runs as the handler's own code does: on the handler's loop, journaled and replayed with it. A handler without
middleware is started without anything of this module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from durably.actors.definition.arguments import Arguments, Decoded, Parameter, in_words
from durably.actors.values.descriptions import named
from durably.errors import DefinitionError, HandlerMistakeError, UnencodableError

if TYPE_CHECKING:
    from durably.actors.context import Context

_OWN_PARAMETERS = 2
"""`ctx` and `call_next`."""


class Middleware(Protocol):
    """Code around a handler: an object with this method, a function like it, or a class of such objects.

        class Audit:
            async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
                ctx.log.info("begins")
                result = await call_next()
                ctx.log.info("has ended")
                return result

    It may do what a handler may: it uses `ctx`, is replayed, and leaves clocks and I/O to `ctx.run`. What it returns is
    the result of the invocation, and what it raises the failure. The handler runs only if `call_next` is awaited.
    """

    def __call__(self, ctx: Context, call_next: CallNext, /) -> Coroutine[Any, Any, Any]:
        """Run what comes next, or refuse."""
        ...


MiddlewareGiven: TypeAlias = Middleware | type[Middleware]
"""How middleware is named: as it is, or as a class, which a runtime makes with its dependencies."""


class CallNext:
    """What comes after a middleware: `await call_next()` runs it, once, and gives its result.

    `await call_next(count=2)` gives the handler another argument. It is checked like one that a caller gives.
    """

    __slots__ = ("_ctx", "_decoded", "_instance", "_is_called", "_onion", "_position")

    def __init__(self, onion: Onion, position: int, instance: Any, ctx: Context, decoded: Decoded) -> None:
        """`position` is that of the middleware that it is given to, counted from 1."""
        self._onion = onion
        self._position = position
        self._instance = instance
        self._ctx = ctx
        self._decoded = decoded
        self._is_called = False

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the handler will be called with, by name, so far."""
        return MappingProxyType(self._onion.by_name(self._decoded))

    async def __call__(self, **changed: Any) -> Any:
        """Run what comes next, with changed arguments if some are named.

        Raises:
            HandlerMistakeError: it was run before, or the handler has no such parameter.
            UnencodableError, InvalidArgumentError: an argument does not fit.
            Any error that the handler or the middleware in between raises.
        """
        if self._is_called:
            raise HandlerMistakeError(
                f"{self._onion.name_of(self._position)} ran call_next() a second time for {self._onion.where}. What "
                "comes next runs once; a RetryPolicy tries an invocation again."
            )
        self._is_called = True
        decoded = self._onion.changed(self._decoded, changed, self._position) if changed else self._decoded
        return await self._onion.run(self._position, self._instance, self._ctx, decoded)

    def __repr__(self) -> str:
        return f"<what comes next for {self._onion.where}>"


class Onion:
    """The middleware of one handler around it, composed once."""

    def __init__(
        self, where: str, middleware: Sequence[Middleware], parameters: Sequence[Parameter], arguments: Arguments
    ) -> None:
        """`where` names the handler; `middleware` is in order, the outermost first, and not empty."""
        self.where = where
        self._middleware = tuple(middleware)
        self._outermost = self._middleware[0]
        self._count = len(self._middleware)
        self._parameters = tuple(parameters)
        self._positional = tuple(one.name for one in parameters if not one.keyword_only)
        self._arguments = arguments

    def start(self, instance: Any, ctx: Any, argument: bytes, /) -> Coroutine[Any, Any, Any]:
        """The coroutine of the whole, not begun; raises as `Arguments.call` does, before any middleware (rule M1)."""
        return self.start_decoded(instance, ctx, self._arguments.decode(argument))

    def start_decoded(self, instance: Any, ctx: Any, decoded: Decoded, /) -> Coroutine[Any, Any, Any]:
        """The same, on arguments that were decoded for this attempt."""
        return self._outermost(ctx, CallNext(self, 1, instance, ctx, decoded))

    def run(self, position: int, instance: Any, ctx: Context, decoded: Decoded) -> Coroutine[Any, Any, Any]:
        """What is inside of a middleware, counted from 1."""
        if position == self._count:
            return self._arguments.call_decoded(instance, ctx, decoded)
        return self._middleware[position](ctx, CallNext(self, position + 1, instance, ctx, decoded))

    def by_name(self, decoded: Decoded) -> dict[str, Any]:
        positional, keywords = decoded
        return {**dict(zip(self._positional, positional, strict=False)), **keywords}

    def changed(self, decoded: Decoded, changed: Mapping[str, Any], position: int) -> Decoded:
        """Other arguments, through their bytes: checked and copied as between a caller and a handler (rules M1, V1)."""
        unknown = [name for name in changed if all(name != one.name for one in self._parameters)]
        if unknown:
            raise HandlerMistakeError(
                f"{self.name_of(position)} gave {self.where} the argument {unknown[0]!r}, and its parameters are "
                f"{in_words(self._parameters)}."
            )
        return self._arguments.decode(self._arguments.encode((), {**self.by_name(decoded), **changed}))

    def encoding(self, encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        """How a result becomes bytes: one that does not fit may well be the middleware's."""

        def encode_result(result: Any) -> bytes:
            try:
                return encode(result)
            except UnencodableError as error:
                passed = ", ".join(describe_middleware(one) for one in self._middleware)
                raise UnencodableError(
                    f"{error.message} It came through middleware ({passed}): each returns what `await call_next()` "
                    "gave, or another result of this type.",
                    path=error.path,
                ) from error

        return encode_result

    def name_of(self, position: int) -> str:
        return f"The middleware {describe_middleware(self._middleware[position - 1])}"


def describe_middleware(given: object) -> str:
    """A name for sentences and lists."""
    if isinstance(given, type) or inspect.isroutine(given):
        return named(given)
    if isinstance(given, functools.partial):
        return describe_middleware(given.func)
    return named(type(given))


def checked_middleware(given: object, where: str) -> tuple[MiddlewareGiven, ...]:
    """Middleware as it was named, seen to be some.

    Raises:
        DefinitionError: it is none; `where` says which, as `middleware= of Cart`.
    """
    if isinstance(given, type) or not isinstance(given, Iterable):
        raise DefinitionError(f"{where} takes a list, not {given!r}. Write middleware=[...].")
    several = tuple(cast("Iterable[MiddlewareGiven]", given))
    for one in several:
        check_middleware(one, where)
    return several


def check_middleware(given: object, where: str) -> None:
    """See that this can stand around a handler.

    Raises:
        DefinitionError: it cannot; says what to write.
    """
    what = f"{where} has {describe_middleware(given) if callable(given) else repr(given)}"
    how = "Write `async def __call__(self, ctx: Context, call_next: CallNext) -> Any` in a class, or such a function."
    if not callable(given):
        raise DefinitionError(f"{what}, which is no middleware. {how}")
    called = getattr(given, "__call__", None) if isinstance(given, type) else given  # noqa: B004
    if isinstance(given, type) and not inspect.isfunction(called):
        raise DefinitionError(f"{what}, a class without `__call__`. {how}")
    if not _is_asynchronous(called):
        raise DefinitionError(f"{what}, which is called without `async`. {how}")
    parameters = [*inspect.signature(cast("Callable[..., Any]", called)).parameters.values()]
    own = parameters[1:] if isinstance(given, type) else parameters
    positional = [one for one in own if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in own)
    required = [
        one for one in own if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    fits = takes_any or len(positional) >= _OWN_PARAMETERS
    if not fits or any(one not in positional[:_OWN_PARAMETERS] for one in required):
        raise DefinitionError(f"{what}, and middleware is called with (ctx, call_next). {how}")


def _is_asynchronous(called: object) -> bool:
    if inspect.iscoroutinefunction(called):
        return True
    return inspect.iscoroutinefunction(getattr(called, "__call__", None))  # noqa: B004

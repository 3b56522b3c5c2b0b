"""Middleware that most applications need: authentication, logging, metrics and validation.

    Runtime(store, actors, middleware=[Logging(), Authentication(check_token)])

Each is ordinary middleware (`durably.Middleware`), so each works around handlers of every kind, for the whole runtime,
a class or a handler, and is replayed with them. What only tells (logging, metrics) tells once: replays are silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from durably.actors.context import Context
from durably.actors.handler_info import HandlerInfo
from durably.actors.middleware import CallNext, Middleware
from durably.actors.protocol.request import Request
from durably.errors import DefinitionError, InvalidArgumentError, TerminalError, WrongContextError

T = TypeVar("T")

Outcome: TypeAlias = Literal["result", "failure", "cancelled", "error", "continued"]
"""How a handler ended: `failure` is a terminal error, `error` one after which it is tried again or paused, `continued`
the end of an execution that goes on as a new one."""


class UnauthenticatedError(TerminalError):
    """The request does not say who it is from, or that is not believed (401)."""

    code = 401


class Authentication(Middleware, Generic[T]):
    """Lets a handler run only for those whom a callable knows.

        async def check_token(request: Request) -> User | None: ...

        authentication = Authentication(check_token)

    `check` gets the request, with its headers, and returns who it is from, or None to refuse; it may also raise a
    `TerminalError` of its own. It is run as an action of `ctx.run`, so it may do I/O and read clocks, is asked once for
    each invocation, and is retried where it fails by another error. What it returns is journaled, by its annotation. In
    handlers and in middleware further inside, `authentication.principal()` gives it.

    Calls between handlers are checked as well: let them carry the header on, with `forward_headers=["authorization"]`.
    Handlers that are private are not checked, since none of their callers is outside; let the clock (`@cron`) call
    such ones.
    """

    @overload
    def __init__(self, check: Callable[[Request], Coroutine[Any, Any, T | None]]) -> None: ...
    @overload
    def __init__(self, check: Callable[[Request], T | None]) -> None: ...
    def __init__(self, check: Callable[[Request], Any]) -> None:
        if not callable(check):  # pyright: ignore[reportUnnecessaryComparison]
            raise DefinitionError(
                f"Authentication() takes a function of a request, not {check!r}. Write `async def check(request)`, "
                "which returns who it is from, or None."
            )
        self._check = check
        self._principal: ContextVar[T] = ContextVar("durably_principal")

    async def __call__(self, ctx: Context, call_next: CallNext, /) -> Any:
        if ctx.handler.options.private:
            return await call_next()
        found: T | None = await ctx.run("authenticate", self._check, ctx.request)
        if found is None:
            raise UnauthenticatedError(f"{_named(ctx.handler)} was called without credentials that are valid.")
        token = self._principal.set(found)
        try:
            return await call_next()
        finally:
            self._principal.reset(token)

    def principal(self) -> T:
        """Who the invocation under way is from.

        Raises:
            WrongContextError: nothing was authenticated here.
        """
        try:
            return self._principal.get()
        except LookupError:
            raise WrongContextError(
                "principal() was asked for where nothing was authenticated: in a private handler, in a handler without "
                "this middleware, or outside of handlers."
            ) from None


class Logging(Middleware):
    """Writes a line when a handler begins and one when it has ended, with how, and with the headers that are named."""

    def __init__(self, *, headers: tuple[str, ...] = ()) -> None:
        """Headers may hold secrets, so none is written that is not named here."""
        self._headers = tuple(header.lower() for header in headers)

    async def __call__(self, ctx: Context, call_next: CallNext, /) -> Any:
        given = ctx.request.headers
        ctx.log.info("begins", **{header: given[header] for header in self._headers if header in given})
        watch = _Watch(ctx)
        try:
            result = await call_next()
        except BaseException as error:
            outcome = outcome_of(error)
            write = ctx.log.info if outcome == "continued" else ctx.log.warning
            write("has ended", outcome=outcome, seconds=watch.seconds(), error=type(error).__name__)
            raise
        ctx.log.info("has ended", outcome="result", seconds=watch.seconds())
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One handler that has ended."""

    service: str
    handler: str
    outcome: Outcome
    error: str | None
    """The class of the error, if it ended with one."""
    seconds: float
    """From its begin to its end, waits included, by `ctx.now()`: 0 for one that never waits."""


class Metrics(Middleware):
    """Gives a measurement of each handler that has ended to a function, such as one that counts for Prometheus.

    `record` is called on the event loop of the runtime, outside of the handler, once for each end. It must not block,
    and what it raises is a warning in the log. Measurements are no records: those of the last moment before a crash may
    be lost, or come twice.
    """

    def __init__(self, record: Callable[[Measurement], object]) -> None:
        self._record = record

    async def __call__(self, ctx: Context, call_next: CallNext, /) -> Any:
        watch = _Watch(ctx)
        try:
            result = await call_next()
        except BaseException as error:
            self._tell(ctx, outcome_of(error), type(error).__name__, watch)
            raise
        self._tell(ctx, "result", None, watch)
        return result

    def _tell(self, ctx: Context, outcome: Outcome, error: str | None, watch: _Watch) -> None:
        measurement = Measurement(
            service=ctx.handler.service,
            handler=ctx.handler.name,
            outcome=outcome,
            error=error,
            seconds=watch.seconds(),
        )
        ctx._port.tell(self._record, measurement)  # pyright: ignore[reportPrivateUsage]


class Validation(Middleware):
    """Refuses arguments that their types alone do not rule out, before the handler runs (400).

        def at_most_ten(arguments: Mapping[str, Any], handler: HandlerInfo) -> str | None:
            return None if arguments.get("count", 0) <= 10 else "count is at most 10"

    `rule` gets the arguments by name and returns what is wrong with them, or None. It runs as part of the handler, so
    it only looks at what it is given.
    """

    def __init__(self, rule: Callable[[Mapping[str, Any], HandlerInfo], str | None]) -> None:
        self._rule = rule

    async def __call__(self, ctx: Context, call_next: CallNext, /) -> Any:
        wrong = self._rule(call_next.arguments, ctx.handler)
        if wrong is not None:
            raise InvalidArgumentError(f"The arguments of {_named(ctx.handler)} are refused: {wrong}.")
        return await call_next()


def outcome_of(error: BaseException) -> Outcome:
    """How a handler ended that raised this."""
    if isinstance(error, TerminalError):
        return "failure"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return "error" if isinstance(error, Exception) else "continued"


class _Watch:
    """Measures by the time of the invocation, which is the same on replay."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._began = ctx.now()

    def seconds(self) -> float:
        return (self._ctx.now() - self._began).total_seconds()


def _named(handler: HandlerInfo) -> str:
    return f"{handler.service}/{handler.name}"

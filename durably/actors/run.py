"""`ctx.run(name, action, *args, **kwargs)`: a side effect whose result is journaled, so that it is not run again."""

from __future__ import annotations

import functools
import inspect
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from inspect import isawaitable
from types import FrameType, FunctionType
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, get_args, get_origin, overload
from weakref import WeakKeyDictionary

from durably.actors.definition.scope import resolve_annotations
from durably.actors.protocol.commands import Run as RunCommand
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.protocol.port import Action, Port
from durably.actors.retry import RetryPolicy
from durably.actors.values.descriptions import MISSING
from durably.actors.values.durations import Duration, duration_us
from durably.actors.values.serde import Serde, SerdeFactory, TypeCodec, codec_under, encoder_of, is_serde
from durably.actors.values.type_checks import is_text
from durably.errors import DefinitionError, HandlerMistakeError, UnencodableError
from durably.ids import is_storable

P = ParamSpec("P")
R = TypeVar("R")


class Run:
    """Runs side effects and journals their results.

    What is `async def`, or is annotated to return an awaitable, runs on the host's event loop: coroutine functions,
    bound methods, partials of them, objects with an async `__call__`. Any other callable runs in a thread; if it
    returns an awaitable (`lambda: fetch(url)`), that is awaited on the event loop.

    A `TerminalError` that the action raises is recorded and raised in the handler; anything else is retried, like the
    invocation if there is no policy. The result comes back decoded by the action's return annotation (`T` for
    `Awaitable[T]`), as plain JSON if it has none.
    """

    __slots__ = ("_port", "_retry", "_serde", "_timeout_us")

    def __init__(
        self,
        port: Port,
        retry: RetryPolicy | None = None,
        timeout_us: int | None = None,
        serde: Serde[Any] | None = None,
    ) -> None:
        self._port = port
        self._retry = retry
        self._timeout_us = timeout_us
        self._serde = serde

    @overload
    def __call__(
        self, name: str, action: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, object, R]: ...
    @overload
    def __call__(
        self, name: str, action: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, object, R]: ...
    def __call__(
        self, name: str, action: Callable[..., Any] = MISSING, /, *args: Any, **kwargs: Any
    ) -> Coroutine[object, object, Any]:
        """Run `action(*args, **kwargs)` once, durably.

        Raises:
            TerminalError: the action raised it, or its retry policy is exhausted.
            UnencodableError: the result cannot be written, or its type not be found.
            TypeError: there is no name, or what is to be run is not something that can be called and answers once.
        """
        if callable(name) or action is MISSING:
            raise TypeError(_without_name(name))
        self._port.check(f"ctx.run({name!r})")
        if not is_text(name) or not is_storable(name):
            raise TypeError(f"The name of a run is Unicode text without NUL; {name!r} is not.")
        if not callable(action):  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(_not_callable(name, action))
        frame = frame_above(1)
        codec, runs_on_loop = _result_of(action, frame, name, self._serde, self._port.serde)
        described = Action(
            name=name,
            invoke=functools.partial(action, *args, **kwargs) if args or kwargs else action,
            runs_on_loop=runs_on_loop,
            retry=self._retry,
            timeout_us=self._timeout_us,
            request=self._port.request(),
            context=copy_context(),
            encode_value=encoder_of(codec),
        )
        return self._port.issue_run(RunCommand(name), described, codec.decode, CallSite(frame))

    def options(
        self, *, retry: RetryPolicy | None = None, timeout: Duration | None = None, serde: Serde[Any] | None = None
    ) -> Run:
        """The same, with options; what is left out stays as it was.

        `retry` replaces the invocation's policy; `timeout` bounds each attempt (a timedelta or seconds), all of them
        together are bounded by `retry.max_duration`; `serde` replaces JSON for the result.
        """
        if retry is not None and not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise HandlerMistakeError(f"run.options(retry=...) is a RetryPolicy, not {retry!r}.")
        if serde is not None and not is_serde(serde):
            raise HandlerMistakeError(
                f"run.options(serde=...) is a Serde, which has encode(), decode() and content_type, not {serde!r}."
            )
        return Run(
            self._port,
            self._retry if retry is None else retry,
            self._timeout_us if timeout is None else duration_us(timeout, "run.options(timeout=...)"),
            self._serde if serde is None else serde,
        )


def _without_name(given: object) -> str:
    if not callable(given):
        return f"ctx.run({given!r}) does not say what to run. Write ctx.run({given!r}, function, argument, ...)."
    function = getattr(given, "__name__", "function")
    called = function if function.isidentifier() else "function"
    return (
        f"ctx.run({called}, ...) has no name to journal its result under. Write "
        f'ctx.run("{called}", {called}, ...): the name first, then the function and its arguments.'
    )


def _not_callable(name: str, action: object) -> str:
    if isawaitable(action):
        close = getattr(action, "close", None)
        if close is not None:
            close()
        return (
            f"ctx.run({name!r}, ...) was given a coroutine. "
            f"Give it the function and its arguments: ctx.run({name!r}, fetch, url)."
        )
    return f"ctx.run({name!r}, ...) takes a function and its arguments, not {action!r}."


class _Result(NamedTuple):
    """What is known of an action before it runs."""

    codec: Serde[Any] | TypeCodec[Any]
    runs_on_loop: bool
    """Calling it gives an awaitable, so it is called where that can be awaited."""


_AWAITABLES = (Awaitable, Coroutine, Future, Task)

_results: WeakKeyDictionary[FunctionType, _Result] = WeakKeyDictionary()
"""By the function that is called, not by what it wraps, since a wrapper may be plain where that is async."""


def _result_of(
    action: Callable[..., Any], frame: FrameType, name: str, serde: Serde[Any] | None, factory: SerdeFactory | None
) -> _Result:
    """How an action's result is coded and where the action runs, by its code and by what it says that it returns."""
    called = action if isinstance(action, FunctionType) else _called(action)
    known = _results.get(called) if isinstance(called, FunctionType) and factory is None else None
    if known is None:
        known = _new_result(action, called, frame, name, serde, factory)
        if isinstance(called, FunctionType) and serde is None and factory is None:
            _results[called] = known
    return known if serde is None else known._replace(codec=serde)


def _new_result(
    action: object,
    called: Any,
    frame: FrameType,
    name: str,
    serde: Serde[Any] | None,
    factory: SerdeFactory | None,
) -> _Result:
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise TypeError(
            f"The action of run {name!r} contains `yield`, and an action answers once. Return a list instead."
        )
    is_async = inspect.iscoroutinefunction(action) or inspect.iscoroutinefunction(called)
    try:
        returned = _result_annotation(called, frame, name)
        says_awaitable, awaited = (False, returned) if is_async else _awaited(returned)
        return _Result(codec_under(factory, awaited) if serde is None else serde, is_async or says_awaitable)
    except DefinitionError as error:
        if serde is not None:  # Nothing depends on the annotation then, but where a plain function runs.
            return _Result(serde, is_async)
        raise UnencodableError(
            f"The result of run {name!r} could not be journaled, so it was not run: {error.message} "
            "Or return plain values from the action."
        ) from error


def _awaited(returned: Any) -> tuple[bool, Any]:
    """Whether an annotation says that an awaitable comes, and the type of its result: `T` of `Awaitable[T]`."""
    if returned in _AWAITABLES or get_origin(returned) in _AWAITABLES:
        return True, (get_args(returned) or (MISSING,))[-1]
    return False, returned


def _result_annotation(function: Any, frame: FrameType, name: str) -> Any:
    """Names that are not the function's module's are looked up at the call. A class says itself what it returns."""
    if isinstance(function, type):
        return function
    function = inspect.unwrap(function)
    written = getattr(function, "__annotations__", {}).get("return", MISSING)
    if not isinstance(written, str):
        return written
    names = getattr(function, "__globals__", frame.f_globals)
    where = f"the action of run {name!r}"
    return resolve_annotations({"return": written}, names, frame.f_locals, where)["return"]


def _called(action: Any) -> Any:
    """The function that a call of this action ends in, or the class."""
    while isinstance(action, functools.partial):
        action = action.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(action, type) or inspect.isroutine(action):
        return getattr(action, "__func__", action)
    # An object that can be called.
    return inspect.getattr_static(type(cast("object", action)), "__call__", action)

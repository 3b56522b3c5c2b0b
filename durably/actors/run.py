"""`ctx.run(name, action, *args, **kwargs)`: a side effect whose result is journaled, so that it is not run again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from inspect import isawaitable
from types import FrameType, FunctionType
from typing import Any, ParamSpec, TypeVar, overload
from weakref import WeakKeyDictionary

from durably.actors.definition.scope import resolve_annotations
from durably.actors.protocol.commands import Run as RunCommand
from durably.actors.protocol.operations import CallSite, frame_above
from durably.actors.protocol.port import Action, Port
from durably.actors.retry import RetryPolicy
from durably.actors.values.descriptions import MISSING
from durably.actors.values.durations import Duration, duration_us
from durably.actors.values.serde import Serde, TypeCodec, codec_for, encoder_of
from durably.errors import DefinitionError, UnencodableError
from durably.ids import is_storable

P = ParamSpec("P")
R = TypeVar("R")


class Run:
    """Runs side effects and journals their results.

    A coroutine function runs on the host's event loop, a plain one in a thread. A `TerminalError` that it raises is
    recorded and raised in the handler; anything else is retried, like the invocation if there is no policy. The
    result comes back decoded by the action's return annotation, as plain JSON if it has none.
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
        self, name: str, action: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(
        self, name: str, action: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    def __call__(
        self, name: str, action: Callable[..., Any] = MISSING, /, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        """Run `action(*args, **kwargs)` once, durably.

        Raises:
            TerminalError: the action raised it, or its retry policy is exhausted.
            UnencodableError: the result cannot be written, or its type not be found.
        """
        if callable(name) or action is MISSING:
            raise TypeError(_without_name(name))
        self._port.check(f"ctx.run({name!r})")
        if not is_storable(name):
            raise TypeError(f"The name of a run is Unicode text without NUL; {name!r} is not.")
        if not callable(action):  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(_not_callable(name, action))
        frame = frame_above(1)
        codec = self._serde or _result_codec(action, frame, name)
        described = Action(
            name=name,
            invoke=functools.partial(action, *args, **kwargs) if args or kwargs else action,
            is_coroutine_function=_is_coroutine_function(action),
            retry=self._retry,
            timeout_us=self._timeout_us,
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


def _is_coroutine_function(action: Callable[..., Any]) -> bool:
    function = getattr(action, "__func__", action)
    if isinstance(function, FunctionType) and function.__code__.co_flags & inspect.CO_COROUTINE:
        return True  # The usual case; the questions below cost more than the rest of a run.
    return inspect.iscoroutinefunction(action) or inspect.iscoroutinefunction(_call_of(action))


def _call_of(action: object) -> Any:
    """`__call__` of an object that can be called without being a function."""
    return inspect.getattr_static(type(action), "__call__", None)


def _result_codec(action: Callable[..., Any], frame: FrameType, name: str) -> TypeCodec[Any]:
    """The codec of what an action says that it returns; names that are not its module's are looked up at the call."""
    function = action if isinstance(action, FunctionType) else _function_of(action)
    codec = _codecs.get(function) if isinstance(function, FunctionType) else None
    if codec is not None:
        return codec
    try:
        codec = codec_for(_result_annotation(_function_of(function), frame, name))
    except DefinitionError as error:
        raise UnencodableError(
            f"The result of run {name!r} could not be journaled, so it was not run: {error.message} "
            "Or return plain values from the action."
        ) from error
    if isinstance(function, FunctionType):
        _codecs[function] = codec
    return codec


def _result_annotation(function: Any, frame: FrameType, name: str) -> Any:
    if isinstance(function, type):
        return function
    written = getattr(function, "__annotations__", {}).get("return", MISSING)
    if not isinstance(written, str):
        return written
    names = getattr(function, "__globals__", frame.f_globals)
    where = f"the action of run {name!r}"
    return resolve_annotations({"return": written}, names, frame.f_locals, where)["return"]


def _function_of(action: Any) -> Any:
    """The function whose annotations say what an action returns; or a class, which says it itself."""
    while isinstance(action, functools.partial):
        action = action.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(action, FunctionType | type):
        return inspect.unwrap(action) if isinstance(action, FunctionType) else action
    action = getattr(action, "__func__", action)
    return inspect.unwrap(action if inspect.isroutine(action) else _call_of(action))


_codecs: WeakKeyDictionary[FunctionType, TypeCodec[Any]] = WeakKeyDictionary()

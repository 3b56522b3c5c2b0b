"""What a call, send, run or sleep returns: an `Operation` in handlers, a `HostOperation` outside.

It was issued when it was called, awaited or not (rule C1), and may be awaited many times. It is a `Coroutine`, so
`create_task`, `TaskGroup` and both type checkers treat it as what the API says it is. It knows where it was called:
forgetting the `await`, or testing it for truth, names that line.

`asyncio.gather`, `shield` and others take a future as it is and make a task of a coroutine. In a handler an operation
is a future to them, which saves a task for each call. To a program that calls `asyncio.ensure_future` itself, and
outside handlers, it is a coroutine: what `ensure_future` returns is then a task, which `asyncio.wait` takes, as it
refuses anything that is a coroutine.

The API calls it `Coroutine[object, object, R]`. mypy finds `Coroutine[Any, Any, R]` ambiguous between the overloads of
`asyncio.gather`, and makes the results `Any`; the other fits wherever asyncio or a user's annotation asks for one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from types import CodeType, FrameType, TracebackType
from typing import Any, Generic, TypeVar

from durably.errors import UndecodableError

R = TypeVar("R")

# By name and not by `super()`, which takes longer to find them than they take.
_init_future: Any = asyncio.Future.__dict__["__init__"]
_await_future: Any = asyncio.Future.__dict__["__await__"]
_add_done_callback: Any = asyncio.Future.__dict__["add_done_callback"]
_blocking: Any = asyncio.Future.__dict__["_asyncio_future_blocking"]
"""Asyncio's own attribute: a task asks whether what it was given is awaited, and `isfuture` whether it is a future."""


frame_above = sys._getframe  # pyright: ignore[reportPrivateUsage]


class CallSite:
    """A place in a user's program, kept cheaply and turned into a line number only when somebody wants to read it."""

    __slots__ = ("_code", "_instruction")

    def __init__(self, frame: FrameType) -> None:
        self._code: CodeType = frame.f_code
        self._instruction = frame.f_lasti

    @property
    def filename(self) -> str:
        return self._code.co_filename

    @property
    def line(self) -> int:
        for start, end, line in self._code.co_lines():
            if start <= self._instruction < end and line is not None:
                return line
        return self._code.co_firstlineno

    def __str__(self) -> str:
        return f"{self.filename}:{self.line} (in {self._code.co_qualname})"


class Operation(asyncio.Future[R], Coroutine[object, object, R], Generic[R]):
    """A durable operation: a future that also works as a coroutine. Made by the machine, never by users."""

    # Without a dictionary for each: thousands wait at once.
    __slots__ = ("site", "taken", "what")

    what: object
    """What was asked for, for messages: `TicketObject/reserve`, `run "charge"`."""
    site: CallSite | None
    """Where it was called."""
    taken: bool
    """Somebody awaited it, or handed it to asyncio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, what: object, site: CallSite | None) -> None:
        self.what = what
        self.site = site
        self.taken = False
        _init_future(self, loop=loop)

    def __bool__(self) -> bool:
        raise TypeError(_tested_for_truth(self.what, self.site))

    def __await__(self) -> Any:
        self.taken = True
        return _await_future(self)

    __iter__ = __await__

    # asyncio.Future does not implement these; a Task drives its coroutine with nothing else.
    def send(self, value: Any, /) -> Any:
        """Like `await self` as the body of a coroutine: yield this future until it is done, then return its result."""
        self.taken = True
        if self.done():
            raise StopIteration(self.result())
        self._asyncio_future_blocking = True
        return self

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        return _throw(kind, value, trace)

    def close(self) -> None:
        """A coroutine can be closed; what was issued stands, so there is nothing to undo."""
        self.taken = True

    def add_done_callback(self, fn: Any, /, *, context: Any = None) -> None:
        self.taken = True
        # Given None, asyncio's future would take the context of the code that completes it.
        _add_done_callback(self, fn, context=copy_context() if context is None else context)


def _asked_by_asyncio(operation: Operation[Any]) -> bool | None:
    """The asker was given the operation to wait for, so it is not forgotten. None: to the asker it is no future."""
    operation.taken = True
    is_blocking: bool = _blocking.__get__(operation)
    return None if not is_blocking and _is_ensured_by_a_program(frame_above(1)) else is_blocking


def _is_ensured_by_a_program(frame: FrameType | None) -> bool:
    """`ensure_future` asks for a program that called it; not for another function of asyncio's, such as `gather`."""
    if frame is not None and frame.f_code is _IS_FUTURE:
        frame = frame.f_back
    if frame is None or frame.f_code not in _ENSURE_FUTURE:
        return False
    while frame is not None and frame.f_code in _ENSURE_FUTURE:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename != asyncio.tasks.__file__


_IS_FUTURE: CodeType | None = getattr(asyncio.isfuture, "__code__", None)
_ENSURE_FUTURE = {
    function.__code__
    for function in (asyncio.ensure_future, getattr(asyncio.tasks, "_ensure_future", asyncio.ensure_future))
}
"""Python 3.11 has two of them, one in the other."""


Operation._asyncio_future_blocking = property(_asked_by_asyncio, _blocking.__set__)  # type: ignore[assignment]


class HostOperation(Coroutine[object, object, R], Generic[R]):
    """An operation of a program outside handlers: a coroutine over an ordinary future, which asyncio awaits in C.

    Asyncio takes it for a coroutine and nothing else; cancelling what awaits it cancels the future.
    """

    __slots__ = ("__weakref__", "future", "site", "taken", "what")

    def __init__(self, future: asyncio.Future[R], what: object, site: CallSite | None) -> None:
        self.future = future
        """Ends with the result."""
        self.what = what
        self.site = site
        self.taken = False

    def __bool__(self) -> bool:
        raise TypeError(_tested_for_truth(self.what, self.site))

    def __await__(self) -> Any:
        self.taken = True
        return self.future.__await__()

    def send(self, value: Any, /) -> Any:
        """A task of its own, or `gather`, drives it with this."""
        self.taken = True
        if self.future.done():
            raise StopIteration(self.future.result())
        _blocking.__set__(self.future, True)
        return self.future

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        return _throw(kind, value, trace)

    def close(self) -> None:
        """A coroutine can be closed; what was issued stands, so there is nothing to undo."""
        self.taken = True

    def taken_over(self) -> asyncio.Future[R]:
        """The future, for one that waits for it in another way than by awaiting this."""
        self.taken = True
        return self.future

    def done(self) -> bool:
        return self.future.done()

    def cancelled(self) -> bool:
        return self.future.cancelled()

    def cancel(self, msg: Any | None = None) -> bool:
        """Abandon the answer; what was issued stands (rule D6)."""
        return self.future.cancel(msg)

    def result(self) -> R:
        return self.future.result()

    def exception(self) -> BaseException | None:
        return self.future.exception()

    def add_done_callback(self, fn: Callable[[asyncio.Future[R]], object], /) -> None:
        self.taken = True
        self.future.add_done_callback(fn)

    def remove_done_callback(self, fn: Callable[[asyncio.Future[R]], object], /) -> int:
        return self.future.remove_done_callback(fn)


def told_unreadable(what: object, data: bytes, error: BaseException) -> BaseException:
    """The error of an answer to `what`: one that cannot be read as what was asked for says what it is the answer to.

    A `what` with a method `refusal(data, error)` says more.
    """
    if not isinstance(error, UndecodableError):
        return error
    refusal = getattr(what, "refusal", None)
    told: UndecodableError
    if refusal is not None:
        told = refusal(data, error)
    else:
        told = UndecodableError(f"The answer to {what}: {error.message}", path=error.path, reason=error.reason)
    told.__cause__ = error
    return told


def _tested_for_truth(what: object, site: CallSite | None) -> str:
    return (
        f"{what} was tested for truth without being awaited, and a call that was not awaited is always true. "
        f"Write `await` before it{'' if site is None else f', at {site}'}."
    )


def _throw(kind: Any, value: Any, trace: TracebackType | None) -> Any:
    """What a task does to its coroutine when it is cancelled, or when what it waits for failed."""
    error = value if isinstance(value, BaseException) else kind
    if isinstance(error, type):
        error = error() if value is None else error(value)
    assert isinstance(error, BaseException)
    raise error if trace is None else error.with_traceback(trace)

"""`Contained`: user code on the host's event loop, whose tasks cannot end that loop (rule E3).

When a task raises `SystemExit` or `KeyboardInterrupt`, asyncio records it and then raises it out of the event loop,
which ends the host. Our own task, in which an action runs, catches it; the tasks that the action makes (`create_task`,
`gather`, `TaskGroup`) are asyncio's. So the loop has a task factory during each step of contained code, which contains
those tasks too. After the step it has the host's factory again, so no other code ever sees ours.

Only `create_task` is contained. A callback (`call_soon(sys.exit)`) and a bare `asyncio.Task(...)` still end the loop of
an embedding host; `durably serve`, which owns its loop, goes on after these as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from durably.actors.values.user_errors import let_signals_pass

R = TypeVar("R")


class ExitInTaskError(BaseException):
    """Contained code raised `SystemExit` or `KeyboardInterrupt`, which is its cause.

    It is a BaseException, as they are, so that an `except Exception` of the user's does not take it for a failure.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.__cause__ = error


class Contained(Coroutine[Any, Any, R], Generic[R]):
    """A coroutine whose exits, and those of the tasks that it makes, are raised as `ExitInTaskError`."""

    __slots__ = ("_coroutine", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R]) -> None:
        self._loop = loop
        self._coroutine = coroutine

    def send(self, value: Any, /) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        return self._step(self._coroutine.throw, error if tb is None else error.with_traceback(tb))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, R]:
        return _Steps(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # `cr_frame` and the like, by which asyncio shows a task.

    def _step(self, step: Callable[[Any], Any], given: Any) -> Any:
        loop = self._loop
        before = loop.get_task_factory()

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
            loop.set_task_factory(before)
            try:
                contained = Contained(loop, coroutine) if asyncio.iscoroutine(coroutine) else coroutine
                return loop.create_task(contained, **more)
            finally:
                loop.set_task_factory(make_task)

        loop.set_task_factory(make_task)
        try:
            return step(given)
        except (SystemExit, KeyboardInterrupt) as error:
            let_signals_pass(error)
            raise ExitInTaskError(error) from error
        finally:
            if loop.get_task_factory() is make_task:  # If not, the user has set one.
                loop.set_task_factory(before)


class _Steps(Generator[Any, Any, R]):
    """What awaits a `Contained`: the same steps."""

    __slots__ = ("_contained",)

    def __init__(self, contained: Contained[R]) -> None:
        self._contained = contained

    def __next__(self) -> Any:
        return self._contained.send(None)

    def send(self, value: Any, /) -> Any:
        return self._contained.send(value)

    def throw(self, *error: Any) -> Any:
        return self._contained.throw(*error)

    def close(self) -> None:
        self._contained.close()


def without_containment(error: BaseException) -> BaseException:
    """The exits themselves, where contained code raised some."""
    if isinstance(error, ExitInTaskError) and error.__cause__ is not None:
        return without_containment(error.__cause__)
    if isinstance(error, BaseExceptionGroup) and error.split(ExitInTaskError)[0] is not None:
        inside = [without_containment(one) for one in cast("BaseExceptionGroup[BaseException]", error).exceptions]
        return BaseExceptionGroup(str(error.message), inside).with_traceback(error.__traceback__)
    return error


def has_exited(error: BaseException) -> bool:
    """It is an exit, or a group that holds one: the code would exit at each attempt (rule E3)."""
    if isinstance(error, BaseExceptionGroup):
        return error.split((SystemExit, KeyboardInterrupt))[0] is not None
    return isinstance(error, SystemExit | KeyboardInterrupt)

"""`contained`: user code on the host's event loop, whose tasks cannot end that loop (rule E3).

When a task raises `SystemExit` or `KeyboardInterrupt`, asyncio records it and then raises it out of the event loop,
which ends the host. Our own task, in which an action runs, catches it; the tasks that the action makes (`create_task`,
`gather`, `TaskGroup`) are asyncio's. So the loop has a task factory during each step of contained code, which contains
those tasks too. After the step it has the host's factory again, so no other code ever sees ours.

Only `create_task` is contained. A callback (`call_soon(sys.exit)`) and a bare `asyncio.Task(...)` still end the loop of
an embedding host; `durably serve`, which owns its loop, goes on after these as well.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeVar, cast

from durably.actors.values.user_errors import let_signals_pass

R = TypeVar("R")


class ExitInTaskError(BaseException):
    """Contained code raised `SystemExit` or `KeyboardInterrupt`, which is its cause.

    It is a BaseException, as they are, so that an `except Exception` of the user's does not take it for a failure.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.__cause__ = error


class Contained(Coroutine[Any, Any, R]):
    """The same as a coroutine object, for a task."""

    __slots__ = ("_coroutine", "_has_begun", "_steps")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R], watch: StepWatch | None = None
    ) -> None:
        self._coroutine = coroutine
        self._steps = cast("Generator[Any, Any, R]", contained(loop, coroutine, watch))
        self._has_begun = False

    def __await__(self) -> Generator[Any, Any, R]:
        return (yield from self._steps)

    def send(self, value: Any, /) -> Any:
        self._has_begun = True
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        # A generator that has not begun would raise by itself, and leave the coroutine behind.
        return self._steps.throw(*error) if self._has_begun else self._coroutine.throw(*error)

    def close(self) -> None:
        self._steps.close()
        self._coroutine.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # `cr_frame` and the like, by which asyncio shows a task.


class StepWatch(Protocol):
    """Hears of each step of contained code, which holds up the event loop meanwhile."""

    def begin(self) -> None: ...
    def end(self) -> None: ...


@types.coroutine
def contained(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, R], watch: StepWatch | None = None
) -> Generator[Any, Any, R]:
    """Await a coroutine whose exits, and those of the tasks that it makes, are raised as `ExitInTaskError`.

    Each of its steps has a task factory of ours. One generator and nothing else: it runs for each action. `watch` hears
    of its steps, and of those of its tasks.
    """
    factory = _ContainingFactory(watch)
    step: Callable[[Any], Any] = coroutine.send
    given: Any = None
    while True:
        before = factory.before = loop.get_task_factory()
        loop.set_task_factory(factory)
        if watch is not None:
            watch.begin()
        try:
            waits_for = step(given)
        except StopIteration as end:
            result: R = end.value
            return result
        except (SystemExit, KeyboardInterrupt) as error:
            let_signals_pass(error)
            raise ExitInTaskError(error) from error
        finally:
            if watch is not None:
                watch.end()
            if loop.get_task_factory() is factory:  # If not, the user has set one.
                loop.set_task_factory(before)
        try:
            given = yield waits_for
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:
            step, given = coroutine.throw, error


class _ContainingFactory:
    """Makes tasks as the loop would by itself, of contained coroutines."""

    __slots__ = ("_watch", "before")

    def __init__(self, watch: StepWatch | None) -> None:
        self.before: Any = None
        self._watch = watch

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
        loop.set_task_factory(self.before)
        try:
            inside = Contained(loop, coroutine, self._watch) if asyncio.iscoroutine(coroutine) else coroutine
            return loop.create_task(inside, **more)
        finally:
            loop.set_task_factory(self)


def without_containment(error: BaseException) -> BaseException:
    """The exits themselves, where contained code raised some."""
    if isinstance(error, ExitInTaskError) and error.__cause__ is not None:
        return without_containment(error.__cause__)
    if not _is_contained(error):
        return error
    inside = [without_containment(part) for part in _parts(error)]
    return BaseExceptionGroup(str(error.args[0]), inside).with_traceback(error.__traceback__)


def has_exited(error: BaseException) -> bool:
    """It is an exit, or a group that holds one: the code would exit at each attempt (rule E3)."""
    return isinstance(error, SystemExit | KeyboardInterrupt) or any(map(has_exited, _parts(error)))


def _is_contained(error: BaseException) -> bool:
    return isinstance(error, ExitInTaskError) or any(map(_is_contained, _parts(error)))


def _parts(error: BaseException) -> Sequence[BaseException]:
    """The errors in a group."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return cast("BaseExceptionGroup[BaseException]", error).exceptions
